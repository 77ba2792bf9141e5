"""The clients: objects that call models."""
