"""Begins each Python process that a recorded program starts: the process that records it answers its calls.

Python imports the first ``sitecustomize`` on its path when it starts. This one puts the environment back
as the program gave it, says hello, and imports the next one. llmcall itself is imported before the first
module that makes requests, or starts processes, tasks or threads: a process that needs none stays fast.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import os
import sys
from importlib.machinery import ModuleSpec

TYPE_CHECKING = False  # the module typing takes long
if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import ModuleType
    from typing import Any

VARIABLE = "_LLMCALL_ROUTE"
# llmcall replaces parts of these, and of those that the route names; none may be half imported when it does.
NEEDS = {
    *("asyncio", "concurrent.futures", "concurrent.futures.process", "concurrent.futures.thread"),
    *("httpx", "httpx2", "joblib", "llmcall", "loky", "multiprocessing"),
    *("requests", "socket", "subprocess", "uvloop"),
}
STARTERS = "fork", "forkpty", "system", "execv", "execve", "posix_spawn", "posix_spawnp"


def _begin() -> None:
    here = os.path.dirname(os.path.abspath(__file__))
    sys.path[:] = [folder for folder in sys.path if os.path.abspath(folder) != here]
    value = os.environ.get(VARIABLE)
    if value:
        import json

        route, before, hello, ranks, libraries = json.loads(value)
        environment = {name: os.environ[name] for name in ranks if name in os.environ}
        number = _say(hello, [os.getpid(), sys.orig_argv, environment])
        if _spec("llmcall") is not None:  # else it has the addresses in the environment alone
            del os.environ[VARIABLE]
            for name, given in before.items():
                os.environ.pop(name, None)
                if given is not None:
                    os.environ[name] = given
            _Beginning(route, number, libraries)
    following = importlib.machinery.PathFinder.find_spec("sitecustomize", sys.path)
    if following is not None and following.loader is not None:
        module = importlib.util.module_from_spec(following)
        sys.modules["sitecustomize"] = module
        following.loader.exec_module(module)


def _say(hello: str, facts: list[object]) -> int | None:
    """Say hello to the recording process by a new file, and return its number; ``None`` if that process has ended.

    :param facts: go into the file, with the numbers of the earlier hellos whose processes are running.
    """
    import json

    number, running = 0, []
    while True:
        try:
            file = os.open(f"{hello}.{number}.hello", os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        except FileExistsError:
            with open(f"{hello}.{number}.hello", encoding="ascii") as earlier:
                # empty while that process writes it
                process = earlier.read().partition(",")[0].lstrip("[")
            running += [number] if os.path.exists(f"/proc/{process}") else []
            number += 1
        except OSError:
            return None
        else:
            os.write(file, json.dumps([*facts, running]).encode())
            os.close(file)
            return number


def _spec(name: str, path: Sequence[str] | None = None) -> ModuleSpec | None:
    specs = (
        finder.find_spec(name, path) for finder in sys.meta_path if hasattr(finder, "find_spec")
    )
    return next((spec for spec in specs if spec is not None), None)


class _Beginning:
    """Begins to record this process when it first needs that.

    :param number: of its hello, or ``None``.
    :param libraries: the modules whose import needs it, besides ``NEEDS``.
    """

    def __init__(self, route: str, number: int | None, libraries: Sequence[str]) -> None:
        self._route: str | None = route
        self._number = number
        self._needs = NEEDS.union(libraries)
        self._starters: list[tuple[object, str, object]] = []
        for name in STARTERS:
            self._begin_before(os, name)
        if "threading" in sys.modules:
            self._begin_before(sys.modules["threading"].Thread, "start")
        sys.meta_path.insert(0, self)

    def _begin_before(self, owner: object, name: str) -> None:
        """Begin before a function is called that starts something."""

        def start(*args: object, **kwargs: object) -> object:
            self._begin()
            return getattr(owner, name)(*args, **kwargs)

        if hasattr(owner, name):
            self._starters.append((owner, name, getattr(owner, name)))
            setattr(owner, name, start)

    def _begin(self) -> None:
        route, self._route = self._route, None
        if route is None:
            return
        sys.meta_path.remove(self)
        for owner, name, starter in self._starters:
            setattr(owner, name, starter)
        from llmcall.programs.children import begin_started

        begin_started(route, self._number)

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Begin before a module is imported that needs it."""
        if name == "threading":
            sys.meta_path.remove(self)
            import threading  # here, and not where it is found

            sys.meta_path.insert(0, self)
            self._begin_before(threading.Thread, "start")
        elif name in self._needs:
            self._begin()
        else:
            return None
        module = sys.modules.get(name)  # llmcall may have imported it
        if module is None:
            return _spec(name, path)
        loader: Any = _Imported(module)
        # Python takes the module's own one, and would execute it again.
        module.__spec__ = ModuleSpec(name, loader, is_package=hasattr(module, "__path__"))
        return module.__spec__


class _Imported:
    """Loads a module that is imported already."""

    def __init__(self, module: ModuleType) -> None:
        self._module = module
        self._spec = module.__spec__

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """Return the module."""
        return self._module

    def exec_module(self, module: ModuleType) -> None:
        """Give it its specification back."""
        module.__spec__ = self._spec


_begin()
