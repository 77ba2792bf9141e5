"""What is known of models: windows, prices, and how their tokens are counted."""
