"""Answers of the user's own in place of the model's."""
