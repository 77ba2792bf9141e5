"""Tests of putting streamed chunks together."""

from __future__ import annotations

from typing import Any

import pytest
from chunks import USAGE, assembled, choice, chunk, piece, response

from llmcall.errors import ServiceError
from llmcall.responses.streaming import Assembler, text_pieces


def test_openai_text() -> None:
    """OpenAI's usual stream, its usage last, gives the unstreamed response; the random padding is left out."""
    chunks = [
        chunk(piece({"role": "assistant", "content": "", "refusal": None}, logprobs=None), usage=None, obfuscation="x"),
        chunk(piece({"content": "Hel"}, logprobs=None), usage=None, obfuscation="y"),
        chunk(piece({"content": "lo"}, logprobs=None), usage=None, obfuscation="zq"),
        chunk(piece({}, finish_reason="stop", logprobs=None), usage=None, obfuscation=""),
        chunk(usage=USAGE, obfuscation="a"),
    ]
    expected = response(choice({"content": "Hello", "refusal": None}, logprobs=None), usage=USAGE)
    assert assembled(chunks) == expected
    assert list(assembled(chunks)) == ["id", "object", "created", "model", "choices", "usage"]


def test_azure_chunks() -> None:
    """Azure's chunks without names or choices neither blank out the names nor its verdicts."""
    verdict = {"hate": {"filtered": False, "severity": "safe"}}
    nameless = {"id": "", "created": 0, "model": "", "object": ""}
    chunks = [
        {**nameless, "choices": [], "prompt_filter_results": [{"prompt_index": 0}]},
        chunk(piece({"role": "assistant"}, content_filter_results=verdict)),
        chunk(piece({"content": "Hi"}, content_filter_results={})),
        chunk(piece({}, finish_reason="stop", content_filter_results={})),
        {**nameless, "choices": [{"index": 0, "finish_reason": None, "content_filter_results": {}}]},
    ]
    expected = choice({"content": "Hi"}, content_filter_results=verdict)
    assert assembled(chunks) == response(expected, prompt_filter_results=[{"prompt_index": 0}])


def test_add_returns_the_text_of_choice_0() -> None:
    """Only the text of choice 0 is passed on, not what other choices, refusals or reasoning say."""
    assembler = Assembler()
    given_chunks = [
        chunk(piece({"role": "assistant", "content": "a"}), piece({"content": "B"}, index=1)),
        chunk(piece({"content": "C"}, index=1)),
        chunk(piece({"reasoning_content": "hm", "refusal": "no"})),
        chunk(piece({"content": None})),
        chunk(piece({"content": "d"})),
        chunk(),
    ]
    assert [assembler.add(each) for each in given_chunks] == ["a", "", "", "", "d", ""]


def test_complete() -> None:
    """A stream is complete when every choice that it began has a reason for its end."""
    assembler = Assembler()
    assert not assembler.complete
    assembler.add(chunk(piece({"content": "a"}, finish_reason="stop"), piece({"content": "b"}, index=1)))
    assert not assembler.complete
    assembler.add(chunk(piece({}, index=1, finish_reason="length")))
    assert assembler.complete


def test_several_choices_in_any_order() -> None:
    """Choices come out in the order of their indexes, whichever was heard of first."""
    chunks = [
        chunk(piece({"content": "second"}, index=1)),
        chunk(piece({"content": "fir"})),
        chunk(piece({}, index=1, finish_reason="length")),
        chunk(piece({"content": "st"}, finish_reason="stop")),
    ]
    expected = response(choice({"content": "first"}), choice({"content": "second"}, "length", 1))
    assert assembled(chunks) == expected


def test_first_and_last_values() -> None:
    """The first date counts, as servers may date every chunk anew; of usage and unknown fields the last."""
    chunks = [
        chunk(piece({"content": "a"}), created=1, usage={"prompt_tokens": 1}, x_groq={"id": 1}, service_tier=None),
        chunk(piece({}, finish_reason="stop"), created=2, usage=USAGE, x_groq={"id": 2}, service_tier="flex"),
    ]
    expected = response(choice({"content": "a"}), created=1, usage=USAGE, x_groq={"id": 2}, service_tier="flex")
    assert assembled(chunks) == expected


@pytest.mark.parametrize("empty", [{}, {"choices": None}, {"choices": []}, {"choices": [{"index": 0, "delta": None}]}])
def test_chunks_that_say_nothing(empty: dict[str, Any]) -> None:
    """Chunks without choices, or with null in their place, change nothing."""
    chunks = [empty, chunk(piece({"content": "a"})), empty, chunk(piece({}, finish_reason="stop")), empty]
    assert assembled(chunks) == response(choice({"content": "a"}))


def test_choice_without_index() -> None:
    """A choice without an index is that of its place in the list."""
    chunks = [chunk({"delta": {"content": "a"}, "finish_reason": "stop"}, {"delta": {}, "finish_reason": "stop"})]
    assert [each["index"] for each in assembled(chunks)["choices"]] == [0, 1]


@pytest.mark.parametrize(
    "broken",
    [
        None,
        "data",
        [],
        {"choices": {}},
        {"choices": "x"},
        {"choices": [None]},
        {"choices": [{"index": "0", "delta": {}}]},
        {"choices": [{"index": 0, "delta": "text"}]},
        {"choices": [{"index": 0, "delta": {"content": 5}}]},
        {"choices": [{"index": 0, "delta": {"content": [{"type": "text"}]}}]},
        {"choices": [{"index": 0, "delta": {"tool_calls": {}}}]},
        {"choices": [{"index": 0, "delta": {"tool_calls": ["f"]}}]},
        {"choices": [{"index": 0, "delta": {"tool_calls": [{"index": "a"}]}}]},
        {"choices": [{"index": 0, "delta": {"tool_calls": [{"index": 0, "function": {"arguments": {}}}]}}]},
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
        ([chunk(usage=USAGE)], "after 1 chunks: no choice 0"),
        ([chunk(piece({"content": "half"}))], "no finish_reason for choice 0"),
        ([chunk(piece({"content": "half"}, finish_reason=""))], "no finish_reason for choice 0"),
        ([chunk(piece({}, finish_reason="stop"), piece({}, index=1))], "no finish_reason for choice 1"),
        ([chunk(piece({}, index=1, finish_reason="stop"))], "no choice 0"),
    ],
)
def test_broken_off_streams(chunks: list[dict[str, Any]], what: str) -> None:
    """A stream that ends too early has no response."""
    with pytest.raises(ServiceError, match=what):
        assembled(chunks)


ERROR_EVENTS: list[tuple[dict[str, Any], str]] = [
    ({"error": {"message": "slow down", "code": 429}}, "slow down"),
    ({"error": "overloaded"}, "overloaded"),
    ({"object": "error", "message": "boom", "code": 500}, "boom"),
    ({"error_code": 1, "text": "no memory"}, "no memory"),
    (chunk(piece({}, finish_reason="error"), error={"code": 502}), "502"),
]


@pytest.mark.parametrize(("event", "message"), ERROR_EVENTS)
def test_error_events(event: dict[str, Any], message: str) -> None:
    """An error inside the stream is raised with the server's words."""
    with pytest.raises(ServiceError, match=message):
        Assembler().add(event)


def test_error_code_is_kept() -> None:
    """The server's code is on the error."""
    with pytest.raises(ServiceError) as raised:
        Assembler().add({"error": {"message": "m", "code": "server_error"}})
    assert raised.value.code == "server_error"


@pytest.mark.parametrize("nothing", [{"error": None}, {"error": {}}, {"error_code": 0}])
def test_no_error(nothing: dict[str, Any]) -> None:
    """A field for errors that holds none is no error."""
    assert Assembler().add({**chunk(piece({"content": "a"})), **nothing}) == "a"


@pytest.mark.parametrize(
    ("content", "pieces"),
    [("Hello", ["Hello"]), (" Two\n\ncoins. ", [" Two", "\n\ncoins.", " "]), ("", []), (None, [])],
)
def test_text_pieces(content: str | None, pieces: list[str]) -> None:
    """A replay yields the text word by word, and nothing where there is none."""
    assert text_pieces(response(choice({"content": content}))) == pieces
