"""Speed and memory of the hot paths, as ratios inside one run: `python -m workflows.bench`."""
