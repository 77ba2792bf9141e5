"""Tests of reading server-sent events."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmcall.errors import ServiceError
from llmcall.responses.event_stream import EventReader, LineReader, text_in


def event(content: str, **fields: Any) -> str:
    made = {"choices": [{"index": 0, "delta": {"content": content}}], **fields}
    return "data: " + json.dumps(made, ensure_ascii=False)


def lines_of(*parts: bytes) -> list[str]:
    reader = LineReader()
    return [line for part in parts for line in reader.feed(part)] + reader.close()


def pieces_of(*parts: bytes) -> list[str]:
    reader = EventReader()
    return [piece for part in parts for piece in reader.feed(part)] + list(reader.close())


def heard(parts: list[bytes]) -> tuple[list[str], str]:
    """Return the pieces that came before an error, and the error."""
    reader = EventReader()
    pieces: list[str] = []
    try:
        for part in [*parts, None]:
            for piece in reader.close() if part is None else reader.feed(part):
                pieces.append(piece)  # one by one: what came before an error counts
    except ServiceError as error:
        return pieces, str(error)
    return pieces, ""


LINES: list[tuple[list[bytes], list[str]]] = [
    ([b"a\nb\rc\r\nd\n"], ["a", "b", "c", "d"]),
    ([b"a\r", b"\nb\r", b"c\n"], ["a", "b", "c"]),
    ([b"a\r", b"\n", b"\n"], ["a", ""]),
    ([b"a\r", b"", b"\nb\n"], ["a", "b"]),
    ([b"\r\r\n\n"], ["", "", ""]),
    ([b"last, without its end"], ["last, without its end"]),
    ([b""], []),
    ([b"\xe2\x82", b"\xac\n"], ["€"]),
    ([b"\xf0", b"\x9f", b"\x98", b"\x80"], ["\N{GRINNING FACE}"]),
    ([b"a\xffb\n\xe2\x82"], ["a\ufffdb", "\ufffd"]),
    (["a\u2028b\x0bc\x85d\n".encode()], ["a\u2028b\x0bc\x85d"]),
    ([b"\xef\xbb", b"\xbfdata\n\xef\xbb\xbfx"], ["data", "\ufeffx"]),
]


@pytest.mark.parametrize(("parts", "lines"), LINES)
def test_lines(parts: list[bytes], lines: list[str]) -> None:
    """Lines end with CR, LF or both, wherever the network cuts, and hold any other character."""
    assert lines_of(*parts) == lines


def test_a_line_is_there_with_its_return() -> None:
    """A line that ends with CR is not held back until it is known whether LF follows."""
    assert LineReader().feed(b"a\r") == ["a"]


PIECES: list[tuple[str, list[str]]] = [
    (f"{event('Hel')}\n\n{event('lo')}\n\ndata: [DONE]\n\n", ["Hel", "lo"]),
    (f"{event('Hel')}\n{event('lo')}", ["Hel", "lo"]),
    (f"{event('a')}\r\n\r\n{event('b')}\r\r{event('c')}\n\n", ["a", "b", "c"]),
    (f"data:{event('a')[6:]}\n\ndata:   {event('b')[6:]}  \n\n", ["a", "b"]),
    (f": comment\n:\nevent: message\nid: 7\nretry: 10\n{event('a')}\n\n", ["a"]),
    (f"{event('a')}\ndata: [done]\n{event('never')}\n", ["a"]),
    (f"{event('a')}\ndata:[Done] \n{event('never')}\n", ["a"]),
    (f"an error page\n{event('a')}\nidle\n", ["an error page", "a", "idle"]),
    ('{"choices": []}\n[DONE]\ndata\nDATA: x\n', ['{"choices": []}', "[DONE]", "data", "DATA: x"]),
    (f"data:\ndata: \n\n{event('')}\n\n{event('a')}\n\n", ["a"]),
    ('data: {"choices":\ndata:  [{"delta":\ndata: {"content": "a"}}]}\n\n', ["a"]),
    (f"{event('a', error_code=0, text='no')}\n", ["a"]),
    ('data: {"error_code": 1, "text": "**no memory**"}\n\ndata: [DONE]\n\n', ["**no memory**"]),
    (f"{event('日本')}\n\n{event('€')}\n\n", ["日本", "€"]),
    ("", []),
]


@pytest.mark.parametrize(("text", "pieces"), PIECES)
def test_pieces(text: str, pieces: list[str]) -> None:
    """Events give their texts, other lines themselves, fields without text nothing."""
    assert pieces_of(text.encode()) == pieces


@pytest.mark.parametrize(("text", "pieces"), PIECES)
def test_every_byte_by_itself(text: str, pieces: list[str]) -> None:
    """The same pieces come when each byte arrives alone."""
    assert pieces_of(*(bytes([byte]) for byte in text.encode())) == pieces


def test_a_piece_comes_with_its_line() -> None:
    """A piece is there as soon as its line is complete, before the blank line that ends the event."""
    reader = EventReader()
    assert list(reader.feed(event("a").encode())) == []
    assert list(reader.feed(b"\n")) == ["a"]


def test_done() -> None:
    """The reader knows that the stream has said its end."""
    reader = EventReader()
    assert (list(reader.feed(f"{event('a')}\n".encode())), reader.done) == (["a"], False)
    assert (list(reader.feed(b"data: [DONE]\n")), reader.done) == ([], True)
    assert (list(reader.feed(f"{event('b')}\n".encode())), list(reader.close()), reader.done) == ([], [], True)


MALFORMED = [
    "data: {half\n\n",
    "data: {half",
    "data: {half\ndata: [DONE]\n",
    "data: 5\n",
    'data: "text"\n',
    "data: [1]\n",
    "data: null\n",
]


@pytest.mark.parametrize("text", MALFORMED)
def test_malformed_events(text: str) -> None:
    """An event that is no JSON object, or ends half-way, is a failure; what came before it is given first."""
    pieces, error = heard([f"{event('before')}\n\n{text}".encode()])
    assert (pieces, "malformed event" in error) == (["before"], True)


EVENTS: list[tuple[dict[str, Any], str]] = [
    ({"choices": [{"delta": {"content": "a"}}]}, "a"),
    ({"choices": [{"delta": {"content": "a"}}, {"delta": {"content": "b"}}]}, "a"),
    ({"choices": [{"delta": {"content": None}}]}, ""),
    ({"choices": [{"delta": {"role": "assistant"}}]}, ""),
    ({"choices": [{"delta": {"reasoning_content": "hm"}}]}, ""),
    ({"choices": [{"delta": {}, "finish_reason": "stop"}]}, ""),
    ({"choices": [{"delta": None}]}, ""),
    ({"choices": [{}]}, ""),
    ({"choices": [{"text": "older"}]}, "older"),
    ({"choices": [], "usage": {"total_tokens": 3}}, ""),
    ({"choices": None}, ""),
    ({"usage": {"total_tokens": 3}}, ""),
    ({}, ""),
    ({"error_code": 2, "text": "failed"}, "failed"),
    ({"error_code": 2, "text": None, "message": "failed"}, "failed"),
    ({"error_code": 2}, "{'error_code': 2}"),
    ({"error_code": 0, "text": "whole answer"}, ""),
    ({"error_code": None, "error": None, "choices": [{"delta": {"content": "a"}}]}, "a"),
]


@pytest.mark.parametrize(("given_event", "text"), EVENTS)
def test_text_in(given_event: dict[str, Any], text: str) -> None:
    """The text of an event is where chat completions, older completions and DB-GPT put it."""
    assert text_in(given_event) == text


BROKEN_CHOICES: list[Any] = [{"0": {}}, "text", [5], [{"delta": "text"}], [{"delta": {"content": ["text"]}}]]


@pytest.mark.parametrize("choices", BROKEN_CHOICES)
def test_choices_of_another_shape(choices: Any) -> None:
    """Choices of another shape are a malformed answer."""
    with pytest.raises(ServiceError, match="choices is"):
        text_in({"choices": choices})


@pytest.mark.parametrize(
    ("error", "message"), [({"message": "too busy"}, "too busy"), ("too busy", "too busy"), ({"code": 7}, "7")]
)
def test_error_events(error: Any, message: str) -> None:
    """An error inside the stream is an error, not a silent end."""
    with pytest.raises(ServiceError, match=message):
        text_in({"error": error})


snippets = st.one_of(
    st.sampled_from(["\r", "\n", "\r\n", "\n\n", "data:", "data: ", ":", "id: 1", "[DONE]", "{", "\ufeff", "\u2028"]),
    st.text(max_size=4),
    st.text(max_size=6).map(event),
    st.just('data: {"error": "e"}'),
)
streams = st.lists(snippets, max_size=12).map(lambda made: "".join(made).encode("utf-8", "replace"))


@given(st.one_of(streams, st.binary(max_size=30)), st.lists(st.integers(0, 200), max_size=6))
def test_the_network_may_cut_anywhere(stream: bytes, places: list[int]) -> None:
    """However the bytes are cut, the same pieces and the same error come."""
    places = sorted(min(place, len(stream)) for place in places)
    parts = [stream[start:end] for start, end in zip([0, *places], [*places, len(stream)], strict=True)]
    assert heard(parts) == heard([stream])


@given(
    st.lists(st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]))),
    st.sampled_from(["\r\n", "\n", "\r"]),
)
def test_any_line_end(lines: list[str], end: str) -> None:
    """Lines come out as they were put together, with any end."""
    text = "".join(line + end for line in lines)
    assert lines_of(b"\xef\xbb\xbf" + text.encode()) == lines
