"""Evaluate: checkpoints in, metrics, a verdict and a report out."""
