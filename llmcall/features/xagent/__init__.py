"""XAgent's functions, which call a model as its own do."""
