"""DB-GPT's functions, which stream a chat from any address."""
