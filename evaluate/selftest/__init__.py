"""Whether the judge still judges: planted runs, and what has to be found of each. See ``__main__``."""
