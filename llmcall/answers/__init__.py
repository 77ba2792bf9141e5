"""Answers: reading a text as a type, and the instructions that request it."""
