"""What is asked: messages, parameters and schemas, and the key that identifies them."""
