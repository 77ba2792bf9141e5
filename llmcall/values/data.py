"""Plain data."""

from typing import Any

Data = Any  # JSON-like: dict, list, str, int, float, bool, None, bytes
