"""Dagster starts retrainings: by the clock, when there is something new, and again after a failure."""
