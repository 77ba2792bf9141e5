"""What a recording without a disk cache has on the disk while it is under way, and how a killed one goes on.

A killed process is imitated: the answers beside the file are copied while the cassette is open, and put back later.
``tests/faults/test_crashes.py`` kills real ones.
"""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

import llmcall
from llmcall import CacheError, ResponseCache, cassette, scope
from llmcall.testing import ScriptedClient

PATH, ANSWERS = Path("tape.jsonl"), Path(".tape.jsonl.answers")
QUESTIONS = ("Do you buy bread?", "Do you buy it again?", "Why?")
KEY = "sk-proj-Ab3dEf6hIj9kLm2nOp5q"


def client(cache_mode: str = "off") -> ScriptedClient:
    """Return a client whose model repeats the question; its persona takes a line of its own."""

    def answer(messages: Any) -> str:
        return "You ask: " + messages[-1]["content"]

    return ScriptedClient(answer, cache_mode=cache_mode, on_error="raise")


def play(asked: ScriptedClient, *questions: str, **options: Any) -> list[str]:
    """Ask some questions in a scope, and return those that reached the model."""
    with scope("Ada"):
        for question in questions or QUESTIONS:
            messages = [("system", "You are Ada. " * 50), ("user", question)]
            asked.send_message(
                [{"role": role, "content": text} for role, text in messages], **options
            )
    return [request.hashed["messages"][-1]["content"] for request in asked.requests]


def recorded(mode: str = "once", *questions: str) -> list[str]:
    """Record, and return which questions reached the model."""
    with cassette(PATH, mode=mode):
        return play(client(), *questions)


def killed(*questions: str, mode: str = "once") -> None:
    """Record some questions and leave what a killed process would: the file as it was, and the answers."""
    before = PATH.read_bytes() if PATH.exists() else None
    with cassette(PATH, mode=mode):
        play(client(), *questions)
        shutil.copytree(ANSWERS, "left")
    PATH.unlink() if before is None else PATH.write_bytes(before)
    os.rename("left", ANSWERS)


def undisturbed(*questions: str) -> bytes:
    """Return the file of a recording that nothing disturbed."""
    with cassette("undisturbed.jsonl", mode="rewrite"):
        play(client(), *questions)
    return Path("undisturbed.jsonl").read_bytes()


@pytest.mark.parametrize(("mode", "options"), [("off", {}), ("auto", {"cache": False})])
def test_each_answer_is_beside_the_file_before_its_call_returns(
    mode: str, options: dict[str, Any]
) -> None:
    """Git ignores it, and it is gone at the end."""
    asked = client(mode)
    with cassette(PATH):
        for number, question in enumerate(QUESTIONS, 1):
            play(asked, question, **options)
            assert len(ResponseCache(ANSWERS)) == number
        assert (ANSWERS / ".gitignore").read_text() == "*\n"
    assert os.listdir() == [PATH.name]


def test_with_a_disk_cache_there_is_nothing_beside_the_file() -> None:
    with cassette(PATH):
        play(client("auto"))
        assert not ANSWERS.exists()


@pytest.mark.parametrize("mode", ["once", "new", "update"])
def test_a_killed_recording_goes_on(mode: str) -> None:
    """It ends as a recording that nothing disturbed."""
    killed(*QUESTIONS[:2], mode=mode)
    assert recorded(mode) == [QUESTIONS[2]]
    assert PATH.read_bytes() == undisturbed()
    assert not ANSWERS.exists()


def test_a_recording_that_was_killed_twice_goes_on() -> None:
    killed(QUESTIONS[0])
    killed(*QUESTIONS[:2])
    assert recorded() == [QUESTIONS[2]]
    assert PATH.read_bytes() == undisturbed()


def test_a_killed_recording_that_fails_before_it_has_used_all_answers_keeps_them() -> None:
    """The file lacks them still."""
    killed(*QUESTIONS)
    with pytest.raises(ZeroDivisionError), cassette(PATH):
        play(client(), QUESTIONS[0])
        raise ZeroDivisionError
    assert recorded() == []
    assert PATH.read_bytes() == undisturbed()
    assert not ANSWERS.exists()


def test_a_recording_that_an_exception_ends_leaves_only_its_file() -> None:
    with pytest.raises(ZeroDivisionError), cassette(PATH):
        play(client())
        raise ZeroDivisionError
    assert os.listdir() == [PATH.name]


def test_a_rewrite_neither_uses_what_a_killed_recording_left_nor_keeps_it() -> None:
    killed(*QUESTIONS)
    assert recorded("rewrite") == [*QUESTIONS]
    assert os.listdir() == [PATH.name]


def test_a_replay_asks_for_what_only_a_killed_recording_has() -> None:
    """It reads the file alone, and leaves the answers to the next recording."""
    recorded("once", QUESTIONS[0])
    killed(*QUESTIONS, mode="new")
    with pytest.raises(llmcall.CacheMissError):
        recorded("none")
    assert recorded("new") == []


def test_an_answer_that_no_file_may_have_is_not_requested_again() -> None:
    """It looks like a credential."""
    asked = ScriptedClient([KEY], cache_mode="off")
    for _ in range(2):
        with cassette(PATH):
            asked.send_message("Hi")
    assert KEY not in PATH.read_text()


def test_a_file_that_cannot_be_written_leaves_its_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """The next recording goes on with them."""

    def refuse(*paths: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched, pytest.raises(CacheError, match="was not written"):
        patched.setattr(os, "replace", refuse)
        recorded()
    assert recorded() == []
    assert PATH.read_bytes() == undisturbed()


def test_what_a_killed_writer_left_is_removed_by_the_next_one() -> None:
    Path(".tape.jsonl.tmp").write_bytes(b"half")
    recorded()
    assert os.listdir() == [PATH.name]
