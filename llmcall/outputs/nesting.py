"""How deeply JSON is nested: what goes deeper than any answer does can neither be copied nor recorded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["DEPTH", "is_deep"]

DEPTH = 100  # levels; a response of the API has about ten


def is_deep(found: Any) -> bool:
    """Return whether parsed JSON is nested more than ``DEPTH`` levels deep."""
    level = [found]
    for _ in range(DEPTH):
        level = [value for each in level for value in _inside(each) if isinstance(value, (dict, list))]
        if not level:
            return False
    return True


def _inside(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()
