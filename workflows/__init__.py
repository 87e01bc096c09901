"""What a scheduler runs, and the script that rebuilds the built-in models."""
