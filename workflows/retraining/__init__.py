"""Retraining: what a series of runs is, what starts the next one, and how one is made, judged and promoted."""
