"""Experiments: arms, closed questions, drift, imported answers and packages."""
