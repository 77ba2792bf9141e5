"""Keys: messages, parameters and schemas in one canonical form, and its digest."""
