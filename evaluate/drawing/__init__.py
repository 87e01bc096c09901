"""Drawing pictures: samplers, prompts, what a PNG says of itself, contact sheets."""
