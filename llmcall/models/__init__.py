"""What is known of models: windows, prices, and how their tokens are counted."""

from __future__ import annotations

__all__: list[str] = []
