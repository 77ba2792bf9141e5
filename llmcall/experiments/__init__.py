"""Experiments: what turns a run into a study."""
