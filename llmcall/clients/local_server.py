"""llama.cpp in this process, through xllamacpp: one server a model file, shared by all threads."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError

if TYPE_CHECKING:
    import pathlib

__all__ = ["import_runtime", "shared_server"]

CONTEXT_WINDOW = 4096  # tokens, prompt and answer together
THREADS = 1  # on a busy two-core machine two threads wait for each other: seconds became a minute

_servers: dict[pathlib.Path, Any] = {}
_lock = threading.Lock()
_hooked = False
_forked = False


def import_runtime() -> Any:
    """Return the module xllamacpp.

    :raises ConfigError: where it is not installed.
    """
    try:
        import xllamacpp
    except ModuleNotFoundError as error:
        if error.name != "xllamacpp":
            raise
        raise ConfigError(
            "API_TYPE = local runs a model in this process and needs the package xllamacpp: install the extra `local`"
        ) from error
    return xllamacpp


def shared_server(path: pathlib.Path) -> Any:
    """Return the server that runs a model's file; it is loaded at the first call, and anew in a forked child.

    :raises ConfigError: where xllamacpp is not installed, or cannot load the file.
    """
    with _lock:
        if path not in _servers:
            _servers[path] = _load(path)
            _hook()
        return _servers[path]


def _load(path: pathlib.Path) -> Any:
    import tempfile

    runtime = import_runtime()
    root = "/tmp" if os.name == "posix" and len(tempfile.gettempdir()) > 60 else None  # a socket's path has 104 bytes
    with tempfile.TemporaryDirectory(prefix="llmcall-", dir=root) as folder:
        try:
            return runtime.Server(_parameters(runtime, path, folder))
        except RuntimeError as error:
            raise ConfigError(f"{path} cannot be loaded: llama.cpp takes it for no model in the GGUF format") from error


def _parameters(runtime: Any, path: pathlib.Path, folder: str) -> Any:
    parameters = runtime.CommonParams()
    parameters.model.path = str(path)
    parameters.n_ctx, parameters.n_parallel, parameters.cache_ram_mib = CONTEXT_WINDOW, 1, 0
    parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = THREADS
    parameters.embedding, parameters.pooling_type = True, runtime.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
    parameters.use_jinja, parameters.verbosity = True, -1
    _shut(parameters, folder)
    return parameters


def _shut(parameters: Any, folder: str) -> None:
    """Let nobody reach the HTTP server that comes with llama.cpp: no port, a socket that is unlinked, a secret key."""
    import secrets

    parameters.port, parameters.ui, parameters.endpoint_slots = 0, False, False
    parameters.api_keys = [secrets.token_hex()]
    if os.name == "posix":
        parameters.hostnames = [os.path.join(folder, "unused.sock")]


def _hook() -> None:
    import atexit

    global _hooked
    if _forked:
        _never_free()
    elif not _hooked:
        _hooked = True
        atexit.register(_unload)
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=_start_anew)


def _unload() -> None:
    """Free the models before the interpreter's end would, in no certain order."""
    if not _forked:
        _servers.clear()


def _start_anew() -> None:
    """Forget the parent's models in a forked child: their threads stayed behind."""
    global _lock, _forked
    _lock, _forked = threading.Lock(), True
    _never_free()
    _servers.clear()


def _never_free() -> None:
    """Leave the models of a forked child to the operating system.

    llama.cpp's own clean-up would wait for a thread of the parent. Where the C library has ``on_exit``, it is skipped
    at the process's end too: ``_exit`` gets the status and runs before the destructors.
    """
    import ctypes

    for server in _servers.values():
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(server))
    library = ctypes.CDLL(None)
    if hasattr(library, "on_exit"):
        library.on_exit(library._exit, None)
