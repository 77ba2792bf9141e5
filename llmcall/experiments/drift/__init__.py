"""Drift: whether a model still answers a recorded study's requests as it did."""
