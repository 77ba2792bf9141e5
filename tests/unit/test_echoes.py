"""A key that comes back in pieces is taken out of them, wherever they are cut; nothing else is changed."""

from __future__ import annotations

from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given
from streaming import chunk

from llmcall.clients.echoes import HARMLESS, EchoFilter
from llmcall.responses.streaming import Assembler

KEY = "sk-proj-sk-0123456789"  # it begins anew inside itself
BOTH = [f"Bearer {KEY}", KEY]
TEXTS = st.lists(st.sampled_from(["Two coins. ", "s", "sk-", "sk-proj-", "sk-proj-sk-01", KEY[:-1], "Bearer ", "é"]))
ENDINGS = range(HARMLESS + 1)


def cut(text: str, lengths: list[int]) -> list[str]:
    """Return a text in pieces of these lengths, the rest in one."""
    pieces = []
    for length in lengths:
        pieces.append(text[:length])
        text = text[length:]
    return [*pieces, text]


def passed(pieces: list[str], keys: list[str]) -> str:
    """Return the text that comes out of the chunks that these pieces go in."""
    echoes = EchoFilter(keys)
    chunks = [*(echoes.passed(chunk(piece)) for piece in pieces), *echoes.rest()]
    return "".join(each["choices"][0]["delta"]["content"] for each in chunks)


@given(before=TEXTS, after=TEXTS, lengths=st.lists(st.integers(0, 9), max_size=40))
def test_a_key_in_pieces(before: list[str], after: list[str], lengths: list[int]) -> None:
    """However it is cut, of a key no more comes out than the few characters with which many words begin."""
    start, end = "".join(before), "".join(after)
    found = passed(cut(start + KEY + end, lengths), [KEY])
    plain = (start + KEY + end).replace(KEY, "\0")
    assert KEY not in found
    assert found in {plain.replace("\0", KEY[:seen] + "…") for seen in ENDINGS} or plain.count("\0") > 1


@given(texts=TEXTS, lengths=st.lists(st.integers(0, 9), max_size=40))
def test_what_is_no_key_is_passed_on(texts: list[str], lengths: list[int]) -> None:
    """A text without a key comes out as it went in, its last character too."""
    text = "".join(texts).replace(KEY, "")
    assert passed(cut(text, lengths), BOTH) == text.replace(KEY, "…")


@pytest.mark.parametrize("pieces", [["Two", " coins", "."], ["It is", " sk", "-2 or s"], ["", "Bea", "ring 2"]])
def test_pieces_stay_as_they_are(pieces: list[str]) -> None:
    """Ordinary pieces are passed on at once, though their ends may begin a key."""
    echoes = EchoFilter(BOTH)
    assert [echoes.passed(chunk(piece))["choices"][0]["delta"]["content"] for piece in pieces] == pieces
    assert list(echoes.rest()) == []


def test_a_piece_that_may_begin_a_key_waits() -> None:
    """It comes with the next one, or when the answer has ended."""
    echoes = EchoFilter([KEY])
    texts = [echoes.passed(chunk(piece))["choices"][0]["delta"]["content"] for piece in ("a sk-pr", "ose", " sk-proj")]
    assert texts == ["a ", "sk-prose", " "]
    assert [each["choices"] for each in echoes.rest()] == [[{"index": 0, "delta": {"content": "sk-proj"}}]]


def test_every_text_of_an_answer() -> None:
    """Contents, reasoning, refusals and arguments, of each choice and call, are looked at for themselves."""
    echoes, assembler = EchoFilter([KEY]), Assembler()
    for piece in cut(KEY, [4] * 5):
        call = {"index": 1, "function": {"arguments": piece}}
        delta = {"content": piece, "reasoning_content": piece, "refusal": piece, "tool_calls": [call]}
        assembler.add(echoes.passed({"choices": [{"index": number, "delta": {**delta}} for number in (0, 1)]}))
    end: dict[str, Any] = {"choices": [{"index": number, "delta": {}, "finish_reason": "stop"} for number in (0, 1)]}
    for each in [echoes.passed(end), *echoes.rest()]:
        assembler.add(each)
    response = assembler.response()
    assert KEY[4:] not in str(response)
    assert str(response).count("…") == 8


def test_what_was_kept_back_of_arguments() -> None:
    """The end of the arguments of a call goes to that call."""
    echoes, assembler = EchoFilter([KEY]), Assembler()
    for index in (0, 1):
        call = {"index": index, "id": f"c{index}", "function": {"name": "f", "arguments": f'"{index} {KEY[:-1]}'}}
        assembler.add(echoes.passed({"choices": [{"index": 0, "delta": {"tool_calls": [call]}}]}))
    assembler.add(echoes.passed(chunk(None, "tool_calls")))
    for each in echoes.rest():
        assembler.add(each)
    calls = assembler.response()["choices"][0]["message"]["tool_calls"]
    assert [each["function"]["arguments"] for each in calls] == [f'"{index} {KEY[:-1]}' for index in (0, 1)]


@pytest.mark.parametrize(
    "strange", [{}, {"choices": 3}, {"choices": [3, None, {"delta": 3}, {"delta": [{"content": 3}]}]}]
)
def test_strange_chunks_are_left_to_others(strange: dict[str, Any]) -> None:
    """What is no chunk is passed on as it is."""
    assert EchoFilter([KEY]).passed(strange) == strange
    assert EchoFilter([]).passed(chunk(KEY)) == chunk(KEY)
