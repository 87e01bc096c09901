"""The Hydra configuration tree: YAML chooses, the dataclasses beside their owners define."""
