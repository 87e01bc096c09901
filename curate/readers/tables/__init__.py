"""Tables of addresses and captions, and the pictures that were fetched from them."""
