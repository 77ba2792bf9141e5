"""Cassettes: recorded runs as files made for review."""
