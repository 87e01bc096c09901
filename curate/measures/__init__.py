"""Optional measures of a picture or a caption, each loaded only where a run asks for it."""
