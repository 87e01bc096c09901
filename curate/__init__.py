"""Curate: pairs in, scored, filtered, split and sharded pairs out."""
