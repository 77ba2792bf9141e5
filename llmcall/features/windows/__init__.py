"""Completion windows: answers that may take hours, for a lower price."""
