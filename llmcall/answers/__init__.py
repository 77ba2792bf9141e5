"""Answers: reading a text as a type, and the words that ask for the type."""
