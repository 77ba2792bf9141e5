"""Objects in the JSON data of answers, which may be anything."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..keys.request import Data


def objects_in(value: object) -> list[dict[str, Data]]:
    """Return the objects in a list, or an empty list for anything else."""
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def object_in(value: object) -> dict[str, object]:
    """Return an object, or an empty one for anything else."""
    return value if isinstance(value, dict) else {}
