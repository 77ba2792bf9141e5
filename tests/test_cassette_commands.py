"""llmcall cassette: recordings shown, compared and merged, by hand and by git."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from commands import run
from conversations import HOSTILE, chat, conversation, embedding, read, written
from hypothesis import given
from hypothesis import strategies as st

from llmcall.types import Record

TURNS = [("Bread for 3?", "Yes."), ("And for 5?", "No."), ("For 4?", "Perhaps.")]
# The two lines that let git compare cassettes as conversations: of .gitattributes, and of the configuration.
ATTRIBUTES = "**/cassettes/**/*.jsonl text eol=lf merge=union diff=llmcall\n"
TEXTCONV = ("diff.llmcall.textconv", "llmcall show")


@pytest.fixture
def market() -> Path:
    """Write a cassette of two scopes."""
    return written("market.jsonl", [*conversation("day/lisa#0", TURNS), chat("?", HOSTILE, "day/bart#0")])


def test_show(market: Path) -> None:
    """show prints the conversations as plain text, each time the same, with nothing that a terminal would obey."""
    shown = run("show", market)
    assert shown.exit_code == 0 and shown.output.startswith('model: "m"\n\n=== day/bart\n\n--- #0  m\nuser\n    ?\n')
    assert "→ assistant\n    Perhaps.\n" in shown.output and "\x1b" not in shown.output
    assert run("show", market).output == shown.output


def test_an_empty_file_is_no_damage(market: Path) -> None:
    """A file without a byte holds nothing: show prints nothing, and merge writes the other's records."""
    Path("empty.jsonl").touch()
    assert (run("show", "empty.jsonl").exit_code, run("show", "empty.jsonl").output) == (0, "")
    for pair in (("empty.jsonl", market), (market, "empty.jsonl")):
        assert run("cassette", "merge", *pair, "-o", "merged.jsonl").exit_code == 0
        assert Path("merged.jsonl").read_bytes() == market.read_bytes()


def test_show_in_the_coding_of_files(market: Path) -> None:
    """What goes to a file or a pipe is UTF-8 with plain line ends, whatever the terminal's coding."""
    command = [sys.executable, "-m", "llmcall", "show", str(market)]
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "FORCE_COLOR": "1"}
    printed = subprocess.run(command, env=environment, check=True, capture_output=True).stdout
    assert "→ assistant".encode() in printed and b"\r" not in printed and b"\x1b" not in printed


def test_show_json(market: Path) -> None:
    """--json prints the records with their whole requests."""
    written("e.jsonl", [embedding("bread", [0.5])])
    shown = json.loads(run("show", market, "--json").output)
    assert [len(record["request"]["messages"]) for record in shown] == [1, 2, 4, 6]
    assert json.loads(run("show", "e.jsonl", "--json").output)[0]["response"] == {"embedding": "0000003f"}


@pytest.mark.parametrize(
    ("arguments", "code", "complaint"),
    [
        (["show", "none.jsonl"], 2, "does not exist"),
        (["diff", "market.jsonl", "empty.jsonl"], 1, "nothing is recorded in empty.jsonl"),
        (["diff", "market.jsonl", "broken.jsonl"], 1, "broken.jsonl:2"),
        (["cassette", "merge", "market.jsonl", "market.jsonl"], 2, "Missing option '-o'"),
        (["cassette", "merge", "market.jsonl", "warmer.jsonl", "-o", "x"], 1, "under different settings: temperature"),
    ],
)
def test_failures(market: Path, arguments: list[str], code: int, complaint: str) -> None:
    """What cannot be done is said, with the exit code of a failure or of wrong usage."""
    Path("broken.jsonl").write_bytes(market.read_bytes()[:100].rpartition(b"\n")[0] + b"\n{broken")
    written("warmer.jsonl", [], {"model": "m", "temperature": 1})
    Path("empty.jsonl").touch()
    done = run(*arguments)
    assert done.exit_code == code and complaint in done.output


# git


def git(*arguments: str) -> str:
    """Run git in the working directory, without anybody's configuration."""
    identity = ("-c", "user.name=A", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false")
    environment = {**os.environ, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
    done = subprocess.run(["git", *identity, *arguments], env=environment, check=True, capture_output=True)
    return done.stdout.decode()


@pytest.fixture
def repository() -> Path:
    """Make a repository that compares cassettes as conversations, with one recorded and committed."""
    git("init", "-q", "-b", "main")
    Path(".gitattributes").write_text(ATTRIBUTES, encoding="utf-8")
    key, command = TEXTCONV
    git("config", key, command.replace("llmcall", f"{shlex.quote(Path(sys.executable).as_posix())} -m llmcall", 1))
    path = written("tests/cassettes/test_a/test_b.jsonl", conversation("lisa#0", TURNS))
    git("add", ".")
    git("commit", "-q", "-m", "one")
    return path


def test_git_compares_conversations(repository: Path) -> None:
    """With the two lines, git shows what was answered anew and no JSON."""
    changed = [*TURNS[:1], ("And for 5?", "Gladly."), TURNS[2]]
    written(str(repository), conversation("lisa#0", changed))
    shown = [line for line in git("diff").splitlines() if line[:1] in "+-" and line[:3] not in ("+++", "---")]
    assert shown == ["-    No.", "+    Gladly."]
    assert "+    Perhaps." in git("show", "HEAD")


@pytest.mark.parametrize("damage", ["<<<<<<< HEAD\n", '{"llmcall": 99, "settings": {}}\n', "\xff\x1b[31m"])
def test_git_shows_a_damaged_cassette(repository: Path, damage: str) -> None:
    """git goes on where a version cannot be read: it is shown as it is, after what is wrong."""
    repository.write_bytes(damage.encode("latin-1") + repository.read_bytes())
    shown = git("diff")
    assert "+cannot be read: " in shown and '"kind": "chat"' in shown and "\x1b" not in shown


def test_git_merges_two_branches(repository: Path) -> None:
    """Two branches that recorded other calls are merged by git, and by the command, to the same records."""
    first = read(repository)
    for branch in ("left", "right"):
        git("checkout", "-q", "-b", branch, "main")
        written(str(repository), [*first, *conversation(f"{branch}#0", TURNS)])
        git("commit", "-q", "-a", "-m", branch)
        Path(f"{branch}.jsonl").write_bytes(repository.read_bytes())
    git("merge", "-q", "-m", "both", "left")
    assert run("cassette", "merge", "left.jsonl", "right.jsonl", "-o", "both.jsonl").exit_code == 0
    assert len(read(Path("both.jsonl"))) == 9
    assert {each.cache_key for each in read(repository)} == {each.cache_key for each in read(Path("both.jsonl"))}


answers = st.dictionaries(st.tuples(st.sampled_from("ab"), st.sampled_from("xyzw")), st.sampled_from("12"))


def recorded(made: dict[tuple[str, str], str]) -> list[Record]:
    """Return records of scopes, questions and answers."""
    return [chat(question, answer, f"{scope}#0") for (scope, question), answer in made.items()]


# merge


def test_merge(market: Path) -> None:
    """merge writes every record of both, those of a scope in the order of the calls."""
    calls = [chat(text, "!", "s#0") for text in "abcde"]
    written("one.jsonl", [calls[1], calls[3]])
    written("other.jsonl", [calls[0], calls[1], calls[2], calls[3], calls[4]])
    done = run("cassette", "merge", "one.jsonl", "other.jsonl", "-o", "both.jsonl")
    assert done.exit_code == 0 and "5 records written to both.jsonl" in done.output
    assert Path("both.jsonl").read_bytes() == Path("other.jsonl").read_bytes()


@pytest.mark.parametrize(("choice", "answer"), [("keep", "1"), ("replace", "2")])
def test_merge_of_conflicts(choice: str, answer: str) -> None:
    """Conflicts are listed and nothing is written, unless it is said which answer counts."""
    written("one.jsonl", [chat("a", "1", "s#0"), chat("b", "0", "s#0")])
    written("other.jsonl", [chat("a", "2", "s#0"), chat("b", "0", "s#0")])
    done = run("cassette", "merge", "one.jsonl", "other.jsonl", "-o", "one.jsonl")
    assert done.exit_code == 1 and 'conflict: s#0 m "a": "1" | "2"' in done.output
    assert "answer 1 request differently, and nothing was written" in done.output
    assert len(read(Path("one.jsonl"))) == 2
    done = run("cassette", "merge", "one.jsonl", "other.jsonl", "-o", "one.jsonl", "--on-conflict", choice)
    assert done.exit_code == 0 and "conflict: " in done.output
    assert [each.response["choices"][0]["message"]["content"] for each in read(Path("one.jsonl"))] == [answer, "0"]


@given(answers, answers)
def test_a_merge_holds_all(one: dict[Any, str], other: dict[Any, str]) -> None:
    """A merge holds every request of both once, keeps both orders' scopes, and lists every conflict."""
    written("one.jsonl", recorded(one))
    written("other.jsonl", recorded(other))
    done = run("cassette", "merge", "one.jsonl", "other.jsonl", "-o", "both.jsonl", "--on-conflict", "keep")
    records = read(Path("both.jsonl"))
    asked = {(each.sample.partition("#")[0], each.request["messages"][0]["content"]): each for each in records}  # type: ignore[union-attr]
    assert len(asked) == len(records) and asked.keys() == one.keys() | other.keys()
    said = {key: each.response["choices"][0]["message"]["content"] for key, each in asked.items()}
    assert said == {**other, **one}
    assert done.output.count("conflict: ") == sum(one[key] != other[key] for key in one.keys() & other.keys())
