"""Tests of streaming from any address, over a real socket."""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import aclosing, asynccontextmanager
from typing import Any, NamedTuple

import httpx
import pytest

from llmcall import aio
from llmcall.aio import chat_completion, chat_completion_stream
from llmcall.responses import streaming

BODY = {"model": "m", "messages": [{"role": "user", "content": "Hello"}], "stream": True}
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n"
PATIENCE = 20  # seconds, after which a test that waits for what never comes fails


class Connection(NamedTuple):
    """Be the server's side of one connection, its request read."""

    head: str
    body: Any
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def send(self, *parts: bytes) -> None:
        """Send each part as an HTTP chunk of its own, which is how httpx gives it on."""
        for part in parts:
            self.writer.write(b"%x\r\n%s\r\n" % (len(part), part))
        await self.writer.drain()


Script = Callable[[Connection], Awaitable[None]]


@asynccontextmanager
async def serving(script: Script) -> AsyncIterator[str]:
    """Serve every request by a script, and give the address."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        length = int(head.lower().partition("content-length: ")[2].partition("\r\n")[0])
        try:
            await script(Connection(head, json.loads(await reader.readexactly(length)), reader, writer))
        finally:
            writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1/chat/completions"
    finally:
        server.close()


def events(*parts: bytes, head: bytes = HEAD) -> Script:
    async def script(connection: Connection) -> None:
        connection.writer.write(head + b"\r\n")
        await connection.send(*parts, b"")

    return script


def refusal(status: bytes, body: bytes) -> Script:
    async def script(connection: Connection) -> None:
        connection.writer.write(b"HTTP/1.1 %s\r\ncontent-length: %d\r\n\r\n%s" % (status, len(body), body))
        await connection.writer.drain()

    return script


def event(content: str) -> bytes:
    return f"data: {json.dumps({'choices': [{'delta': {'content': content}}]}, ensure_ascii=False)}\n\n".encode()


def run(test: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(asyncio.wait_for(test, PATIENCE))


async def pieces_from(script: Script, **options: Any) -> list[str]:
    async with serving(script) as url:
        return [piece async for piece in chat_completion_stream(url, BODY, **options)]


CASES: list[tuple[list[bytes], list[str]]] = [
    ([event("Hel"), event("lo"), b"data: [DONE]\n\n"], ["Hel", "lo"]),
    ([event("日本")[:40], event("日本")[40:41], event("日本")[41:42], event("日本")[42:]], ["日本"]),
    ([event("a").replace(b"\n", b"\r\n")[:-3], b"\r", b"\n", event("b")], ["a", "b"]),
    ([b": ping\n\nevent: x\nid: 1\nretry: 5\n", event("a"), b"data:[done]\n\n", event("never")], ["a"]),
    ([b'data: {"choices": [], "usage": {"total_tokens": 3}}\n\n', event("a")], ["a"]),
    ([b'data: {"error_code": 1, "text": "no memory"}\n\ndata: [DONE]\n\n'], ["no memory"]),
    ([b"<html>\nbusy\n", event("a")[:-2]], ["<html>", "busy", "a"]),
    ([], []),
]


@pytest.mark.parametrize(("parts", "pieces"), CASES)
def test_pieces(parts: list[bytes], pieces: list[str]) -> None:
    """What the server sends comes as pieces of text, wherever it is cut."""
    assert run(pieces_from(events(*parts))) == pieces


def test_compressed_answer() -> None:
    """A compressed stream is read as any other."""
    data = gzip.compress(event("Hello"))
    parts = [data[:10], data[10:]]
    assert run(pieces_from(events(*parts, head=HEAD + b"content-encoding: gzip\r\n"))) == ["Hello"]


def test_whole_text() -> None:
    """The other function gives the whole text at once."""

    async def test() -> str:
        async with serving(events(event("Hel"), event("lo"), b"data: [DONE]\n\n")) as url:
            return await chat_completion(url, BODY)

    assert run(test()) == "Hello"


def test_what_is_posted() -> None:
    """The body goes out as JSON with the headers that were given, by position too; the arguments stay as they are."""
    requests: list[Connection] = []

    async def script(connection: Connection) -> None:
        requests.append(connection)
        await events(event("a"))(connection)

    async def test() -> None:
        async with serving(script) as url, httpx.AsyncClient(base_url=url.removesuffix("/chat/completions")) as client:
            assert await chat_completion("/chat/completions", BODY, client, headers, 5, None) == "a"

    headers = {"Authorization": "Bearer secret"}
    run(test())
    assert requests[0].body == BODY
    assert requests[0].head.startswith("POST /v1/chat/completions HTTP/1.1\r\n")
    assert "authorization: bearer secret" in requests[0].head.lower()
    assert headers == {"Authorization": "Bearer secret"}


def test_the_first_piece_comes_before_the_last_is_sent() -> None:
    """The server waits with the second piece until the first has arrived."""

    async def test() -> list[str]:
        arrived = asyncio.Event()

        async def script(connection: Connection) -> None:
            connection.writer.write(HEAD + b"\r\n")
            await connection.send(event("first"))
            await arrived.wait()
            await connection.send(event("second"), b"")

        pieces = []
        async with serving(script) as url:
            async for piece in chat_completion_stream(url, BODY):
                pieces.append(piece)
                arrived.set()
        return pieces

    assert run(test()) == ["first", "second"]


def test_caller_is_awaited_before_each_piece() -> None:
    """The caller has finished with a piece before it is yielded; a plain function will do."""
    order: list[str] = []

    async def caller(text: str) -> None:
        order.append(f"called {text}")
        await asyncio.sleep(0)
        order.append(f"done {text}")

    async def test(given: Any) -> None:
        async with serving(events(event("a"), event("b"))) as url:
            async for piece in chat_completion_stream(url, BODY, caller=given):
                order.append(f"yielded {piece}")

    run(test(caller))
    assert order == ["called a", "done a", "yielded a", "called b", "done b", "yielded b"]
    order.clear()
    run(test(order.append))
    assert order == ["a", "yielded a", "b", "yielded b"]


@pytest.mark.parametrize("own", [True, False])
@pytest.mark.parametrize("ending", ["closed", "done"])
def test_the_connection_is_closed(own: bool, ending: str) -> None:
    """Leaving early, or [DONE], closes the connection while the server would go on; a given client stays open."""

    async def test() -> None:
        closed = asyncio.Event()

        async def script(connection: Connection) -> None:
            connection.writer.write(HEAD + b"\r\n")
            await connection.send(event("a"), *([b"data: [DONE]\n\n"] if ending == "done" else []))
            assert await connection.reader.read() == b""
            closed.set()

        async with serving(script) as url, httpx.AsyncClient() as client:
            stream = chat_completion_stream(url, BODY, None if own else client)
            async with aclosing(stream) as pieces:
                assert await anext(pieces) == "a"
                if ending == "done":
                    assert [piece async for piece in pieces] == []
            await closed.wait()
            assert not client.is_closed

    run(test())


def test_refused_request(caplog: pytest.LogCaptureFixture) -> None:
    """Another status than 200 is logged with its body, not with the credentials in it, and raised."""
    body = "über: key sk-12345678 (Bearer sk-12345678) or query-secret is wrong".encode() + b"\xff"

    async def test() -> None:
        async with serving(refusal(b"401 Unauthorized", body)) as url:
            await chat_completion(f"{url}?api-key=query-secret", BODY, headers={"Authorization": "Bearer sk-12345678"})

    with caplog.at_level(logging.ERROR, "llmcall"), pytest.raises(httpx.RequestError, match="status 401") as raised:
        run(test())
    assert raised.value.request.method == "POST"
    logged = [record.getMessage() for record in caplog.records if record.name == "llmcall"]
    assert logged == ["Request failed with status 401. Error: über: key *** (***) or *** is wrong\ufffd"]
    assert "secret" not in str(raised.value)


class Flood:
    """Send a piece without end, until the client leaves; ``left`` is set then."""

    def __init__(self, head: bytes, piece: bytes) -> None:
        self.left = asyncio.Event()
        self._head, self._piece = head, piece

    async def __call__(self, connection: Connection) -> None:
        """Be a script."""
        connection.writer.write(self._head)
        try:
            while True:
                connection.writer.write(self._piece)
                await connection.writer.drain()
        except ConnectionError:
            self.left.set()


async def flooded(flood: Flood) -> None:
    """Read a flood until it is given up, and wait until the connection is closed."""
    async with serving(flood) as url:
        try:
            await chat_completion(url, BODY)
        finally:
            await flood.left.wait()


def test_a_refusal_that_does_not_end(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a refusal without end, the start is logged, and the connection closed."""
    monkeypatch.setattr(aio, "LOGGED", 100_000)
    flood = Flood(b"HTTP/1.1 503 Busy\r\n\r\nnot now", b" no" * 10_000)
    with caplog.at_level(logging.ERROR, "llmcall"), pytest.raises(httpx.RequestError, match="status 503"):
        run(flooded(flood))
    (logged,) = [record.getMessage() for record in caplog.records if record.name == "llmcall"]
    assert "Error: not now no no" in logged
    assert len(logged) < 100_100


@pytest.mark.parametrize("start", [b"", b"data: {"], ids=["a line", "an event"])
def test_an_answer_that_does_not_end(start: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer without end is read no further than its size may be."""
    monkeypatch.setattr(streaming, "LARGEST", 2**20)
    with pytest.raises(httpx.RequestError, match="larger than 1 MiB, and was read no further"):
        run(flooded(Flood(b"HTTP/1.1 200 OK\r\n\r\n" + start, b" no" * 10_000)))


@pytest.mark.parametrize("status", [b"201 Created", b"307 Temporary Redirect", b"429 Too Many Requests", b"500 Failed"])
def test_other_statuses(status: bytes, caplog: pytest.LogCaptureFixture) -> None:
    """Every status other than 200 is refused, with an empty body too."""
    with pytest.raises(httpx.RequestError, match=f"status {status[:3].decode()}"):
        run(pieces_from(refusal(status, b"")))
    assert "llmcall" in {record.name for record in caplog.records}


def test_connection_that_breaks() -> None:
    """A connection that breaks inside the answer is an error, after the pieces that came."""
    pieces: list[str] = []

    async def script(connection: Connection) -> None:
        connection.writer.write(HEAD + b"\r\n")
        await connection.send(event("half"))

    with pytest.raises(httpx.RequestError):
        run(pieces_from(script, caller=pieces.append))
    assert pieces == ["half"]


def test_nobody_answers() -> None:
    """An address where nobody listens is httpx's own error."""

    async def test() -> None:
        async with serving(events()) as url:
            pass
        await chat_completion(url, BODY)

    with pytest.raises(httpx.ConnectError):
        run(test())


def test_timeout() -> None:
    """The timeout is the one that is given."""

    async def script(connection: Connection) -> None:
        await connection.reader.read()

    with pytest.raises(httpx.TimeoutException):
        run(pieces_from(script, timeout=0.01))


@pytest.mark.parametrize("broken", [b"data: {half\n\n", b'data: {"error": {"message": "too busy"}}\n\n'])
def test_broken_events(broken: bytes) -> None:
    """A malformed event and an error inside the stream are errors, after the pieces that came."""
    pieces: list[str] = []
    with pytest.raises(httpx.RequestError) as raised:
        run(pieces_from(events(event("a") + broken), caller=pieces.append))
    assert pieces == ["a"]
    assert raised.value.request.method == "POST"


def test_error_of_the_caller() -> None:
    """What the caller raises goes to whoever reads the stream."""

    async def caller(text: str) -> None:
        raise KeyError(text)

    with pytest.raises(KeyError, match="a"):
        run(pieces_from(events(event("a")), caller=caller))
