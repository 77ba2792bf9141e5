"""The response cache: records in a directory or another storage."""
