"""Answers: how a text is read as a type, and the words that ask for one."""
