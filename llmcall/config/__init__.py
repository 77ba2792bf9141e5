"""The settings: what arguments, environment, files and defaults say, as one frozen value."""

from __future__ import annotations

__all__: list[str] = []
