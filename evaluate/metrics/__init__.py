"""Numbers from arrays: one metric a file, without models, files or pictures."""
