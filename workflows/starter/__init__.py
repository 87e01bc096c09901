"""Train the built-in models: a small CLIP and a small latent diffusion pipeline for emoji."""
