"""Stores of answers: the disk cache, cassettes, and the report of a miss."""

from __future__ import annotations

from collections.abc import Callable

# Functions that open the cassette which the settings name, by its path and mode; it records programs, too. The stores
# call them, and ``llmcall/__init__.py`` fills the list, with one that imports what it needs when it is called.
openers: list[Callable[[str, str], object]] = []
