"""Workers of a map on other machines, which share a cache with its process."""
