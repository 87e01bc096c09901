"""Measure each pair once: fetch, decode, encode with CLIP; in parts that a later run resumes."""
