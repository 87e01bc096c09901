"""The CLIP that scores pairs, and small models on its embeddings."""
