"""Differences between two requests: field by field, and inside a text word by word."""
