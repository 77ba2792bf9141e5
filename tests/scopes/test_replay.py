"""The same request at once, from two threads in one scope."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import llmcall
from llmcall import bind, recorded, scope
from llmcall.testing import ScriptedClient


def answer_to(client: ScriptedClient, text: str = "Hi") -> Any:
    """Ask and return the answer's text."""
    return client.send_message(text, on_error="raise").content


def at_once(ask: Callable[[Any], Any], *arguments: Any) -> list[Any]:
    """Call a function in threads, in one scope."""
    with scope("trial"), ThreadPoolExecutor(len(arguments)) as executor:
        return [
            future.result()
            for future in [executor.submit(bind(ask), argument) for argument in arguments]
        ]


def meeting(threads: int) -> ScriptedClient:
    """Return a client that answers when a number of threads ask at once."""
    barrier = threading.Barrier(threads, timeout=60)
    return ScriptedClient(lambda messages: str(barrier.wait()))


AT_THE_SAME_TIME = "sent the same request at once"


@pytest.mark.parametrize("function", [False, True])
def test_an_equal_request_of_two_threads_at_once_warns(
    function: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """Chance decides which thread gets which draw: one warning says so."""
    client, barrier = meeting(3), threading.Barrier(3, timeout=60)
    clock = recorded(name="clock")(lambda: barrier.wait())
    at_once(lambda _: clock() if function else answer_to(client), 1, 2, 3)
    (warning,) = caplog.messages
    assert f"two threads in scope 'trial' {AT_THE_SAME_TIME}" in warning


def test_threads_from_before_a_cassette_warn_in_it(caplog: pytest.LogCaptureFixture) -> None:
    """They count as the main program, so their callers do not tell them apart."""
    client, is_open = meeting(2), threading.Event()

    def ask() -> None:
        assert is_open.wait(60)
        answer_to(client)

    with scope("trial"):
        threads = [threading.Thread(target=bind(ask)) for _ in range(2)]
        for thread in threads:
            thread.start()
        with llmcall.cassette("run.jsonl"):
            is_open.set()
            for thread in threads:
                thread.join()
    assert f"two threads in scope 'trial' {AT_THE_SAME_TIME}" in caplog.text


def ask_in_a_scope(client: ScriptedClient, name: str) -> Any:
    """Ask in another scope."""
    with scope(name):
        return answer_to(client)


@pytest.mark.parametrize(
    "ask",
    [answer_to, lambda client, name: client.send_message("Hi", sample=name), ask_in_a_scope],
    ids=["texts", "samples", "scopes"],
)
def test_different_requests_of_two_threads_at_once_do_not_warn(
    ask: Callable[[ScriptedClient, str], Any], caplog: pytest.LogCaptureFixture
) -> None:
    """They are no matter of chance."""
    client = meeting(2)
    at_once(lambda name: ask(client, name), "a", "b")
    assert caplog.messages == []


@pytest.mark.parametrize("way", ["answered", "streamed", "function", "failed", "missed", "built"])
def test_an_equal_request_of_two_threads_in_turn_does_not_warn(
    way: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Threads that ask the same one after the other have an order."""
    client = ScriptedClient(
        lambda messages: "yes", cache_mode="replay" if way == "missed" else "auto"
    )
    failing = ScriptedClient(lambda messages: llmcall.InvalidRequestError("no"))

    def missed() -> None:
        with pytest.raises(llmcall.CacheMissError):
            client.send_message("Hi")

    ways: dict[str, Callable[[], Any]] = {
        "answered": lambda: answer_to(client),
        "streamed": lambda: list(client.stream_message("Hi")),
        "function": recorded(name="clock")(random.random),
        "failed": lambda: failing.send_message("Hi"),
        "missed": missed,
        "built": lambda: client.build_request("Hi"),
    }
    with scope("trial"):
        for _ in range(3):
            with ThreadPoolExecutor(1) as executor:
                executor.submit(bind(lambda: ways[way]())).result()
    assert AT_THE_SAME_TIME not in caplog.text
