"""The table of the parts above the core and of the features, and what each adds.

The core names none of them. Each is a folder with a module ``feature.py``, whose ``FEATURE`` says what it adds.
Whoever lists additions of one kind, such as notes or commands, reads them here. A feature's folder can be deleted:
``make deletable`` does that, with its tests and its line here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from pkgutil import resolve_name
from typing import Any

# The folders of the parts, which stay, and those of the features.
PARTS = ("typed",)
FEATURES: tuple[str, ...] = ()


@dataclass(frozen=True)
class Feature:
    """What a part or a feature adds. All of it is text, so that nothing is imported before it is used: a place is
    ``"MODULE:NAME"``, with the module's name below ``llmcall``.

    :param notes: the places of the notes of a record (``stores/notes.py``), by name.
    """

    notes: Mapping[str, str] = field(default_factory=dict)


@cache
def features() -> tuple[Feature, ...]:
    """Return what all parts and features add, in the order of the table."""
    return tuple(
        import_module(f"{__package__}.{folder}.feature").FEATURE for folder in (*PARTS, *FEATURES)
    )


def load(place: str) -> Any:
    """Import what stands at a place."""
    return resolve_name(f"{__package__}.{place}")
