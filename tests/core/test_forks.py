"""A fork in the middle of a call: the new process makes its own calls, and the call goes on in its parent."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from servers import chunks_of, completion

import llmcall
from llmcall import LLMClient
from llmcall.testing import ScriptedClient

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")


class Scripted(llmcall.types.Transport):
    """A transport that answers, and calls a function before."""

    def __init__(self, before: Callable[[], object] = lambda: None) -> None:
        self._before = before

    def send(self, request: Any, timeout: float | None) -> Any:
        """Return an answer."""
        self._before()
        return completion("Two coins.")

    def stream(self, request: Any, timeout: float | None) -> Iterator[Any]:
        """Yield an answer."""
        yield from chunks_of("Two ", "coins.")


def client(before: Callable[[], object] = lambda: None) -> LLMClient:
    """Return a client with one place at its endpoint."""
    return LLMClient(
        transport=Scripted(before), model="m", on_error="raise", limits_max_concurrent_calls=1
    )


def ask_in_fork(text: str) -> int:
    """Ask in a forked process; return the status with which it ended."""
    process = os.fork()
    if not process:
        status = 1
        try:
            signal.alarm(20)
            status = int(client().send_message(text).content != "Two coins.")
        finally:
            os._exit(status)
    return os.waitpid(process, 0)[1]


@pytest.fixture(autouse=True)
def _with_cache(tmp_path: Path) -> Iterator[None]:
    with llmcall.configured(cache_path=str(tmp_path), cache_mode="auto"), llmcall.budget(calls=3):
        yield


def test_a_fork_while_another_thread_calls_asks_for_itself() -> None:
    """Its own process lacks the thread that would answer."""
    is_sent, may_answer = threading.Event(), threading.Event()

    def wait() -> None:
        is_sent.set()
        assert may_answer.wait(30)

    thread = threading.Thread(target=client(wait).send_message, args=("Hello",))
    thread.start()
    try:
        assert is_sent.wait(30)
        assert ask_in_fork("Hello") == 0
    finally:
        may_answer.set()
        thread.join()


class Held(list[Any]):
    """A list to which a thread adds until it may go on."""

    def __init__(self) -> None:
        self.is_held, self.may_go_on = threading.Event(), threading.Event()

    def append(self, item: Any) -> None:
        """Add an item."""
        self.is_held.set()
        assert self.may_go_on.wait(30)
        super().append(item)


def test_a_fork_while_another_thread_asks_a_scripted_client_asks_it_too() -> None:
    """It waits until the client is in no thread's hands: its process lacks the thread that would let go of it."""
    scripted = ScriptedClient(lambda messages: "Two coins.", on_error="raise")
    scripted.send_message(
        "Hello"
    )  # the first call imports, and a fork in an import hangs by itself
    scripted.requests = held = Held()
    thread = threading.Thread(target=scripted.send_message, args=("Hello",))
    thread.start()
    assert held.is_held.wait(30)
    threading.Timer(0.05, held.may_go_on.set).start()
    process = os.fork()
    if not process:
        signal.alarm(20)
        scripted.requests = []
        os._exit(int(scripted.send_message("Hello").content != "Two coins."))
    assert os.waitpid(process, 0)[1] == 0
    thread.join()


def test_a_fork_inside_a_transport_asks_for_itself() -> None:
    """It is a copy of the thread that makes the call."""
    statuses = []
    client(lambda: statuses.append(ask_in_fork("Hello"))).send_message("Hello")
    assert statuses == [0]


def test_a_fork_in_the_loop_over_a_stream_asks_for_itself() -> None:
    """The stream stays its parent's."""
    stream = client().stream_message("Hello")
    text = next(stream)
    assert ask_in_fork("Hello") == 0
    assert text + "".join(stream) == "Two coins."
