"""``llmcall cassette check``: what a file tells of editing by hand, and no more."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from commands import done

import llmcall
from llmcall import cassette, scope
from llmcall.testing import ScriptedClient

PATH = "tape.jsonl"
LONG = "It is a long story, and nobody tells it twice in the same words. " * 4
SAYS = "I would rather buy three loaves of fresh bread than one old cheese."


def talk() -> None:
    """Record two actors over two rounds; the second hears what the first says."""
    answers = {"emma": [SAYS, "Yes."], "lisa": ["No.", "Well, perhaps."]}
    client = ScriptedClient(lambda messages: answers[messages[0]["content"]].pop(0))
    said = ""
    with cassette(PATH, mode="rewrite"), scope("rep-1"):
        for name in ("emma", "lisa"):
            messages: list[Any] = [{"role": "system", "content": name}]
            with scope(name):
                for number in range(2):
                    text = f"Round {number}. Emma said: {said}" if said else f"Round {number}."
                    messages.append({"role": "user", "content": text})
                    messages.append(client.send_message(messages, on_error="raise"))
                    said = said or messages[-1].content


def edit(before: str, after: str, *, first: bool = True) -> None:
    """Change a text in the file: once, or everywhere."""
    text = Path(PATH).read_text(encoding="utf-8")
    assert before in text
    Path(PATH).write_text(text.replace(before, after, 1 if first else -1), encoding="utf-8")


def change(change_lines: Callable[[list[Any]], list[Any]]) -> None:
    """Change the lines of the file, parsed."""
    found = [json.loads(line) for line in Path(PATH).read_text(encoding="utf-8").splitlines()]
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in change_lines(found))
    Path(PATH).write_text(text, encoding="utf-8")


def found(code: int = 1) -> list[dict[str, Any]]:
    """Return what the command finds."""
    findings: list[dict[str, Any]] = json.loads(
        done("cassette", "check", PATH, "--json", code=code)
    )
    return findings


def test_a_recording_that_nobody_edited_fits_together() -> None:
    """The command says that this proves nothing more."""
    talk()
    assert found(code=0) == []
    assert "4 records, no inconsistency found" in done("cassette", "check", PATH)


def test_a_record_that_was_moved_is_found() -> None:
    """Records stand by scope path."""
    talk()
    change(lambda lines: [lines[0], *lines[3:], *lines[1:3]])
    [first, second] = found()
    assert first["about"] == "order"
    assert first["sample"] == second["sample"] == "rep-1/emma#0"
    assert "comes after records of rep-1/lisa" in first["words"]


def test_an_edited_answer_that_the_same_actor_goes_on_from_is_found() -> None:
    """Its later prompts have what it said before."""
    talk()
    change(lambda lines: [with_answer(line, "No.", "Certainly.") for line in lines])
    [finding] = found()
    assert (finding["about"], finding["sample"]) == ("quotes", "rep-1/lisa#0")
    assert 'its answer has "Certainly.", but the prompt of record 4' in finding["words"]
    assert 'has "No."' in finding["words"]


def with_answer(line: dict[str, Any], before: str, after: str) -> dict[str, Any]:
    """Return a line with another answer, if it has this one."""
    if "response" in line:
        message = line["response"]["choices"][0]["message"]
        if message["content"] == before:
            message["content"] = after
    return line


@pytest.fixture
def under_settings() -> None:
    """Record a request under normalizers and aliases."""
    settings = "[OpenAI]\nMODEL = new\n[Aliases]\nold = new\n[Cache]\nNORMALIZE = uuids\n"
    Path("config.ini").write_text(settings, encoding="utf-8")
    llmcall.reset()
    client = ScriptedClient(lambda messages: "Yes.")
    with cassette(PATH, mode="rewrite"):
        client.send_message("Is it 0b6a2ab4-9f5f-4bb8-8b34-0c3a0bd0b1a5?", on_error="raise")


def test_a_request_under_normalizers_and_aliases_fits_together(under_settings: None) -> None:
    """They stand in the header."""
    assert found(code=0) == []


def test_a_text_that_the_headers_normalizers_take_out_is_found(under_settings: None) -> None:
    """No call makes such a request."""
    change(lambda lines: [renamed(line) for line in lines])
    first, _ = found()
    assert first["about"] == "key"
    assert "cache_normalize" in first["words"]


def test_a_model_that_the_headers_aliases_name_otherwise_is_found(under_settings: None) -> None:
    """No call makes such a request."""
    change(lambda lines: [renamed(line) for line in lines])
    _, second = found()
    assert second["about"] == "key"
    assert "aliases" in second["words"]


def renamed(line: dict[str, Any]) -> dict[str, Any]:
    """Return a record's line with an alias for a model, and an identifier in its text."""
    if "request" in line:
        line["request"]["model"] = "old"
        line["request"]["messages"][0]["content"] = "Is it 1b6a2ab4-9f5f-4bb8-8b34-0c3a0bd0b1a5?"
    return line


def test_a_pointer_to_a_record_that_is_gone_is_found() -> None:
    """The answer of a fallback is a record of its own, to which the first one points."""
    talk()
    change(lambda lines: [*lines[:-1], {**lines[-1], "response": {"fallback": "f" * 64}}])
    [finding] = found()
    assert finding["about"] == "key"
    assert "points to the record ffffffffffff…" in finding["words"]


def test_a_file_with_a_changed_long_text_cannot_be_read() -> None:
    """The text stands under its digest; the error names the line."""
    client = ScriptedClient(lambda messages: LONG * 3)
    with cassette(PATH, mode="rewrite"):
        client.send_message("Hi", on_error="raise")
    edit("long story", "short story")
    told = done("cassette", "check", PATH, code=1)
    assert "tape.jsonl:2: the text does not have the digest" in told
