"""Pipelines in one file, in the layout of the original programs, which web interfaces exchange."""
