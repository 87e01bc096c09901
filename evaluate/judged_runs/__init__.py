"""Runs that were judged, opened from their files: which pictures they share, and how they stand."""
