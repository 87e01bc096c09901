"""What adapters share: the base of their methods, and the two layouts of their exports."""
