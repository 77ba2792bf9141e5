"""What users meet on the network: broken connections and answers, time limits, hooks, addresses, event loops."""

from __future__ import annotations

import asyncio
import gc
import itertools
import logging
import os
import re
import socket
import sys
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import openai
import pytest
from pytest_httpserver import HTTPServer
from servers import (
    OK,
    OPEN_BODY,
    OPEN_HEAD,
    QUESTION,
    RETRY_AT_ONCE,
    Answer,
    Behaviour,
    RawServer,
    ScriptedServer,
    answers,
    client_for,
    closes,
    completion,
    cut_chunk,
    dripping,
    http,
    read_request,
    refusal,
    resets,
    sends,
    stays_silent,
    stays_silent_after,
)

import llmcall
from llmcall import ConfigError, OpenAIClient, RequestTimeoutError, ServiceError

WAYS: dict[str, Callable[..., Any]] = {
    "sync": lambda client, **options: client.send_message("Hello", **options),
    "async": lambda client, **options: asyncio.run(client.asend_message("Hello", **options)),
    "stream": lambda client, **options: list(client.stream_message("Hello", **options)),
}
EVERY_WAY = pytest.mark.parametrize("ask", WAYS.values(), ids=WAYS.keys())
LIBRARY: Any = __import__(openai.DefaultHttpxClient.__base__.__module__.partition(".")[0])


@pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])
def test_a_request_hook_sees_each_request(asynchronous: bool, httpserver: HTTPServer) -> None:
    """A hook that gives a request an identifier unless it has one gives each its own."""
    server, numbers = ScriptedServer(httpserver, OK), itertools.count(1)

    def identify(request: Any) -> None:
        request.headers.setdefault("x-correlation-id", str(next(numbers)))

    async def aidentify(request: Any) -> None:
        identify(request)

    async def ask_all() -> None:
        async with LIBRARY.AsyncClient(event_hooks={"request": [aidentify]}) as http_client:
            client = OpenAIClient(base_url=server.base_url, http_client=http_client)
            for question in "abcd":
                await client.asend_message(question, on_error="raise")

    if asynchronous:
        asyncio.run(ask_all())
    else:
        with LIBRARY.Client(event_hooks={"request": [identify]}) as http_client:
            client = OpenAIClient(base_url=server.base_url, http_client=http_client)
            for question in "abcd":
                client.send_message(question, on_error="raise")
            client.close()
            assert not http_client.is_closed
    assert [seen.headers["x-correlation-id"] for seen in server.requests] == ["1", "2", "3", "4"]


def test_an_event_loop_leaves_nothing_behind(httpserver: HTTPServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever calls ``asyncio.run`` again and again keeps neither loops nor SDK clients."""
    server = ScriptedServer(httpserver, OK)
    client = OpenAIClient(base_url=server.base_url)
    made: list[weakref.ref[Any]] = []
    begin = openai.AsyncOpenAI.__init__

    def noted(self: openai.AsyncOpenAI, *args: Any, **kwargs: Any) -> None:
        made.append(weakref.ref(self))
        begin(self, *args, **kwargs)

    async def ask(question: str) -> None:
        made.append(weakref.ref(asyncio.get_running_loop()))
        await client.asend_message(question, on_error="raise")

    monkeypatch.setattr(openai.AsyncOpenAI, "__init__", noted)

    for number in range(5):
        asyncio.run(ask(str(number)))
    for number in range(5, 10):  # with a half, or nothing, of the shutdown that asyncio.run does
        loop = asyncio.new_event_loop()
        loop.run_until_complete(ask(str(number)))
        if number % 2:
            loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()
    del loop
    asyncio.run(ask("10"))  # what closed loops have left is dropped with the next one's first call
    gc.collect()
    assert len(server.requests) == 11
    assert [each for each in made if each() is not None] == []


def test_a_server_that_is_down(caplog: pytest.LogCaptureFixture) -> None:
    """Many threads tell of one retry, and of the first failure in full: where, and what to do; of others shortly."""
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # without listening
        address = f"http://127.0.0.1:{nobody.getsockname()[1]}/v1"
        client = OpenAIClient(base_url=address, **RETRY_AT_ONCE)
        replies = llmcall.map(lambda item: client.send_message(f"Hello {item}"), range(32), workers=8)
        assert replies == [None] * 32 and (client.usage.retries, client.usage.errors) == (64, 32)
        with pytest.raises(ServiceError) as caught:
            client.send_message("Hello", on_error="raise")
    assert len([each for each in caplog.messages if "trying again" in each]) == 1
    failures = [each.getMessage() for each in caplog.records if each.levelno == logging.ERROR]
    [first] = (each for each in failures if "failed as before" not in each)
    for part in (f"at {address} failed", "Does the server", "llmcall doctor", 'on_error="raise"'):
        assert part in first
    counts = [re.search(f"ServiceError at {address}\\): (\\d+) such failures so far", each) for each in failures]
    assert sorted(int(found[1]) for found in counts if found) == [2, 4, 8, 16, 32] and len(failures) == 6
    notes = getattr(caught.value, "__notes__", [])  # there are none on Python 3.10
    assert all(f"model gpt-4o-mini at {address}. Run again later; 'llmcall doctor'" in note for note in notes)
    assert len(notes) == (sys.version_info >= (3, 11))


@EVERY_WAY
@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("x-colour", value) for value in ("grün", "a\nb", "a\x00b")),
        *((name, "green") for name in ("x colour", "x-colour\n", "x:colour", "farbtön", "")),
    ],
    ids=repr,
)
def test_a_header_that_cannot_be_sent(name: str, value: str, ask: Any, httpserver: HTTPServer) -> None:
    """It is an error of the tree that names the header, and nothing is sent."""
    server = ScriptedServer(httpserver, OK)
    with pytest.raises(ConfigError, match=rf"extra_headers.*{re.escape(repr(name))}"):
        ask(OpenAIClient(base_url=server.base_url), extra_headers={name: value})
    assert not server.requests


@pytest.mark.parametrize("path", ["/v1?tenant=a%20b", "/v1/?tenant=a%20b"])
def test_a_base_url_with_a_query(path: str) -> None:
    """The query stays behind the path, with that of the call."""
    seen: list[Any] = []

    def respond(request: Any) -> Any:
        seen.append(request.url)
        return LIBRARY.Response(200, json=OK.body)

    with LIBRARY.Client(transport=LIBRARY.MockTransport(respond)) as http_client:
        client = OpenAIClient(base_url="http://localhost" + path, http_client=http_client)
        client.send_message("Hello", extra_query={"trace": "1"}, on_error="raise")
    assert seen[0].path == "/v1/chat/completions"
    assert dict(seen[0].params) == {"tenant": "a b", "trace": "1"}


def test_an_extra_query_is_not_stored(httpserver: HTTPServer) -> None:
    """What goes into the address may be a key: it is neither in the record nor in the cassette, nor in the key."""
    server = ScriptedServer(httpserver, OK)
    client = OpenAIClient(base_url=server.base_url)
    with llmcall.cassette("tape.jsonl"):
        reply = client.send_message("Hello", extra_query={"code": "a-secret-77"}, on_error="raise")
    assert "a-secret-77" not in Path("tape.jsonl").read_text(encoding="utf-8")
    assert not [record for record in client.cache.records() if "a-secret-77" in str(record)]
    assert client.build_request("Hello").cache_key == reply.cache_key


def test_ollama(monkeypatch: pytest.MonkeyPatch) -> None:
    """``api_type = ollama`` is this machine's server, and needs no key."""
    seen: list[Any] = []

    def respond(request: Any) -> Any:
        seen.append(request)
        return LIBRARY.Response(200, json=OK.body)

    with LIBRARY.Client(transport=LIBRARY.MockTransport(respond)) as http_client:
        kind = type(llmcall.client("ollama"))
        assert issubclass(kind, OpenAIClient)
        assert kind(http_client=http_client, model="llama3.2").send_message("Hello", on_error="raise").content
        with pytest.raises(ConfigError, match=r"no key for models\.example\.org"):
            kind(http_client=http_client, base_url="https://models.example.org/v1").send_message("Hello")
    assert str(seen[0].url) == "http://localhost:11434/v1/chat/completions"
    assert len(seen) == 1


# What happens on the wire becomes an error of the tree, within the time that there is

PATIENCE = 0.3  # seconds: a server that stays silent is waited for so long in each attempt
DRIPS = dripping(OPEN_HEAD + OPEN_BODY, b" ")

# What a server does on the wire, the words of the error, its status, and the exception below it.
BROKEN: dict[str, tuple[Behaviour, str, int | None, str]] = {
    "reset": (resets, "the connection failed", None, "APIConnectionError"),
    "closed without a byte": (closes, "a response. Does the server at", None, "APIConnectionError"),
    "not HTTP": (sends(b"220 mail.example.org ESMTP\r\n\r\n"), "the connection failed", None, "APIConnectionError"),
    "a head cut short": (sends(b"HTTP/1.1 200 OK\r\nContent-"), "the connection failed", None, "APIConnectionError"),
    "a body cut short": (sends(http(b"{", length=500)), "the connection failed", 200, "RemoteProtocolError"),
    "a chunk cut short": (cut_chunk(), "the connection failed", 200, "RemoteProtocolError"),
    "no body": (sends(http(b"", stays=False)), "malformed answer, not JSON", 200, "JSONDecodeError"),
    "HTML": (answers(Answer(200, "<html><body>Sign in</body></html>")), "<html>", 200, "JSONDecodeError"),
    "malformed JSON": (answers(Answer(200, '{"choices": [{"mess')), "not JSON", 200, "JSONDecodeError"),
    "no UTF-8": (sends(http(b'{"choices": "\xff\xfe"}', stays=False)), "not JSON", 200, "UnicodeDecodeError"),
    "deeper than Python goes": (answers(Answer(200, "[" * 100_000)), "not JSON", 200, "RecursionError"),
    "a JSON list": (answers(Answer(200, [completion()])), "no JSON object", 200, "NoneType"),
    "a JSON text": (answers(Answer(200, '"Two coins."')), "no JSON object", 200, "NoneType"),
    "null": (answers(Answer(200, "null")), "no JSON object", 200, "NoneType"),
    "an empty object": (answers(Answer(200, {})), "without choices", 200, "NoneType"),
    "an error with status 200": (answers(Answer(200, {"error": {"message": "busy"}})), "busy", 200, "NoneType"),
    "a text as the error": (answers(Answer(200, {"error": "busy"})), "busy", 200, "NoneType"),
    "a refusal cut short": (sends(http(b"{", length=9, status="503 X")), "failed", None, "RemoteProtocolError"),
    "no gzip": (
        sends(http(b"plain", stays=False).replace(b"\r\n", b"\r\nContent-Encoding: gzip\r\n", 1)),
        "the connection failed", 200, "DecodingError",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_broken_answers(name: str) -> None:
    """A broken connection or answer is a failing service: tried again, told with its cause, never stored."""
    behaviour, words, status, cause = BROKEN[name]
    with RawServer(behaviour) as server, client_for(server.base_url) as client:
        error = client.send_message(QUESTION, on_error="return")
    assert type(error) is ServiceError
    assert words in str(error)
    assert error.status_code == status
    assert (error.endpoint, error.attempts, len(server.requests)) == ("127.0.0.1", 3, 3)
    assert type(error.__cause__).__name__ == cause
    assert len(client.cache) == 0


@pytest.mark.parametrize("behaviour", [resets, closes, cut_chunk(), answers(Answer(503, "busy"))])
def test_a_server_that_recovers(behaviour: Behaviour) -> None:
    """After failures the answer is that of the server, stored, and its usage tells the retries."""
    with RawServer(behaviour, behaviour, answers()) as server, client_for(server.base_url) as client:
        reply = client.send_message(QUESTION, on_error="raise")
        again = client.send_message(QUESTION, on_error="raise")
    assert (reply.content, reply.cached, reply.request_id) == ("Two coins.", False, "req-raw")
    assert (again.content, again.cached) == ("Two coins.", True)
    assert len(server.requests) == 3
    assert (client.usage.calls, client.usage.retries, client.usage.errors) == (1, 2, 0)


@pytest.mark.parametrize("way", ["sync", "async"])
@pytest.mark.parametrize("behaviour", [stays_silent, stays_silent_after(http(b"{", length=500)), DRIPS])
def test_a_timeout_bounds_an_attempt(behaviour: Behaviour, way: str) -> None:
    """Silence, half a body and a body that drips for ever end with the attempt's timeout, and are tried again."""
    with RawServer(behaviour) as server, client_for(server.base_url, retry_max_attempts=2) as client:
        error = WAYS[way](client, on_error="return", timeout=PATIENCE)
    assert type(error) is RequestTimeoutError
    assert "within the timeout" in str(error)
    assert (error.endpoint, error.attempts) == ("127.0.0.1", 2)
    assert len(server.requests) <= 2  # the time may be over before a request is sent


@pytest.mark.parametrize("way", ["sync", "async"])
@pytest.mark.parametrize("name", ["timeout", "deadline"])
def test_a_time_that_no_socket_takes(name: str, way: str) -> None:
    """A call may take as long as its caller likes, also longer than a socket can be told to wait."""
    with RawServer(answers()) as server, client_for(server.base_url) as client:
        assert WAYS[way](client, on_error="raise", **{name: 1e12}).content == "Two coins."


def test_a_deadline_bounds_the_retries(httpserver: HTTPServer) -> None:
    """A deadline ends a call whose attempts fail quickly, without being told to wait."""
    server = ScriptedServer(httpserver, refusal(503))
    with client_for(server.base_url, retry_max_attempts=50) as client:
        error = client.send_message(
            QUESTION, on_error="return", deadline=PATIENCE, waiting_time=PATIENCE / 4, exponential_backoff_factor=1
        )
    assert isinstance(error, ServiceError)
    assert error.attempts < 10
    assert error.attempts - len(server.requests) in (0, 1)  # the deadline may pass before the server reads the last one


def test_one_connection_serves_many_calls() -> None:
    """A client keeps its connection: a server that answers twice on one has both calls there."""

    def answers_twice(connection: socket.socket, stopped: threading.Event) -> None:
        connection.sendall(http(OK.text().encode()))
        assert read_request(connection) is not None
        connection.sendall(http(OK.text().encode()))

    with RawServer(answers_twice, closes) as server, client_for(server.base_url) as client:
        replies = [client.send_message(QUESTION, sample=sample, on_error="raise") for sample in (1, 2)]
    assert [reply.cached for reply in replies] == [False, False]
    assert len(server.requests) == 1


@pytest.mark.parametrize("lent", [False, True])
def test_a_forgotten_client_closes_its_connections(lent: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody needs to close a client for its connections' sake; an HTTP client of the user's stays open."""
    gone = threading.Event()

    def keeps_open(connection: socket.socket, stopped: threading.Event) -> None:
        answers(stays=True)(connection, stopped)
        if connection.recv(1) == b"":
            gone.set()

    # The SDK has a finalizer, which may come too late: of a cycle, a collector may take the sockets before their owner.
    monkeypatch.delattr(type(openai.OpenAI(api_key="none")._client), "__del__", raising=False)
    with RawServer(keeps_open) as server, LIBRARY.Client() as http_client:
        given = {"http_client": http_client} if lent else {}
        client = OpenAIClient(base_url=server.base_url, cache_mode="off", **given)
        client.send_message(QUESTION, on_error="raise")
        del client
        gc.collect()
        assert http_client.is_closed is False
        if not lent:
            assert gone.wait(60)
        http_client.close()
    assert gone.wait(60)


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded, use of fork:DeprecationWarning")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_a_forked_process_leaves_its_parent_s_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    """It closes none of them: a lock that another thread held at the fork is never released in it."""
    closed: list[object] = []
    with RawServer(answers(stays=True)) as server, OpenAIClient(base_url=server.base_url, cache_mode="off") as client:
        client.send_message(QUESTION, on_error="raise")
        monkeypatch.setattr(LIBRARY.HTTPTransport, "close", lambda self: closed.append(self))
        child = os.fork()
        if not child:
            gc.collect()
            os._exit(len(closed))
        assert os.waitpid(child, 0)[1] == 0
        monkeypatch.undo()
