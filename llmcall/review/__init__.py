"""Recordings shown to a reviewer: as text, as a page, compared."""

from __future__ import annotations

__all__: list[str] = []
