"""TinyTroupe's files: its cache, and its keys in config.ini."""
