"""Stores of answers: the disk cache, cassettes, and the report of a miss."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

# What stores reach in the folders above, by a setting or a path alone. ``llmcall/__init__.py`` fills these
# lists with functions that import what they need when they are called.
# Open the cassette that the settings name, given its path and mode: it records programs, too.
openers: list[Callable[[str, str], object]] = []
# Return the storage at a server's address.
server_storages: list[Callable[[str], Any]] = []
# Return the records of a file that another program wrote, given its path; ``None`` if it is no such file.
foreign_files: list[Callable[[str], Any]] = []
