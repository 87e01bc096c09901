"""Evaluate: checkpoints in, numbers, a verdict and a report out."""
