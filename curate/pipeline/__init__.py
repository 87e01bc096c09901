"""The plans: the full run, the trial, and what a run replaces."""
