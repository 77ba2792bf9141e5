"""What comes back from a server: complete, streamed, refused."""
