"""Drawing pictures: samplers, contact sheets."""
