"""Experiments: arms, closed questions, imported answers and packages."""
