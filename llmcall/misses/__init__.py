"""Why a request is not recorded, and what was recorded instead."""

from __future__ import annotations

__all__: list[str] = []
