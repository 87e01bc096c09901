"""The recipe of the built-in models: a small CLIP and a small latent diffusion pipeline of emoji."""
