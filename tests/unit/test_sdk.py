"""The SDK's room: whatever happens on the wire becomes an error of the tree, within the time that there is."""

from __future__ import annotations

import copy
import gc
import pickle
import socket
import threading
from typing import Any

import openai
import pytest
from pytest_httpserver import HTTPServer
from servers import (
    OK,
    QUESTION,
    Answer,
    Behaviour,
    RawServer,
    ScriptedServer,
    answers,
    client_for,
    closes,
    completion,
    cut_chunk,
    drips,
    http,
    read_request,
    refusal,
    refusing,
    resets,
    sends,
    stays_silent,
    stays_silent_after,
)

from llmcall import APIError, OpenAIClient, RateLimitError, RequestTimeoutError, ServiceError
from llmcall.errors import QuotaExceededError

PATIENCE = 0.3  # seconds: a server that stays silent is waited for so long in each attempt

# What a server does on the wire, the words of the error, its status, and the exception below it.
BROKEN: dict[str, tuple[Behaviour, str, int | None, str]] = {
    "reset": (resets, "the connection failed", None, "APIConnectionError"),
    "closed without a byte": (closes, "the connection failed", None, "APIConnectionError"),
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

# Errors that some servers send with the status 200, and what their code says of them.
WITH_200: list[tuple[dict[str, Any], type[APIError]]] = [
    ({"code": 429, "message": "slow down"}, RateLimitError),
    ({"code": 502, "message": "provider down"}, ServiceError),
    ({"code": 402, "message": "no credits"}, QuotaExceededError),
    ({"code": "server_error", "message": "oops"}, ServiceError),
]


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


def test_nobody_listens() -> None:
    """A refused connection is a failing service, after the attempts."""
    with refusing() as base_url, client_for(base_url) as client:
        error = client.send_message(QUESTION, on_error="return")
    assert type(error) is ServiceError
    assert (error.attempts, error.status_code, error.request_id) == (3, None, None)
    assert isinstance(error.__cause__, openai.APIConnectionError)


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


@pytest.mark.parametrize("behaviour", [stays_silent, stays_silent_after(http(b"{", length=500)), drips])
def test_a_timeout_bounds_an_attempt(behaviour: Behaviour) -> None:
    """Silence, half a body and a body that drips for ever end with the attempt's timeout, and are tried again."""
    with RawServer(behaviour) as server, client_for(server.base_url, retry_max_attempts=2) as client:
        error = client.send_message(QUESTION, on_error="return", timeout=PATIENCE)
    assert type(error) is RequestTimeoutError
    assert "within the timeout" in str(error)
    assert (error.endpoint, error.attempts, len(server.requests)) == ("127.0.0.1", 2, 2)


@pytest.mark.parametrize("behaviour", [stays_silent, drips])
def test_a_deadline_bounds_the_call(behaviour: Behaviour) -> None:
    """A deadline ends a call whose attempts would go on for ever, whatever their timeout is."""
    with RawServer(behaviour) as server, client_for(server.base_url) as client:
        error = client.send_message(QUESTION, on_error="return", deadline=2 * PATIENCE, timeout=3600)
    assert type(error) is RequestTimeoutError
    assert len(server.requests) == 1


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


@pytest.mark.parametrize(("error", "kind"), WITH_200)
def test_an_error_with_status_200(httpserver: HTTPServer, error: dict[str, Any], kind: type[APIError]) -> None:
    """An error that comes with the status 200 is what its code says, and its status is told as it was."""
    server = ScriptedServer(httpserver, Answer(200, {"error": error}, {"x-request-id": "req-200"}))
    with client_for(server.base_url, retry_max_attempts=1) as client:
        failed = client.send_message(QUESTION, on_error="return")
    assert type(failed) is kind
    assert (failed.status_code, failed.request_id) == (200, "req-200")
    assert error["message"] in str(failed)


def test_the_sdk_does_not_retry(httpserver: HTTPServer) -> None:
    """The SDK's own retries are off: one attempt of ours is one request."""
    server = ScriptedServer(httpserver, refusal(500))
    with client_for(server.base_url, retry_max_attempts=1) as client:
        client.send_message(QUESTION)
    assert len(server.requests) == 1
    assert server.requests[0].headers["x-stainless-retry-count"] == "0"


def test_a_server_that_repeats_the_key(httpserver: HTTPServer, caplog: pytest.LogCaptureFixture) -> None:
    """The key is in no error and no log line, even if the server repeats it, in a refusal or in an answer."""
    key = "a-most-secret-key"
    for answer in (refusal(401, f"Wrong key: {key}"), refusal(500, f"Bearer {key}"), Answer(200, f"Bearer {key}?")):
        server = ScriptedServer(httpserver, answer)
        with client_for(server.base_url, api_key=key) as client:
            error = client.send_message(QUESTION, on_error="return")
            assert client.send_message(QUESTION, on_error="none") is None
        assert server.requests[0].headers["authorization"] == f"Bearer {key}"
        assert key not in f"{error}{error!r}{client!r}{client.settings!r}"
        httpserver.clear()
    assert key not in caplog.text


def test_what_is_sent(httpserver: HTTPServer) -> None:
    """The body is that of the API: parameters as given, those of extra_body among them, headers and query beside it."""
    server = ScriptedServer(httpserver, OK)
    with client_for(server.base_url, organization="org-1") as client:
        client.send_message(
            QUESTION,
            temperature=0.5,
            max_tokens=50,
            stop="x",
            user="u1",
            extra_body={"top_k": 4},
            extra_headers={"X-Run": "7"},
            extra_query={"trace": "1"},
            on_error="raise",
        )
    (seen,) = server.requests
    assert seen.path == "/v1/chat/completions?trace=1"
    assert seen.headers["x-run"] == "7"
    assert seen.headers["openai-organization"] == "org-1"
    assert seen.body == {
        "model": "gpt-4o-mini", "messages": QUESTION, "temperature": 0.5, "max_tokens": 50, "stop": "x", "user": "u1",
        "top_k": 4,
    }  # fmt: skip


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


def test_closing() -> None:
    """A closed client closes its connections and opens new ones where it is used again."""
    with RawServer(answers()) as server:
        client = OpenAIClient(base_url=server.base_url)
        with client:
            client.send_message(QUESTION, on_error="raise")
        reply = client.send_message(QUESTION, sample=2, on_error="raise")
        client.close()
    assert (reply.content, len(server.requests)) == ("Two coins.", 2)


def test_errors_can_be_copied_and_pickled(httpserver: HTTPServer) -> None:
    """An error goes to another process and comes back with all that it tells."""
    words = "maximum context length is 8192 tokens. However, your messages resulted in 10383 tokens."
    server = ScriptedServer(httpserver, refusal(400, words))
    with client_for(server.base_url) as client:
        error = client.send_message(QUESTION, on_error="return")
    for twin in (copy.copy(error), pickle.loads(pickle.dumps(error))):
        assert (type(twin), str(twin), vars(twin)) == (type(error), str(error), vars(error))


@pytest.mark.parametrize("lent", [False, True])
def test_a_forgotten_client_closes_its_connections(lent: bool) -> None:
    """Nobody needs to close a client for its connections' sake; an HTTP client of the user's stays open."""
    gone = threading.Event()

    def keeps_open(connection: socket.socket, stopped: threading.Event) -> None:
        answers(stays=True)(connection, stopped)
        if connection.recv(1) == b"":
            gone.set()

    library = type(openai.OpenAI(api_key="none")._client).__mro__[1]  # Client of httpx or httpx2
    with RawServer(keeps_open) as server, library() as http_client:
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
