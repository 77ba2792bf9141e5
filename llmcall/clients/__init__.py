"""The clients: what speaks to a model."""

from __future__ import annotations

__all__: list[str] = []
