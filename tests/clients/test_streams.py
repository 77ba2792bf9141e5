"""Streamed answers: they come as they are sent, are recorded as if they had come whole, and may be
left at any time.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextvars import ContextVar
from functools import partial
from typing import Any

import pytest
from clients import PRICES, WAYS, Responding, Streamed, client_for
from servers import (
    HEAD,
    NAMES,
    OK,
    QUESTION,
    TWO_COINS,
    USAGE,
    Answer,
    Paused,
    RawServer,
    answers,
    chunk,
    chunks_of,
    completion,
    event,
    refusal,
    sends,
    stays_silent_after,
    streams,
)

import llmcall
from llmcall import ServiceError
from llmcall.testing import ScriptedClient


def read(client: Any, **arguments: Any) -> tuple[list[str], Any]:
    """Ask and read to the end; return the pieces and the reply."""
    with client.stream_message(QUESTION, **arguments) as stream:
        pieces = list(stream)
    return pieces, stream.reply


def test_pieces_come_as_they_are_sent() -> None:
    """The first piece is there before the last is sent, and the reply at the end: it has the whole message, and says
    where it came from.
    """
    server = Paused(*TWO_COINS, after=2)
    with RawServer(server) as raw, client_for(raw.base_url).stream_message(QUESTION) as stream:
        assert next(stream) == "Two"
        assert server.paused.wait(60)
        assert stream.reply is None
        server.go_on.set()
        assert list(stream) == [" coins", "."]
        assert list(stream) == []
    assert repr(stream) == "Stream(ended)"
    assert stream.reply == {"role": "assistant", "content": "Two coins."}
    assert (stream.reply.cached, stream.reply.finish_reason) == (False, "stop")
    assert (stream.reply.model, stream.reply.usage.output_tokens) == ("gpt-4o-mini-2024-07-18", 3)
    assert stream.reply.latency > 0


@pytest.mark.parametrize("key", ["own-key", None])
def test_a_stream_is_sent_as_configured_where_it_was_made(key: str | None) -> None:
    """Where it is read, other settings may hold; a server without a key gets no other's."""
    client = llmcall.OpenAIClient(on_error="raise", retry_max_attempts=1)

    async def read_all(stream: Any) -> str:
        return "".join([piece async for piece in stream])

    with RawServer(streams(*TWO_COINS)) as server:
        with llmcall.configured(base_url=server.base_url, api_key=key, api="chat"):
            stream, async_stream = client.stream_message("1"), client.astream_message("2")
        with llmcall.configured(base_url="http://127.0.0.1:9/v1", api_key="no", api="responses"):
            assert "".join(stream) == asyncio.run(read_all(async_stream)) == "Two coins."
    assert [seen.path for seen in server.requests] == ["/v1/chat/completions"] * 2
    headers = [seen.headers.get("authorization") for seen in server.requests]
    assert headers == [f"Bearer {key or 'no key needed'}"] * 2


@pytest.mark.parametrize("way", ["stream", "astream"])
def test_a_stream_has_ended_though_its_server_keeps_the_connection(way: str) -> None:
    """Nothing follows the event ``[DONE]``."""
    answer = HEAD + b"".join(map(event, [*TWO_COINS, b"[DONE]"]))
    with (
        RawServer(stays_silent_after(answer)) as server,
        client_for(server.base_url, timeout=30) as client,
    ):
        reply = WAYS[way](client, "How many?", on_error="raise")
    assert reply.content == "Two coins."  # type: ignore[union-attr]


@pytest.mark.parametrize("recorded_by", ["a stream", "a call"])
def test_a_recorded_answer_is_streamed_word_by_word(recorded_by: str) -> None:
    """Whichever way it was recorded, and without a call; a call finds it, too."""
    with RawServer(streams(*TWO_COINS) if recorded_by == "a stream" else answers(OK)) as raw:
        client = client_for(raw.base_url)
        read(client) if recorded_by == "a stream" else client.send_message(QUESTION)
        pieces, reply = read(client)
        assert client.send_message(QUESTION, on_error="raise").cached
    assert (pieces, reply.cached) == (["Two", " coins."], True)
    assert len(raw.requests) == 1
    assert (client.usage.calls, client.usage.cached_calls) == (1, 2)


NO_REASONS = [chunk("Two"), {**NAMES, "choices": [{"index": 0, "delta": {"content": " coins."}}]}]


@pytest.mark.parametrize("way", ["stream", "astream"])
def test_a_stream_without_a_finish_reason_is_whole_if_it_ends_with_done(way: str) -> None:
    """Snowflake Cortex, OpenRouter's Novita and older Ollama send none."""
    with RawServer(streams(*NO_REASONS)) as raw:
        client = client_for(raw.base_url)
        live, replayed = (WAYS[way](client, QUESTION) for _ in range(2))
    assert live == replayed == {"role": "assistant", "content": "Two coins."}
    assert replayed is not None
    assert (replayed.cached, replayed.finish_reason) == (True, None)


@pytest.mark.parametrize("way", ["stream", "astream"])
def test_a_whole_answer_in_place_of_a_stream_needs_no_finish_reason(way: str) -> None:
    whole = {"choices": [{"index": 0, "message": {"role": "assistant", "content": "Two coins."}}]}
    with RawServer(answers(Answer(200, whole))) as raw:
        reply = WAYS[way](client_for(raw.base_url), QUESTION, on_error="raise")
    assert reply == {"role": "assistant", "content": "Two coins."}


BROKEN: dict[str, tuple[Any, str, list[str]]] = {
    "an error event": (
        streams(*TWO_COINS[:3], {"error": {"message": "overloaded"}}),
        "overloaded",
        ["Two", " coins"],
    ),
    "no end": (
        streams(*TWO_COINS[:3], done=False),
        "broke off after 3 chunks: no finish_reason for choice 0",
        ["Two", " coins"],
    ),
    "an ending that is none": (
        streams(TWO_COINS[1], {**NAMES, "choices": [{"index": 0, "finish_reason": "abort"}]}),
        "finish_reason abort",
        ["Two"],
    ),
    "HTML": (sends(HEAD + b"<html>Sign in</html>"), "malformed answer, not JSON: b'<html>", []),
    "vLLM's error": (
        streams(TWO_COINS[1], {"object": "error", "message": "busy", "code": 500}),
        "500: busy",
        ["Two"],
    ),
}


TOOL_USE_FAILED = {
    "message": "Failed to call a function.",
    "code": "tool_use_failed",
    "failed_generation": "<function=price_of>",
    "status_code": 400,
}


@pytest.mark.parametrize("way", ["stream", "astream"])
def test_an_error_event_keeps_its_code_and_fields(way: str) -> None:
    """Its status is the one that it names; here it says that another attempt is of no use."""
    with (
        RawServer(streams({"error": TOOL_USE_FAILED})) as raw,
        pytest.raises(llmcall.InvalidRequestError, match="400: Failed to call") as caught,
    ):
        WAYS[way](client_for(raw.base_url), QUESTION, on_error="raise")
    assert (caught.value.code, caught.value.body) == ("tool_use_failed", TOOL_USE_FAILED)
    assert len(raw.requests) == 1


def breaking(name: str) -> Any:
    """Return a client of a server whose streams break in a way, with that server."""
    raw = RawServer(BROKEN[name][0])
    return raw, client_for(raw.base_url)


@pytest.mark.parametrize("name", BROKEN)
def test_a_stream_that_breaks_is_an_error_after_its_pieces(name: str) -> None:
    """An error that is to be returned has no reply's place there, and is raised. It is one error, and nothing
    is stored. It is final: only where no piece has come, another attempt is made.
    """
    _, words, pieces = BROKEN[name]
    raw, client = breaking(name)
    got: list[str] = []
    with (
        raw,
        client.stream_message(QUESTION, on_error="return") as stream,
        pytest.raises(ServiceError, match=words),
    ):
        for piece in stream:
            got.append(piece)
    assert got == pieces
    assert (len(client.cache), client.usage.errors) == (0, 1)
    assert len(raw.requests) == (1 if pieces else 3)


def test_a_stream_that_breaks_is_logged_if_on_error_says_so(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It ends after its pieces, without a reply."""
    raw, client = breaking("no end")
    with raw:
        assert read(client, on_error="none") == (["Two", " coins"], None)
    [line] = (entry.getMessage() for entry in caplog.records if entry.levelno == logging.ERROR)
    assert "The stream's reply is None" in line


def test_a_failure_before_the_first_piece_of_a_stream_is_tried_again() -> None:
    """A refusal, and a stream that breaks before any text."""
    overloaded, empty = answers(refusal(503, "overloaded")), streams(TWO_COINS[0], done=False)
    with RawServer(overloaded, empty, streams(*TWO_COINS)) as raw:
        client = client_for(raw.base_url)
        pieces, _ = read(client)
    assert (pieces, client.usage.retries) == (["Two", " coins", "."], 2)
    assert len(raw.requests) == 3


def test_a_refusal_of_stream_options_is_followed_by_a_stream_without_them() -> None:
    """An older server knows none. The request is the unstreamed one with ``stream`` and its options."""
    refused = answers(refusal(400, "Unrecognized request argument supplied: stream_options"))
    with RawServer(refused, streams(*chunks_of("Two", usage=None))) as raw:
        assert read(client_for(raw.base_url), temperature=0.5)[0] == ["Two"]
    model = {"model": "gpt-6-luna", "reasoning_effort": "none"}
    asked = {**model, "messages": QUESTION, "temperature": 0.5, "stream": True}
    options = {"stream_options": {"include_usage": True}}
    assert [seen.body for seen in raw.requests] == [{**asked, **options}, asked]


# Readers who leave: what was used until then is billed, as in a budget

PIECES = ("one", " two", " three")
Leave = Callable[..., None]


class AStreamed(Streamed):
    """Stream chunks to a task, too; closing that takes some steps of the event loop, or none."""

    steps = 0

    async def astream(self, request: Any, timeout: float | None) -> AsyncIterator[Any]:
        """Yield the chunks."""
        chunks = self.stream(request, timeout)
        try:
            for part in chunks:
                yield part
        finally:
            for _ in range(self.steps):
                await asyncio.sleep(0)
            chunks.close()  # type: ignore[attr-defined]


def leave(client: llmcall.LLMClient, **arguments: Any) -> None:
    """Read one piece and close the stream."""
    with client.stream_message("Hello", **arguments) as stream:
        next(stream)
    assert stream.reply is None


def aleave(client: llmcall.LLMClient, **arguments: Any) -> None:
    """Read one piece in a task and close the stream."""

    async def main() -> None:
        async with client.astream_message("Hello", **arguments) as stream:
            await anext(stream)

    asyncio.run(main())


def acancel(client: llmcall.LLMClient, **arguments: Any) -> None:
    """Read one piece in a task that is cancelled while it waits for the next."""

    async def read(begun: asyncio.Event) -> None:
        async with client.astream_message("Hello", **arguments) as stream:
            await anext(stream)
            begun.set()
            await anext(stream)

    async def main() -> None:
        begun = asyncio.Event()
        task = asyncio.create_task(read(begun))
        await begun.wait()
        task.cancel()
        assert [
            type(outcome) for outcome in await asyncio.gather(task, return_exceptions=True)
        ] == [asyncio.CancelledError]

    asyncio.run(main())


@pytest.mark.parametrize("leaving", [leave, aleave, acancel])
def test_leaving_a_stream_closes_the_connection(leaving: Leave) -> None:
    """However a reader leaves, the connection is closed at once, and nothing is stored."""
    server = Paused(*TWO_COINS, after=2)
    with RawServer(server) as raw:
        client = client_for(raw.base_url)
        leaving(client)
        assert server.left.wait(60)
    assert len(client.cache) == 0


def read_on(client: llmcall.LLMClient) -> None:
    """Read a stream after its block, which was left in the middle."""
    with client.stream_message("Hello") as stream:
        next(stream)
    assert repr(stream) == "Stream(left)"
    list(stream)


def read_chunks_on(client: llmcall.LLMClient) -> None:
    """Read a stream's chunks after it was closed unread."""
    stream = client.stream_message("Hello")
    stream.close()
    next(stream.chunks())


def aread_on(client: llmcall.LLMClient) -> None:
    """Read a stream in a task after its block, which was left in the middle."""

    async def main() -> None:
        async with client.astream_message("Hello") as stream:
            await anext(stream)
        await anext(stream)

    asyncio.run(main())


@pytest.mark.parametrize("reading", [read_on, read_chunks_on, aread_on])
def test_reading_a_stream_after_it_was_left_is_an_error(reading: Leave) -> None:
    """It names the model; else the text would seem to end there."""
    client = ScriptedClient(lambda messages: "one two three", model="m", cache_mode="off")
    with pytest.raises(ValueError, match=r"the stream of m was closed early.*with block"):
        reading(client)
    assert client.send_message("Hello").content == "one two three"  # type: ignore[union-attr]


def test_a_stream_that_a_closed_loop_has_left_returns_what_it_reserved() -> None:
    """It counts as a call, as any stream that its reader leaves."""
    client = ScriptedClient(lambda messages: "one two three", cache_mode="off", on_error="raise")

    async def begin() -> Any:
        stream = client.astream_message("Hello")
        await anext(stream)
        return stream

    with llmcall.budget(calls=2) as budget, pytest.warns(ResourceWarning, match="left unread"):
        loop = asyncio.new_event_loop()
        stream = loop.run_until_complete(begin())
        loop.close()
        del stream
        gc.collect()
        assert client.send_message("Hello", deadline=5)["content"] == "one two three"
        assert budget.spent.calls == 2


@pytest.mark.parametrize("kind", ["stream", "asynchronous stream"])
def test_a_stream_that_is_left_unread_is_a_resource_warning(kind: str) -> None:
    """It names the model, and the remedy; a stream that was read, closed or never begun is none."""
    client = ScriptedClient(lambda messages: "one two three", model="m", cache_mode="off")

    async def left() -> None:
        await anext(client.astream_message("Hello"))

    with pytest.warns(ResourceWarning, match="a stream of m was left unread; open it in a with"):
        if kind == "stream":
            next(client.stream_message("Hello"))
        else:
            asyncio.run(left())
    client.stream_message("Hello")
    leave(client)
    list(client.stream_message("Hello"))


def test_chunks_of_a_synchronous_transport_come_to_a_task_one_by_one() -> None:
    """Its generator is closed at the end."""
    client = Streamed(*chunks_of(*PIECES), cache_mode="off")

    async def main() -> None:
        async with client.astream_message("x") as stream:
            assert [piece async for piece in stream] == [*PIECES]

    asyncio.run(main())
    assert client.closed == 1


class Stuck(llmcall.LLMClient):
    """Yields a chunk, then waits until ``go_on`` is set."""

    def __init__(self) -> None:
        super().__init__(model="m", cache_mode="off", retry_max_attempts=1)
        self.go_on, self.closed = threading.Event(), threading.Event()

    def send(self, request: Any, timeout: float | None) -> Any:
        return completion("Two coins")

    def stream(self, request: Any, timeout: float | None) -> Iterator[Any]:
        try:
            yield chunk("Two")
            self.go_on.wait(30)
            yield chunk(" coins")
        finally:
            self.closed.set()


@pytest.mark.parametrize("limit", ["timeout", "deadline"])
def test_a_synchronous_transport_that_takes_too_long_is_a_timeout_in_a_task(limit: str) -> None:
    """Its generator is closed as soon as it goes on."""
    client = Stuck()

    async def main() -> None:
        options: dict[str, Any] = {limit: 0.2, "on_error": "raise"}
        with pytest.raises(llmcall.RequestTimeoutError):
            async for _ in client.astream_message("x", **options):
                pass
        assert not client.closed.is_set()
        client.go_on.set()

    asyncio.run(main())
    assert client.closed.wait(30)


def counted(client: llmcall.LLMClient, text: str) -> tuple[int, int]:
    """Return the tokens of the prompt and of a text, as they are counted here."""
    prompt = client.count_tokens([{"role": "user", "content": "Hello"}])
    return int(prompt), int(client.count_tokens(text)) if text else 0


def billed(leaving: Leave, client: llmcall.LLMClient, tokens: tuple[int, int]) -> None:
    """Check that usage and budget say of a stream whose reader leaves that it is a call of so many
    tokens.
    """
    with (
        llmcall.budget(usd=1, tokens=100_000) as budget,
        llmcall.track() as usage,
        llmcall.scope("trial"),
    ):
        leaving(client)
    cost = (tokens[0] * 1.0 + tokens[1] * 2.0) / 1e6
    found = (
        usage.calls,
        usage.cached_calls,
        usage.retries,
        usage.errors,
        usage.input_tokens,
        usage.output_tokens,
    )
    assert found == (1, 0, 0, 0, *tokens)
    assert usage.cost == pytest.approx(cost)
    assert (usage.by_scope.keys(), usage.by_model.keys()) == ({"trial"}, {"gpt-4o-mini"})
    assert budget.spent == (pytest.approx(usage.cost), sum(tokens), usage.calls)


REPORTED = [
    {**part, "usage": {**USAGE, "completion_tokens": at}}
    for at, part in enumerate(chunks_of(*PIECES))
]


@pytest.mark.parametrize("leaving", [leave, aleave])
@pytest.mark.parametrize(
    ("make", "tokens"),
    [
        (lambda: Streamed(*chunks_of(*PIECES)), None),
        (lambda: AStreamed(*chunks_of(*PIECES)), None),
        (lambda: Streamed(*REPORTED), (12, 1)),
        (
            lambda: Responding(
                completion("one two", usage=USAGE), model="gpt-4o-mini", prices=PRICES
            ),
            (12, 3),
        ),
    ],
    ids=["counted here", "counted here, in tasks", "reported with each chunk", "in one piece"],
)
def test_a_stream_that_is_left_counts_as_a_call(
    leaving: Leave, make: Any, tokens: tuple[int, int] | None
) -> None:
    """The prompt and what came until the reader left are billed: as the server reported, else as a
    budget counts.
    """
    client = make()
    billed(leaving, client, tokens or counted(client, "one"))


PLACE: ContextVar[str] = ContextVar("place", default="the reader's")


class Placed(Streamed):
    """Sets the place in the context in which its stream ends."""

    def stream(self, request: Any, timeout: float | None) -> Iterator[Any]:
        """Yield the chunks."""
        try:
            yield from super().stream(request, timeout)
        finally:
            PLACE.set("the transport's")


@pytest.mark.parametrize("kind", ["stream", "asynchronous stream"])
def test_a_stream_left_in_a_cycle_counts_and_sets_nothing_in_the_context_that_runs(
    kind: str,
) -> None:
    """The garbage collector may end it in the middle of ``ContextVar.set``: before Python 3.12, another
    set in the same context would then crash Python.
    """
    client = Placed(*chunks_of(*PIECES))

    def leave_in_cycle(stream: Any) -> None:
        cycle = [stream]
        cycle.append(cycle)

    async def begun() -> Any:
        stream = client.astream_message(QUESTION)
        await anext(stream)
        return stream

    async def left() -> str:
        leave_in_cycle(await begun())
        gc.collect()
        return PLACE.get()

    with pytest.warns(ResourceWarning, match="was left unread"):
        if kind == "stream":
            stream = client.stream_message(QUESTION)
            next(stream)
            leave_in_cycle(stream)
            del stream
            gc.collect()
            place = PLACE.get()
        else:
            place = asyncio.run(left())
    assert place == "the reader's"
    assert (client.closed, client.usage.calls) == (1, 1)


@pytest.mark.parametrize("kind", [Streamed, AStreamed])
@pytest.mark.parametrize(
    ("chunks", "attempts", "text"),
    [
        ([*chunks_of(*PIECES)[:2], ServiceError("the connection broke")], 1, "one"),
        ([chunk("", role="assistant"), ServiceError("the connection broke")], 3, ""),
        (chunks_of(*PIECES)[:3], 1, "one two"),
    ],
    ids=["in the text", "before the text", "without a reason"],
)
def test_a_budget_spends_what_a_broken_stream_used(
    chunks: list[Any], attempts: int, text: str, kind: type[Streamed]
) -> None:
    """It is an error and no call, and cannot pass a budget: what came of each attempt counts."""
    client = kind(*chunks, retry_max_attempts=3, retry_waiting_time=0)

    async def read() -> None:
        assert "".join([piece async for piece in client.astream_message("Hello")]) == text

    with llmcall.budget(tokens=100_000) as budget:
        asyncio.run(read())
    prompt, output = counted(client, text)
    usage = client.usage
    assert (usage.calls, usage.errors) == (0, 1)
    assert (usage.input_tokens, usage.output_tokens) == (attempts * prompt, attempts * output)
    assert budget.spent[1:] == (attempts * (prompt + output), 0)


def close_unread(client: llmcall.LLMClient) -> None:
    """Close a stream before its first piece."""
    client.stream_message("Hello").close()


def interrupt_at_once(client: llmcall.LLMClient) -> None:
    """Interrupt a stream before its first chunk."""
    with pytest.raises(KeyboardInterrupt):
        next(client.stream_message("Hello"))


@pytest.mark.parametrize("leaving", [close_unread, interrupt_at_once])
def test_a_stream_of_which_nothing_came_is_no_call(leaving: Leave) -> None:
    """Neither usage nor a budget counts it."""
    client = Streamed(KeyboardInterrupt())
    with llmcall.budget(tokens=100_000) as budget:
        leaving(client)
    assert client.usage == llmcall.types.Usage()
    assert (budget.spent.calls, budget.spent.tokens) == (0, 0)


def cancel(client: llmcall.LLMClient, method: str = "asend_message") -> None:
    """Cancel a call as soon as it has begun."""

    async def main() -> None:
        task = asyncio.ensure_future(getattr(client, method)("Hello"))
        for _ in range(3):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(main())


LEAVING = pytest.mark.parametrize(
    "leaving", [leave, aleave, cancel, partial(cancel, method="aget_embedding")]
)


@LEAVING
@pytest.mark.parametrize(("where", "sample"), [("s", "s#0"), (None, None)])
def test_a_stream_that_was_left_gives_its_draw_back(
    leaving: Leave, where: str | None, sample: str | None
) -> None:
    """The next call that asks the same draws the same number."""
    client = ScriptedClient(lambda messages: "once upon a time", cache_mode="auto")
    with llmcall.scope(where):
        leaving(client)
        assert client.send_message("Hello", on_error="raise").sample == sample


@LEAVING
def test_the_end_of_a_cassette_reports_streams_that_were_left(
    leaving: Leave, caplog: pytest.LogCaptureFixture
) -> None:
    """Though the same is asked later."""
    client = ScriptedClient(lambda messages: "once upon a time", cache_mode="auto")
    with llmcall.cassette("left.jsonl"):
        leaving(client)
        client.send_message("Hello", on_error="raise")
    assert "1 call ended before the whole answer arrived" in caplog.text
