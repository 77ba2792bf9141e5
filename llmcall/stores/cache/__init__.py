"""The response cache: records in a directory or a Redis server."""
