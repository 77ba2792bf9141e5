"""The same run again: scopes and their draws, cassettes, recorded functions."""

from __future__ import annotations

__all__: list[str] = []
