"""Stores of answers: the disk cache, cassettes, and the report of a miss."""
