"""Recordings shown as conversations that stay put, compared and merged, by hand and by git."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from commands import done
from conversations import HOSTILE, chat, conversation, embedding, function, read, record_of, written
from servers import CALLING

import llmcall
from llmcall.programs.actors import named_by_system
from llmcall.testing import ScriptedClient
from llmcall.types import Record

TURNS = [("Bread for 3?", "Yes."), ("And for 5?", "No."), ("For 4?", "Perhaps.")]
# The two lines that let git compare cassettes as conversations: of .gitattributes, and of the
# configuration.
ATTRIBUTES = "**/cassettes/**/*.jsonl text eol=lf merge=union diff=llmcall\n"
TEXTCONV = ("diff.llmcall.textconv", "llmcall show")


@pytest.fixture
def market() -> Path:
    """Write a cassette of two scopes."""
    return written(
        "market.jsonl", [*conversation("day/lisa#0", TURNS), chat("?", HOSTILE, "day/bart#0")]
    )


def test_show(market: Path) -> None:
    """show prints the conversations as plain text, each time the same, with nothing that a terminal
    would obey.
    """
    shown = done("show", market)
    assert shown.startswith(
        'configured model: "m"\nanswered by m-2026 (days not recorded)\n\n=== day/bart\n\n--- #0  m\nuser\n    ?\n'
    )
    assert "→ assistant\n    Perhaps.\n" in shown and "\x1b" not in shown
    assert done("show", market) == shown
    records = json.loads(done("show", market, "--json"))
    assert [len(record["request"]["messages"]) for record in records] == [1, 2, 4, 6]


def test_an_empty_file_is_no_damage(market: Path) -> None:
    """A file without a byte holds nothing: show prints nothing, and merge writes the other's
    records.

    Of a cassette without a record, the settings are shown.
    """
    assert done("show", written("bare.jsonl", [])) == 'configured model: "m"\n'
    Path("empty.jsonl").touch()
    assert done("show", "empty.jsonl") == ""
    for pair in (("empty.jsonl", market), (market, "empty.jsonl")):
        done("cassette", "merge", *pair, "-o", "merged.jsonl")
        assert Path("merged.jsonl").read_bytes() == market.read_bytes()


def test_show_in_the_coding_of_files(market: Path) -> None:
    """What goes to a file or a pipe is UTF-8 with plain line ends, whatever the terminal's coding."""
    command = [sys.executable, "-m", "llmcall", "show", str(market)]
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "FORCE_COLOR": "1"}
    printed = subprocess.run(command, env=environment, check=True, capture_output=True).stdout
    assert "→ assistant".encode() in printed and b"\r" not in printed and b"\x1b" not in printed


@pytest.mark.parametrize(
    ("arguments", "code", "complaint"),
    [
        (["show", "none.jsonl"], 2, "does not exist"),
        (
            ["show", "market.jsonl", "--scope", "none"],
            1,
            "Error: nothing is recorded in the scope 'none'",
        ),
        (["diff", "market.jsonl", "empty.jsonl"], 1, "nothing is recorded in empty.jsonl"),
        (["diff", "market.jsonl", "broken.jsonl"], 1, "broken.jsonl:2"),
        (["cassette", "merge", "market.jsonl", "market.jsonl"], 2, "Missing option '-o'"),
        (
            ["cassette", "merge", "market.jsonl", "warmer.jsonl", "-o", "x"],
            1,
            "under different settings: temperature",
        ),
    ],
)
def test_failures(market: Path, arguments: list[str], code: int, complaint: str) -> None:
    """What cannot be done is said, with the exit code of a failure or of wrong usage."""
    Path("broken.jsonl").write_bytes(market.read_bytes()[:100].rpartition(b"\n")[0] + b"\n{broken")
    written("warmer.jsonl", [], {"model": "m", "temperature": 1})
    Path("empty.jsonl").touch()
    assert complaint in done(*arguments, code=code)


# Records as conversations


LONG = "A careful buyer. " * 60


def text_of(records: list[Record], settings: dict[str, Any] | None = None) -> str:
    """Return what ``llmcall show`` prints of records."""
    return done("show", written("shown.jsonl", records, settings or {}))


def test_a_history_is_not_repeated() -> None:
    """A call goes on from whichever earlier call held most of its messages, which is named where it
    is far above.
    """
    one = conversation("s#0", TURNS)
    other = chat(
        [*one[1].request["messages"][:3], {"role": "user", "content": "Why?"}], "Because.", "s#0"
    )
    shown = text_of([*one, chat("Else?", "No.", "s#0"), other])
    assert '… 3 messages as in the call that asked "Bread for 3?"' in shown
    shown = text_of(
        [chat(one[1].request["messages"], answer, f"s#{draw}") for draw, answer in enumerate("abc")]
    )
    assert shown.count("… 3 messages as above") == 2 and shown.count(TURNS[0][0]) == 1


def choices() -> Record:
    """Return a record with two choices, one of them cut."""
    record = chat("?", "A")
    first = record.response["choices"][0]
    record.response["choices"] = [first, {**first, "index": 1, "finish_reason": "length"}]
    return record


ASKED: list[Any] = [{"role": "user", "content": "What does bread cost?"}]
RESULT = {"role": "tool", "tool_call_id": "c1", "content": "3"}
PARTS = [{"type": "text", "text": "What is it?"}, {"type": "file", "file": {"file_id": "f"}}]
SHOWN = [
    (chat(ASKED, CALLING), ['calls price_of({"item": "bread"})  [c1]']),
    (
        chat([*ASKED, CALLING, RESULT], "Three coins.", tools=[{"type": "function"}]),
        ['m  tools=[{"type": "function"}]', "tool (c1)", "3"],
    ),
    (
        chat("?", {"role": "assistant", "content": None, "refusal": "No."}),
        ["→ assistant", "refuses: No."],
    ),
    (
        chat("?", {"content": None, "function_call": {"name": "f", "arguments": "{}"}}),
        ["→ assistant", "calls f({})"],
    ),
    (chat("?", {"role": "assistant", "content": ""}), ["→ assistant"]),
    (choices(), ["→ assistant, choice 1 of 2", "→ assistant, choice 2 of 2, ended by length"]),
    (
        chat([{"role": "user", "name": "Ann", "content": PARTS}], "A cat."),
        [
            "user (Ann)",
            "What is it?",
            '{"file": {"file_id": "f"}, "type": "file"}',
        ],
    ),
    (embedding("bread", [0.5, 0.25, 1, 2]), ["text", "bread", "→ embedding", "4 numbers"]),
    (
        function("price", {"item": "b"}, 3.5),
        ["price  version=2", "arguments", '{"item": "b"}', "→ result", "3.5"],
    ),
    (
        record_of("chat", None, {"model": "m", "messages": []}, {"fallback": "f" * 64}),
        ["→ fallback"],
    ),
]


@pytest.mark.parametrize(("record", "expected"), SHOWN)
def test_what_is_shown_of_a_record(record: Record, expected: list[str]) -> None:
    """Tools, their calls and results, refusals, choices, media, embeddings, functions and pointers
    to other answers.
    """
    shown = [line.strip().removeprefix("--- ") for line in text_of([record]).splitlines()]
    assert [line for line in shown if line in expected] == expected


def test_a_long_text_stands_once() -> None:
    """A long text that several actors are given is shown in full once."""
    records = [record for name in "abc" for record in conversation(f"{name}#0", TURNS, LONG)]
    shown = text_of(records)
    assert shown.count(LONG.strip()) == 1
    assert shown.count("… as above, 1,020 characters: A careful buyer. A careful") == 2


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
    assert new == [*old[:10], *added, *old[10:]]


# git


def git(*arguments: str) -> str:
    """Run git in the working directory, without anybody's configuration."""
    identity = ("-c", "user.name=A", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false")
    environment = {**os.environ, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
    done = subprocess.run(
        ["git", *identity, *arguments], env=environment, check=True, capture_output=True
    )
    return done.stdout.decode()


@pytest.fixture
def repository() -> Path:
    """Make a repository that compares cassettes as conversations, with one recorded and committed."""
    git("init", "-q", "-b", "main")
    Path(".gitattributes").write_text(ATTRIBUTES, encoding="utf-8")
    key, command = TEXTCONV
    git(
        "config",
        key,
        command.replace("llmcall", f"{shlex.quote(Path(sys.executable).as_posix())} -m llmcall", 1),
    )
    path = written("tests/cassettes/test_a/test_b.jsonl", conversation("lisa#0", TURNS))
    git("add", ".")
    git("commit", "-q", "-m", "one")
    return path


@pytest.mark.newest_only
def test_git_compares_conversations(repository: Path) -> None:
    """With the two lines, git shows what was answered anew and no JSON."""
    changed = [*TURNS[:1], ("And for 5?", "Gladly."), TURNS[2]]
    written(str(repository), conversation("lisa#0", changed))
    shown = [
        line
        for line in git("diff").splitlines()
        if line[:1] in "+-" and line[:3] not in ("+++", "---")
    ]
    assert shown == ["-    No.", "+    Gladly."]
    assert "+    Perhaps." in git("show", "HEAD")


@pytest.mark.newest_only
@pytest.mark.parametrize(
    "damage", ["<<<<<<< HEAD\n", '{"llmcall": 99, "settings": {}}\n', "\xff\x1b[31m"]
)
def test_git_shows_a_damaged_cassette(repository: Path, damage: str) -> None:
    """git goes on where a version cannot be read: it is shown as it is, after what is wrong."""
    repository.write_bytes(damage.encode("latin-1") + repository.read_bytes())
    shown = git("diff")
    assert "+cannot be read: " in shown and '"kind": "chat"' in shown and "\x1b" not in shown


def test_git_merges_two_branches(repository: Path) -> None:
    """Two branches that recorded other calls are merged by git, and by the command, to the same
    records.
    """
    first = read(repository)
    for branch in ("left", "right"):
        git("checkout", "-q", "-b", branch, "main")
        written(str(repository), [*first, *conversation(f"{branch}#0", TURNS)])
        git("commit", "-q", "-a", "-m", branch)
        Path(f"{branch}.jsonl").write_bytes(repository.read_bytes())
    git("merge", "-q", "-m", "both", "left")
    done("cassette", "merge", "left.jsonl", "right.jsonl", "-o", "both.jsonl")
    assert len(read(Path("both.jsonl"))) == 9
    assert {each.cache_key for each in read(repository)} == {
        each.cache_key for each in read(Path("both.jsonl"))
    }


# merge


def test_merge() -> None:
    """merge writes every record of both, those of a scope in the order of the calls."""
    calls = [chat(text, "!", "s#0") for text in "abcde"]
    written("one.jsonl", [calls[1], calls[3]])
    written("other.jsonl", calls)
    told = done("cassette", "merge", "one.jsonl", "other.jsonl", "-o", "both.jsonl")
    assert "5 records written to both.jsonl" in told
    assert Path("both.jsonl").read_bytes() == Path("other.jsonl").read_bytes()


@pytest.mark.parametrize(("choice", "answer"), [("keep", "1"), ("replace", "2")])
def test_merge_of_conflicts(choice: str, answer: str) -> None:
    """Conflicts are listed and nothing is written, unless it is said which answer counts."""
    written("one.jsonl", [chat("a", "1", "s#0"), chat("b", "0", "s#0")])
    written("other.jsonl", [chat("a", "2", "s#0"), chat("b", "0", "s#0")])
    merge = ("cassette", "merge", "one.jsonl", "other.jsonl", "-o", "one.jsonl")
    told = done(*merge, code=1)
    assert 'conflict: s#0 m "a": "1" | "2"' in told
    assert "have different answers to 1 request, so nothing was written" in told
    assert len(read(Path("one.jsonl"))) == 2
    assert "conflict: " in done(*merge, "--on-conflict", choice)
    assert [
        each.response["choices"][0]["message"]["content"] for each in read(Path("one.jsonl"))
    ] == [answer, "0"]


# rekey


def clocked(hour: int, sample: str | None = "lisa#0") -> list[Record]:
    """Return the records of two calls that hold the time."""
    return [
        chat(f"It is {hour}:0{minute}. Bread?", f"Answer {minute}.", sample) for minute in range(2)
    ]


def asked_by_the_clock(mode: str) -> list[str]:
    """Ask the same at another time, with the cassette."""
    client = ScriptedClient([], model="m", on_error="raise")
    with llmcall.cassette("tape.jsonl", mode=mode), llmcall.scope("lisa"):
        return [client.send_message(each.prompt).content for each in clocked(13)]


def test_rekey_lets_a_recording_replay_under_new_normalizers() -> None:
    """After rekey, a replay finds what it asks at another time; the draws stand in their order, and
    a second rekey changes nothing.
    """
    written("tape.jsonl", clocked(12))
    with pytest.raises(llmcall.CacheMissError):
        asked_by_the_clock("none")
    Path("config.ini").write_text("[Cache]\nNORMALIZE = times\n", encoding="utf-8")
    llmcall.reset()
    told = done("cassette", "rekey", "tape.jsonl")
    assert "new keys for 2 of 2 records, 1 of them with a new draw" in told
    assert asked_by_the_clock("none") == ["Answer 0.", "Answer 1."]
    content = Path("tape.jsonl").read_bytes()
    assert "new keys for 0 of 2 records" in done("cassette", "rekey", "tape.jsonl")
    assert Path("tape.jsonl").read_bytes() == content


def test_rekey_renames_actors_that_their_system_messages_name() -> None:
    """What a normalizer takes out of a system message is not in the name that it gives its actor."""
    persona = "You are Lisa. It is 12:00."
    bare = conversation("lisa#0", TURNS[:1], persona)[0]
    name = named_by_system(bare.request)
    tape = written(
        "tape.jsonl", conversation(f"run/{name}#0", TURNS[:1], persona), run={"actor": "system"}
    )
    Path("config.ini").write_text("[Cache]\nNORMALIZE = times\n", encoding="utf-8")
    done("cassette", "rekey", tape)
    [record] = read(tape)
    assert record.scope == f"run/{named_by_system(record.request)}" != f"run/{name}"


@pytest.mark.parametrize(("choice", "answer"), [("keep", "Answer 0."), ("replace", "Answer 1.")])
def test_rekey_refuses_two_answers_to_one_request(choice: str, answer: str) -> None:
    """Outside any scope, what has two answers under the new keys is listed, and nothing is written
    unless it is said which counts.
    """
    tape = written("tape.jsonl", clocked(12, None))
    content = tape.read_bytes()
    Path("config.ini").write_text("[Cache]\nNORMALIZE = times\n", encoding="utf-8")
    told = done("cassette", "rekey", tape, code=1)
    assert "conflict: m" in told and "1 request would have two answers" in told
    assert tape.read_bytes() == content
    assert "1 left out" in done("cassette", "rekey", tape, "--on-conflict", choice)
    assert [record.answer for record in read(tape)] == [answer]


def test_rekey_moves_a_recording_to_an_alias_and_a_namespace() -> None:
    """The model after aliases and the namespace stand in the requests and in the header; the rest of
    the header stays.
    """
    tape = written("tape.jsonl", [chat("Bread?", "Yes.", "lisa#0")], {"model": "m", "top_p": 0.5})
    Path("config.ini").write_text(
        "[Cache]\nNAMESPACE = village\n[Aliases]\nm = m-2026\n", encoding="utf-8"
    )
    done("cassette", "rekey", tape)
    [record] = read(tape)
    assert (record.request["model"], record.request["namespace"]) == ("m-2026", "village")
    header = json.loads(tape.read_text(encoding="utf-8").splitlines()[0])["settings"]
    assert header["cache_namespace"] == "village" and header["aliases"] == {"m": "m-2026"}
    assert (header["model"], header["top_p"]) == ("m", 0.5)
