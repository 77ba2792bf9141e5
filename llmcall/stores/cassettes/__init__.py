"""Recordings of blocks of code: one file each, made for review and for git."""

from __future__ import annotations

from collections.abc import Callable

# Open the cassette that the settings name, given its path and mode. Filled by llmcall/__init__.py:
# a cassette records the requests of programs, too, whose layer is above this one.
openers: list[Callable[[str, str], object]] = []
