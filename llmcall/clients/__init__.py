"""The clients: what speaks to a model."""
