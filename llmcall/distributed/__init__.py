"""Other processes and machines: executors, and the cache on a Redis server."""
