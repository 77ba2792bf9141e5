"""What a model answered: put together from a stream, judged complete, read as a type."""

from __future__ import annotations

__all__: list[str] = []
