"""The rules that drop pairs: pure functions of the annotations, each with the reason it records."""
