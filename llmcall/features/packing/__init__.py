"""A study packed for others, and verified by them."""
