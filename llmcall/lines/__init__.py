"""Records as lines of JSON, for review and for git."""

from __future__ import annotations

__all__: list[str] = []
