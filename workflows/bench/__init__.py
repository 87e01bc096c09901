"""Benchmarks of speed, memory and judgement: `python -m workflows.bench`."""
