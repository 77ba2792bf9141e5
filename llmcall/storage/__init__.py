"""Where recorded answers are kept: a cache in a directory."""

from __future__ import annotations

__all__: list[str] = []
