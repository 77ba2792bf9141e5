"""Records as conversations: grouped by scope, without the history that requests repeat, as text that stays put."""

from __future__ import annotations

from typing import Any

import pytest
from commands import done
from conversations import chat, conversation, embedding, function, record_of, written

from llmcall.types import Record

TURNS = [("Bread for 3?", "Yes."), ("And for 5?", "No."), ("For 4?", "Perhaps.")]
TOOL_CALL = {"id": "c1", "type": "function", "function": {"name": "price_of", "arguments": '{"item": "bread"}'}}
LONG = "A careful buyer. " * 60


def text_of(records: list[Record], settings: dict[str, Any] | None = None) -> str:
    """Return what ``llmcall show`` prints of records."""
    return done("show", written("shown.jsonl", records, settings or {}))


def test_a_conversation_as_text() -> None:
    """A conversation reads as one: what was asked new, what was answered, and where it goes on from."""
    assert text_of(conversation("day/lisa#0", TURNS[:2]), {"temperature": 0.7, "model": "m"}) == (
        'model: "m"\ntemperature: 0.7\n\n=== day/lisa\n\n--- #0  m\nsystem\n    You are Lisa.\nuser\n'
        "    Bread for 3?\n→ assistant\n    Yes.\n\n--- #0  m\n    … 3 messages as above\nuser\n    And for 5?\n"
        "→ assistant\n    No.\n"
    )


def test_a_history_that_stands_elsewhere() -> None:
    """A call goes on from whichever earlier call held most of its messages, which is named where it is far above."""
    one = conversation("s#0", TURNS)
    other = chat([*one[1].request["messages"][:3], {"role": "user", "content": "Why?"}], "Because.", "s#0")
    shown = text_of([*one, chat("Else?", "No.", "s#0"), other])
    assert '… 3 messages as in the call that asked "Bread for 3?"' in shown


def test_a_history_that_stands_above() -> None:
    """Of draws after one history, each is said to go on from what stands above it."""
    messages = [*conversation("s#0", TURNS)[1].request["messages"]]
    shown = text_of([chat(messages, answer, f"s#{draw}") for draw, answer in enumerate("abc")])
    assert shown.count("… 3 messages as above") == 2 and shown.count(TURNS[0][0]) == 1


def test_tools() -> None:
    """Tool calls, their results and the tools themselves are shown."""
    asking = chat("What does bread cost?", {"role": "assistant", "content": None, "tool_calls": [TOOL_CALL]}, "s#0")
    answered = [
        *asking.request["messages"],
        {"role": "assistant", "tool_calls": [TOOL_CALL]},
        {"role": "tool", "tool_call_id": "c1", "content": "3"},
    ]
    shown = text_of([asking, chat(answered, "Three coins.", "s#0", tools=[{"type": "function"}])])
    assert '    calls price_of({"item": "bread"})  [c1]\n' in shown
    assert '--- #0  m  tools=[{"type": "function"}]\n    … 2 messages as above\ntool (c1)\n    3\n' in shown


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ({"role": "assistant", "content": None, "refusal": "No."}, "→ assistant\n    refuses: No."),
        ({"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": "{}"}}, "calls f({})"),
        ({"role": "assistant", "content": ""}, "→ assistant\n"),
        ({"content": "?"}, "→ ?\n    ?"),
    ],
)
def test_answers(message: dict[str, Any], expected: str) -> None:
    """Answers other than plain text are shown as what they are."""
    assert expected in text_of([chat("?", message)]) + "\n"


def test_choices_and_their_ends() -> None:
    """Several choices are numbered, and an end other than the usual is said."""
    record = chat("?", "A")
    first = record.response["choices"][0]
    record.response["choices"] = [first, {**first, "index": 1, "finish_reason": "length"}]
    shown = text_of([record])
    assert "→ assistant, choice 1 of 2\n" in shown and "→ assistant, choice 2 of 2, ended by length\n" in shown


def test_parts() -> None:
    """The parts of a message are shown, media by what the record knows of them."""
    parts = [
        {"type": "text", "text": "What is it?"},
        {"type": "image_url", "image_url": {"url": "data:image/png;sha256,ab", "detail": "low"}},
        {"type": "input_audio", "input_audio": {"format": "wav", "data": "sha256,cd"}},
        {"type": "file", "file": {"file_id": "f"}},
    ]
    shown = text_of([chat([{"role": "user", "name": "Ann", "content": parts}], "A cat.")])
    for line in (
        "user (Ann)",
        "    What is it?",
        '    [image data:image/png;sha256,ab {"detail": "low"}]',
        "    [audio wav sha256,cd]",
        '    {"file": {"file_id": "f"}, "type": "file"}',
    ):
        assert f"\n{line}\n" in shown


def test_what_is_no_chat() -> None:
    """Embeddings, functions and pointers to another model's answer are shown."""
    pointer = record_of("chat", None, {"model": "m", "messages": []}, {"fallback": "f" * 64})
    shown = text_of([embedding("bread", [0.5, 0.25, 1, 2]), function("price", {"item": "b"}, 3.5, "s#1"), pointer])
    assert "--- e\ntext\n    bread\n→ embedding\n    4 numbers: 0.5, 0.25, 1, …\n" in shown
    assert '--- #1  price  version=2\narguments\n    {"item": "b"}\n→ result\n    3.5' in shown
    assert "→ fallback\n    answered by the record ffffffffffff" in shown


def test_a_long_text_stands_once() -> None:
    """A long text that several actors are given is shown in full once."""
    records = [record for name in "abc" for record in conversation(f"{name}#0", TURNS, LONG)]
    shown = text_of(records)
    assert shown.count(LONG.strip()) == 1
    assert shown.count("… as above, 1,020 characters: A careful buyer. A careful") == 2


def test_a_history_grows_linearly() -> None:
    """Forty turns take little more than their words."""
    turns = [(f"Question {number}: {'so ' * 50}", f"Answer {number}: {'yes ' * 50}") for number in range(40)]
    assert len(text_of(conversation("s#0", turns))) < 1.5 * sum(len(part) for turn in turns for part in turn)


def test_a_text_cannot_pass_for_a_heading() -> None:
    """What was said is indented, so that it is not taken for a scope, a call or an answer."""
    lines = text_of([chat("=== trial\n--- #0\n→ assistant\r=== x", "ok", "s#0")]).splitlines()
    assert [line for line in lines if line.startswith("===")] == ["=== s"]
    assert [line for line in lines if line.startswith("---")] == ["--- #0  m"]


def test_an_added_call_moves_no_other_line() -> None:
    """A call that comes between two others adds lines and changes none, so that git shows it alone."""
    before = [chat("a", "1", "s#0"), chat("c", "3", "s#0")]
    after = [before[0], chat("b", "2", "s#0"), before[1]]
    old, new = text_of(before).splitlines(), text_of(after).splitlines()
    added = ["--- #0  m", "user", "    b", "→ assistant", "    2", ""]
    assert new == [*old[:8], *added, *old[8:]]
