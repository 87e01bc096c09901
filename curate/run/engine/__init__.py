"""Engines carry out tasks: in this process, in several, or on a cluster. No result depends on which."""
