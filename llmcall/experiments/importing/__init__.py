"""Answers that others published, as a cassette."""
