"""The grammar of streamed answers: bytes into events, and chunks of many servers into one response.

Private imports: the decoder and the assembler are parsers, fed here with what no fake server would
send one by one.
"""

from __future__ import annotations

import base64
import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmcall import ServiceError
from llmcall.apis.bodies import EventStream
from llmcall.apis.chunks import Assembler

USAGE = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}

NAMES = {"id": "chatcmpl-1", "created": 1700000000, "model": "gpt-4o-mini"}


def chunk(*choices: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {**NAMES, "object": "chat.completion.chunk", "choices": list(choices), **fields}


def piece(
    delta: Any, index: int = 0, finish_reason: str | None = None, **fields: Any
) -> dict[str, Any]:
    return {"index": index, "delta": delta, "finish_reason": finish_reason, **fields}


def response(*choices: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {**NAMES, "object": "chat.completion", "choices": list(choices), **fields}


def choice(
    message: dict[str, Any], finish_reason: str = "stop", index: int = 0, **fields: Any
) -> dict[str, Any]:
    return {
        "index": index,
        "message": {"role": "assistant", **message},
        "finish_reason": finish_reason,
        **fields,
    }


def assembled(chunks: list[dict[str, Any]]) -> dict[str, Any]:
    assembler, sent = Assembler(), copy.deepcopy(chunks)
    for part in chunks:
        assembler.add(part)
    assert chunks == sent  # their reader has them, too
    return assembler.response()


def message_of(*deltas: dict[str, Any]) -> dict[str, Any]:
    whole = assembled(
        [*(chunk(piece(delta)) for delta in deltas), chunk(piece({}, finish_reason="stop"))]
    )
    message: dict[str, Any] = whole["choices"][0]["message"]
    return message


def call(name: str, arguments: str, identifier: str | None = None) -> dict[str, Any]:
    made = {"type": "function", "function": {"name": name, "arguments": arguments}}
    return made if identifier is None else {"id": identifier, **made}


def decoded(*parts: bytes) -> list[Any]:
    """Return the events, and the lines that belong to none, of a body in parts."""
    stream, events = EventStream(), []
    for part in (*parts, b"\n"):
        if not stream.done:
            events += stream.feed(part)
    return events


EVENTS: dict[str, tuple[bytes, list[Any]]] = {
    "events": (b'data: {"a": 1}\n\ndata:{"a": 2}\n\n', [{"a": 1}, {"a": 2}]),
    "no blank line between": (b'data: {"a": 1}\ndata: {"a": 2}\n', [{"a": 1}, {"a": 2}]),
    "no end": (b'data: {"a": 1}', [{"a": 1}]),
    "other ends of lines": (b'data: {"a": 1}\r\n\r\ndata: {"a": 2}\r\r', [{"a": 1}, {"a": 2}]),
    "other fields": (b': ping\nevent: x\nid: 1\nretry: 5\ndata: {"a": 1}\n\n', [{"a": 1}]),
    "the end": (b'data: {"a": 1}\n\ndata: [DONE]\n\ndata: {"a": 2}\n\n', [{"a": 1}]),
    "the end, small": (b"data:[done]\n\nnothing\n", []),
    "other lines": (b"<html>\n\nbusy\n", ["<html>", "busy"]),
    "empty data": (b'data:\n\ndata: {"a": 1}\n\n', [{"a": 1}]),
    "no UTF-8": (b'data: {"a": "\xff"}\n\n', [{"a": "\ufffd"}]),
    "a lone surrogate": (b'data: {"a": "\\ud800"}\n\n', [{"a": "\ufffd"}]),
    "letters of several bytes": ('data: {"a": "日本"}\n\n'.encode(), [{"a": "日本"}]),
}


@pytest.mark.parametrize("name", EVENTS)
def test_an_event_stream_is_read_as_servers_write_it_wherever_it_is_cut(name: str) -> None:
    """It may have any line ends, fields and lines of other kinds, and come in two parts, or byte by byte."""
    body, events = EVENTS[name]
    assert decoded(body) == events
    for cut in range(1, len(body)):
        assert decoded(body[:cut], body[cut:]) == events
    assert decoded(*(bytes([byte]) for byte in body)) == events


@pytest.mark.parametrize("data", [b"{half", b"3", b'[{"a": 1}]', b"[" * 10_000], ids=len)
def test_data_that_is_no_json_object_is_a_failure_of_the_service(data: bytes) -> None:
    """The error speaks of a malformed chunk."""
    with pytest.raises(ServiceError, match="a malformed chunk in the stream"):
        decoded(b"data: " + data + b"\n\n")


def test_azures_chunks_without_names_or_choices_blank_out_nothing() -> None:
    """Neither the names nor the verdicts of its filters."""
    verdict = {"hate": {"filtered": False, "severity": "safe"}}
    nameless = {"id": "", "created": 0, "model": "", "object": ""}
    chunks = [
        {**nameless, "choices": [], "prompt_filter_results": [{"prompt_index": 0}]},
        chunk(piece({"role": "assistant"}, content_filter_results=verdict)),
        chunk(piece({"content": "Hi"}, content_filter_results={})),
        chunk(piece({}, finish_reason="stop", content_filter_results={})),
        {
            **nameless,
            "choices": [{"index": 0, "finish_reason": None, "content_filter_results": {}}],
        },
    ]
    expected = choice({"content": "Hi"}, content_filter_results=verdict)
    assert assembled(chunks) == response(expected, prompt_filter_results=[{"prompt_index": 0}])


def whole_of(*fields: dict[str, Any]) -> dict[str, Any]:
    """Return the response of three chunks, each with some fields."""
    choices = ([piece({"content": "a"})], [piece({}, finish_reason="stop")], [])
    return assembled([chunk(*deltas, **more) for deltas, more in zip(choices, fields, strict=True)])


FIELDS: dict[str, tuple[list[dict[str, Any]], dict[str, Any]]] = {
    "the first date": ([{"created": 1}, {"created": 2}, {}], {"created": 1}),
    "the last usage and unknown fields, but no null": (
        [
            {"usage": None, "x_groq": {"id": 1}},
            {"usage": {"prompt_tokens": 1}, "service_tier": None},
            {"usage": USAGE, "x_groq": {"id": 2}, "service_tier": "flex"},
        ],
        {"usage": USAGE, "x_groq": {"id": 2}, "service_tier": "flex"},
    ),
    "not OpenAI's random padding": ([{"obfuscation": "zq"}, {}, {"obfuscation": ""}], {}),
}


@pytest.mark.parametrize(("fields", "expected"), FIELDS.values(), ids=FIELDS)
def test_these_fields_of_chunks_count(
    fields: list[dict[str, Any]], expected: dict[str, Any]
) -> None:
    """Servers may give every chunk its own."""
    assert whole_of(*fields) == response(choice({"content": "a"}), **expected)


@pytest.mark.parametrize(
    "empty", [{}, {"choices": None}, {"choices": []}, {"choices": [{"index": 0, "delta": None}]}]
)
def test_a_chunk_without_choices_changes_nothing(empty: dict[str, Any]) -> None:
    """One with null in their place changes nothing either."""
    chunks = [
        empty,
        chunk(piece({"content": "a"})),
        empty,
        chunk(piece({}, finish_reason="stop")),
        empty,
    ]
    assert assembled(chunks) == response(choice({"content": "a"}))


@pytest.mark.parametrize(
    "broken",
    [
        "data",
        {"choices": "x"},
        {"choices": [None]},
        {"choices": [{"index": "x", "delta": {}}]},
        {"choices": [{"index": 0, "delta": {"content": [{"type": "text"}]}}]},
        {"choices": [{"index": 0, "delta": {"tool_calls": ["f"]}}]},
        {"choices": [{"index": 0, "delta": {"tool_calls": [{"index": "x"}]}}]},
    ],
)
def test_a_malformed_chunk_is_a_failure_of_the_service(broken: Any) -> None:
    """It does not matter what is wrong with its shape."""
    with pytest.raises(ServiceError, match="malformed chunk"):
        Assembler().add(broken)


@pytest.mark.parametrize(
    ("chunks", "what"),
    [
        ([], "after 0 chunks: no choice 0"),
        (
            [chunk(piece({}, finish_reason="stop"), piece({}, index=1))],
            "no finish_reason for choice 1",
        ),
        ([chunk(piece({}, index=1, finish_reason="stop"))], "no choice 0"),
    ],
)
def test_a_stream_that_ends_too_early_has_no_response(
    chunks: list[dict[str, Any]], what: str
) -> None:
    """The error says what is missing."""
    with pytest.raises(ServiceError, match=what):
        assembled(chunks)


@pytest.mark.parametrize(
    "error", [{"message": "overloaded", "code": 429}, "overloaded", {"code": "overloaded"}]
)
def test_an_error_in_a_chunk_is_raised_with_the_servers_words(error: Any) -> None:
    """OpenRouter puts it beside what the stream brought so far."""
    with pytest.raises(ServiceError, match="overloaded"):
        Assembler().add(chunk(piece({}, finish_reason="error"), error=error))


def part(
    index: int | None = None, identifier: str | None = None, **function: str
) -> dict[str, Any]:
    """Return a piece of a tool call."""
    made = {"index": index, "id": identifier, "function": function or None}
    return {name: value for name, value in made.items() if value is not None}


SQL = {"id": "a", "type": "custom", "custom": {"name": "sql", "input": "select"}}
SIGNED = {"extra_content": {"signature": "s"}}
# The pieces that come together, and the calls that they make.
TOOL_CALLS: dict[str, tuple[list[list[dict[str, Any]]], list[dict[str, Any]]]] = {
    "interleaved, id and name only at first": (
        [
            [part(1, "b", name="two", arguments="")],
            [part(0, "a", name="one", arguments="")],
            [part(0, arguments='{"x"'), part(1, arguments="{")],
            [part(1, arguments="}")],
            [part(0, arguments=":1}")],
        ],
        [call("one", '{"x":1}', "a"), call("two", "{}", "b")],
    ),
    "empty id and name in later pieces": (
        [[part(0, "a", name="one", arguments="{")], [part(0, "", name="", arguments="}")]],
        [call("one", "{}", "a")],
    ),
    "a fresh id in every piece (vLLM): the first stays": (
        [[part(0, "a", name="one")], [part(0, "b", arguments="{}")]],
        [call("one", "{}", "a")],
    ),
    "index 0 for every call": (
        [
            [part(0, "a", name="one", arguments="{}")],
            [part(0, "b", name="one", arguments="[]")],
            [part(0, arguments=" ")],
        ],
        [call("one", "{}", "a"), call("one", "[] ", "b")],
    ),
    "no index (Gemini), several calls in one piece and in several": (
        [
            [part(None, "a", name="one", arguments="{}"), part(None, "b", name="two")],
            [part(None, "b", arguments="[]")],
            [part(None, "a", arguments=" ")],
            [part(None, "c", name="one", arguments="{}")],
        ],
        [call("one", "{} ", "a"), call("two", "[]", "b"), call("one", "{}", "c")],
    ),
    "neither index nor id: a name begins a call": (
        [
            [part(name="one", arguments="{")],
            [part(arguments="}")],
            [part(name="two", arguments="{}")],
        ],
        [call("one", "{}"), call("two", "{}")],
    ),
    "a custom tool's input, and extra fields": (
        [[{"index": 0, **SQL}], [{"index": 0, "custom": {"input": " 1"}, **SIGNED}]],
        [{**SQL, "custom": {"name": "sql", "input": "select 1"}, **SIGNED}],
    ),
    "a field of the server's that is called position": (
        [
            [{**part(0, "a", name="one"), "position": "left"}],
            [{**part(1, "b", name="two"), "position": 0}],
        ],
        [{**call("one", "", "a"), "position": "left"}, {**call("two", "", "b"), "position": 0}],
    ),
}


@pytest.mark.parametrize(("pieces", "expected"), TOOL_CALLS.values(), ids=TOOL_CALLS)
def test_the_pieces_of_tool_calls_come_together(
    pieces: list[list[dict[str, Any]]], expected: list[dict[str, Any]]
) -> None:
    """Servers send them in these forms."""
    message = message_of({"tool_calls": None}, *({"tool_calls": piece} for piece in pieces))
    assert message["tool_calls"] == expected


TEXT = {"type": "text", "text": "b"}
MESSAGES: list[tuple[list[dict[str, Any]], dict[str, Any]]] = [
    (
        [{"content": ""}, {"refusal": "I'm "}, {"refusal": "sorry"}],
        {"content": "", "refusal": "I'm sorry"},
    ),
    ([{"content": None}], {"content": None}),
    ([{"role": None, "content": "a"}], {"content": "a"}),
    ([{"annotations": [1]}, {"annotations": [2]}], {"content": None, "annotations": [1, 2]}),
    (
        [{"role": "assistant", "content": "a"}, {"role": "assistant", "content": "b"}],
        {"content": "ab"},
    ),
    (
        [{"reasoning_details": [{"text": "a"}]}, {"reasoning_details": [{"text": "b"}]}],
        {"content": None, "reasoning_details": [{"text": "a"}, {"text": "b"}]},
    ),
    (
        [
            {"content": "", "function_call": {"name": "f", "arguments": ""}},
            {"function_call": {"arguments": "{}"}},
        ],
        {"content": "", "function_call": {"name": "f", "arguments": "{}"}},
    ),
    (
        [{"content": "a", "custom": 1}, {"custom": 2}, {"custom": None}],
        {"content": "a", "custom": 2},
    ),
    (
        [
            {"content": ""},
            {"content": [{"type": "thinking", "thinking": [1]}]},
            {"content": "a"},
            {"content": [TEXT]},
        ],
        {"content": [{"type": "thinking", "thinking": [1]}, {"type": "text", "text": "ab"}]},
    ),
]


@pytest.mark.parametrize(("deltas", "expected"), MESSAGES)
def test_deltas_come_together_as_the_message_that_is_not_streamed(
    deltas: list[dict[str, Any]], expected: dict[str, Any]
) -> None:
    """They may hold anything that servers send."""
    assert message_of(*deltas) == {"role": "assistant", **expected}


@given(st.lists(st.binary()))
def test_audio_is_joined_as_bytes_however_it_is_cut(pieces: list[bytes]) -> None:
    """It is encoded piece by piece; the transcript is joined as text."""
    message = message_of(
        {"audio": {"id": "audio_1", "transcript": "Good ", "data": ""}},
        *({"audio": {"data": base64.b64encode(data).decode()}} for data in pieces),
        {"audio": {"transcript": "day", "expires_at": 9}},
    )
    data = base64.b64encode(b"".join(pieces)).decode()
    audio = {"id": "audio_1", "transcript": "Good day", "data": data, "expires_at": 9}
    assert message["audio"] == audio


@given(st.lists(st.lists(st.sampled_from(["a", "b"]))))
def test_log_probabilities_are_joined_however_they_are_cut(pieces: list[list[str]]) -> None:
    """Servers send those of one token or of several at once."""
    choices = [piece({}, logprobs={"content": tokens, "refusal": None}) for tokens in pieces]
    whole = assembled([*map(chunk, choices), chunk(piece({}, finish_reason="stop", logprobs=None))])
    tokens = [token for tokens in pieces for token in tokens]
    logprobs = {"content": tokens, "refusal": None} if pieces else None
    assert whole["choices"][0]["logprobs"] == logprobs


WORDS = [{"token": "a"}, {"token": "b"}]
MIXED = [
    chunk(piece({"role": "assistant", "content": ""}), piece({"content": None}, 1)),
    chunk(piece({"tool_calls": [part(1, "b", name="two")]}, 1), piece({"content": "Hellö"})),
    chunk(
        piece({"tool_calls": [part(0, "a", name="one", arguments="{")]}, 1),
        piece({}, 2, "length"),
    ),
    chunk(piece({}, logprobs={"content": WORDS[:1], "refusal": None}), piece({"content": ", you"})),
    chunk(piece({"tool_calls": [part(0, arguments="}")]}, 1, "tool_calls")),
    chunk(piece({}, 0, "stop", logprobs={"content": WORDS[1:]}), usage=USAGE),
]


def test_choices_whose_pieces_are_mixed_come_together() -> None:
    """So do their calls, each in its order; asked for twice, the response is the same."""
    assembler = Assembler()
    for part in MIXED:
        assembler.add(part)
    expected = response(
        choice({"content": "Hellö, you"}, logprobs={"content": WORDS, "refusal": None}),
        choice(
            {"content": None, "tool_calls": [call("one", "{}", "a"), call("two", "", "b")]},
            "tool_calls",
            1,
        ),
        choice({"content": None}, "length", 2),
        usage=USAGE,
    )
    assert assembler.response() == assembler.response() == expected


def test_the_text_of_a_stream_is_that_of_its_first_choice() -> None:
    """Each chunk gives its piece."""
    assembler = Assembler()
    assert "".join([assembler.add(part) for part in MIXED]) == "Hellö, you"
