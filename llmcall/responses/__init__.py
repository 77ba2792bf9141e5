"""Responses of a model: checked, decoded from a stream, assembled, and streamed again."""
