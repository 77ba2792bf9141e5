"""A cache on a Redis server, which several machines can share."""
