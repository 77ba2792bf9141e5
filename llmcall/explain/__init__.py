"""Reports of what was missed, and why."""
