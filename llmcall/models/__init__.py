"""Models: windows, prices, and how their tokens are counted."""
