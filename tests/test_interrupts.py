"""Ctrl-C in a map: nothing new begins, it leaves soon, and what finished stays."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from programs import start
from servers import Answer, RawServer, answers, client_for, completion, refusal

import llmcall
from llmcall import imap, map, scope

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there is no signal to send to oneself")


def interrupt() -> None:
    """Press Ctrl-C."""
    os.kill(os.getpid(), signal.SIGINT)


def interrupts_and(then: Callable[[socket.socket, threading.Event], None]) -> Any:
    """Press Ctrl-C when a request has come, and go on as another server."""

    def behaviour(connection: socket.socket, stopped: threading.Event) -> None:
        interrupt()
        then(connection, stopped)

    return behaviour


gone_on = threading.Event()  # once a test has left its map


def stays_silent(connection: socket.socket, stopped: threading.Event) -> None:
    """Answer nothing, and hang up once the test has gone on."""
    while not stopped.is_set() and not gone_on.wait(0.05):
        pass


clients: list[llmcall.OpenAIClient] = []  # what a test has made is closed after it


def client_of(server: RawServer, **options: Any) -> llmcall.OpenAIClient:
    """Return a client of a server that would wait for a very long time."""
    clients.append(client_for(server.base_url, api_key="k", timeout=600, **options))
    return clients[-1]


def asking(server: RawServer, **options: Any) -> Callable[[Any], Any]:
    """Return a function of items that asks a server."""
    client = client_of(server, **options)
    return lambda item: client.send_message(f"item {item}", on_error="raise").content


@pytest.fixture(autouse=True)
def around_ctrl_c(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let Ctrl-C raise KeyboardInterrupt, whoever started the tests, and hardly wait for what may still end then.

    What a test has opened is closed once the threads that it left behind have ended.
    """
    monkeypatch.setattr("llmcall.parallel.map.GRACE", 0.1)
    gone_on.clear()
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
    gone_on.set()
    for thread in threading.enumerate():
        if thread.name.startswith("llmcall map"):
            thread.join(30)
    while clients:
        clients.pop().close()


def test_a_call_that_waits_is_left_behind(capsys: pytest.CaptureFixture[str]) -> None:
    """A server that never answers is not waited for; the exception has what was done before, and one line tells."""
    with RawServer(answers(), interrupts_and(stays_silent)) as server:
        with pytest.raises(KeyboardInterrupt) as caught:
            map(asking(server), range(5), workers=1)
        told = capsys.readouterr().err
        assert len(server.requests) == 2
    assert caught.value.results == ["Two coins.", None, None, None, None]  # type: ignore[attr-defined]
    assert told == "stopped: 1 of 5 done; run again to go on\n"


def test_a_retry_is_not_waited_for(caplog: pytest.LogCaptureFixture) -> None:
    """A call that would be tried again in an hour ends at once, and nobody is told to read its answer to the end."""
    with RawServer(interrupts_and(answers(refusal(503)))) as server:
        with pytest.raises(KeyboardInterrupt), llmcall.cassette("retried.jsonl"):
            map(asking(server, retry_waiting_time=3600, retry_max_waiting_time=3600), range(3), workers=1)
        assert len(server.requests) == 1
    assert "whole answer" not in caplog.text


def test_who_waits_for_another_s_answer_ends_too() -> None:
    """Identical requests in flight: the follower neither waits on nor takes over."""
    with RawServer(interrupts_and(stays_silent), answers()) as server:
        with pytest.raises(KeyboardInterrupt):
            map(asking(server), ["same", "same"], workers=2)
        assert len(server.requests) == 1


def test_a_call_that_ends_in_time_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a server answers just after Ctrl-C is paid, and so it is among the results and in the cache."""
    monkeypatch.setattr("llmcall.parallel.map.GRACE", 30.0)
    with RawServer(interrupts_and(answers())) as server:
        ask_server = asking(server)
        with pytest.raises(KeyboardInterrupt) as caught:
            map(ask_server, range(3), workers=1)
        assert caught.value.results == ["Two coins.", None, None]  # type: ignore[attr-defined]
        assert map(ask_server, [0]) == ["Two coins."]
        assert len(server.requests) == 1


def test_an_answer_that_comes_later_is_stored() -> None:
    """What was left behind goes on in its thread: its answer is in the cache as soon as it comes."""
    left = threading.Event()

    def later(connection: socket.socket, stopped: threading.Event) -> None:
        interrupt()
        left.wait(30)
        answers()(connection, stopped)

    with RawServer(later) as server:
        client = client_of(server)

        def work(item: int) -> Any:
            try:
                return client.send_message(f"item {item}", on_error="raise").content
            finally:
                stored.set()

        stored = threading.Event()
        with pytest.raises(KeyboardInterrupt) as caught:
            map(work, range(2), workers=1)
        left.set()
        assert stored.wait(30)
        assert map(work, [0]) == ["Two coins."]
        assert len(server.requests) == 1
    assert caught.value.results == [None, None]  # type: ignore[attr-defined]


def test_imap() -> None:
    """imap's KeyboardInterrupt has what finished and was not yielded."""
    yielded = threading.Event()

    def later(connection: socket.socket, stopped: threading.Event) -> None:
        yielded.wait(30)
        interrupts_and(stays_silent)(connection, stopped)

    with RawServer(answers(), later) as server:
        found = imap(asking(server), range(5), workers=1)
        assert next(found) == (0, "Two coins.")
        with pytest.raises(KeyboardInterrupt) as caught:
            yielded.set()
            next(found)
    assert caught.value.results == []  # type: ignore[attr-defined]


def test_draws_are_given_back() -> None:
    """The draw of a call that was cut is the next one's."""
    with RawServer(interrupts_and(stays_silent), answers(Answer(200, completion("Three.")))) as server:
        ask_server = asking(server)
        with scope("trial"):
            with pytest.raises(KeyboardInterrupt):
                map(ask_server, ["a"], key=str)
            gone_on.set()
            assert map(ask_server, ["a"], key=str) == ["Three."]
    with scope("trial"):
        assert map(ask_server, ["a"], key=str) == ["Three."]


silent = threading.Event()


def stays_silent_for_ever(connection: socket.socket, stopped: threading.Event) -> None:
    """Answer nothing until the client is gone, however long that takes."""
    silent.set()
    connection.recv(1)


A_SURVEY = """
client = llmcall.OpenAIClient(base_url=sys.argv[1], timeout=600)
llmcall.map(client.send_message, [f"item {number}" for number in range(400)], workers=1)
"""


@pytest.mark.slow
def test_a_program_that_is_interrupted_ends() -> None:
    """Ctrl-C from outside: within seconds the process is gone, though a call waits for a server that is silent."""
    silent.clear()
    with RawServer(answers(), answers(), stays_silent_for_ever) as server, start(A_SURVEY, server.base_url) as process:
        silent.wait(30)
        process.send_signal(signal.SIGINT)
        _, complaints = process.communicate(timeout=60)  # the server would stay silent for ever
    assert "stopped: 2 of 400 done; run again to go on" in complaints
    assert complaints.rstrip().endswith("KeyboardInterrupt")
