"""Benchmarks of speed and memory: `python -m workflows.bench`."""
