"""Recordings of blocks of code: one file each, made for review and for git."""

from __future__ import annotations

from collections.abc import Callable

# Open the cassette that the settings name, given its path and mode. The package adds one, since a
# cassette records the requests of programs, too, whose room is above this one.
openers: list[Callable[[str, str], object]] = []
