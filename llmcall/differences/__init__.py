"""How two requests differ: field by field, and inside a text word by word."""
