"""Benchmarks, and the recipe that rebuilds the built-in models."""
