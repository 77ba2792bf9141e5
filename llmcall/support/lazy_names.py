"""Names of a module that are imported when first used, so that importing it costs next to nothing."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any


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
