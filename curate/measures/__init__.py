"""What is measured of an image or a caption without CLIP: decoding, hashes, and optional measures."""
