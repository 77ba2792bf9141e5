"""The type of plain data: None, bool, int, float, str, bytes, and lists and dicts of these."""

from __future__ import annotations

from typing import Any

# A union of them would have type checkers refuse record.response["choices"][0] without a check at each step, to users,
# too.
Data = Any
