"""Models: capabilities, prices, and the counting of tokens."""
