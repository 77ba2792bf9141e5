"""Records in bytes and in lines of JSON, below the cache and the cassettes."""
