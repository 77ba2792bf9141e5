"""Replacements of other libraries' methods, which a block takes back; the libraries may be imported in it."""

from __future__ import annotations

import contextlib
import functools
import importlib
import itertools
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType

from ..additions import load

# Where in a module a method is ("" for the module itself), its name, and what takes its place
Replacement = tuple[str, str, Callable[..., object]]


class Installation:
    """Replacements in other libraries, all of them or none.

    A stand-in for a library, such as a mock, a module of the user's by its name or ``None`` in
    ``sys.modules``, sends nothing and is left alone.

    :param replacements: by the names of the modules; or the place of them, which is imported with the module.
    """

    def __init__(self, replacements: Mapping[str, Sequence[Replacement] | str]) -> None:
        self._replacements = replacements
        self._undo: contextlib.ExitStack | None = None  # while it is open
        self._lock = threading.RLock()

    def open(self) -> None:
        """Put the replacements in, unless they are.

        :raises AttributeError: if a library lacks one of the methods.
        """
        with self._lock:
            if self._undo is not None:
                return
            self._undo = contextlib.ExitStack()
            try:
                put_in = {
                    name: functools.partial(self._put_in, name) for name in self._replacements
                }
                when_imported(self._undo, put_in)
            except BaseException:
                self.close()
                raise

    def close(self) -> None:
        """Take the replacements back, if they are in."""
        with self._lock:
            undo, self._undo = self._undo, None
            if undo is not None:
                undo.close()

    def _put_in(self, name: str, module: ModuleType) -> None:
        given = self._replacements[name]
        replacements: Sequence[Replacement] = load(given) if isinstance(given, str) else given
        with self._lock:
            if self._undo is None:  # closed while another thread imported the module
                return
            for path, method, replacement in replacements:
                owner: object = module
                for part in filter(None, path.split(".")):
                    owner = getattr(owner, part, None)
                # by its type: a mock's __class__ may be that of what it stands for
                if issubclass(type(owner), (type, ModuleType)):
                    replace(self._undo, owner, method, replacement)


def replace(
    undo: contextlib.ExitStack, owner: object, name: str, replacement: Callable[..., object]
) -> None:
    """Replace a method or a module's function. The replacement gets the original as its first argument.

    :param undo: gets the callback that restores it.
    """
    original = getattr(owner, name)

    @functools.wraps(original)
    def replaced(*args: object, **kwargs: object) -> object:
        return replacement(original, *args, **kwargs)

    if isinstance(owner, ModuleType):  # os.system is posix's, which pickle would find unlike this
        replaced.__module__ = owner.__name__
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
        if sys.modules.get(name) is not None:
            action(importlib.import_module(name))  # another thread may still import it
    finder = _Finder(undo, actions)
    sys.meta_path.insert(0, finder)
    undo.callback(sys.meta_path.remove, finder)


class _Finder:
    """A finder of modules, with loaders that also call a function."""

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
        # Another such finder may have the module, too: each asks those behind it.
        others = [*itertools.dropwhile(lambda finder: finder is not self, sys.meta_path)][1:]
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
