"""The network as users meet it: servers that fail, drip, flood and lead astray; hooks, addresses
and connections.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from clients import RETRY_AT_ONCE, WAYS, client_for
from commands import NEEDS_NOTES, NEEDS_POSIX
from pytest_httpserver import HTTPServer
from servers import (
    HEAD,
    OK,
    OPEN_BODY,
    OPEN_HEAD,
    QUESTION,
    Answer,
    Behaviour,
    RawServer,
    ScriptedServer,
    answers,
    chunk,
    closes,
    completion,
    cut_chunk,
    dripping,
    event,
    http,
    made_certificate,
    read_request,
    refusal,
    refusing,
    resets,
    sends,
    stays_silent,
    stays_silent_after,
)
from workers import SECONDS

import llmcall
from llmcall import APIError, OpenAIClient, RequestTimeoutError, ServiceError

SOON = 0.15  # seconds: what a call is given that would never end by itself
NO_MORE = 3600  # seconds: a timeout that ends nothing here
LIBRARY: Any = __import__(openai.DefaultHttpxClient.__base__.__module__.partition(".")[0])


def asked(client: OpenAIClient, way: str, item: str = "x", **arguments: Any) -> Any:
    """Ask, and return the answer's text or the error; a stream raises its error."""
    try:
        return WAYS[way](client, item, on_error="raise", **arguments).content  # type: ignore[union-attr]
    except APIError as error:
        return error


SLOW_SERVERS = {
    "silence": stays_silent,
    "half a body": stays_silent_after(http(b"{", length=500)),
    "body": dripping(OPEN_HEAD + OPEN_BODY, b" "),
    "comments": dripping(HEAD, b": still thinking\n\n"),
    "an event that never ends": dripping(HEAD + b"data: ", b" "),
    "a body without a length": dripping(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n", b" "),
}


# A server for each way, and each server once; the rest is slow.
MET_BY = dict(zip(SLOW_SERVERS, [*WAYS, *WAYS], strict=False))


@pytest.mark.parametrize(
    ("name", "way"),
    [
        pytest.param(name, way, marks=() if MET_BY[name] == way else pytest.mark.slow)
        for name in SLOW_SERVERS
        for way in WAYS
    ],
)
def test_a_deadline_ends_the_call_of_a_server_that_drips(name: str, way: str) -> None:
    """No single read of it takes long. The error names the deadline, which ended the attempt."""
    with (
        RawServer(SLOW_SERVERS[name]) as server,
        client_for(server.base_url, deadline=SOON, timeout=NO_MORE) as client,
    ):
        error = asked(client, way)
    assert type(error) is RequestTimeoutError, repr(error)
    # the deadline may pass before a request is sent
    assert not server.requests or f"of deadline={SOON:g} (DEADLINE in [OpenAI])" in str(error)
    assert len(server.requests) <= 1


def in_a_program(url: str, ask: Callable[[Any], Any], **overrides: Any) -> Any:
    """Return the error that a program's client gets."""
    http_client = llmcall.http_client(cache_mode="off", **overrides)
    with (
        openai.OpenAI(
            base_url=url, api_key="k", http_client=http_client, timeout=NO_MORE
        ) as program,
        pytest.raises(openai.APIStatusError) as caught,
    ):
        ask(program)
    return caught.value


def in_an_asynchronous_program(url: str, ask: Callable[[Any], Any], **overrides: Any) -> Any:
    """Return the error that a program's asynchronous client gets."""

    async def main() -> Any:
        http_client = llmcall.async_http_client(cache_mode="off", **overrides)
        async with openai.AsyncOpenAI(
            base_url=url, api_key="k", http_client=http_client, timeout=NO_MORE
        ) as program:
            with pytest.raises(openai.APIStatusError) as caught:
                await ask(program)
            return caught.value

    return asyncio.run(main())


ASKED: dict[str, Callable[[Any], Any]] = {
    "chat": lambda program: program.chat.completions.create(model="m", messages=QUESTION),
    "stream": lambda program: program.chat.completions.create(
        model="m", messages=QUESTION, stream=True
    ),
    "embeddings": lambda program: program.embeddings.create(model="m", input="x"),
}


@pytest.mark.parametrize("program", [in_a_program, in_an_asynchronous_program])
@pytest.mark.parametrize("ask", ASKED.values(), ids=ASKED)
def test_a_deadline_ends_the_request_of_a_program(program: Any, ask: Callable[[Any], Any]) -> None:
    """The program may ask a silent server for anything."""
    with RawServer(SLOW_SERVERS["silence"]) as server:
        error = program(server.base_url, ask, deadline=SOON)
    assert error.status_code == 504
    assert len(server.requests) <= 1


def test_a_deadline_ends_an_embedding() -> None:
    """It ends a chat, too."""
    with (
        RawServer(SLOW_SERVERS["body"]) as server,
        client_for(server.base_url, deadline=SOON, timeout=NO_MORE) as client,
    ):
        error = client.get_embedding("x", on_error="return")
    assert type(error) is RequestTimeoutError


@pytest.mark.parametrize("way", ["stream", "astream"])
def test_a_deadline_counts_through_a_stream(way: str) -> None:
    """The time of the first chunks is missing to the last ones."""
    drip = dripping(HEAD + event(chunk("Two")), event(chunk(" coins")))
    with (
        RawServer(drip) as server,
        client_for(server.base_url, deadline=2 * SOON, timeout=NO_MORE) as client,
    ):
        error = asked(client, way)
    assert type(error) is RequestTimeoutError
    assert len(server.requests) <= 1


class Dripping(LIBRARY.SyncByteStream):  # type: ignore[misc]
    """A body that goes on for seconds, a piece at a time."""

    def __init__(self, piece: bytes) -> None:
        self.piece = piece

    def __iter__(self) -> Iterator[bytes]:
        for _ in range(100):
            time.sleep(0.1)
            yield self.piece


@pytest.mark.parametrize(
    ("way", "piece"),
    [pytest.param("sync", b" ", marks=pytest.mark.slow), ("stream", b": still thinking\n\n")],
)
def test_a_deadline_ends_the_call_of_an_http_client_that_knows_of_none(
    way: str, piece: bytes
) -> None:
    """The user's own may read a body for as long as it comes."""

    def respond(request: Any) -> Any:
        return LIBRARY.Response(200, stream=Dripping(piece))

    with (
        LIBRARY.Client(transport=LIBRARY.MockTransport(respond)) as http_client,
        OpenAIClient(
            base_url="http://a.example/v1", api_key="k", http_client=http_client, **RETRY_AT_ONCE
        ) as client,
    ):
        # long enough for the call to come to the body
        error = asked(client, way, deadline=0.5)
    assert type(error) is RequestTimeoutError, repr(error)


@pytest.mark.parametrize(
    ("way", "name"),
    [
        ("sync", "silence"),
        ("async", "half a body"),
        ("sync", "body"),
        ("stream", "comments"),
    ],
)
def test_a_timeout_ends_each_attempt(name: str, way: str) -> None:
    """Comments are no answer. A request that was sent is sent once more, whatever MAX_ATTEMPTS says; the error
    has the endpoint, the number of attempts and the limit.
    """
    with (
        RawServer(SLOW_SERVERS[name]) as server,
        client_for(server.base_url, retry_max_attempts=4) as client,
    ):
        error = asked(client, way, timeout=SOON)
    assert type(error) is RequestTimeoutError
    assert f"of timeout={SOON:g} (TIMEOUT in [OpenAI])" in str(error)
    assert (error.endpoint, error.attempts) == ("127.0.0.1", 2)
    assert len(server.requests) <= 2  # the time may be over before a request is sent


def plain(base_url: str, http_client: Any = None, **settings: Any) -> OpenAIClient:
    """Return a client of OpenAI's API at a server, with the SDK's own HTTP client or one that the
    test closes.
    """
    merged = {"api_key": "the-key-1234", "retry_max_attempts": 3, "base_url": base_url, **settings}
    return OpenAIClient(http_client=http_client, **merged)


class TLSServer(RawServer):
    """Accept connections on a port, and shake hands as told; a context manager.

    :ivar received: what came after the handshake.
    """

    def __init__(self, shake: Callable[[socket.socket], Any]) -> None:
        super().__init__()
        self._shake = shake
        self.base_url = self.base_url.replace("http:", "https:")
        self.received: list[Any] = []

    def _answer(self, connection: socket.socket) -> None:
        connection.settimeout(SECONDS)
        self.received.append(self._shake(connection))


def self_signed(connection: socket.socket) -> Any:
    """Show a certificate that nobody vouches for."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain("certificate.pem", "key.pem")
    with context.wrap_socket(connection, server_side=True) as wrapped:
        return wrapped.recv(65536)


@pytest.mark.parametrize("way", ["sync", "async"])
def test_a_server_with_a_self_signed_certificate_gets_nothing(way: str) -> None:
    """A server that cannot show who it is gets neither key nor prompt."""
    made_certificate(Path.cwd())
    with TLSServer(self_signed) as server, plain(server.base_url, retry_max_attempts=1) as client:
        error = asked(client, way)
    assert type(error) is ServiceError and "set SSL_CERT_FILE to" in str(error)
    assert not any(server.received)


# What happens on the wire becomes an error of the tree, within the time that there is

# What a server does on the wire, the words of the error, its status, and the exception below it.
BROKEN: dict[str, tuple[Behaviour, str, int | None, str]] = {
    "reset": (resets, "the connection failed", None, "APIConnectionError"),
    "closed without a byte": (
        closes,
        "a response. Is a server running at",
        None,
        "APIConnectionError",
    ),
    "not HTTP": (
        sends(b"220 mail.example.org ESMTP\r\n\r\n"),
        "the connection failed",
        None,
        "APIConnectionError",
    ),
    "a head cut short": (
        sends(b"HTTP/1.1 200 OK\r\nContent-"),
        "the connection failed",
        None,
        "APIConnectionError",
    ),
    "a body cut short": (
        sends(http(b"{", length=500)),
        "the connection failed",
        200,
        "RemoteProtocolError",
    ),
    "a chunk cut short": (cut_chunk(), "the connection failed", 200, "RemoteProtocolError"),
    "no body": (
        sends(http(b"", stays=False)),
        "malformed answer, not JSON",
        200,
        "JSONDecodeError",
    ),
    "HTML": (
        answers(Answer(200, "<html><body>Sign in</body></html>")),
        "<html>",
        200,
        "JSONDecodeError",
    ),
    "malformed JSON": (
        answers(Answer(200, '{"choices": [{"mess')),
        "not JSON",
        200,
        "JSONDecodeError",
    ),
    "no UTF-8": (
        sends(http(b'{"choices": "\xff\xfe"}', stays=False)),
        "not JSON",
        200,
        "UnicodeDecodeError",
    ),
    "deeper than Python goes": (
        answers(Answer(200, "[" * 100_000)),
        "not JSON",
        200,
        "RecursionError",
    ),
    "a JSON list": (answers(Answer(200, [completion()])), "not a JSON object", 200, "NoneType"),
    "a refusal cut short": (
        sends(http(b"{", length=9, status="503 X")),
        "failed",
        None,
        "RemoteProtocolError",
    ),
    "no gzip": (
        sends(http(b"plain", stays=False).replace(b"\r\n", b"\r\nContent-Encoding: gzip\r\n", 1)),
        "the connection failed",
        200,
        "DecodingError",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_connection_or_answer_is_a_failing_service(name: str) -> None:
    """It is tried again and reported with its cause, and never stored."""
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
def test_a_server_that_recovers_gives_its_answer(behaviour: Behaviour) -> None:
    """Usage counts the retries, and the second call is answered from the cache."""
    with (
        RawServer(behaviour, behaviour, answers()) as server,
        client_for(server.base_url) as client,
    ):
        reply = client.send_message(QUESTION, on_error="raise")
        again = client.send_message(QUESTION, on_error="raise")
    assert (reply.content, reply.cached, reply.request_id) == ("Two coins.", False, "req-ok")
    assert (again.content, again.cached) == ("Two coins.", True)
    assert len(server.requests) == 3
    assert (client.usage.calls, client.usage.retries, client.usage.errors) == (1, 2, 0)


def test_a_deadline_bounds_the_retries(httpserver: HTTPServer) -> None:
    """A deadline ends a call whose attempts fail quickly, without a wait that the server asks for."""
    server = ScriptedServer(httpserver, refusal(503))
    with client_for(server.base_url, retry_max_attempts=50) as client:
        error = client.send_message(
            QUESTION,
            on_error="return",
            deadline=SOON,
            waiting_time=SOON / 4,
            exponential_backoff_factor=1,
        )
    assert isinstance(error, ServiceError)
    assert error.attempts < 10
    # the deadline may pass before the server reads the last one
    assert error.attempts - len(server.requests) in (
        0,
        1,
    )


# Hooks, addresses, connections and event loops


@pytest.fixture(scope="module")
def nobody() -> Iterator[str]:
    """An address at which no server listens."""
    with refusing() as address:
        yield address


def ask_nobody(address: str) -> OpenAIClient:
    """Ask from eight threads, 32 times; return the client."""
    client = OpenAIClient(base_url=address, **RETRY_AT_ONCE)
    replies = llmcall.map(lambda item: client.send_message(f"Hello {item}"), range(32), workers=8)
    assert replies == [None] * 32
    return client


def failures(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return the failures that were logged."""
    return [entry.getMessage() for entry in caplog.records if entry.levelno == logging.ERROR]


def test_threads_that_ask_a_server_that_is_down_log_one_retry(
    nobody: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Each call is tried three times nevertheless."""
    client = ask_nobody(nobody)
    assert (client.usage.retries, client.usage.errors) == (64, 32)
    assert len([message for message in caplog.messages if "Retrying in" in message]) == 1


def test_each_logged_failure_says_where_and_what_to_do(
    nobody: str, caplog: pytest.LogCaptureFixture
) -> None:
    """And what raises the error instead."""
    ask_nobody(nobody)
    assert len(failures(caplog)) == 32
    for failure in failures(caplog):
        assert f"at {nobody} failed" in failure
        assert "Is a server" in failure
        assert "llmcall doctor" in failure
        assert 'on_error="raise"' in failure


@NEEDS_NOTES
def test_an_error_that_is_raised_has_a_note_that_says_what_to_do(nobody: str) -> None:
    """The note names the model and the address."""
    with pytest.raises(ServiceError) as caught:
        OpenAIClient(base_url=nobody, **RETRY_AT_ONCE).send_message("Hello", on_error="raise")
    [note] = getattr(caught.value, "__notes__", [])
    assert f"model gpt-6-luna at {nobody}. Try again later; 'llmcall doctor'" in note


def noting(seen: list[Any]) -> Any:
    """Return an HTTP client that notes each request, and answers it at once."""

    def respond(request: Any) -> Any:
        seen.append(request)
        return LIBRARY.Response(200, json=OK.body)

    return LIBRARY.Client(transport=LIBRARY.MockTransport(respond))


def test_a_credential_in_an_extra_query_is_not_stored(httpserver: HTTPServer) -> None:
    """Neither the record nor the cassette has it."""
    server = ScriptedServer(httpserver, OK)
    client = OpenAIClient(base_url=server.base_url)
    with llmcall.cassette("tape.jsonl"):
        client.send_message("Hello", extra_query={"code": "a-secret-77"}, on_error="raise")
    assert "a-secret-77" not in Path("tape.jsonl").read_text(encoding="utf-8")
    assert not [record for record in client.cache.records() if "a-secret-77" in str(record)]


def test_ollama_is_this_machines_server_and_needs_no_key() -> None:
    """``api_type = ollama`` will do."""
    seen: list[Any] = []
    with noting(seen) as http_client:
        kind = type(llmcall.client("ollama"))
        assert issubclass(kind, OpenAIClient)
        client = kind(http_client=http_client, model="llama3.2")
        assert client.send_message("Hello", on_error="raise").content
    assert [str(request.url) for request in seen] == ["http://localhost:11434/v1/chat/completions"]


def test_one_connection_serves_many_calls() -> None:
    """A client keeps it: a server that answers twice on one connection has both calls there."""

    def answers_twice(connection: socket.socket, stopped: threading.Event) -> None:
        connection.sendall(http(OK.text().encode()))
        assert read_request(connection) is not None
        connection.sendall(http(OK.text().encode()))

    with RawServer(answers_twice, closes) as server, client_for(server.base_url) as client:
        replies = [
            client.send_message(QUESTION, sample=sample, on_error="raise") for sample in (1, 2)
        ]
    assert [reply.cached for reply in replies] == [False, False]
    assert len(server.requests) == 1


@pytest.mark.ci
@NEEDS_POSIX
def test_a_forked_process_leaves_its_parent_s_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    """It closes none of them: a lock that another thread held at the fork is never released in it."""
    closed: list[object] = []
    with (
        RawServer(answers(stays=True)) as server,
        OpenAIClient(base_url=server.base_url, cache_mode="off") as client,
    ):
        client.send_message(QUESTION, on_error="raise")
        gc.collect()  # what earlier tests left
        monkeypatch.setattr(LIBRARY.HTTPTransport, "close", lambda self: closed.append(self))
        child = os.fork()
        if not child:
            gc.collect()
            os._exit(len(closed))
        assert os.waitpid(child, 0)[1] == 0
        monkeypatch.undo()
