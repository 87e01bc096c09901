"""What all commands share: command line, files, run folder, ledger, manifest."""
