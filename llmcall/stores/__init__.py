"""Stores of answers: the disk cache, cassettes, and the report of a miss."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .record import Record

# Functions of higher layers that the stores call. ``llmcall/__init__.py`` fills these lists; each function
# imports what it needs when it is called.
# Open the cassette that the settings name, by its path and mode; it records programs, too.
openers: list[Callable[[str, str], object]] = []
# Return the records of another program's file, by its path; ``None`` for any other file.
other_formats: list[Callable[[str], Iterable[Record] | None]] = []
