"""What every command stands on: command line, files, run folder, ledger, manifest."""
