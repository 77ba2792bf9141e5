"""The road of a request that nobody has answered yet."""

from __future__ import annotations

__all__: list[str] = []
