"""DB-GPT's functions: streams of any address."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import Any

import httpx
import pytest
from servers import (
    HEAD,
    QUESTION,
    TWO_COINS,
    Paused,
    RawServer,
    chunk,
    event,
    http,
    sends,
    stays_silent,
    stays_silent_after,
    streams,
)

from llmcall import aio

BODY = {"model": "m", "messages": QUESTION, "stream": True}


def text_events(*texts: str) -> bytes:
    """Return the events of some pieces of text."""
    return b"".join(event(chunk(text)) for text in texts)


def pieces_from(behaviour: Any, **options: Any) -> list[str]:
    """Return the pieces that a server's answer comes in."""

    async def read() -> list[str]:
        url = f"{server.base_url}/chat/completions"
        return [piece async for piece in aio.chat_completion_stream(url, BODY, **options)]

    with RawServer(behaviour) as server:
        return asyncio.run(read())


pieces_of_bodies = pytest.mark.parametrize(
    ("body", "pieces"),
    [
        (text_events("Hel", "lo") + b"data: [DONE]\n\n" + text_events("never"), ["Hel", "lo"]),
        (event({"choices": [], "usage": {"total_tokens": 3}}) + text_events("a"), ["a"]),
        (event({"error_code": 1, "text": "no memory"}) + event(b"[DONE]"), ["no memory"]),
        (b"<html>\nbusy\n" + text_events("a")[:-2], ["<html>", "busy", "a"]),
        (b"", []),
    ],
)


@pieces_of_bodies
def test_each_text_of_a_stream_comes_as_a_piece(body: bytes, pieces: list[str]) -> None:
    """Other fields are passed over, other lines are yielded as they are."""
    assert pieces_from(sends(HEAD + body)) == pieces


def test_a_stream_of_pieces_has_ended_though_its_server_keeps_the_connection() -> None:
    """Nothing follows the event ``[DONE]``."""
    answer = HEAD + text_events("Hel", "lo") + event(b"[DONE]")
    assert pieces_from(stays_silent_after(answer), timeout=30) == ["Hel", "lo"]


async def text_by_own_client(base_url: str, **headers: str) -> str:
    """Ask without an HTTP client."""
    return await aio.chat_completion(f"{base_url}/chat/completions", BODY, headers=headers)


async def text_by_given_client(base_url: str, **headers: str) -> str:
    """Ask by an HTTP client, which must stay open."""
    async with httpx.AsyncClient(base_url=base_url) as client:
        text = await aio.chat_completion("/chat/completions", BODY, client, headers, 60, None)
        assert not client.is_closed
        return text


by_own_and_given_client = pytest.mark.parametrize(
    "ask_text", [text_by_own_client, text_by_given_client], ids=["own", "given"]
)


@by_own_and_given_client
def test_the_body_of_a_stream_is_posted_as_json_with_the_given_headers(ask_text: Any) -> None:
    """The address is used as it is."""
    with RawServer(streams(*TWO_COINS)) as server:
        asyncio.run(ask_text(server.base_url, Authorization="Bearer secret"))
    (seen,) = server.requests
    assert seen.path == "/v1/chat/completions"
    assert seen.body == BODY
    assert seen.headers["authorization"] == "Bearer secret"


@by_own_and_given_client
def test_the_whole_text_of_a_stream_comes_back(ask_text: Any) -> None:
    """A given HTTP client stays open."""
    with RawServer(streams(*TWO_COINS)) as server:
        assert asyncio.run(ask_text(server.base_url)) == "Two coins."


@pytest.mark.parametrize("asynchronous", [True, False])
def test_the_caller_has_finished_with_a_piece_before_it_is_yielded(asynchronous: bool) -> None:
    """It may be a function or a coroutine function."""
    order: list[str] = []

    async def caller(text: str) -> None:
        await asyncio.sleep(0)
        order.append(text)

    async def read(base_url: str) -> None:
        callback = caller if asynchronous else order.append
        async for piece in aio.chat_completion_stream(f"{base_url}/x", BODY, caller=callback):  # type: ignore[arg-type]
            order.append(f"yielded {piece}")

    with RawServer(sends(HEAD + text_events("a", "b"))) as server:
        asyncio.run(read(server.base_url))
    assert order == ["a", "yielded a", "b", "yielded b"]


def test_what_the_caller_of_a_stream_raises_goes_to_the_reader() -> None:
    """The stream ends."""
    with pytest.raises(KeyError, match="a"):
        pieces_from(sends(HEAD + text_events("a")), caller={}.pop)


def test_a_stream_that_is_left_closes_its_connection() -> None:
    """The first piece comes before the last is sent."""
    server = Paused(*TWO_COINS, after=2)

    async def read(base_url: str) -> None:
        async with aclosing(aio.chat_completion_stream(f"{base_url}/x", BODY)) as pieces:
            assert await anext(pieces) == "Two"
        assert await asyncio.to_thread(server.left.wait, 60)

    with RawServer(server) as raw:
        asyncio.run(read(raw.base_url))


def refused_stream() -> httpx.RequestError:
    """Return the error of a stream that a server refuses with the credentials in its words."""
    body = "über: key sk-12345678 (Bearer sk-12345678) is wrong".encode() + b"\xff"
    with pytest.raises(httpx.RequestError) as raised:
        pieces_from(
            sends(http(body, status="401 X")), headers={"Authorization": "Bearer sk-12345678"}
        )
    return raised.value


def test_a_refused_stream_raises_an_error_of_its_request() -> None:
    """The error has the status."""
    error = refused_stream()
    assert "status 401" in str(error)
    assert error.request.method == "POST"


def test_the_body_of_a_refused_stream_is_logged_without_credentials(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Bytes that are no UTF-8 become U+FFFD."""
    refused_stream()
    logged = [record.getMessage() for record in caplog.records if record.name == "llmcall"]
    assert logged == ["Request failed with status 401. Error: über: key *** (***) is wrong\ufffd"]


BROKEN: dict[str, tuple[Any, list[str]]] = {
    "cut": (
        sends(HEAD.replace(b"Connection", b"Content-Length: 999\r\nConnection") + text_events("a")),
        ["a"],
    ),
    "malformed": (sends(HEAD + text_events("a") + b"data: {half\n\n"), ["a"]),
    "an error": (sends(HEAD + text_events("a") + event({"error": {"message": "too busy"}})), ["a"]),
    "silent": (stays_silent, []),
    "moved": (sends(http(b"", status="307 Temporary Redirect")), []),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_stream_that_breaks_raises_an_error_of_httpx(name: str) -> None:
    """The pieces that came are read before it."""
    behaviour, expected = BROKEN[name]
    pieces: list[str] = []
    with pytest.raises(httpx.RequestError) as raised:
        pieces_from(behaviour, caller=pieces.append, timeout=0.1 if name == "silent" else 60)
    assert (pieces, raised.value.request.method) == (expected, "POST")
