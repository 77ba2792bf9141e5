"""Closed questions, whose value is one of their options."""
