"""Cassettes of answers that others published."""
