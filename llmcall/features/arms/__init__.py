"""Experiments with several arms: one function, run with different arguments on the same answers."""
