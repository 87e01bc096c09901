"""Pictures on demand: which, from which weights, and what a PNG says of itself."""
