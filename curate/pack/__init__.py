"""Kept pairs to WebDataset tars, the same bytes every time."""
