"""Notices, display, processes, interrupts, secrets: what no other folder is needed for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

# Return the :class:`~llmcall.config.sources.Spelling` of a section and key of config.ini that
# another program has; ``None`` if it has none. ``llmcall/__init__.py`` fills the list with functions
# that import what they need when they are called; it stands here because importing llmcall loads
# this package, and not ``config``.
spellings: list[Callable[[str, str], Any]] = []
