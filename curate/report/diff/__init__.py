"""What changed in the data between two curations: compared, summarised, and shown as sections of a page."""
