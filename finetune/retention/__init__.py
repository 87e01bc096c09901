"""Cures against forgetting: a share of the update in the export, replayed pictures of the base, the base as teacher."""
