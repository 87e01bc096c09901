"""The full run of ``python -m curate``, and the trial ``dry_run``."""
