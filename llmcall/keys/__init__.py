"""Keys: messages, parameters and schemas as what was asked, and its digest."""
