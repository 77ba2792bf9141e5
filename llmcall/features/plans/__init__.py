"""Dry runs: what of a map is recorded, and what the rest would cost."""
