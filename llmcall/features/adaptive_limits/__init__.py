"""Endpoints that find how many calls they take at a time."""
