"""What a call needs before it may be made: budgets, limits, and an endpoint."""

from __future__ import annotations

__all__: list[str] = []
