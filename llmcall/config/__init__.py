"""The settings: what arguments, environment, files and defaults say, as one frozen value."""
