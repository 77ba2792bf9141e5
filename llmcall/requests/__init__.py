"""What is asked: messages, parameters and schemas, and the key that identifies them."""

from __future__ import annotations

__all__: list[str] = []
