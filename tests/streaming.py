"""Streams of chunks for tests: what a server sends piece by piece, and the four ways of asking."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Iterator
from typing import Any

from servers import TOO_LONG, Behaviour, sends

import llmcall

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nx-request-id: req-stream\r\nConnection: close\r\n\r\n"
NAMES = {
    "id": "chatcmpl-1",
    "object": "chat.completion.chunk",
    "created": 1700000000,
    "model": "gpt-4o-mini-2024-07-18",
}
PRICES = {"gpt-4o-mini": (1.0, 2.0)}
USAGE = {"prompt_tokens": 12, "completion_tokens": 3, "total_tokens": 15}


def chunk(content: Any = None, finish_reason: str | None = None, **delta: Any) -> dict[str, Any]:
    """Return a chunk with a piece of text, or with the end."""
    delta = delta if content is None else {"content": content, **delta}
    return {
        **NAMES,
        "choices": [{"index": 0, "delta": delta, "finish_reason": finish_reason, "logprobs": None}],
    }


def chunks_of(
    *pieces: str, finish_reason: str = "stop", usage: Any = USAGE
) -> list[dict[str, Any]]:
    """Return the chunks of an answer as OpenAI's API streams it."""
    ending = [] if usage is None else [{**NAMES, "choices": [], "usage": usage}]
    return [
        chunk("", role="assistant", refusal=None),
        *map(chunk, pieces),
        chunk(None, finish_reason),
        *ending,
    ]


TWO_COINS = chunks_of("Two", " coins", ".")


def event(data: Any) -> bytes:
    """Return a server-sent event."""
    return b"data: " + (data if isinstance(data, bytes) else json.dumps(data).encode()) + b"\n\n"


def streams(*chunks: Any, done: bool = True) -> Behaviour:
    """Send some chunks as events, then ``[DONE]``."""
    data = HEAD + b"".join(map(event, chunks)) + (event(b"[DONE]") if done else b"")
    return sends(data)


class Streamed(llmcall.LLMClient):
    """Stream chunks; an exception among them is raised."""

    api_type = "streamed"

    def __init__(self, *chunks: Any, **settings: Any) -> None:
        self.chunks, self.closed = chunks, 0
        super().__init__(
            **{"model": "gpt-4o-mini", "prices": PRICES, "retry_waiting_time": 0, **settings}
        )

    def send(self, request: Any, timeout: float | None) -> Any:
        """Never answer as a whole."""
        raise AssertionError("a stream was asked for")

    def stream(self, request: Any, timeout: float | None) -> Iterator[Any]:
        """Yield the chunks."""
        try:
            for each in self.chunks:
                if isinstance(each, BaseException):
                    raise each
                yield each
        finally:
            self.closed += 1


class Paused:
    """Send the chunks up to a text, wait to be let on, and send the rest; or notice that the reader
    has left.

    :ivar paused: is set when the first part was sent.
    :ivar go_on: lets the rest go.
    :ivar left: is set when the reader closed the connection.
    """

    def __init__(self, *chunks: Any, after: int) -> None:
        self.paused, self.go_on, self.left = threading.Event(), threading.Event(), threading.Event()
        self._chunks, self._after = chunks, after

    def __call__(self, connection: socket.socket, stopped: threading.Event) -> None:
        """Behave as a server does."""
        connection.sendall(HEAD + b"".join(map(event, self._chunks[: self._after])))
        self.paused.set()
        connection.settimeout(0.01)
        while not self.go_on.is_set() and not stopped.is_set():
            try:
                gone = not connection.recv(1)
            except TimeoutError:
                continue
            except ConnectionError:  # it left something unread
                gone = True
            if gone:
                self.left.set()
                return
        connection.settimeout(TOO_LONG)
        connection.sendall(b"".join(map(event, [*self._chunks[self._after :], b"[DONE]"])))


def sync_call(
    client: llmcall.LLMClient, messages: Any, **arguments: Any
) -> llmcall.types.Reply | None:
    """Ask by send_message."""
    return client.send_message(messages, **arguments)


def async_call(
    client: llmcall.LLMClient, messages: Any, **arguments: Any
) -> llmcall.types.Reply | None:
    """Ask by asend_message, in an event loop of its own."""
    return asyncio.run(client.asend_message(messages, **arguments))


def stream_call(
    client: llmcall.LLMClient, messages: Any, **arguments: Any
) -> llmcall.types.Reply | None:
    """Ask by stream_message and read to the end; the pieces are the text."""
    with client.stream_message(messages, **arguments) as stream:
        text = "".join(stream)
    assert stream.reply is None or text == (stream.reply.content or "")
    return stream.reply


def astream_call(
    client: llmcall.LLMClient, messages: Any, **arguments: Any
) -> llmcall.types.Reply | None:
    """Ask by astream_message and read to the end, in an event loop of its own."""

    async def read() -> llmcall.types.Reply | None:
        async with client.astream_message(messages, **arguments) as stream:
            text = "".join([piece async for piece in stream])
        assert stream.reply is None or text == (stream.reply.content or "")
        return stream.reply

    return asyncio.run(read())


WAYS = {"sync": sync_call, "async": async_call, "stream": stream_call, "astream": astream_call}
