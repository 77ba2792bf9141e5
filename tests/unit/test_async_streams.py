"""Streams without blocking: they come as they are sent, and may be left at any time."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from servers import QUESTION, RawServer
from streaming import TWO_COINS, Paused, streams

import llmcall
from llmcall.engine.single_flight import process_flights
from llmcall.testing import ScriptedClient


def client_for(base_url: str) -> llmcall.OpenAIClient:
    """Return a client of a server on the loopback."""
    return llmcall.OpenAIClient(base_url=base_url)


def test_a_stream_comes_as_it_is_sent() -> None:
    """The first piece is there before the last is sent."""
    server = Paused(*TWO_COINS, after=2)

    async def main() -> None:
        with RawServer(server) as raw:
            client = client_for(raw.base_url)
            async with client.astream_message(QUESTION) as stream:
                assert await anext(stream) == "Two"
                assert stream.reply is None
                server.go_on.set()
                assert [piece async for piece in stream] == [" coins", "."]
                assert stream.reply == {"role": "assistant", "content": "Two coins."}
            assert [piece async for piece in client.astream_message(QUESTION)] == ["Two", " coins."]
            await client.aclose()

    asyncio.run(main())


@pytest.mark.parametrize("how", ["leave", "cancel", "exception"])
def test_leaving_a_stream_early(how: str) -> None:
    """A reader who leaves, is cancelled or fails closes the connection; nothing is stored, the draw is free."""
    server = Paused(*TWO_COINS, after=2)

    async def read(client: llmcall.LLMClient, begun: asyncio.Event) -> None:
        async with client.astream_message(QUESTION) as stream:
            assert await anext(stream) == "Two"
            begun.set()
            if how == "exception":
                raise ZeroDivisionError
            if how == "cancel":
                await anext(stream)

    async def main() -> Any:
        with RawServer(server, streams(*TWO_COINS)) as raw, llmcall.scope("a"):
            client, begun = client_for(raw.base_url), asyncio.Event()
            reading = asyncio.create_task(read(client, begun))
            await begun.wait()
            if how == "cancel":
                reading.cancel()
            outcome = (await asyncio.gather(reading, return_exceptions=True))[0]
            assert await asyncio.to_thread(server.left.wait, 5)
            assert (len(client.cache), process_flights._flights) == (0, {})
            assert client.build_request(QUESTION).sample == "a#0"
            await client.aclose()
            return outcome

    outcome = asyncio.run(main())
    assert (
        type(outcome).__name__
        == {"leave": "NoneType", "cancel": "CancelledError", "exception": "ZeroDivisionError"}[how]
    )


def test_a_transport_that_streams_in_threads() -> None:
    """Chunks of a transport without an asynchronous way come one by one, and its generator is closed at the end."""
    closed = []

    class Blocking(ScriptedClient):
        def stream(self, request: Any, timeout: float | None) -> Iterator[dict[str, Any]]:
            try:
                yield from super().stream(request, timeout)
            finally:
                closed.append(True)

    async def main() -> None:
        client = Blocking(["one two three"] * 2)
        async with client.astream_message("x") as stream:
            assert [piece async for piece in stream] == ["one", " two", " three"]
        async with client.astream_message("x") as stream:
            assert await anext(stream) == "one"

    asyncio.run(main())
    assert closed == [True, True]
