"""Replacements of other libraries' methods, which a block takes back; the libraries may be imported in it."""

from __future__ import annotations

import contextlib
import functools
import importlib
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType


def replace(
    undo: contextlib.ExitStack, owner: object, name: str, replacement: Callable[..., object]
) -> None:
    """Replace a method, or a module's function, by one that takes the original as its first argument.

    :param undo: gets the callback that restores it.
    """
    original = getattr(owner, name)

    @functools.wraps(original)
    def replaced(*args: object, **kwargs: object) -> object:
        return replacement(original, *args, **kwargs)

    is_inherited = name not in vars(owner)
    setattr(owner, name, replaced)
    if is_inherited:
        undo.callback(delattr, owner, name)
    else:
        undo.callback(setattr, owner, name, original)


def when_imported(
    undo: contextlib.ExitStack, actions: Mapping[str, Callable[[ModuleType], object]]
) -> None:
    """Call functions with modules: now if they are imported, or as soon as they are.

    :param undo: gets the callback that ends it. A function may be called while that runs, if another
        thread imports its module.
    :param actions: the functions by the modules' names.
    """
    for name, action in actions.items():
        if name in sys.modules:
            action(importlib.import_module(name))  # another thread may still import it
    finder = _Finder(undo, actions)
    sys.meta_path.insert(0, finder)
    undo.callback(sys.meta_path.remove, finder)


class _Finder:
    """Finds modules as others do, with loaders that also call a function."""

    def __init__(
        self, undo: contextlib.ExitStack, actions: Mapping[str, Callable[[ModuleType], object]]
    ) -> None:
        self._undo = undo
        self._actions = actions

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return where a module is, with a loader that calls the module's function."""
        action = self._actions.get(fullname)
        if action is None:
            return None
        others = [finder for finder in sys.meta_path if finder is not self]
        specs = (finder.find_spec(fullname, path, target) for finder in others)
        spec = next((spec for spec in specs if spec is not None), None)
        if spec is None or spec.loader is None:
            return spec
        restore = contextlib.ExitStack()
        self._undo.callback(restore.close)  # unless the module is executed before

        def exec_module(execute: Callable[[ModuleType], None], module: ModuleType) -> None:
            restore.close()
            execute(module)
            if module.__name__ == fullname:  # loaders may have several modules
                action(module)

        replace(restore, spec.loader, "exec_module", exec_module)
        return spec
