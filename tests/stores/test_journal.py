"""The journal of a recording: what it has while a cassette is open, and what the next opening makes of one that
a killed process left.

A killed process is imitated: the journal is copied while the cassette is open, and put back afterwards.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from commands import NEEDS_POSIX, done
from files import read_only
from pytest_httpserver import HTTPServer
from servers import completion

import llmcall
from llmcall import CacheCorruptError, CacheError, cassette, scope
from llmcall.testing import ScriptedClient

PATH, JOURNAL = Path("tape.jsonl"), Path(".tape.jsonl.journal")
QUESTIONS = ("Do you buy bread?", "Do you buy it again?", "Why?")
KEY = "sk-proj-Ab3dEf6hIj9kLm2nOp5q"


def client(answer: Callable[[Any], Any] | None = None) -> ScriptedClient:
    """Return a client without a cache, whose model repeats the question; its persona takes a line of its own."""
    return ScriptedClient(
        answer or (lambda messages: "You ask: " + messages[-1]["content"]),
        cache_mode="off",
        on_error="raise",
    )


def play(asked: ScriptedClient, *questions: str) -> list[str]:
    """Ask some questions in a scope, and return those that reached the model."""
    with scope("Ada"):
        for question in questions or QUESTIONS:
            persona = "You are Ada. " * 50
            asked.send_message(
                [{"role": "system", "content": persona}, {"role": "user", "content": question}]
            )
    return [request.hashed["messages"][-1]["content"] for request in asked.requests]


def killed(*questions: str, mode: str = "once") -> bytes:
    """Record some questions and leave what a killed process would: the file as it was, and the journal."""
    before = PATH.read_bytes() if PATH.exists() else None
    with cassette(PATH, mode=mode):
        play(client(), *questions)
        left = JOURNAL.read_bytes()
    PATH.unlink() if before is None else PATH.write_bytes(before)
    JOURNAL.write_bytes(left)
    return left


def undisturbed(*questions: str) -> bytes:
    """Return the file of a recording that nothing disturbed."""
    with cassette("undisturbed.jsonl", mode="rewrite"):
        play(client(), *questions)
    return Path("undisturbed.jsonl").read_bytes()


def recorded(mode: str = "once", *questions: str) -> list[str]:
    """Record, and return which questions reached the model."""
    with cassette(PATH, mode=mode):
        return play(client(), *questions)


def warnings(log: pytest.LogCaptureFixture) -> list[str]:
    """Return the warnings so far."""
    return [entry.getMessage() for entry in log.records if entry.levelno >= logging.WARNING]


def test_it_has_what_the_file_will_have_before_a_call_returns() -> None:
    """The lines are the same; only the header says what it goes on from."""
    with cassette(PATH):
        for number, question in enumerate(QUESTIONS, 1):
            play(client(), question)
            assert JOURNAL.read_bytes().count(b'{"kind"') == number
        header, *lines = JOURNAL.read_bytes().splitlines()
    assert lines == PATH.read_bytes().splitlines()[1:]
    assert json.loads(header).keys() == {"llmcall", "journal", "complete", "settings"}
    assert os.listdir() == [PATH.name]


@pytest.mark.parametrize("mode", ["once", "new", "update", "rewrite"])
def test_a_killed_recording_goes_on_without_a_cache(mode: str) -> None:
    """The file is that of a recording that nothing disturbed."""
    killed(*QUESTIONS[:2], mode=mode)
    assert recorded(mode) == [QUESTIONS[2]]
    assert PATH.read_bytes() == undisturbed()
    assert not JOURNAL.exists()


def test_a_recording_that_was_killed_twice_goes_on() -> None:
    """The second one adds to what the first one left."""
    killed(QUESTIONS[0])
    killed(*QUESTIONS[:2])
    assert recorded() == [QUESTIONS[2]]
    assert PATH.read_bytes() == undisturbed()


def test_a_replay_has_the_answers_of_a_killed_recording_and_leaves_them() -> None:
    """It writes nothing."""
    left = killed(*QUESTIONS)
    assert recorded("none") == []
    assert JOURNAL.read_bytes() == left
    assert not PATH.exists()


def test_in_a_read_only_folder_it_is_read_and_left() -> None:
    """A replay has its answers; a recording, which could not write its file, is refused."""
    left, folder = killed(*QUESTIONS), Path.cwd() / "tapes"
    folder.mkdir()
    (folder / JOURNAL).write_bytes(left)
    with read_only(folder):
        with cassette(folder / PATH, mode="none") as tape:
            assert (play(client()), tape.replayed) == ([], len(QUESTIONS))
        with pytest.raises(CacheError, match="cannot be written"), cassette(folder / PATH):
            pass
    assert (folder / JOURNAL).read_bytes() == left
    assert os.listdir(folder) == [JOURNAL.name]


def test_a_line_that_was_cut_is_asked_again() -> None:
    """Wherever it was cut, all answers before it are there."""
    left = killed(*QUESTIONS)
    ends = [index + 1 for index, byte in enumerate(left) if byte == ord("\n")]
    expected = undisturbed()
    for cut in (0, 1, ends[0], ends[0] + 9, ends[1] - 1, ends[1], ends[-2] + 40, len(left) - 1):
        PATH.unlink(missing_ok=True)
        JOURNAL.write_bytes(left[:cut])
        whole = left[: left.rfind(b"\n", 0, cut) + 1].count(b'{"kind"')
        assert recorded() == [*QUESTIONS[whole:]]
        assert PATH.read_bytes() == expected
        assert not JOURNAL.exists()


def test_a_damaged_line_is_named_and_nothing_is_lost() -> None:
    """An error names the journal and the line."""
    left = killed(*QUESTIONS).replace(b'"user"', b'"user', 1)
    JOURNAL.write_bytes(left)
    with pytest.raises(CacheCorruptError, match=r"\.tape\.jsonl\.journal:3: the line is not JSON"):
        recorded()
    assert JOURNAL.read_bytes() == left


@pytest.mark.parametrize("content", [b"SQLite format 3\n", b'{"llmcall": 2, "journal": ""}\n'])
def test_a_journal_of_another_program_or_version_is_in_the_way_of_a_recording(
    content: bytes,
) -> None:
    """It is left as it is, and a replay goes on without it."""
    recorded()
    JOURNAL.write_bytes(content)
    with pytest.raises(CacheError, match="is not a journal of this llmcall"):
        recorded("new")
    assert recorded("none") == []
    assert JOURNAL.read_bytes() == content


def test_a_journal_without_its_file_is_a_recording_that_broke_off() -> None:
    """It has the answers that were added to a file that is gone."""
    recorded("once", QUESTIONS[0])
    killed(*QUESTIONS, mode="new")
    PATH.unlink()
    assert recorded() == [QUESTIONS[0]]
    assert PATH.read_bytes() == undisturbed()


def test_of_a_file_that_was_changed_meanwhile_the_answers_count() -> None:
    """The journal has those that the file lacks; a replay says so and goes on without them."""
    killed(*QUESTIONS[:2])
    left = JOURNAL.read_bytes()
    JOURNAL.unlink()
    with cassette(PATH):
        play(client(lambda messages: "another answer"), QUESTIONS[1])
    JOURNAL.write_bytes(left)
    assert recorded("none", QUESTIONS[1]) == []
    assert recorded("new") == [QUESTIONS[2]]
    answers = [record.answer for record in cassette(PATH).all_records()]
    assert answers == [f"You ask: {QUESTIONS[0]}", "another answer", f"You ask: {QUESTIONS[2]}"]
    assert not JOURNAL.exists()


def test_a_recording_whose_file_another_process_wrote_names_the_mode_that_has_its_answers(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The file is complete, so that 'once' would only replay it."""
    other = undisturbed(QUESTIONS[1])
    with pytest.raises(CacheError, match="another process wrote"), cassette(PATH):
        play(client(), QUESTIONS[0])
        PATH.write_bytes(other)
    assert (
        f"the mode 'new' continues with the answers in {JOURNAL.resolve()}" in warnings(caplog)[-1]
    )
    assert recorded("new", *QUESTIONS[:2]) == []


def test_a_rewrite_whose_file_another_process_wrote_names_its_journal(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It has the answers, which the mode continues with."""
    other = undisturbed(QUESTIONS[1])
    with pytest.raises(CacheError, match="another process"), cassette(PATH, mode="rewrite"):
        play(client(), QUESTIONS[0])
        PATH.write_bytes(other)
    words = f"the mode 'rewrite' continues with the answers in {JOURNAL.resolve()}"
    assert words in warnings(caplog)[-1]
    assert recorded("rewrite", *QUESTIONS[:2]) == [QUESTIONS[1]]


def test_a_recording_whose_folder_is_gone_says_that_its_answers_are_lost(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """No opening finds the journal, and the file cannot be written."""
    folder = Path("gone")
    with pytest.raises(CacheError, match="cannot be written"), cassette(folder / PATH):
        play(client())
        shutil.rmtree(folder)
        folder.touch()
    assert warnings(caplog) == [
        f"{folder / PATH}: 3 answers not written; what the disk cache lacks is lost"
    ]


def test_a_replay_says_that_the_file_was_changed_meanwhile(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """And what to do."""
    killed(QUESTIONS[0])
    PATH.write_bytes(undisturbed(QUESTIONS[1]))
    recorded("none", QUESTIONS[1])
    (warning,) = warnings(caplog)
    assert (
        "tape.jsonl was changed since. The mode 'new' takes from it what the file lacks" in warning
    )


def test_a_journal_whose_answers_the_file_has_is_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process was killed after it wrote the file."""
    replace, left = os.replace, []

    def noting(*paths: Any) -> None:
        left.append(JOURNAL.read_bytes())
        replace(*paths)

    monkeypatch.setattr(os, "replace", noting)
    recorded()
    JOURNAL.write_bytes(left[0])
    assert recorded() == []
    assert os.listdir() == [PATH.name]


def test_a_rewrite_that_broke_off_goes_on_and_leaves_the_old_file(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Its answers are not asked again; what it did not use is not in the file."""
    recorded("once", "Old?")
    old = PATH.read_bytes()
    with pytest.raises(ZeroDivisionError), cassette(PATH, mode="rewrite"):
        play(client(), "Left out later?", *QUESTIONS[:2])
        raise ZeroDivisionError
    assert PATH.read_bytes() == old
    assert f"the mode 'rewrite' continues with the answers in {JOURNAL.resolve()}" in caplog.text
    assert recorded("once", "Old?") == []
    with pytest.raises(CacheError, match="answers of an interrupted rewrite of"):
        recorded("new")
    assert recorded("rewrite") == [QUESTIONS[2]]
    assert PATH.read_bytes() == undisturbed()
    assert not JOURNAL.exists()


def test_a_rewrite_asks_everything_again_that_a_killed_recording_had() -> None:
    """It starts empty; until it succeeds, the answers of that one are in the file."""
    killed(*QUESTIONS[:2])
    with pytest.raises(ZeroDivisionError), cassette(PATH, mode="rewrite"):
        assert play(client()) == [*QUESTIONS]
        raise ZeroDivisionError
    assert [record.prompt for record in cassette(PATH).all_records()] == [*QUESTIONS[:2]]


def test_nothing_is_in_it_that_must_not_be_written() -> None:
    """An answer with a key is in neither."""
    with cassette(PATH):
        play(client(lambda messages: KEY), QUESTIONS[0])
        play(client(), QUESTIONS[1])
        left = JOURNAL.read_bytes()
    assert KEY.encode() not in left + PATH.read_bytes()
    assert left.count(b'{"kind"') == 1


@NEEDS_POSIX
def test_answers_that_a_full_disk_cannot_take_are_written_at_the_end(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """One warning says so; half a line that was written is gone."""
    write, pieces = os.pwrite, []

    def fill(file: int, data: bytes, start: int) -> int:
        pieces.append(data[:7])
        if len(pieces) > 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(file, pieces[0], start)

    with cassette(PATH):
        play(client(), QUESTIONS[0])
        monkeypatch.setattr(os, "pwrite", fill)
        play(client(), QUESTIONS[1])
        monkeypatch.setattr(os, "pwrite", write)
        play(client(), QUESTIONS[2])
        assert JOURNAL.read_bytes().count(b'{"kind"') == 2
    (warning,) = warnings(caplog)
    assert (
        "(No space left on device): answers are kept in memory until the recording ends" in warning
    )
    assert PATH.read_bytes() == undisturbed()


def test_a_file_that_cannot_be_written_leaves_its_answers_in_the_journal(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The next recording goes on with them."""

    def refuse(*paths: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched, pytest.raises(CacheError, match="was not written"):
        patched.setattr(os, "replace", refuse)
        recorded()
    assert recorded() == []
    assert PATH.read_bytes() == undisturbed()


LOCKING = """
import fcntl, sys
file = open(sys.argv[1], "r+b")
fcntl.lockf(file, fcntl.LOCK_EX)
print("locked", flush=True)
sys.stdin.read()
"""


@NEEDS_POSIX
def test_the_journal_of_a_process_that_runs_is_not_taken_over() -> None:
    """It writes its own file; this one is told if it ends later."""
    left = killed(*QUESTIONS)
    command = [sys.executable, "-c", LOCKING, str(JOURNAL)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdin is not None
        assert other.stdout.readline() == b"locked\n"
        assert recorded() == [*QUESTIONS]
        assert JOURNAL.read_bytes() == left
        other.stdin.close()


def test_cells_that_run_again_go_on_and_leave_no_journal() -> None:
    """The cassette was opened and never closed."""
    first = cassette(PATH).open()
    play(client(), *QUESTIONS[:2])
    second = cassette(PATH).open()
    assert play(client()) == [QUESTIONS[2]]
    second.close()
    first.close()
    assert PATH.read_bytes() == undisturbed()
    assert not JOURNAL.exists()


def test_what_a_killed_writer_left_is_removed_by_the_next_one() -> None:
    """The next one writes its own."""
    Path(".tape.jsonl.tmp").write_bytes(b"half")
    recorded()
    assert os.listdir() == [PATH.name]


def test_a_command_reads_a_journal_as_a_file(capsys: pytest.CaptureFixture[str]) -> None:
    """Whoever does not want to record again sees the answers."""
    killed(*QUESTIONS)
    assert "You ask: Why?" in done("show", JOURNAL)


def test_arms_of_a_killed_recording_are_kept() -> None:
    """The next opening has them before a call is made."""
    with cassette(PATH):
        with scope("rep-1"), llmcall.arm("control"):
            client().send_message("Hi")
        left = JOURNAL.read_bytes()
    PATH.unlink()
    JOURNAL.write_bytes(left)
    with cassette(PATH) as tape:
        assert [record.arms for record in tape.all_records()] == [("control",)]


def test_a_file_has_the_lines_of_its_journal_without_callers_that_distinguish_nothing() -> None:
    ask = llmcall.LLMCall(user="{{ request }}", client=client())
    with cassette(PATH), scope("village"):
        llmcall.map(lambda name: ask(request=f'{name}, "request": {{}}'), ["Ada", "Ben"])
        written = [json.loads(line) for line in JOURNAL.read_text().splitlines()]
    assert [record.pop("caller", None) for record in written if "kind" in record] != [None, None]
    file = [json.loads(line) for line in PATH.read_text().splitlines()]
    assert sorted(map(str, file[1:])) == sorted(str(line) for line in written if "kind" in line)


def test_what_a_request_used_as_its_credential_is_in_no_later_line(httpserver: HTTPServer) -> None:
    """Though it was searched for credentials before."""
    token = "Zq8r5LmXw2-vB7"  # like no provider's
    httpserver.expect_request("/v1/chat/completions").respond_with_json(completion("Hi"))
    later = llmcall.OpenAIClient(model="m", api_key=token, base_url=httpserver.url_for("/v1"))
    repeating = client()
    with cassette(PATH), scope("Ada"):
        repeating.send_message(f"I found {token}.")
        before = JOURNAL.read_text().count(token)
        later.send_message("Good evening!")
        repeating.send_message(f"I found {token}.")
        assert JOURNAL.read_text().count(token) == before
