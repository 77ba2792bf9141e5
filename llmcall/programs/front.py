"""Recorders in front of the transports of the process's HTTP clients, for a block."""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.abc
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from ..system import is_own_request
from . import connections
from .makers import name_tasks, name_threads, name_work, order_completed
from .recorder import Recorder, innermost, recorders

_undo = contextlib.ExitStack()
_lock = threading.RLock()


@contextlib.contextmanager
def in_front(recorder: Recorder) -> Iterator[None]:
    """Put a recorder in front of every HTTP client of the process, for a block.

    It gets the requests of the clients of httpx and httpx2 and of the sessions of requests, whether
    their library is imported before the block or in it.
    """
    connections.add_configured_models()
    with _lock:
        if not recorders:
            _install()
        recorders.append(recorder)
    try:
        yield
    finally:
        with _lock:
            if recorder in recorders:  # a forked process has none
                recorders.remove(recorder)
            if not recorders:
                _undo.close()


def _install() -> None:
    name_threads(_undo)
    connections.watch(_tell, _undo)
    for name, front in FRONTS.items():
        if name in sys.modules:
            front(importlib.import_module(name))  # another thread may still import it
    finder = _Finder()
    sys.meta_path.insert(0, finder)
    _undo.callback(sys.meta_path.remove, finder)


def _tell(host: str) -> None:
    recorder = innermost()
    if recorder is not None:
        recorder.note_connection(host)


class _Finder(importlib.abc.MetaPathFinder):
    """Puts the recorders in front of a library as soon as it is imported."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return where the module is, with a loader that also puts the recorders in front."""
        if fullname not in FRONTS:
            return None
        others = [each for each in sys.meta_path if each is not self]
        specs = (each.find_spec(fullname, path, target) for each in others)
        spec = next((each for each in specs if each is not None), None)
        if spec is None or spec.loader is None:
            return spec
        execute = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            execute(module)
            with _lock:
                if recorders and module.__name__ == fullname:  # loaders may have several modules
                    FRONTS[fullname](module)

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


def _replace(owner: Any, name: str, replacement: Any) -> None:
    _undo.callback(setattr, owner, name, getattr(owner, name))
    setattr(owner, name, replacement)


def _in_front_of_httpx(http: ModuleType) -> None:
    """Put the recorders in front of the transport that a client chooses for a request.

    All clients of a library choose it by one method, whatever the transport (LiteLLM and openai's
    DefaultAioHttpClient have their own). They still do the rest themselves: authentication,
    redirects, cookies, event hooks.
    """
    from .answers import derived
    from .transport import FrontTransport

    for client in (http.Client, http.AsyncClient):
        choose = client._transport_for_url

        def recording(self: Any, url: Any, choose: Callable[..., Any] = choose) -> Any:
            """Return the client's transport with the recorder in front of it."""
            below, recorder = choose(self, url), innermost()
            passes = recorder is None or recorder.passes_requests or is_own_request.get()
            if passes or isinstance(below, FrontTransport):
                return below
            return derived(http, FrontTransport)(http, recorder, below)

        _replace(client, "_transport_for_url", recording)


def _in_front_of_requests(requests: ModuleType) -> None:
    """Replace the method by which every adapter of a session sends in the end."""
    from .requests_library import recorded_send

    adapter = requests.adapters.HTTPAdapter
    send = adapter.send

    @functools.wraps(send)
    def recording(self: Any, request: Any, *args: Any, **kwargs: Any) -> Any:
        recorder = innermost()
        if recorder is None or recorder.passes_requests or is_own_request.get():
            return send(self, request, *args, **kwargs)
        below = functools.partial(send, self)
        return recorded_send(requests, recorder, self, below, request, args, kwargs)

    _replace(adapter, "send", recording)


def _name_tasks(asyncio: ModuleType) -> None:
    name_tasks(_undo, asyncio.BaseEventLoop)
    order_completed(_undo, asyncio)


FRONTS: dict[str, Callable[[ModuleType], None]] = {
    "httpx": _in_front_of_httpx,
    "httpx2": _in_front_of_httpx,
    "requests": _in_front_of_requests,
    "asyncio": _name_tasks,
    "uvloop": lambda uvloop: name_tasks(_undo, uvloop.Loop),
    "concurrent.futures.thread": lambda thread: name_work(_undo, thread.ThreadPoolExecutor),
}
