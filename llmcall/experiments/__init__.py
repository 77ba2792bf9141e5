"""Experiments: arms, closed questions, resent samples, imported answers and packages."""
