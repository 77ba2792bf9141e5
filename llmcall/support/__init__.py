"""Notices, display, processes, interrupts, secrets: code that needs no other folder."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

# Functions of higher folders, which lower folders use and do not import. ``llmcall/__init__.py`` fills these with
# functions that import what they need when they are called; they stand here because importing
# llmcall loads this package, and neither ``config`` nor ``typed``.
# Return the :class:`~llmcall.config.sources.Spelling` of a section and key of config.ini that
# another program has, or ``None``.
spellings: list[Callable[[str, str], Any]] = []
