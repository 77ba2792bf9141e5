"""Streamed answers over a real socket: they come as they are sent, and are recorded as if they had come whole."""

from __future__ import annotations

import gc
import logging
from typing import Any

import pytest
from servers import OK, QUESTION, RawServer, answers, client_for, refusal, sends
from streaming import HEAD, TWO_COINS, Paused, astream_call, chunk, chunks_of, event, stream_call, streams

import llmcall
from llmcall.engine.single_flight import process_flights
from llmcall.errors import ContentFilterError, EmptyAnswerError, RateLimitError, ServiceError

PRICES = {"gpt-4o-mini": (0.15, 0.6)}


def read(client: Any, **arguments: Any) -> tuple[list[str], Any]:
    """Ask and read to the end; return the pieces and the reply."""
    with client.stream_message(QUESTION, **arguments) as stream:
        pieces = list(stream)
    return pieces, stream.reply


def test_pieces_come_as_they_are_sent() -> None:
    """The first piece is there before the last is sent, and the reply only at the end."""
    server = Paused(*TWO_COINS, after=2)
    with RawServer(server) as raw, client_for(raw.base_url).stream_message(QUESTION) as stream:
        assert next(stream) == "Two"
        assert server.paused.wait(5)
        assert stream.reply is None
        server.go_on.set()
        assert list(stream) == [" coins", "."]
        assert stream.reply == {"role": "assistant", "content": "Two coins."}
        assert list(stream) == []
    reply = stream.reply
    assert reply is not None
    assert (reply.cached, reply.finish_reason, reply.usage.output_tokens, reply.model) == (
        False,
        "stop",
        3,
        "gpt-4o-mini-2024-07-18",
    )
    assert reply.latency > 0


def test_what_is_asked() -> None:
    """The request is that of the unstreamed call, with stream and its options."""
    with RawServer(streams(*TWO_COINS)) as raw:
        read(client_for(raw.base_url), temperature=0.5)
    body = raw.requests[0].body
    assert body.pop("stream") is True
    assert body.pop("stream_options") == {"include_usage": True}
    assert body == {"model": "gpt-4o-mini", "messages": QUESTION, "temperature": 0.5}


def test_the_same_record_as_the_unstreamed_call() -> None:
    """A finished stream and the answer sent whole are one record: key, request, response, cost."""
    with RawServer(streams(*TWO_COINS), answers(OK)) as raw:
        streamed, whole = (client_for(raw.base_url, cache_path=name, prices=PRICES) for name in ("streamed", "whole"))
        read(streamed)
        whole.send_message(QUESTION)
    ((one, other),) = zip(streamed.cache.records(), whole.cache.records(), strict=True)
    assert one.response == {name: value for name, value in other.response.items() if name in one.response}
    assert one.replace(response={}, stored_at=None) == other.replace(response={}, stored_at=None)
    assert one.cost is not None


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


def test_leaving_early_closes_the_connection_and_stores_nothing() -> None:
    """A reader who leaves ends the transfer; the draw is free again, and no flight stays."""
    server = Paused(*TWO_COINS, after=2)
    with RawServer(server, streams(*TWO_COINS)) as raw:
        client = client_for(raw.base_url)
        with llmcall.scope("a"):
            with client.stream_message(QUESTION) as stream:
                assert next(stream) == "Two"
            assert server.left.wait(5)
            assert stream.reply is None
            assert list(stream) == []
            assert (len(client.cache), process_flights._flights) == (0, {})
            assert read(client)[1].sample == "a#0"
    assert len(client.cache) == 1


EXHAUSTED = HEAD.replace(
    b"Connection:", b"x-ratelimit-remaining-requests: 0\r\nx-ratelimit-reset-requests: 300s\r\nConnection:"
)


@pytest.mark.parametrize("way", [stream_call, astream_call])
def test_the_head_of_a_stream_is_heard(way: Any) -> None:
    """The reply has the request's identifier, and what is left of the server's limits holds for the next call."""
    body = b"".join(map(event, TWO_COINS)) + event(b"[DONE]")
    with RawServer(sends(EXHAUSTED + body)) as raw:
        client = client_for(raw.base_url)
        assert way(client, QUESTION).request_id == "req-stream"
        with pytest.raises(RateLimitError, match="past the deadline"):
            client.send_message("Another question", deadline=5, on_error="raise")
        assert len(raw.requests) == 1


@pytest.mark.parametrize("how", ["exception", "close", "drop"])
def test_ways_of_leaving(how: str) -> None:
    """However a reader leaves, nothing is stored and the connection is closed."""
    server = Paused(*TWO_COINS, after=2)
    with RawServer(server) as raw:
        client = client_for(raw.base_url)
        stream = client.stream_message(QUESTION)
        if how == "exception":
            with pytest.raises(ZeroDivisionError), stream:
                next(stream)
                raise ZeroDivisionError
        else:
            for _ in stream:
                break
            if how != "drop":
                stream.close()
                stream.close()
        del stream
        gc.collect()
        assert server.left.wait(5)
    assert len(client.cache) == 0


def test_a_stream_that_is_never_read_asks_nothing() -> None:
    """Without a first step no call is made, and the draw is given back when it is closed."""
    with RawServer(streams(*TWO_COINS)) as raw:
        client = client_for(raw.base_url)
        with llmcall.scope("a"), client.stream_message(QUESTION):
            pass
        with llmcall.scope("a"):
            assert client.build_request(QUESTION).sample == "a#0"
        assert raw.requests == []


BROKEN: dict[str, tuple[Any, str, list[str]]] = {
    "an error event": (streams(*TWO_COINS[:3], {"error": {"message": "overloaded"}}), "overloaded", ["Two", " coins"]),
    "no end": (streams(*TWO_COINS[:3]), "broke off", ["Two", " coins"]),
    "no end and no mark": (streams(*TWO_COINS[:3], done=False), "broke off", ["Two", " coins"]),
    "cut in a line": (sends(HEAD + event(TWO_COINS[1]) + event(TWO_COINS[2])[:-30]), "malformed chunk", ["Two"]),
    "broken JSON": (sends(HEAD + event(TWO_COINS[1]) + b'data: {"choices": [}\n\n'), "malformed chunk", ["Two"]),
    "no object": (sends(HEAD + event(TWO_COINS[1]) + b"data: 3\n\n"), "malformed chunk", ["Two"]),
    "a chunk of another shape": (streams(TWO_COINS[1], {"choices": "no"}), "malformed chunk", ["Two"]),
    "HTML": (sends(HEAD + b"<html>Sign in</html>"), "malformed answer, not JSON: b'<html>", []),
    "nothing": (sends(HEAD), "broke off", []),
    "comments alone": (sends(HEAD + b": wait\n\nevent: ping\n\n"), "broke off", []),
    "vLLM's error": (streams(TWO_COINS[1], {"object": "error", "message": "busy", "code": 500}), "500: busy", ["Two"]),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_errors_inside_a_stream(name: str, caplog: pytest.LogCaptureFixture) -> None:
    """A stream that breaks is an error after its pieces, raised or logged as on_error says, and never stored."""
    behaviour, words, pieces = BROKEN[name]
    with RawServer(behaviour) as raw:
        client = client_for(raw.base_url, retry_max_attempts=1)
        with client.stream_message(QUESTION, on_error="raise") as stream:
            got: list[str] = []
            with pytest.raises(ServiceError, match=words):
                for piece in stream:
                    got.append(piece)
        assert got == pieces
        assert read(client, on_error="none") == (pieces, None)
    assert [record.levelno for record in caplog.records].count(logging.ERROR) == 1
    assert (len(client.cache), process_flights._flights) == (0, {})
    assert client.usage.errors == 2


def test_a_stream_is_tried_again_only_before_its_first_piece() -> None:
    """A refusal before any text is retried; after the first piece the reader has it, and the failure is final."""
    overloaded = answers(refusal(503, "overloaded"))
    broken = streams(TWO_COINS[1], done=False)
    with RawServer(overloaded, overloaded, streams(*TWO_COINS), broken, streams(*TWO_COINS)) as raw:
        client = client_for(raw.base_url)
        pieces, _ = read(client)
        assert (pieces, client.usage.retries) == (["Two", " coins", "."], 2)
        assert read(client, temperature=1) == (["Two"], None)
    assert len(raw.requests) == 4


def test_a_stream_without_a_first_piece_is_tried_again() -> None:
    """A stream that breaks before any text gets another attempt."""
    with RawServer(streams(TWO_COINS[0], done=False), streams(*TWO_COINS)) as raw:
        assert read(client_for(raw.base_url))[0] == ["Two", " coins", "."]
    assert len(raw.requests) == 2


@pytest.mark.parametrize(
    ("behaviour", "kind"),
    [
        (streams(*chunks_of("I", finish_reason="content_filter")), ContentFilterError),
        (streams(*chunks_of(finish_reason="length")), EmptyAnswerError),
        (answers(refusal(429, "slow down")), RateLimitError),
    ],
)
def test_what_is_no_answer_unstreamed_is_none_streamed(behaviour: Any, kind: type[Exception]) -> None:
    """A filtered and an empty answer, and a refused request, are the errors that they are unstreamed."""
    with RawServer(behaviour) as raw:
        client = client_for(raw.base_url, retry_max_attempts=1)
        with pytest.raises(kind), client.stream_message(QUESTION, on_error="raise") as stream:
            list(stream)
    assert len(client.cache) == 0


def test_an_older_server_that_knows_no_stream_options() -> None:
    """Where stream_options are refused the call is repeated without, and the usage is unknown."""
    refused = answers(refusal(400, "Unrecognized request argument supplied: stream_options"))
    with RawServer(refused, streams(*chunks_of("Two", usage=None))) as raw:
        client = client_for(raw.base_url)
        pieces, reply = read(client)
    assert (pieces, reply.usage.input_tokens, client.usage.input_tokens) == (["Two"], None, None)
    assert "stream_options" not in raw.requests[1].body


def test_tool_calls_in_a_stream() -> None:
    """Tool calls come together in the reply, without a piece of text."""
    begun = {"index": 0, "id": "c1", "type": "function", "function": {"name": "price", "arguments": ""}}
    rest = [{"index": 0, "function": {"arguments": part}} for part in ('{"of": ', '"apples"}')]
    sent = [
        chunk(None, role="assistant", tool_calls=[begun]),
        *(chunk(None, tool_calls=[part]) for part in rest),
        chunk(None, "tool_calls"),
    ]
    with RawServer(streams(*sent)) as raw:
        pieces, reply = read(client_for(raw.base_url))
    assert pieces == []
    assert reply.tool_calls == [
        {"id": "c1", "type": "function", "function": {"name": "price", "arguments": '{"of": "apples"}'}}
    ]
    assert (reply.content, reply.finish_reason) == (None, "tool_calls")
