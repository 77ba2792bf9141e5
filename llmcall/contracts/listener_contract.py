"""The contract of listeners."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ..errors import ServiceError
from ..scopes.scope import scope
from ..stores.cassettes.cassette import Cassette
from ..support.listeners import CallListener, Listener, listen, stop_listening
from ..testing import ScriptedClient
from .rule_checks import holds, made


def check_listener(make: Callable[[], Listener]) -> None:
    """Check that a listener is notified of answered, replayed, streamed and failed calls, and changes neither what
    callers get nor what is recorded.

    :param make: returns a new one.
    :raises AssertionError: if it changes something; the message names the class.
    :raises LLMCallError: if it raises an error; the message names the class and the method.

    >>> class Counter(llmcall.types.Listener):
    ...     count = 0
    ...     def answered(self, call, record):
    ...         self.count += 1
    >>> llmcall.testing.check_listener(Counter)
    """
    expected = _heard(contextlib.nullcontext())
    listener = made(make)
    holds(
        listener,
        _heard(_hearing(listener)) == expected,
        "it changes what callers get or what is recorded",
    )


@contextlib.contextmanager
def _hearing(listener: Listener | CallListener) -> Iterator[None]:
    listen(listener)
    try:
        yield
    finally:
        stop_listening(listener)


def _heard(hearing: contextlib.AbstractContextManager[object]) -> list[object]:
    """Make calls of every kind, and return what came of them, and the file that records them."""
    with tempfile.TemporaryDirectory() as folder, hearing:
        path = Path(folder) / "calls.jsonl"
        outcomes = [_calls(folder, path, mode) for mode in ("once", "none")]
        return [*outcomes, path.read_bytes()]


def _calls(folder: str, path: Path, mode: str) -> list[object]:
    client = ScriptedClient(_answer, cache_mode="auto", cache_path=folder, on_error="raise")
    with Cassette(path, mode), scope("Ann"):
        got: list[object] = [client.send_message("Hello"), client.send_message("Hello")]
        got.append(list(client.stream_message("Hello")))
        got.append(client.get_embedding(["Hello", "you"]))
    failing = ScriptedClient([ServiceError("it fails")], retry_max_attempts=1, on_error="return")
    return [*got, type(failing.send_message("Hello"))]


def _answer(messages: list[Any]) -> Any:
    if isinstance(messages[-1], str):
        return [[float(len(text)), 0.5] for text in messages]
    return messages[-1]["content"].upper()
