"""Differences of two requests: field by field, and inside a text word by word."""
