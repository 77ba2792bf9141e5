"""Typed answers: templates in, values out."""
