"""Ctrl-C in a map: what has not begun does not begin, connections are cut, and what finished stays."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from dice import ask, calls
from programs import ran, start
from servers import Answer, RawServer, answers, client_for, completion, http, read_request, refusal, stays_silent

import llmcall
from llmcall import imap, map, scope
from llmcall.engine.interrupts import Stop, current, under
from llmcall.parallel import workers

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there is no signal to send to oneself")

CHUNK = b'data: {"choices": [{"index": 0, "delta": {"content": "Two "}, "finish_reason": null}]}\n\n'


def interrupt() -> None:
    """Press Ctrl-C."""
    os.kill(os.getpid(), signal.SIGINT)


def interrupts_and(then: Callable[[socket.socket, threading.Event], None]) -> Any:
    """Press Ctrl-C when a request has come, and go on as another server."""

    def behaviour(connection: socket.socket, stopped: threading.Event) -> None:
        interrupt()
        then(connection, stopped)

    return behaviour


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
def close_clients() -> Iterator[None]:
    """Close the connections that a test has opened."""
    yield
    while clients:
        clients.pop().close()


@pytest.fixture(autouse=True)
def python_s_own_handler() -> Iterator[None]:
    """Let Ctrl-C raise KeyboardInterrupt, whoever started the tests."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(autouse=True)
def short_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give calls under way less time to end than they get, so that the tests take less of it."""
    monkeypatch.setattr(workers, "GRACE", 0.05)
    monkeypatch.setattr(workers, "CUT_AGAIN", 0.05)


def test_connections_are_cut() -> None:
    """A call that waits for a server that never answers ends; the exception has what was done before."""
    with RawServer(answers(), interrupts_and(stays_silent)) as server:
        with pytest.raises(KeyboardInterrupt) as caught:
            map(asking(server), range(5), workers=1)
        assert len(server.requests) == 2
    assert caught.value.results == ["Two coins.", None, None, None, None]  # type: ignore[attr-defined]


def test_what_finished_is_in_the_cache() -> None:
    """The next run goes on from there."""
    with RawServer(answers(), interrupts_and(stays_silent), answers()) as server:
        ask_server = asking(server)
        with pytest.raises(KeyboardInterrupt):
            map(ask_server, range(3), workers=1, scope="survey")
        assert map(ask_server, range(3), workers=1, scope="survey") == ["Two coins."] * 3
        assert len(server.requests) == 4


def test_a_connection_that_was_used_before_is_cut() -> None:
    """A call on a connection that an earlier call left open ends as well."""

    def twice(connection: socket.socket, stopped: threading.Event) -> None:
        answers(stays=True)(connection, stopped)
        if read_request(connection) is not None:
            interrupts_and(stays_silent)(connection, stopped)

    with RawServer(twice) as server, pytest.raises(KeyboardInterrupt) as caught:
        map(asking(server), range(3), workers=1)
    assert caught.value.results == ["Two coins.", None, None]  # type: ignore[attr-defined]


def test_a_body_that_never_ends_is_cut() -> None:
    """The head of the answer is there, its body is not."""

    def begins(connection: socket.socket, stopped: threading.Event) -> None:
        connection.sendall(http(b"{", length=1000))
        interrupts_and(stays_silent)(connection, stopped)

    with RawServer(begins) as server, pytest.raises(KeyboardInterrupt):
        map(asking(server), range(3), workers=1)


@pytest.mark.parametrize("how", ["stream", "async", "async stream"])
def test_other_ways_to_ask_are_cut(how: str) -> None:
    """A stream, an asynchronous call, and an asynchronous stream in an item end too."""

    def begins(connection: socket.socket, stopped: threading.Event) -> None:
        if "stream" in how:
            head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
            connection.sendall(head + CHUNK)
        interrupts_and(stays_silent)(connection, stopped)

    def work(item: int) -> Any:
        with llmcall.OpenAIClient(base_url=server.base_url, timeout=600) as client:
            if how == "stream":
                return list(client.stream_message("Hello", on_error="raise"))
            return asyncio.run(awork(client))

    async def awork(client: llmcall.OpenAIClient) -> Any:
        if how == "async":
            return await client.asend_message("Hello", on_error="raise")
        return [piece async for piece in client.astream_message("Hello", on_error="raise")]

    with RawServer(begins) as server:
        with pytest.raises(KeyboardInterrupt):
            map(work, range(3), workers=1)
        assert len(server.requests) == 1


def test_a_retry_is_not_waited_for() -> None:
    """A call that would be tried again in an hour ends at once."""
    with RawServer(interrupts_and(answers(refusal(503)))) as server:
        with pytest.raises(KeyboardInterrupt):
            map(asking(server, retry_waiting_time=3600, retry_max_waiting_time=3600), range(3), workers=1)
        assert len(server.requests) == 1


def test_a_cut_call_is_not_tried_again() -> None:
    """Nor does a function go on that takes a failed call lightly."""
    with RawServer(interrupts_and(stays_silent), answers()) as server:
        client = client_of(server)

        def work(item: int) -> Any:
            return [client.send_message(f"item {item}, {again}", on_error="none") for again in range(3)]

        with pytest.raises(KeyboardInterrupt):
            map(work, range(3), workers=1)
        assert len(server.requests) == 1


def test_who_waits_for_another_s_answer_ends_too() -> None:
    """Identical requests in flight: the follower neither waits on nor takes over."""
    with RawServer(interrupts_and(stays_silent), answers()) as server:
        with pytest.raises(KeyboardInterrupt):
            map(asking(server), ["same", "same"], workers=2)
        assert len(server.requests) == 1


def test_a_call_that_ends_in_time_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a server answers just after Ctrl-C is paid, and so it is among the results and in the cache."""
    monkeypatch.setattr(workers, "GRACE", 30)
    with RawServer(interrupts_and(answers())) as server:
        ask_server = asking(server)
        with pytest.raises(KeyboardInterrupt) as caught:
            map(ask_server, range(3), workers=1)
        assert caught.value.results == ["Two coins.", None, None]  # type: ignore[attr-defined]
        assert map(ask_server, [0]) == ["Two coins."]
        assert len(server.requests) == 1


def test_code_that_runs_is_waited_for() -> None:
    """KeyboardInterrupt leaves only when no code of the user's runs any more, however often Ctrl-C is pressed."""
    begun, ended = threading.Event(), threading.Event()

    def work(item: int) -> str:
        begun.set()
        for _ in range(3):
            interrupt()
            threading.Event().wait(0.05)
        ended.set()
        return "done"

    with pytest.raises(KeyboardInterrupt) as caught:
        map(work, range(5), workers=1)
    assert begun.is_set() == ended.is_set() is True
    assert caught.value.results == ["done", None, None, None, None]  # type: ignore[attr-defined]


def test_after_a_failure() -> None:
    """Ctrl-C while a failed map waits for what runs: KeyboardInterrupt leaves, the failure is its cause."""
    failed = threading.Event()

    def work(item: int) -> Any:
        if item == 0:
            server_has_it.wait(30)
            failed.set()
            raise ValueError("bad")
        return asking(server)(item)

    def hears(connection: socket.socket, stopped: threading.Event) -> None:
        server_has_it.set()
        failed.wait(30)
        interrupts_and(stays_silent)(connection, stopped)

    server_has_it = threading.Event()
    with RawServer(hears) as server, pytest.raises(KeyboardInterrupt) as caught:
        map(work, range(2), workers=2)
    assert isinstance(caught.value.__cause__ or caught.value, (ValueError, KeyboardInterrupt))
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


def test_a_map_inside_a_map() -> None:
    """An inner map ends with the outer one."""
    with RawServer(interrupts_and(stays_silent)) as server:
        ask_server = asking(server)

        with pytest.raises(KeyboardInterrupt):
            map(lambda item: map(ask_server, [f"{item}.{inner}" for inner in range(3)], workers=1), range(3), workers=1)
        assert len(server.requests) == 1


def test_other_calls_go_on() -> None:
    """What is outside the map keeps its connections, on the same client too."""
    waits = threading.Event()

    def slowly(connection: socket.socket, stopped: threading.Event) -> None:
        waits.wait(30)
        answers(stays=True)(connection, stopped)

    with RawServer(slowly) as outside, RawServer(interrupts_and(stays_silent)) as inside:
        found: list[Any] = []
        other = threading.Thread(target=lambda: found.append(asking(outside)("outside")))
        other.start()
        with pytest.raises(KeyboardInterrupt):
            map(asking(inside), range(3), workers=1)
        waits.set()
        other.join(30)
    assert found == ["Two coins."]


def test_draws_are_given_back() -> None:
    """The draw of a call that was cut is the next one's."""
    with RawServer(interrupts_and(stays_silent), answers(Answer(200, completion("Three.")))) as server:
        ask_server = asking(server)
        with scope("trial"):
            with pytest.raises(KeyboardInterrupt):
                map(ask_server, ["a"], key=str)
            assert map(ask_server, ["a"], key=str) == ["Three."]
    with scope("trial"):
        assert map(ask_server, ["a"], key=str) == ["Three."]


def test_a_recorded_function_is_not_cut() -> None:
    """A function of the user's own may use connections as it likes: they are not ours to cut."""
    here, there = socket.socketpair()
    listening = threading.Event()

    @llmcall.recorded
    def hears() -> str:
        listening.set()
        interrupt()
        return here.recv(100).decode()

    def answer() -> None:
        listening.wait(30)
        threading.Event().wait(0.5)  # longer than what calls under way are given
        there.sendall(b"hello")

    speaker = threading.Thread(target=answer)
    speaker.start()
    with here, there, pytest.raises(KeyboardInterrupt) as caught:
        map(lambda item: hears(), range(3), workers=1)
    speaker.join()
    assert caught.value.results == ["hello", None, None]  # type: ignore[attr-defined]


@pytest.mark.slow
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_other_processes_are_cut(method: str, tmp_path: Any) -> None:
    """Workers in other processes end their calls and begin no more, though the signal reached only this one."""
    program = tmp_path / "survey.py"
    program.write_text(PROCESSES, encoding="utf-8")
    printed = ran(
        "import runpy; sys.argv[:] = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')", program, method
    )
    assert printed == "interrupted: 2 answers of 8, 4 requests"


PROCESSES = """
import http.client, multiprocessing, os, signal, socket, sys, threading
from concurrent.futures import ProcessPoolExecutor
import llmcall

def ask(item):
    return llmcall.client().send_message(f"item {item}", on_error="raise").content

heard = 0

def read(connection):
    # What is unread at a close breaks the connection off, and with it the answer.
    with connection.makefile("rb") as stream:
        stream.readline()
        stream.read(int(http.client.parse_headers(stream)["content-length"]))

def serve(listener, answer):
    global heard
    held = []
    while True:
        connection, _ = listener.accept()
        held.append(connection)
        read(connection)
        heard += 1
        if heard <= 2:
            connection.sendall(answer)
            connection.close()
        elif heard == 4:
            os.kill(os.getpid(), signal.SIGINT)

if __name__ == "__main__":
    message = b'{"role": "assistant", "content": "Two coins."}'
    body = b'{"choices": [{"index": 0, "message": ' + message + b', "finish_reason": "stop"}]}'
    head = b"HTTP/1.1 200 OK\\r\\nConnection: close\\r\\nContent-Type: application/json\\r\\nContent-Length: %d"
    listener = socket.create_server(("127.0.0.1", 0))
    address = f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
    llmcall.configure(base_url=address, timeout=600)
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context(sys.argv[1])) as pool:
        llmcall.map(abs, [1, 2], executor=pool)
        threading.Thread(target=serve, args=(listener, head % len(body) + b"\\r\\n\\r\\n" + body), daemon=True).start()
        try:
            llmcall.map(ask, range(8), executor=pool)
        except KeyboardInterrupt as error:
            answers = [each for each in error.results if each == "Two coins."]
            print(f"interrupted: {len(answers)} answers of {len(error.results)}, {heard} requests")
"""


def test_whoever_asked_imap_is_gone() -> None:
    """Ctrl-C between two results of imap ends the program, though a server never answers."""
    with RawServer(answers(), stays_silent_for_ever) as server:
        program = """
        client = llmcall.OpenAIClient(base_url=sys.argv[1], timeout=600)
        results = llmcall.imap(client.send_message, ["a", "b", "c"], workers=1)
        for number, reply in results:
            print(number, reply.content, flush=True)
            sys.stdin.readline()
            raise KeyboardInterrupt
        """
        with start(program, server.base_url) as process:
            assert process.stdout is not None
            assert process.stdin is not None
            assert process.stdout.readline() == "0 Two coins.\n"
            silent.wait(30)
            _, complaints = process.communicate("\n", timeout=60)
    assert complaints.rstrip().endswith("KeyboardInterrupt")
    assert len(server.requests) == 2


silent = threading.Event()


def stays_silent_for_ever(connection: socket.socket, stopped: threading.Event) -> None:
    """Answer nothing until the client is gone, however long that takes."""
    silent.set()
    connection.recv(1)


# Stops


def test_a_stop_lets_nothing_begin() -> None:
    """Once it is set, calls, pauses and waiting raise; what stores goes through."""
    stop = Stop()
    assert not stop.is_set()
    stop.check()
    stop.set()
    stop.set()
    for begin in (stop.check, lambda: stop.sleep(3600), lambda: stop.perform(ask)):
        with pytest.raises(KeyboardInterrupt, match="was interrupted"):
            begin()
    assert calls() == 0


def test_a_stop_holds_for_a_block() -> None:
    """It is the context's, and gone afterwards."""
    stop = Stop()
    with under(stop):
        assert current() is stop
        with under(None):
            assert current() is None
    assert current() is None


def test_an_outer_stop_stops_the_inner() -> None:
    """Also one that is attached when the outer one is set already; not one that has ended."""
    outer = Stop()
    inner, late, ended = Stop(outer), Stop(outer), Stop(outer)
    with ended.attached():
        pass
    with inner.attached():
        outer.set()
        assert inner.is_set()
    with late.attached():
        assert late.is_set()
    assert not ended.is_set()
