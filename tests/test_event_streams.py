"""The grammar of streamed answers: bytes into events, and chunks of many servers into one response.

Private imports: the decoder and the assembler are parsers, fed here with what no fake server would
send one by one.
"""

from __future__ import annotations

import base64
import copy
from typing import Any

import pytest

from llmcall import ServiceError
from llmcall.responses.assembler import Assembler
from llmcall.responses.event_stream import EventStreamDecoder

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
    assembler = Assembler()
    for each in chunks:
        assembler.add(each)
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
    decoder = EventStreamDecoder()
    return [event for part in parts for event in decoder.feed(part)] + list(decoder.close())


EVENTS: dict[str, tuple[bytes, list[Any]]] = {
    "events": (b'data: {"a": 1}\n\ndata:{"a": 2}\n\n', [{"a": 1}, {"a": 2}]),
    "no blank line between": (b'data: {"a": 1}\ndata: {"a": 2}\n', [{"a": 1}, {"a": 2}]),
    "no end": (b'data: {"a": 1}', [{"a": 1}]),
    "other ends of lines": (b'data: {"a": 1}\r\n\r\ndata: {"a": 2}\r\r', [{"a": 1}, {"a": 2}]),
    "other fields": (b': ping\nevent: x\nid: 1\nretry: 5\ndata: {"a": 1}\n\n', [{"a": 1}]),
    "a byte order mark": (b'\xef\xbb\xbfdata: {"a": 1}\n\n', [{"a": 1}]),
    "the end": (b'data: {"a": 1}\n\ndata: [DONE]\n\ndata: {"a": 2}\n\n', [{"a": 1}]),
    "the end, small": (b"data:[done]\n\nnothing\n", []),
    "other lines": (b"<html>\n\nbusy\n", ["<html>", "busy"]),
    "empty data": (b'data:\n\ndata: {"a": 1}\n\n', [{"a": 1}]),
    "no UTF-8": (b'data: {"a": "\xff"}\n\n', [{"a": "\ufffd"}]),
    "a lone surrogate": (b'data: {"a": "\\ud800"}\n\n', [{"a": "\ufffd"}]),
    "letters of several bytes": ('data: {"a": "日本"}\n\n'.encode(), [{"a": "日本"}]),
}


@pytest.mark.parametrize("name", EVENTS)
def test_events(name: str) -> None:
    """An event stream is read as servers write it, wherever it is cut."""
    body, events = EVENTS[name]
    assert decoded(body) == events
    for place in range(1, len(body)):
        assert decoded(body[:place], body[place:]) == events
    assert decoded(*(bytes([byte]) for byte in body)) == events


@pytest.mark.parametrize("data", [b"{half", b"3", b'[{"a": 1}]', b"[" * 10_000], ids=len)
def test_what_is_no_event(data: bytes) -> None:
    """Data that is no JSON object is a failure of the service."""
    with pytest.raises(ServiceError, match="a malformed chunk in the stream"):
        decoded(b"data: " + data + b"\n\n")


def test_azure_chunks() -> None:
    """Azure's chunks without names or choices neither blank out the names nor its verdicts."""
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


def test_first_and_last_values() -> None:
    """The first date counts, as servers may give every chunk its own; of usage and unknown fields the
    last.

    OpenAI's random padding is left out.
    """
    chunks = [
        chunk(
            piece({"content": "a"}, logprobs=None),
            created=1,
            usage=None,
            x_groq={"id": 1},
            obfuscation="zq",
        ),
        chunk(
            piece({}, finish_reason="stop"),
            created=2,
            usage={"prompt_tokens": 1},
            service_tier=None,
        ),
        chunk(usage=USAGE, x_groq={"id": 2}, service_tier="flex", obfuscation=""),
    ]
    expected = choice({"content": "a"}, logprobs=None)
    assert assembled(chunks) == response(
        expected, created=1, usage=USAGE, x_groq={"id": 2}, service_tier="flex"
    )


@pytest.mark.parametrize(
    "empty", [{}, {"choices": None}, {"choices": []}, {"choices": [{"index": 0, "delta": None}]}]
)
def test_chunks_that_say_nothing(empty: dict[str, Any]) -> None:
    """Chunks without choices, or with null in their place, change nothing."""
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
        {
            "choices": [
                {"index": 0, "delta": {"tool_calls": [{"index": 0, "function": {"arguments": {}}}]}}
            ]
        },
        {"choices": [{"index": 0, "delta": {"function_call": "f"}}]},
        {"choices": [{"index": 0, "delta": {}, "logprobs": []}]},
    ],
)
def test_malformed_chunks(broken: Any) -> None:
    """A chunk of another shape is a failure of the service."""
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
def test_broken_off_streams(chunks: list[dict[str, Any]], what: str) -> None:
    """A stream that ends too early has no response."""
    with pytest.raises(ServiceError, match=what):
        assembled(chunks)


@pytest.mark.parametrize(
    "error", [{"message": "overloaded", "code": 429}, "overloaded", {"code": "overloaded"}]
)
def test_error_events(error: Any) -> None:
    """An error beside what a stream brought so far (OpenRouter) is raised with the server's words."""
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
}


@pytest.mark.parametrize(("pieces", "expected"), TOOL_CALLS.values(), ids=TOOL_CALLS)
def test_tool_calls(pieces: list[list[dict[str, Any]]], expected: list[dict[str, Any]]) -> None:
    """Pieces of tool calls come together in the forms in which servers send them."""
    message = message_of({"tool_calls": None}, *({"tool_calls": each} for each in pieces))
    assert message["tool_calls"] == expected


TEXT = {"type": "text", "text": "b"}
MESSAGES: list[tuple[list[dict[str, Any]], dict[str, Any]]] = [
    (
        [{"content": ""}, {"refusal": "I'm "}, {"refusal": "sorry"}],
        {"content": None, "refusal": "I'm sorry"},
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
        {"content": None, "function_call": {"name": "f", "arguments": "{}"}},
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
def test_messages(deltas: list[dict[str, Any]], expected: dict[str, Any]) -> None:
    """Deltas of all kinds come together as the unstreamed message has them."""
    assert message_of(*deltas) == {"role": "assistant", **expected}


def test_audio() -> None:
    """Audio data, encoded piece by piece, is joined as bytes; the transcript as text."""
    first, second = (base64.b64encode(data).decode() for data in (b"ab", b"cde"))
    message = message_of(
        {"audio": {"id": "audio_1", "transcript": "Good "}},
        {"audio": {"data": first, "transcript": "day"}},
        {"audio": {"data": second}},
        {"audio": {"expires_at": 9}},
    )
    data = base64.b64encode(b"abcde").decode()
    assert message["audio"] == {
        "id": "audio_1",
        "transcript": "Good day",
        "data": data,
        "expires_at": 9,
    }


def test_several_choices() -> None:
    """Choices and calls whose pieces are mixed come together, each in its order; the chunks stay as
    they were.
    """
    words = [{"token": "a"}, {"token": "b"}]
    chunks = [
        chunk(piece({"role": "assistant", "content": ""}), piece({"content": None}, 1)),
        chunk(piece({"tool_calls": [part(1, "b", name="two")]}, 1), piece({"content": "Hellö"})),
        chunk(
            piece({"tool_calls": [part(0, "a", name="one", arguments="{")]}, 1),
            piece({}, 2, "length"),
        ),
        chunk(
            piece({}, logprobs={"content": words[:1], "refusal": None}), piece({"content": ", you"})
        ),
        chunk(piece({"tool_calls": [part(0, arguments="}")]}, 1, "tool_calls")),
        chunk(piece({}, 0, "stop", logprobs={"content": words[1:]}), usage=USAGE),
    ]
    given_chunks, assembler = copy.deepcopy(chunks), Assembler()
    assert "".join([assembler.add(each) for each in chunks]) == "Hellö, you"
    expected = response(
        choice({"content": "Hellö, you"}, logprobs={"content": words, "refusal": None}),
        choice(
            {"content": None, "tool_calls": [call("one", "{}", "a"), call("two", "", "b")]},
            "tool_calls",
            1,
        ),
        choice({"content": None}, "length", 2),
        usage=USAGE,
    )
    assert assembler.response() == assembler.response() == expected
    assert chunks == given_chunks
