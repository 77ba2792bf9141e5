"""One call: prepared, looked up, shared, permitted, sent, tried again, counted, stored."""
