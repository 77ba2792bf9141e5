"""Property test: the way a response is cut into chunks does not matter."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

from chunks import NAMES, USAGE, call, choice, chunk, piece, response
from hypothesis import given
from hypothesis import strategies as st

from llmcall.responses.streaming import Assembler

texts = st.text(max_size=12)
names = st.text(alphabet="abcdef_", min_size=1, max_size=8)
tokens = st.lists(st.fixed_dictionaries({"token": texts}), min_size=1, max_size=3)


@st.composite
def messages(draw: st.DrawFn) -> dict[str, Any]:
    functions = draw(st.lists(st.tuples(names, texts), max_size=3))
    message: dict[str, Any] = {"role": "assistant", "content": None if functions else draw(texts)}
    if functions:
        message["tool_calls"] = [call(name, text, f"call_{at}") for at, (name, text) in enumerate(functions)]
    optional = {"refusal": st.none(), "reasoning_content": texts, "reasoning": texts}
    return {**message, **draw(st.fixed_dictionaries({}, optional=optional))}


@st.composite
def responses(draw: st.DrawFn) -> dict[str, Any]:
    reasons = st.sampled_from(["stop", "length", "tool_calls"])
    logprobs = st.one_of(st.none(), st.fixed_dictionaries({"content": tokens, "refusal": st.none()}))
    count = draw(st.integers(1, 3))
    extras = draw(st.fixed_dictionaries({}, optional={"usage": st.just(USAGE), "service_tier": st.just("default")}))
    made = [choice(draw(messages()), draw(reasons), index, logprobs=draw(logprobs)) for index in range(count)]
    return response(*made, **extras)


@st.composite
def cut(draw: st.DrawFn, whole: Any) -> list[Any]:
    """Return a text or a list in pieces."""
    places = sorted(draw(st.lists(st.integers(0, len(whole)), max_size=3)))
    return [whole[start:end] for start, end in zip([0, *places], [*places, len(whole)], strict=True)]


def mixed(draw: st.DrawFn, rows: list[list[Any]]) -> Iterator[Any]:
    """Yield the items of all rows, each row in its order."""
    rows = [list(row) for row in rows if row]
    while rows:
        row = draw(st.sampled_from(rows))
        yield row.pop(0)
        rows = [row for row in rows if row]


def call_pieces(draw: st.DrawFn, index: int, whole: dict[str, Any]) -> list[dict[str, Any]]:
    first, *others = draw(cut(whole["function"]["arguments"]))
    begin = {**whole, "index": index, "function": {**whole["function"], "arguments": first}}
    rest = [{"index": index, "function": {"arguments": other}} for other in others]
    return [{"tool_calls": [each]} for each in [begin, *rest]]


def choice_pieces(draw: st.DrawFn, whole: dict[str, Any]) -> list[dict[str, Any]]:
    message, index = whole["message"], whole["index"]
    rows = [call_pieces(draw, at, each) for at, each in enumerate(message.get("tool_calls", []))]
    for name in ("content", "reasoning_content", "reasoning"):
        if isinstance(message.get(name), str):
            rows.append([{name: text} for text in draw(cut(message[name]))])
    opening = {"role": "assistant", "content": draw(st.sampled_from(["", None]))}
    if "refusal" in message:
        opening["refusal"] = None
    made = [piece(delta, index, logprobs=None) for delta in [opening, *mixed(draw, rows)]]
    if whole["logprobs"]:
        parts = draw(cut(whole["logprobs"]["content"]))
        made += [piece({}, index, logprobs={"content": part, "refusal": None}) for part in parts]
    return [*made, piece({}, index, whole["finish_reason"], logprobs=None)]


@st.composite
def chopped_responses(draw: st.DrawFn) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return a response and chunks of it."""
    whole = draw(responses())
    pieces = mixed(draw, [choice_pieces(draw, each) for each in whole["choices"]])
    extras = {name: value for name, value in whole.items() if name not in (*NAMES, "object", "choices")}
    return whole, [*(chunk(each) for each in pieces), chunk(**extras)]


@given(chopped_responses())
def test_any_chopping_gives_the_same_response(chopped: tuple[dict[str, Any], list[dict[str, Any]]]) -> None:
    """However a response is cut into chunks, and its choices and calls are mixed, it comes together as it was."""
    whole, chunks = chopped
    assembler, given_chunks = Assembler(), copy.deepcopy(chunks)
    text = "".join([assembler.add(each) for each in chunks])
    assert assembler.response() == assembler.response() == whole
    assert text == (whole["choices"][0]["message"]["content"] or "")
    assert chunks == given_chunks
