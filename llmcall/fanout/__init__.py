"""Many calls: one function over many items, in threads or in other processes."""

from __future__ import annotations

__all__: list[str] = []
