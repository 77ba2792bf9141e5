"""Streamed answers of programs: what the SDK puts together of them, live and replayed."""

from __future__ import annotations

import asyncio
import copy
import itertools
import json
import re
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import openai
import pydantic
import pytest
from clients import KEY, QUESTION, http, lasting, parsing, plain_program, program, streamed_answer
from hypothesis import given
from hypothesis import strategies as st
from openai.lib.streaming.chat import ChatCompletionStreamState
from pytest_httpserver import HTTPServer
from servers import event

import llmcall

HEAD = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1700000000,
    "model": "gpt-4o-mini-2024-07-18",
}
USAGE = {"prompt_tokens": 12, "completion_tokens": 3, "total_tokens": 15}


def token(text: str) -> dict[str, Any]:
    """Return what is known of the chance of a token."""
    return {"token": text, "logprob": -0.25, "bytes": [*text.encode()], "top_logprobs": []}


def response(*choices: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """Return a whole response."""
    numbered = [{"index": number, **one_choice} for number, one_choice in enumerate(choices)]
    return {**HEAD, "choices": numbered, "usage": USAGE, **fields}


def choice(message: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """Return a choice of a response."""
    message = {"role": "assistant", "content": None, "refusal": None, **message}
    return {"message": message, "finish_reason": "stop", "logprobs": None, **fields}


def pieces(text: str, size: int) -> list[str]:
    """Cut a text as a server may."""
    return [text[start : start + size] for start in range(0, len(text), size)]


def streamed_choice(whole: dict[str, Any], size: int) -> Iterator[dict[str, Any]]:
    """Yield the pieces in which a server streams a choice."""
    message = whole["message"]
    head = {"index": whole["index"], "finish_reason": None, "logprobs": None}
    begun = {name: value for name, value in message.items() if value is None}
    if message["content"] is not None:
        begun["content"] = ""
    yield {**head, "delta": {**begun, "role": "assistant"}}
    for name, value in message.items():
        if name == "role" or value is None:
            continue
        if name == "tool_calls":
            for number, call in enumerate(value):
                function = {**call["function"], "arguments": ""}
                yield {**head, "delta": {name: [{**call, "index": number, "function": function}]}}
                for piece in pieces(call["function"]["arguments"], size):
                    part = {"index": number, "function": {"arguments": piece}}
                    yield {**head, "delta": {name: [part]}}
        elif isinstance(value, str):
            yield from ({**head, "delta": {name: piece}} for piece in pieces(value, size))
        else:
            yield {**head, "delta": {name: value}}
    for name in ("content", "refusal"):
        for token in (whole["logprobs"] or {}).get(name) or ():
            yield {
                **head,
                "delta": {},
                "logprobs": {"content": None, "refusal": None, name: [token]},
            }
    yield {**head, "delta": {}, "finish_reason": whole["finish_reason"]}


def streamed(whole: dict[str, Any], size: int, wants_usage: bool) -> bytes:
    """Return a response as a server streams it, its choices by turns."""
    head = {**whole, "object": "chat.completion.chunk"}
    usage = head.pop("usage")
    turns = itertools.zip_longest(
        *(streamed_choice(one_choice, size) for one_choice in whole["choices"])
    )
    deltas = [delta for turn in turns for delta in turn if delta is not None]
    chunks = [{**head, "choices": [delta]} for delta in deltas]
    if wants_usage:
        chunks.append({**head, "choices": [], "usage": usage})
    return b"".join(map(event, [*chunks, b"[DONE]"]))


class Answering:
    """Answer with one response, whole or streamed, until it is gone."""

    def __init__(self, whole: dict[str, Any], size: int = 3) -> None:
        self.whole, self.size, self.is_gone = whole, size, False
        self.transport = http.MockTransport(self.answer)

    def answer(self, request: Any) -> Any:
        """Answer a request."""
        if self.is_gone:
            raise AssertionError("a replay asks nothing")
        body = json.loads(request.content)
        if not body.get("stream"):
            return http.Response(200, json=self.whole)
        wants_usage = bool((body.get("stream_options") or {}).get("include_usage"))
        return streamed_answer(streamed(self.whole, self.size, wants_usage))


def accumulated(client: openai.OpenAI, usage: bool = True) -> dict[str, Any]:
    """Return what the SDK puts together of a stream."""
    options: Any = {"include_usage": True} if usage else openai.NOT_GIVEN
    state: Any = ChatCompletionStreamState()
    for chunk in client.chat.completions.create(
        model="gpt-4o-mini", messages=QUESTION, stream=True, stream_options=options
    ):
        state.handle_chunk(chunk)
    dumped: dict[str, Any] = state.current_completion_snapshot.to_dict()
    return dumped


async def aaccumulated(server: Answering, **overrides: Any) -> dict[str, Any]:
    """Return what the SDK puts together of an asynchronous stream."""
    http_client = llmcall.async_http_client(transport=server.transport, **overrides)
    state: Any = ChatCompletionStreamState()
    async with openai.AsyncOpenAI(api_key=KEY, http_client=http_client) as client:
        async for chunk in await client.chat.completions.create(
            model="gpt-4o-mini",
            messages=QUESTION,
            stream=True,
            stream_options={"include_usage": True},
        ):
            state.handle_chunk(chunk)
    dumped: dict[str, Any] = state.current_completion_snapshot.to_dict()
    return dumped


CALLS = [
    {
        "id": f"c{number}",
        "type": "function",
        "function": {"name": name, "arguments": '{"item": "bread"}'},
    }
    for number, name in enumerate(("price_of", "stock_of"))
]
RESPONSES = {
    "text": response(choice({"content": "Two coins."})),
    "logprobs": response(
        choice({"content": "Two"}, logprobs={"content": [token("Tw"), token("o")], "refusal": None})
    ),
    "tool calls": response(choice({"tool_calls": CALLS}, finish_reason="tool_calls")),
    "three choices": response(
        *(choice({"content": text}) for text in ("One coin.", "Two.", "Ask Lisa, please."))
    ),
    "audio": response(
        choice({"audio": {"id": "a", "data": "AAEC", "transcript": "Two.", "expires_at": 3}})
    ),
    "images": response(
        choice(
            {
                "content": "",
                "images": [
                    {
                        "index": 0,
                        "type": "image_url",
                        "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="},
                    }
                ],
            }
        )
    ),
    "fields of the response": response(
        choice({"content": "Two."}), service_tier="flex", system_fingerprint="fp_1", provider="X"
    ),
}


ASKED: Any = {"model": "gpt-4o-mini", "messages": QUESTION}


@pytest.mark.parametrize("name", RESPONSES)
def test_the_sdk_puts_the_same_answer_together(name: str) -> None:
    """Of a recorded stream, and of its replays, the SDK makes what it makes of the plain one; not
    streamed, it is the unstreamed answer.
    """
    server = Answering(RESPONSES[name])
    expected = accumulated(plain_program(server))
    whole = plain_program(server).chat.completions.create(**ASKED).model_dump()
    assert accumulated(program(server)) == expected
    server.is_gone = True
    assert accumulated(program(server)) == expected
    assert asyncio.run(aaccumulated(server)) == expected
    assert program(server).chat.completions.create(**ASKED).model_dump() == whole


@pytest.mark.parametrize("name", RESPONSES)
def test_an_unstreamed_answer_is_replayed_as_a_stream(name: str) -> None:
    """An answer that was recorded whole streams as the server would have streamed it."""
    server = Answering(RESPONSES[name])
    expected = accumulated(plain_program(server))
    program(server).chat.completions.create(**ASKED)
    server.is_gone = True
    assert accumulated(program(server)) == expected


def test_a_replayed_stream_gives_each_token_with_its_log_probability() -> None:
    """As the API does: programs read the log probability beside the text."""
    tokens = [token("Tw"), token("o")]
    logprobs = {"content": tokens, "refusal": None}
    server = Answering(response(choice({"content": "Two"}, logprobs=logprobs)))
    asked: Any = {**ASKED, "logprobs": True}
    program(server).chat.completions.create(**asked)
    server.is_gone = True
    pieces = [
        (choice.delta.content, [token.token for token in choice.logprobs.content])
        for chunk in program(server).chat.completions.create(**asked, stream=True)
        for choice in chunk.choices
        if choice.logprobs
    ]
    assert pieces == [("Tw", ["Tw"]), ("o", ["o"])]


def test_a_cassette_replays_what_the_program_got() -> None:
    """The program gets the same objects while a cassette is recorded and when it is replayed, but for the
    identifier and the date, streamed or not.
    """
    server, found = Answering(RESPONSES["fields of the response"]), []
    for mode in ("once", "none"):
        with llmcall.cassette("run.jsonl", mode=mode):
            client = program(server, cache_mode="off")
            whole = client.chat.completions.create(**ASKED, seed=1).model_dump()
            found.append((accumulated(client, usage=True), accumulated(client, usage=False), whole))
        server.is_gone = True
    assert lasting(found[0]) == lasting(found[1])


def openai_lines(*deltas: dict[str, Any]) -> bytes:
    """Return a stream as OpenAI writes it: its order of fields, a null usage in each chunk, padding."""
    head = {
        "id": "chatcmpl-D1",
        "object": "chat.completion.chunk",
        "created": 1764000000,
        "model": "gpt-4o-mini-2024-07-18",
        "service_tier": "default",
        "system_fingerprint": "fp_1",
    }
    chunks = [
        {
            **head,
            "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": None}],
            "usage": None,
            "obfuscation": "x" * number,
        }
        for number, delta in enumerate(deltas)
    ]
    chunks[-1]["choices"][0]["finish_reason"] = (
        "tool_calls" if "tool_calls" in deltas[-2] else "stop"
    )
    usage = {
        "prompt_tokens": 12,
        "completion_tokens": 3,
        "total_tokens": 15,
        "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
    }
    last = {**head, "choices": [], "usage": usage, "obfuscation": "0"}
    return b": keep-alive\n\n" + b"".join(map(event, [*chunks, last, b"[DONE]"]))


def called(**fields: Any) -> dict[str, Any]:
    """Return a delta with a piece of the first tool call."""
    return {"tool_calls": [{"index": 0, **fields}]}


LINES = {
    "text": openai_lines(
        {"role": "assistant", "content": "", "refusal": None},
        {"content": "Two"},
        {"content": " coins."},
        {},
    ),
    "a tool call": openai_lines(
        {"role": "assistant", "content": None, "refusal": None},
        called(id="c1", type="function", function={"name": "price_of", "arguments": ""}),
        called(function={"arguments": '{"item": "bread"}'}),
        {},
    ),
}


def stream_at(server: HTTPServer) -> tuple[bytes, Any]:
    """Ask for a stream with its usage, and return its bytes as they came, and its headers."""
    asked = {**ASKED, "stream": True, "stream_options": {"include_usage": True}}
    with http.Client() as client:
        url = server.url_for("/v1/chat/completions")
        with client.stream("POST", url, json=asked) as streamed:
            return b"".join(streamed.iter_raw()), dict(streamed.headers)


@pytest.mark.parametrize("content", LINES.values(), ids=LINES)
def test_a_program_gets_the_servers_own_stream_while_it_is_recorded(
    httpserver: HTTPServer, content: bytes
) -> None:
    """Byte for byte: its identifiers, order, padding and comments, and its headers."""
    httpserver.expect_request("/v1/chat/completions").respond_with_data(
        content, content_type="text/event-stream; charset=utf-8", headers={"x-request-id": "r1"}
    )
    plain, plain_headers = stream_at(httpserver)
    with llmcall.cassette("run.jsonl", mode="once"):
        recorded, headers = stream_at(httpserver)
    assert recorded == plain == content
    del headers["date"]
    assert headers.items() <= plain_headers.items()
    assert {"content-type", "x-request-id"} <= headers.keys()


@pytest.mark.parametrize("content", LINES.values(), ids=LINES)
def test_a_replayed_stream_has_the_lines_of_the_recorded_one(
    httpserver: HTTPServer, content: bytes
) -> None:
    """But for what is new in each answer, a usage that is not known yet, and comments. So the usage comes in a chunk
    of its own, and a tool call's name before its arguments: programs read only the first call of a chunk.
    """
    httpserver.expect_ordered_request("/v1/chat/completions").respond_with_data(
        content, content_type="text/event-stream"
    )

    def events(body: bytes) -> list[Any]:
        *chunks, done = re.findall(rb"data: (.*)\n\n", body)
        assert done == b"[DONE]"
        found = [lasting(chunk) for chunk in chunks]
        return [{**chunk, "usage": chunk.get("usage")} for chunk in found]

    with llmcall.cassette("run.jsonl", mode="once"):
        live, _ = stream_at(httpserver)
    with llmcall.cassette("run.jsonl", mode="none"):
        replayed, _ = stream_at(httpserver)
    assert events(replayed) == events(live)


WORDS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=9)
MAYBE = st.none() | st.just("") | WORDS
TOKENS = st.none() | st.lists(st.builds(token, WORDS), min_size=1, max_size=3)
LOGPROBS = st.none() | st.fixed_dictionaries({"content": TOKENS, "refusal": TOKENS}).filter(
    lambda found: any(found.values())
)
TOOL_CALLS = st.lists(
    st.builds(
        lambda name, arguments: {
            "type": "function",
            "function": {"name": name, "arguments": arguments},
        },
        WORDS,
        st.text(max_size=9),
    ),
    min_size=1,
    max_size=3,
).map(lambda calls: [{"id": f"c{number}", **call} for number, call in enumerate(calls)])
MESSAGES = st.fixed_dictionaries(
    {"content": MAYBE},
    optional={
        "refusal": MAYBE,
        "reasoning_content": MAYBE,
        "thought": WORDS,
        "score": st.integers(1, 9) | st.floats(0.5, 1),
        "marks": st.dictionaries(WORDS, st.booleans(), min_size=1, max_size=2),
        "tool_calls": TOOL_CALLS,
    },
).filter(lambda message: any(message.get(name) for name in ("content", "refusal", "tool_calls")))


@pytest.mark.newest_only
@given(
    messages=st.lists(MESSAGES, min_size=1, max_size=3),
    logprobs=LOGPROBS,
    fields=st.dictionaries(
        st.sampled_from(["service_tier", "system_fingerprint", "seen_by"]), WORDS
    ),
    size=st.integers(1, 9),
    usage=st.booleans(),
)
def test_any_answer_is_the_same_live_and_replayed(
    messages: list[dict[str, Any]],
    logprobs: Any,
    fields: dict[str, Any],
    size: int,
    usage: bool,
) -> None:
    """The SDK puts the plain stream's object together from any answer, however a server cuts it."""
    first, *others = [choice(copy.deepcopy(message)) for message in messages]
    server = Answering(response({**first, "logprobs": logprobs}, *others, **fields), size)
    expected = accumulated(plain_program(server), usage)
    with TemporaryDirectory() as folder:
        for mode in ("auto", "replay"):
            client = program(server, cache_mode=mode, cache_path=str(Path(folder)))
            assert accumulated(client, usage) == expected
            server.is_gone = True
    llmcall.reset()


class Offer(pydantic.BaseModel):
    """A buyer's offer."""

    coins: int
    item: str


def test_the_sdks_own_streams_are_replayed() -> None:
    """``chat.completions.stream()`` gives the same events, and the same parsed object."""
    offer = Offer(coins=3, item="bread")
    server = Answering(response(choice({"content": offer.model_dump_json()})), size=30)
    found = []
    for mode in ("auto", "replay"):
        client = program(server, cache_mode=mode)
        with parsing(client).stream(
            model="gpt-4o-mini", messages=QUESTION, response_format=Offer
        ) as stream:
            kinds = {event.type for event in stream}
            found.append((kinds, stream.get_final_completion().choices[0].message.parsed))
        server.is_gone = True
    (live_kinds, live_offer), replayed = found
    assert replayed == (live_kinds, live_offer)
    assert live_offer == offer
    assert "content.done" in live_kinds


@pytest.mark.parametrize(
    ("message", "finish_reason"),
    [
        ({"content": "Two"}, "content_filter"),
        ({"content": "Two"}, "insufficient_system_resource"),
        ({"content": ""}, "stop"),
    ],
    ids=["filtered", "broken off", "empty"],
)
def test_a_stream_is_recorded_whatever_its_ending_says(
    message: dict[str, Any], finish_reason: str
) -> None:
    """The program gets the same from the plain SDK, recorded, and from a replay, and judges it itself."""
    server = Answering(response(choice(message, finish_reason=finish_reason)))
    expected = accumulated(plain_program(server))
    assert accumulated(program(server)) == expected
    assert accumulated(program(streaming(), cache_mode="replay")) == expected


NO_REASONS = [
    {
        **HEAD,
        "object": "chat.completion.chunk",
        "choices": [{"index": 0, "delta": delta, "finish_reason": None}],
    }
    for delta in ({"role": "assistant", "content": "Two"}, {"content": " coins."})
]


def streaming(*chunks: Any) -> Any:
    """Return a server that streams some chunks."""
    server = Answering({})
    content = b"".join(map(event, chunks))
    server.transport = http.MockTransport(lambda _: streamed_answer(content))
    return server


def test_a_stream_without_a_finish_reason_is_recorded_if_it_ends_with_done() -> None:
    """The program gets the same from the plain SDK, recorded, and from a replay."""
    server = streaming(*NO_REASONS, b"[DONE]")
    expected = accumulated(plain_program(server))
    assert expected["choices"][0]["message"]["content"] == "Two coins."
    assert accumulated(program(server)) == expected
    assert accumulated(program(streaming(), cache_mode="replay")) == expected
    assert asyncio.run(aaccumulated(streaming(), cache_mode="replay")) == expected


def test_a_stream_without_finish_reason_and_done_is_not_recorded() -> None:
    """The program gets its words, and an error that it broke off."""
    words = []
    with pytest.raises(openai.APIError, match="broke off"):
        for chunk in program(streaming(*NO_REASONS)).chat.completions.create(**ASKED, stream=True):
            words.append(chunk.choices[0].delta.content)
    assert words == ["Two", " coins."]
    with pytest.raises(openai.APIError, match="broke off"):
        asyncio.run(aaccumulated(streaming(*NO_REASONS)))
    assert llmcall.client("openai").cache.stats().records == 0


TOOL_USE_FAILED = {
    "error": {
        "message": "Failed to call a function.",
        "type": "invalid_request_error",
        "code": "tool_use_failed",
        "failed_generation": "<function=price_of>",
        "status_code": 400,
    }
}
OPENROUTER = {
    **NO_REASONS[0],
    "error": {"code": "server_error", "message": "Provider disconnected"},
    "choices": [{"index": 0, "delta": {"content": ""}, "finish_reason": "error"}],
}


@pytest.mark.parametrize(
    ("reading", "begun"),
    [
        (lambda server: accumulated(program(server, retry_max_attempts=1)), 0),
        (lambda server: asyncio.run(aaccumulated(server, retry_max_attempts=1)), 2),
    ],
)
@pytest.mark.parametrize("reported", [TOOL_USE_FAILED, OPENROUTER], ids=["Groq", "OpenRouter"])
def test_an_error_event_inside_a_stream_keeps_its_code_and_fields(
    reported: dict[str, Any], begun: int, reading: Any
) -> None:
    """It reaches the program as from the plain SDK, whether text came before it or not."""
    server = streaming(*NO_REASONS[:begun], reported)
    with pytest.raises(openai.APIError) as expected:
        accumulated(plain_program(server))
    with pytest.raises(openai.APIError) as caught:
        reading(server)
    assert type(caught.value) is type(expected.value)
    assert caught.value.body == expected.value.body == reported["error"]
    assert str(caught.value) == str(expected.value)
    assert llmcall.client("openai").cache.stats().records == 0


def test_an_error_in_place_of_a_stream_reaches_the_program_as_it_came() -> None:
    """With the status 200, as a whole."""
    answer = http.Response(200, json=TOOL_USE_FAILED, headers={"x-request-id": "r1"})
    client = llmcall.http_client(transport=http.MockTransport(lambda _: answer))
    got = client.post("https://api.example/v1/chat/completions", json={**ASKED, "stream": True})
    assert (got.status_code, got.json()) == (200, TOOL_USE_FAILED)
    assert got.headers["x-request-id"] == "r1"
