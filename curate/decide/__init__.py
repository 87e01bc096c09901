"""A verdict and a reason for each pair, from its annotations alone."""
