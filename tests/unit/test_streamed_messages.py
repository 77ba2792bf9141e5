"""Tests of what a message may hold beside its text, streamed: calls, refusals, reasoning, audio, logprobs."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from chunks import assembled, call, chunk, message_of, piece

from llmcall.errors import ServiceError

TOOL_CALLS: list[tuple[str, list[list[dict[str, Any]]], list[dict[str, Any]]]] = [
    (
        "interleaved, id and name only at first",
        [
            [{"index": 1, "id": "b", "type": "function", "function": {"name": "two", "arguments": ""}}],
            [{"index": 0, "id": "a", "type": "function", "function": {"name": "one", "arguments": ""}}],
            [{"index": 0, "function": {"arguments": '{"x"'}}, {"index": 1, "function": {"arguments": "{"}}],
            [{"index": 1, "function": {"arguments": "}"}}],
            [{"index": 0, "function": {"arguments": ":1}"}}],
        ],
        [call("one", '{"x":1}', "a"), call("two", "{}", "b")],
    ),
    (
        "id and name repeated in every piece",
        [
            [{"index": 0, "id": "a", "type": "function", "function": {"name": "one", "arguments": "{"}}],
            [{"index": 0, "id": "a", "type": "function", "function": {"name": "one", "arguments": "}"}}],
        ],
        [call("one", "{}", "a")],
    ),
    (
        "empty id and name in later pieces",
        [
            [{"index": 0, "id": "a", "function": {"name": "one", "arguments": "{"}}],
            [{"index": 0, "id": "", "function": {"name": "", "arguments": "}"}}],
        ],
        [call("one", "{}", "a")],
    ),
    (
        "a fresh id in every piece (vLLM): the first stays",
        [
            [{"index": 0, "id": "a", "function": {"name": "one"}}],
            [{"index": 0, "id": "b", "function": {"arguments": "{}"}}],
        ],
        [call("one", "{}", "a")],
    ),
    (
        "index 0 for every call",
        [
            [{"index": 0, "id": "a", "function": {"name": "one", "arguments": "{}"}}],
            [{"index": 0, "id": "b", "function": {"name": "one", "arguments": "[]"}}],
            [{"index": 0, "function": {"arguments": " "}}],
        ],
        [call("one", "{}", "a"), call("one", "[] ", "b")],
    ),
    (
        "no index (Gemini), several calls in one piece and in several",
        [
            [{"id": "a", "function": {"name": "one", "arguments": "{}"}}, {"id": "b", "function": {"name": "two"}}],
            [{"id": "b", "function": {"arguments": "[]"}}],
            [{"id": "a", "function": {"arguments": " "}}],
            [{"id": "c", "function": {"name": "one", "arguments": "{}"}}],
        ],
        [call("one", "{} ", "a"), call("two", "[]", "b"), call("one", "{}", "c")],
    ),
    (
        "neither index nor id: a name begins a call",
        [
            [{"function": {"name": "one", "arguments": "{"}}],
            [{"function": {"arguments": "}"}}],
            [{"function": {"name": "two", "arguments": "{}"}}],
        ],
        [call("one", "{}"), call("two", "{}")],
    ),
    (
        "an index from the second piece on",
        [
            [{"id": "a", "function": {"name": "one", "arguments": "{"}}],
            [{"index": 0, "function": {"arguments": "}"}}],
        ],
        [call("one", "{}", "a")],
    ),
    (
        "a custom tool's input, and extra fields",
        [
            [{"index": 0, "id": "a", "type": "custom", "custom": {"name": "sql", "input": "select"}}],
            [{"index": 0, "custom": {"input": " 1"}, "extra_content": {"signature": "s"}}],
        ],
        [
            {
                "id": "a",
                "type": "custom",
                "custom": {"name": "sql", "input": "select 1"},
                "extra_content": {"signature": "s"},
            }
        ],
    ),
    ("no arguments at all", [[{"index": 0, "id": "a", "function": {"name": "one"}}]], [call("one", "", "a")]),
    ("null and empty lists", [[], []], []),
]  # fmt: skip


@pytest.mark.parametrize(
    ("pieces", "expected"), [case[1:] for case in TOOL_CALLS], ids=[name for name, *_ in TOOL_CALLS]
)
def test_tool_calls(pieces: list[list[dict[str, Any]]], expected: list[dict[str, Any]]) -> None:
    """Pieces of tool calls come together in the forms in which servers send them."""
    message = message_of({"tool_calls": None}, *({"tool_calls": each} for each in pieces))
    assert message.get("tool_calls", []) == expected
    assert ("tool_calls" in message) == bool(expected)


MESSAGES: list[tuple[list[dict[str, Any]], dict[str, Any]]] = [
    ([{"content": ""}, {"refusal": "I'm "}, {"refusal": "sorry"}], {"content": None, "refusal": "I'm sorry"}),
    ([{"content": ""}, {"content": ""}], {"content": ""}),
    ([{"content": None}], {"content": None}),
    ([{}], {"content": None}),
    ([{"role": None, "content": "a"}], {"content": "a"}),
    ([{"annotations": [1]}, {"annotations": [2]}], {"content": None, "annotations": [1, 2]}),
    ([{"role": "assistant", "content": "a"}, {"role": "assistant", "content": "b"}], {"content": "ab"}),
    ([{"role": "tool", "content": "a"}, {"role": None}], {"role": "tool", "content": "a"}),
    (
        [{"reasoning_content": "h"}, {"reasoning_content": "m"}, {"content": "x"}],
        {"content": "x", "reasoning_content": "hm"},
    ),
    ([{"reasoning": "h"}, {"reasoning": "m", "content": "x"}], {"content": "x", "reasoning": "hm"}),
    (
        [{"reasoning_details": [{"text": "a"}]}, {"reasoning_details": [{"text": "b"}]}],
        {"content": None, "reasoning_details": [{"text": "a"}, {"text": "b"}]},
    ),
    (
        [{"content": "", "function_call": {"name": "f", "arguments": ""}}, {"function_call": {"arguments": "{}"}}],
        {"content": None, "function_call": {"name": "f", "arguments": "{}"}},
    ),
    ([{"content": "a", "function_call": None, "audio": None}], {"content": "a"}),
    ([{"content": "a", "custom": 1}, {"custom": 2}, {"custom": None}], {"content": "a", "custom": 2}),
]  # fmt: skip


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
    assert message["audio"] == {"id": "audio_1", "transcript": "Good day", "data": data, "expires_at": 9}


def test_broken_audio() -> None:
    """Audio data that is not Base64 is a malformed answer."""
    with pytest.raises(ServiceError, match="not base64"):
        message_of({"audio": {"data": "?"}})


def test_logprobs() -> None:
    """The lists of log probabilities are joined; null stays where nothing came."""
    chunks = [
        chunk(piece({"content": "a"}, logprobs=None)),
        chunk(piece({"content": "b"}, logprobs={"content": [{"token": "b"}], "refusal": None})),
        chunk(piece({"content": "c"}, logprobs={"content": [{"token": "c"}], "refusal": [{"token": "no"}]})),
        chunk(piece({}, logprobs={"content": None, "refusal": [{"token": "way"}]})),
        chunk(piece({}, finish_reason="stop", logprobs=None)),
    ]
    expected = {"content": [{"token": "b"}, {"token": "c"}], "refusal": [{"token": "no"}, {"token": "way"}]}
    assert assembled(chunks)["choices"][0]["logprobs"] == expected
