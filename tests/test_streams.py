"""Streamed answers: they come as they are sent, are recorded as if they had come whole, and may be
left at any time.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import sqlite3
import subprocess
import sys
import textwrap
import threading
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any

import pytest
from programs import start
from servers import (
    OK,
    QUESTION,
    RawServer,
    Responding,
    answers,
    client_for,
    completion,
    dripping,
    refusal,
    sends,
)
from streaming import (
    HEAD,
    PRICES,
    TWO_COINS,
    USAGE,
    Paused,
    Streamed,
    astream_call,
    chunk,
    chunks_of,
    event,
    stream_call,
    streams,
)

import llmcall
from llmcall import RateLimitError, ServiceError
from llmcall.testing import ScriptedClient


def read(client: Any, **arguments: Any) -> tuple[list[str], Any]:
    """Ask and read to the end; return the pieces and the reply."""
    with client.stream_message(QUESTION, **arguments) as stream:
        pieces = list(stream)
    return pieces, stream.reply


def test_pieces_come_as_they_are_sent() -> None:
    """The first piece is there before the last is sent, and the reply only at the end, as the repr
    says.
    """
    server = Paused(*TWO_COINS, after=2)
    with RawServer(server) as raw, client_for(raw.base_url).stream_message(QUESTION) as stream:
        assert repr(stream) == "Stream(open)"
        assert next(stream) == "Two"
        assert server.paused.wait(60)
        assert stream.reply is None
        server.go_on.set()
        assert list(stream) == [" coins", "."]
        assert stream.reply == {"role": "assistant", "content": "Two coins."}
        assert (list(stream), repr(stream)) == ([], "Stream(ended)")
    reply = stream.reply
    assert reply is not None
    assert (reply.cached, reply.finish_reason, reply.usage.output_tokens) == (False, "stop", 3)
    assert (reply.model, reply.latency > 0) == ("gpt-4o-mini-2024-07-18", True)


def test_replay_is_word_by_word() -> None:
    """A recorded answer comes word by word, whichever way it was recorded, and makes no call."""
    with RawServer(streams(*TWO_COINS), answers(OK)) as raw:
        client = client_for(raw.base_url)
        read(client)
        client.send_message(QUESTION, temperature=0.5)
        for arguments in ({}, {"temperature": 0.5}):
            pieces, reply = read(client, **arguments)
            assert (pieces, reply.cached) == (["Two", " coins."], True)
        assert client.send_message(QUESTION).cached  # type: ignore[union-attr]
    assert len(raw.requests) == 2
    assert (client.usage.calls, client.usage.cached_calls) == (2, 3)


EXHAUSTED = HEAD.replace(
    b"Connection:",
    b"x-ratelimit-remaining-requests: 0\r\nx-ratelimit-reset-requests: 300s\r\nConnection:",
)


@pytest.mark.parametrize("way", [stream_call, astream_call])
def test_the_head_of_a_stream_is_heard(way: Any) -> None:
    """The reply has the request's identifier, and what is left of the server's limits holds for the
    next call.
    """
    body = b"".join(map(event, [*TWO_COINS, b"[DONE]"]))
    with RawServer(sends(EXHAUSTED + body)) as raw:
        client = client_for(raw.base_url)
        assert way(client, QUESTION).request_id == "req-stream"
        with pytest.raises(RateLimitError, match="past the deadline"):
            client.send_message("Another question", deadline=5, on_error="raise")
        assert len(raw.requests) == 1


BROKEN: dict[str, tuple[Any, str, list[str]]] = {
    "an error event": (
        streams(*TWO_COINS[:3], {"error": {"message": "overloaded"}}),
        "overloaded",
        ["Two", " coins"],
    ),
    "no end": (streams(*TWO_COINS[:3]), "broke off", ["Two", " coins"]),
    "cut in a line": (
        sends(HEAD + event(TWO_COINS[1]) + event(TWO_COINS[2])[:-30]),
        "malformed chunk",
        ["Two"],
    ),
    "broken JSON": (
        sends(HEAD + event(TWO_COINS[1]) + b'data: {"choices": [}\n\n'),
        "malformed chunk",
        ["Two"],
    ),
    "HTML": (sends(HEAD + b"<html>Sign in</html>"), "malformed answer, not JSON: b'<html>", []),
    "nothing": (sends(HEAD), "broke off", []),
    "vLLM's error": (
        streams(TWO_COINS[1], {"object": "error", "message": "busy", "code": 500}),
        "500: busy",
        ["Two"],
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_errors_inside_a_stream(name: str, caplog: pytest.LogCaptureFixture) -> None:
    """A stream that breaks is an error after its pieces, raised or logged as on_error says, and
    never stored.

    An error that is to be returned has no reply's place there, and is raised.
    """
    behaviour, words, pieces = BROKEN[name]
    with RawServer(behaviour) as raw:
        client = client_for(raw.base_url, retry_max_attempts=1)
        with client.stream_message(QUESTION, on_error="return") as stream:
            got: list[str] = []
            with pytest.raises(ServiceError, match=words):
                for piece in stream:
                    got.append(piece)
        assert got == pieces
        assert read(client, on_error="none") == (pieces, None)
    assert [record.levelno for record in caplog.records].count(logging.ERROR) == 1
    assert len(client.cache) == 0
    assert client.usage.errors == 2


def test_a_stream_is_tried_again_only_before_its_first_piece() -> None:
    """A failure before any text is retried; after the first piece the reader has it, and the
    failure is final.
    """
    overloaded, empty = answers(refusal(503, "overloaded")), streams(TWO_COINS[0], done=False)
    broken = streams(TWO_COINS[1], done=False)
    with RawServer(overloaded, empty, streams(*TWO_COINS), broken, streams(*TWO_COINS)) as raw:
        client = client_for(raw.base_url)
        pieces, _ = read(client)
        assert (pieces, client.usage.retries) == (["Two", " coins", "."], 2)
        assert read(client, temperature=1) == (["Two"], None)
    assert len(raw.requests) == 4


def test_an_older_server_that_knows_no_stream_options() -> None:
    """The request is the unstreamed one with stream and its options; where these are refused the
    usage is unknown.
    """
    refused = answers(refusal(400, "Unrecognized request argument supplied: stream_options"))
    with RawServer(refused, streams(*chunks_of("Two", usage=None))) as raw:
        client = client_for(raw.base_url)
        pieces, reply = read(client, temperature=0.5)
    assert (pieces, reply.usage.input_tokens, client.usage.input_tokens) == (["Two"], None, None)
    asked = {"model": "gpt-4o-mini", "messages": QUESTION, "temperature": 0.5, "stream": True}
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
            for each in chunks:
                yield each
        finally:
            for _ in range(self.steps):
                await asyncio.sleep(0)
            chunks.close()  # type: ignore[attr-defined]


def leave(client: llmcall.LLMClient, **arguments: Any) -> None:
    """Read one piece and close the stream."""
    with client.stream_message("Hello", **arguments) as stream:
        next(stream)
    assert (stream.reply, list(stream)) == (None, [])


def drop(client: llmcall.LLMClient, **arguments: Any) -> None:
    """Read one piece, and forget the stream in a cycle, which the garbage collector finds."""
    kept: list[Any] = [client.stream_message("Hello", **arguments)]
    kept.append(kept)
    next(kept[0])
    del kept
    gc.collect()


def aleave(client: llmcall.LLMClient, **arguments: Any) -> None:
    """Read one piece in a task and close the stream."""

    async def main() -> None:
        async with client.astream_message("Hello", **arguments) as stream:
            await anext(stream)

    asyncio.run(main())


def adrop(client: llmcall.LLMClient, **arguments: Any) -> None:
    """Read one piece in a task and forget the stream, which the event loop then closes."""

    async def main() -> None:
        await anext(client.astream_message("Hello", **arguments))
        while not client.usage.calls:
            await asyncio.sleep(0)

    asyncio.run(asyncio.wait_for(main(), 60))


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
        assert [type(each) for each in await asyncio.gather(task, return_exceptions=True)] == [
            asyncio.CancelledError
        ]

    asyncio.run(main())


@pytest.mark.parametrize("leaving", [leave, drop, aleave, adrop, acancel])
def test_who_leaves_closes_the_connection(leaving: Leave) -> None:
    """However a reader leaves, the connection is closed at once, and nothing is stored."""
    server = Paused(*TWO_COINS, after=2)
    with RawServer(server) as raw:
        client = client_for(raw.base_url)
        leaving(client)
        assert server.left.wait(60)
    assert len(client.cache) == 0


def test_a_stream_left_in_a_cancelled_scope_of_anyio() -> None:
    """Such a scope, as web frameworks use, cancels each wait in it, again and again: it is closed
    all the same.
    """
    import anyio

    async def main() -> int:
        client = AStreamed(*TWO_COINS)
        with anyio.CancelScope() as scope:
            async with client.astream_message(QUESTION) as stream:
                async for _ in stream:
                    scope.cancel()
                    await anyio.sleep_forever()
        return client.closed

    assert asyncio.run(main()) == 1


def test_a_stream_left_in_the_last_step_of_an_event_loop(caplog: pytest.LogCaptureFixture) -> None:
    """The event loop closes the transport's generator at its end, and the stream is not in its way."""
    client = AStreamed(*TWO_COINS)
    client.steps = 1

    async def main() -> None:
        async for _ in client.astream_message(QUESTION):
            break

    asyncio.run(main())
    assert (client.closed, [record for record in caplog.records if record.name == "asyncio"]) == (
        1,
        [],
    )


def test_a_transport_that_streams_in_threads() -> None:
    """Chunks of a transport without an asynchronous way come one by one, and its generator is
    closed at the end.
    """
    client = Streamed(*chunks_of(*PIECES), cache_mode="off")

    async def main() -> None:
        async with client.astream_message("x") as stream:
            assert [piece async for piece in stream] == [*PIECES]

    asyncio.run(main())
    aleave(client)
    assert client.closed == 2


def test_a_stream_may_be_collected_during_a_look_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that was left in a cycle asks for a price as it ends, from a cache that the settings name
    only now.
    """
    connect, collects = sqlite3.connect, threading.Event()

    def connect_and_trace(*args: Any, **kwargs: Any) -> sqlite3.Connection:
        connection = connect(*args, **kwargs)
        connection.set_trace_callback(lambda statement: gc.collect() if collects.is_set() else None)
        return connection

    monkeypatch.setattr(sqlite3, "connect", connect_and_trace)
    other = ScriptedClient(["No"], cache_mode="auto", cache_path="other")
    other.send_message("Bread?")
    other.send_message("Bread?")
    kept: list[Any] = [ScriptedClient(["one two three"], cache_mode="auto").stream_message("Hello")]
    kept.append(kept)
    next(kept[0])
    del kept
    llmcall.configure(cache_path="new")
    collects.set()
    asking = threading.Thread(target=other.send_message, args=("Bread?",), daemon=True)
    asking.start()
    asking.join(30)
    assert not asking.is_alive()


def counted(client: llmcall.LLMClient, text: str) -> tuple[int, int]:
    """Return the tokens of the prompt and of a text, as they are counted here."""
    prompt = client.count_tokens([{"role": "user", "content": "Hello"}])
    return int(prompt), int(client.count_tokens(text)) if text else 0


def billed(leaving: Leave, client: llmcall.LLMClient, tokens: tuple[int, int]) -> None:
    """Let the reader of a client's stream leave; usage and budget say that it is a call of so many
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
    {**each, "usage": {**USAGE, "completion_tokens": at}}
    for at, each in enumerate(chunks_of(*PIECES))
]


@pytest.mark.parametrize("leaving", [leave, drop, aleave, adrop])
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
def test_it_counts_as_a_call(leaving: Leave, make: Any, tokens: tuple[int, int] | None) -> None:
    """The prompt and what came until the reader left are billed: as the server reported, else as a
    budget counts.
    """
    client = make()
    billed(leaving, client, tokens or counted(client, "one"))


def tool(name: str | None, arguments: str) -> dict[str, Any]:
    """Return a chunk with a piece of a tool call."""
    function = {"arguments": arguments} if name is None else {"name": name, "arguments": arguments}
    return chunk(
        tool_calls=[{"index": 0, "id": "call-1", "type": "function", "function": function}]
    )


@pytest.mark.parametrize(
    ("chunks", "text"),
    [
        ([chunk("", role="assistant")], ""),
        ([chunk(reasoning_content="Let me"), chunk(reasoning_content=" think")], "Let me think"),
        ([chunk(reasoning="Let me"), chunk("one", reasoning=" think")], "Let me thinkone"),
        ([tool("buy", '{"item"'), tool(None, ': "bread"}')], 'buy{"item": "bread"}'),
        ([{"choices": [], "prompt_filter_results": []}], ""),
    ],
    ids=["its beginning", "reasoning", "reasoning and text", "a tool call", "the prompt's filter"],
)
def test_an_interrupt_before_the_text(chunks: list[Any], text: str) -> None:
    """Once a chunk has come, a model has read the prompt: reasoning and calls are billed as text
    is.
    """
    client = Streamed(*chunks, KeyboardInterrupt())

    def interrupted(client: llmcall.LLMClient) -> None:
        with pytest.raises(KeyboardInterrupt):
            list(client.stream_message("Hello"))

    billed(interrupted, client, counted(client, text))


@pytest.mark.parametrize("kind", [Streamed, AStreamed])
def test_each_of_several_answers_counts(kind: type[Streamed]) -> None:
    """All choices are billed, though a reader sees the first."""
    second = {
        **chunk(),
        "choices": [{"index": 1, "delta": {"content": "four five"}, "finish_reason": None}],
    }
    client = kind(second, *chunks_of(*PIECES))
    prompt, output = counted(client, "one")
    billed(
        lambda client: aleave(client, n=2),
        client,
        (prompt, output + counted(client, "four five")[1]),
    )


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
def test_what_a_server_broke_off_is_spent(
    chunks: list[Any], attempts: int, text: str, kind: type[Streamed]
) -> None:
    """A server that breaks off is an error and no call, and cannot pass a budget: what came of each
    attempt counts.
    """
    client = kind(*chunks, retry_max_attempts=3, retry_waiting_time=0)

    async def read() -> None:
        assert "".join([piece async for piece in client.astream_message("Hello")]) == text

    with llmcall.budget(tokens=100_000) as budget:
        asyncio.run(read())
    prompt, output = counted(client, text)
    usage = client.usage
    assert (usage.calls, usage.errors, usage.input_tokens, usage.output_tokens) == (
        0,
        1,
        attempts * prompt,
        attempts * output,
    )
    assert budget.spent[1:] == (attempts * (prompt + output), 0)


def test_nothing_came() -> None:
    """A stream that is closed before its first piece asks nothing; one interrupted before a chunk
    is no call.
    """
    client = Streamed(KeyboardInterrupt())
    with llmcall.budget(tokens=100_000) as budget:
        client.stream_message("Hello").close()
        with pytest.raises(KeyboardInterrupt):
            next(client.stream_message("Hello"))
    assert (client.usage, budget.spent.calls, budget.spent.tokens) == (llmcall.Usage(), 0, 0)


def cancel(client: llmcall.LLMClient, method: str = "asend_message") -> None:
    """Cancel a call as soon as it has begun."""

    async def main() -> None:
        task = asyncio.ensure_future(getattr(client, method)("Hello"))
        for _ in range(3):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(main())


@pytest.mark.parametrize(
    "leaving", [leave, drop, aleave, adrop, cancel, partial(cancel, method="aget_embedding")]
)
@pytest.mark.parametrize(("where", "sample"), [("s", "s#0"), (None, None)])
def test_what_was_not_received_gives_its_draw_back(
    leaving: Leave, where: str | None, sample: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    """The next call that asks the same draws the same number, and the end of the run tells of the
    one that was left.
    """
    client = ScriptedClient(lambda messages: "once upon a time", cache_mode="auto")
    with llmcall.cassette("left.jsonl"), llmcall.scope(where):
        leaving(client)
        assert client.send_message("Hello", on_error="raise").sample == sample
    assert [
        text for text in caplog.messages if "1 call ended before the whole answer arrived" in text
    ]


def closed_and_asked_again(client: llmcall.LLMClient, pieces: int) -> Any:
    """Read some pieces of a stream, close it, and ask again while it is kept."""
    stream = client.stream_message("Hello")
    for _ in range(pieces):
        next(stream)
    stream.close()
    reply = client.send_message("Hello", on_error="raise", deadline=60)
    assert stream.reply is None
    return reply


def aclosed_and_asked_again(client: llmcall.LLMClient, pieces: int) -> Any:
    """Do the same in a task."""

    async def main() -> Any:
        stream = client.astream_message("Hello")
        for _ in range(pieces):
            await anext(stream)
        await stream.aclose()
        reply = await client.asend_message("Hello", on_error="raise", deadline=60)
        assert stream.reply is None
        return reply

    return asyncio.run(main())


BOTH = pytest.mark.parametrize("asked_again", [closed_and_asked_again, aclosed_and_asked_again])


@pytest.mark.parametrize("pieces", [0, 1])
@BOTH
def test_a_closed_stream_gives_its_draw_back_though_it_is_kept(
    asked_again: Any, pieces: int
) -> None:
    """The next call draws the same number, whether or not anybody still holds the stream."""
    client = ScriptedClient(lambda messages: "once upon a time", cache_mode="auto")
    with llmcall.scope("s"):
        assert asked_again(client, pieces).sample == "s#0"


@BOTH
def test_a_closed_stream_gives_its_place_back_though_it_is_kept(asked_again: Any) -> None:
    """The next call may begin at once, whether or not anybody still holds the stream."""
    client = ScriptedClient(lambda messages: "once upon a time", limits_max_concurrent_calls=1)
    assert asked_again(client, 1).content == "once upon a time"


def test_streams_that_are_kept_are_told(caplog: pytest.LogCaptureFixture) -> None:
    """Whoever keeps streams, and never comes back, has left them when the cassette closes; each is
    told once.
    """
    client = ScriptedClient(lambda messages: "once upon a time", cache_mode="auto")
    with llmcall.cassette("left.jsonl"), llmcall.scope("s"):
        kept = [client.stream_message("Hello") for _ in range(2)]
        for stream in kept:
            next(stream)
        assert client.send_message("Hello", on_error="raise").sample == "s#2"
    for stream in kept:
        stream.close()
    assert [text[:71] for text in caplog.messages] == [
        "2 calls ended before the whole answer arrived (2 in scope 's'; the firs"
    ]


def test_a_replayed_stream_that_is_left_is_not_told(caplog: pytest.LogCaptureFixture) -> None:
    """Its answer is recorded, so nothing is lost."""
    client = ScriptedClient(lambda messages: "once upon a time", cache_mode="auto")
    with llmcall.cassette("left.jsonl"), llmcall.scope("s"):
        "".join(client.stream_message("Hello"))
    with llmcall.cassette("left.jsonl", mode="none"), llmcall.scope("s"):
        leave(client)
    assert "whole answer" not in caplog.text


def test_an_interrupted_recording_tells_of_no_cancelled_call(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Ctrl-C cancels the tasks of ``asyncio.run``: whoever pressed it need not be told to read
    answers to their end.
    """
    client = ScriptedClient(lambda messages: "once upon a time", cache_mode="auto")
    with pytest.raises(KeyboardInterrupt), llmcall.cassette("left.jsonl"), llmcall.scope("s"):
        cancel(client)
        raise KeyboardInterrupt
    assert "whole answer" not in caplog.text


# What a program keeps to its end: a stream, or the event loop that would close it.
KEPT = {
    "stream": """
        kept = llmcall.OpenAIClient(**how).stream_message("Hello")
        next(kept)
    """,
    "asynchronous stream": """
        kept = llmcall.OpenAIClient(**how).astream_message("Hello")
        loop = asyncio.new_event_loop()
        loop.run_until_complete(anext(kept))
        loop.close()
    """,
    "program": """
        http_client = llmcall.http_client(cache_mode="off")
        program = openai.OpenAI(base_url=sys.argv[1], api_key="k", http_client=http_client)
        kept = program.chat.completions.create(
            model="m", messages=[{"role": "user", "content": "Hello"}], stream=True
        )
        next(kept)
    """,
    "cycle of a program": """
        http_client = llmcall.http_client(cache_mode="off")
        program = openai.OpenAI(base_url=sys.argv[1], api_key="k", http_client=http_client)
        for kept in program.chat.completions.create(
            model="m", messages=[{"role": "user", "content": "Hello"}], stream=True
        ):
            break
        del kept
    """,
}


@pytest.mark.parametrize("kept", KEPT.values(), ids=KEPT)
def test_a_stream_that_is_open_when_the_process_ends(kept: str) -> None:
    """It ends with the process as if its reader had left it, and nothing is printed."""
    opening = """
        import asyncio, warnings
        import openai
        warnings.simplefilter("ignore", ResourceWarning)  # a client that nobody closes
        how = {"base_url": sys.argv[1], "api_key": "k", "cache_mode": "off"}
    """
    drips = dripping(HEAD + event(chunk("one ")), event(chunk("more ")))
    with (
        RawServer(drips) as server,
        start(textwrap.dedent(opening) + textwrap.dedent(kept), server.base_url) as process,
    ):
        assert process.communicate(timeout=60) == ("", "")


def test_an_abandoned_stream_ends_well_while_prices_are_loaded() -> None:
    """The price package is imported before a stream begins: no collection of garbage during the
    import can end one that was left.
    """
    pytest.importorskip("genai_prices")
    program = """
import gc
import sys
from llmcall.testing import ScriptedClient

class Collector:
    def find_spec(self, name, path=None, target=None):
        if name.startswith("genai_prices."):
            gc.collect()

sys.meta_path.insert(0, Collector())
gc.set_threshold(10**6)
client = ScriptedClient(lambda messages: "Hi there!", model="gpt-4o-mini")
stream = client.stream_message("Left.")
next(iter(stream))
cycle = [stream]
cycle.append(cycle)
del stream, cycle
client.send_message("Whole.")
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert "genai_prices" not in done.stderr
