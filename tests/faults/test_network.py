"""Servers that fail, drip, flood and lead astray: a call ends in its time, with an answer or an error of the tree."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import openai
import pytest
from processes import SECONDS, seeded
from redis_servers import made_certificate
from servers import OPEN_BODY, OPEN_HEAD, QUESTION, Answer, RawServer, answers, client_for, dripping
from storms import FAULTS, Storm, answering, flooding
from streaming import HEAD, WAYS, chunk, chunks_of, event, streams

from llmcall import (
    APIError,
    OpenAIClient,
    RequestTimeoutError,
    ServiceError,
)

SOON = 0.3  # seconds: what a call is given that would never end by itself
NO_MORE = 3600  # seconds: a timeout that ends nothing here
ATTEMPTS = 4
LIBRARY: Any = __import__(openai.DefaultHttpxClient.__base__.__module__.partition(".")[0])
ITEMS = [f"item {number}" for number in range(200)]


def threads() -> set[str]:
    """Return the names of the threads that run, but for those of servers here."""
    return {each.name for each in threading.enumerate()} - {"storm"}


def sockets() -> int:
    """Return how many sockets this process has open."""
    folder = Path("/proc/self/fd")
    if not folder.exists():
        return 0
    found = 0
    for entry in folder.iterdir():
        with suppress(OSError):
            found += os.readlink(entry).startswith("socket:")
    return found


def asked(client: OpenAIClient, way: str, item: str) -> Any:
    """Ask, and return the answer's text or the error; a stream raises its error."""
    try:
        return WAYS[way](client, item, on_error="raise").content  # type: ignore[union-attr]
    except APIError as error:
        return error


def in_threads(client: OpenAIClient, way: str) -> list[Any]:
    """Ask for all items from 32 threads."""
    with ThreadPoolExecutor(32, thread_name_prefix="asking") as executor:
        return list(executor.map(lambda item: asked(client, way, item), ITEMS))


async def in_tasks(client: OpenAIClient, way: str) -> list[Any]:
    """Ask for all items from 32 tasks of one event loop."""
    turns = asyncio.Semaphore(32)

    async def one(item: str) -> Any:
        async with turns:
            try:
                if way == "async":
                    return (await client.asend_message(item, on_error="raise")).content
                async with client.astream_message(item, on_error="raise") as stream:
                    async for _ in stream:
                        pass
                return stream.reply.content if stream.reply is not None else None
            except APIError as error:
                return error

    try:
        return list(await asyncio.gather(*map(one, ITEMS)))
    finally:
        await client.aclose()


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_a_storm(way: str) -> None:
    """32 callers, 30 % faults: each call ends with its answer or a typed error; no thread or socket is left."""
    seed = seeded().randrange(2**32)
    before, open_before = threads(), sockets()
    with Storm(seed, share=0.3) as storm:
        settings = {"retry_max_attempts": ATTEMPTS, "retry_waiting_time": 0.0001, "timeout": 1.0, "deadline": 20.0}
        with LIBRARY.Client(verify=False) as http_client, plain(storm.base_url, http_client, **settings) as client:
            begun = time.monotonic()
            found = in_threads(client, way) if way in ("sync", "stream") else asyncio.run(in_tasks(client, way))
            assert time.monotonic() - begun < SECONDS
        for item, outcome in zip(ITEMS, found, strict=True):
            assert outcome == f"answer to {item}" or isinstance(outcome, APIError), outcome
            assert 0 < storm.attempts[item] <= ATTEMPTS
        answered = [outcome for outcome in found if isinstance(outcome, str)]
        assert storm.all_left()
        assert len(client.cache) == client.usage.calls == len(answered)
        assert client.usage.errors == len(ITEMS) - len(answered)
    assert len(storm.faults) > len(FAULTS) / 2
    assert threads() <= before
    assert sockets() <= open_before


SLOW_SERVERS = {
    "silence": FAULTS["silence"],
    "head": dripping(OPEN_HEAD, b"X-More: 1\r\n"),
    "first line": dripping(b"", b"H"),
    "body": dripping(OPEN_HEAD + OPEN_BODY, b" "),
    "body of an error": dripping(b"HTTP/1.1 400 X\r\n" + OPEN_BODY, b" "),
    "comments": dripping(HEAD, b": still thinking\n\n"),
    "an event that never ends": dripping(HEAD + b"data: ", b" "),
    "a body without a length": dripping(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n", b" "),
    "provisional answers": dripping(b"", b"HTTP/1.1 102 Processing\r\n\r\n"),
    "trailers": dripping(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{\r\n0\r\n", b"X-More: 1\r\n"
    ),
}  # fmt: skip


# Before and after the body, where a thread that reads is not asked for the time.
BESIDE_THE_BODY = ("head", "first line", "body of an error", "provisional answers", "trailers")


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", SLOW_SERVERS)
def test_drips(name: str, way: str) -> None:
    """Whatever drips, the deadline ends the call, though no read of it takes long."""
    if name in BESIDE_THE_BODY and way in ("sync", "stream"):
        pytest.skip("a server that drips its head byte by byte is bounded in event loops alone")
    with RawServer(SLOW_SERVERS[name]) as server, client_for(server.base_url, deadline=SOON, timeout=NO_MORE) as client:
        error = asked(client, way, "x")
    assert type(error) is RequestTimeoutError, repr(error)
    assert len(server.requests) <= 1


@pytest.mark.parametrize("way", ["stream", "astream"])
def test_a_deadline_counts_through_a_stream(way: str) -> None:
    """What the first chunks took of the deadline is missing to the last ones; the reader has what came."""
    drip = dripping(HEAD + event(chunk("Two")), event(chunk(" coins")))
    with RawServer(drip) as server, client_for(server.base_url, deadline=2 * SOON, timeout=NO_MORE) as client:
        error = asked(client, way, "x")
    assert type(error) is RequestTimeoutError
    assert len(server.requests) <= 1


@pytest.mark.parametrize("way", ["stream", "astream"])
def test_the_timeout_bounds_the_wait_for_a_chunk(way: str) -> None:
    """Comments do not count as an answer; a stream whose chunks come in time may take longer than the timeout."""
    with RawServer(SLOW_SERVERS["comments"]) as server, client_for(server.base_url, retry_max_attempts=2) as client:
        error = WAYS_RAISING[way](client, timeout=SOON)
    assert type(error) is RequestTimeoutError
    assert error.attempts == 2
    assert len(server.requests) <= 2


def raised(way: str) -> Callable[..., Any]:
    """Return what asks in a way, and returns the error."""

    def ask(client: OpenAIClient, **arguments: Any) -> Any:
        with pytest.raises(APIError) as caught:
            WAYS[way](client, QUESTION, on_error="raise", **arguments)
        return caught.value

    return ask


WAYS_RAISING = {way: raised(way) for way in WAYS}


FLOODS = {
    "headers": flooding(OPEN_HEAD, b"X-More: " + b"x" * 1000 + b"\r\n"),
    "one header": flooding(OPEN_HEAD + b"X-More: ", b"x" * 1000),
    "a body": flooding(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n", b" " * 65536),
    "a line of a stream": flooding(HEAD + b"data: ", b" " * 65536),
    "comments": flooding(HEAD, b": still thinking\n\n" * 1000),
    "chunks": flooding(HEAD, event(chunk("", role="assistant")) * 100),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", FLOODS)
def test_floods(name: str, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What never ends is read no further than the largest answer, and not asked for again."""
    monkeypatch.setattr("llmcall.responses.LARGEST", 2**20)
    with RawServer(FLOODS[name]) as server, client_for(server.base_url) as client:
        error = asked(client, way, "x")
    assert isinstance(error, ServiceError), repr(error)
    assert len(server.requests) == error.attempts
    if name in ("a body", "comments") and (name == "a body") == (way in ("sync", "async")):
        assert "larger than 1 MiB" in str(error)


def redirecting(target: str, status: int = 307) -> Any:
    """Answer with a redirect."""
    return answering(Answer(status, "", {"Location": target}))


def plain(base_url: str, http_client: Any = None, **settings: Any) -> OpenAIClient:
    """Return a client of OpenAI's API at a server, with the SDK's own HTTP client or one that the test closes."""
    given = {"api_key": "the-key-1234", "retry_max_attempts": 3, "base_url": base_url, **settings}
    return OpenAIClient(http_client=http_client, **given)


@pytest.mark.parametrize("way", WAYS)
def test_a_redirect_on_the_same_server(way: str) -> None:
    """It is followed, with prompt and key."""
    good = streams(*chunks_of("Two coins.")) if "stream" in way else answers()
    with RawServer(redirecting("/v2/chat/completions"), good) as server, plain(server.base_url) as client:
        assert asked(client, way, "x") == "Two coins."
    assert [seen.path for seen in server.requests] == ["/v1/chat/completions", "/v2/chat/completions"]
    assert server.requests[1].headers["authorization"] == "Bearer the-key-1234"
    assert server.requests[1].body["messages"] == [{"role": "user", "content": "x"}]


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
def test_a_certificate_that_nobody_vouches_for(way: str) -> None:
    """A server that cannot show who it is gets neither key nor prompt."""
    made_certificate(Path.cwd())
    with TLSServer(self_signed) as server, plain(server.base_url, retry_max_attempts=1) as client:
        error = WAYS_RAISING[way](client)
    assert type(error) is ServiceError and "certificate" in str(error).lower()
    assert not any(server.received)
