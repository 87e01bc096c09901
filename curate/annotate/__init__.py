"""Measure each pair once: bytes, header, pixels, CLIP, in parts that resume."""
