"""Names that are imported, and patterns that are compiled, when they are first used: a first answer needs few."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib import import_module
from typing import Any, cast


def imported_by_name(name: str, modules: Mapping[str, str], namespace: dict[str, Any]) -> object:
    """Import what a module exports, and keep it there.

    :param name: the exported name, or the name of a module next to the exporting one.
    :param modules: the names, with blanks between, by the module of llmcall that defines them.
    :param namespace: the exporting module's ``globals()``.
    :raises AttributeError: for an unknown name.
    """
    if name in namespace["__all__"]:
        for module, names in modules.items():
            if name in names.split():
                namespace[name] = getattr(import_module(f"llmcall.{module}"), name)
                return namespace[name]
        return import_module(f"llmcall.{name}")
    raise AttributeError(f"module {namespace['__name__']!r} has no attribute {name!r}")


class _Pattern:
    def __init__(self, text: str, flags: int) -> None:
        self._source = text, flags

    def __getattr__(self, name: str) -> Any:
        value = getattr(re.compile(*self._source), name)
        setattr(self, name, value)  # so that it comes here once
        return value


def pattern(text: str, flags: int = 0) -> re.Pattern[str]:
    """Return a regular expression that is compiled when one of its methods is first used."""
    return cast("re.Pattern[str]", _Pattern(text, flags))
