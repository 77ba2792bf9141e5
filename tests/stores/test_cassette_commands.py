"""Recordings shown as conversations that stay put, compared and merged, by hand and by git."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import uuid
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

import pytest
from clients import Responding
from commands import LONGEST, done
from commands import run as run_command
from files import (
    HOSTILE,
    chat,
    conversation,
    embedding,
    function,
    read_records,
    record_of,
    write_cassette,
)
from servers import CALLING, completion

import llmcall
from llmcall.testing import ScriptedClient
from llmcall.types import Record

TAPE = "tape.jsonl"
TURNS = [("Bread for 3?", "Yes."), ("And for 5?", "No."), ("For 4?", "Perhaps.")]
# The two lines that let git compare cassettes as conversations: of .gitattributes, and of the
# configuration.
ATTRIBUTES = "**/cassettes/**/*.jsonl text eol=lf merge=union diff=llmcall\n"
TEXTCONV = ("diff.llmcall.textconv", "llmcall show")


@pytest.fixture
def market() -> Path:
    """A cassette of two scopes."""
    return write_cassette(
        "market.jsonl", [*conversation("day/lisa#0", TURNS), chat("?", HOSTILE, "day/bart#0")]
    )


def test_show_prints_conversations_as_plain_text(market: Path) -> None:
    """The settings and the models that answered stand above them. A terminal obeys nothing that an answer holds."""
    shown = done("show", market)
    assert "\x1b" not in shown
    assert shown.startswith(
        'configured model: "m"\nanswered by m-2026 (days not recorded)\n\n=== day/bart\n\n--- call 1  #0  m\nuser\n'
    )
    assert "→ assistant\n    Perhaps.\n" in shown


def test_what_a_header_says_of_its_run_is_printed_without_what_a_terminal_obeys() -> None:
    """In the error about another scope, too."""
    header = {"llmcall": 1, "run": {"scope": "\x1b[2Jann", "actor": "system"}, "settings": {}}
    Path("run.jsonl").write_text(json.dumps(header), encoding="utf-8")
    Path("program.py").write_text("", encoding="utf-8")
    printed = done("run", "--cassette", "run.jsonl", "--scope", "ben", "program.py", code=2)
    assert "was recorded with --scope \\x1b[2Jann" in printed


def test_show_as_json_has_whole_records(market: Path) -> None:
    """Their histories are in full."""
    records = json.loads(done("show", market, "--json"))
    assert [len(record["request"]["messages"]) for record in records] == [1, 2, 4, 6]


@pytest.mark.ci
def test_show_writes_utf_8_to_a_pipe_whatever_the_terminals_coding(market: Path) -> None:
    """The output has plain line ends and no colours."""
    command = [sys.executable, "-m", "llmcall", "show", str(market)]
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "FORCE_COLOR": "1"}
    printed = subprocess.run(
        command, env=environment, check=True, capture_output=True, timeout=LONGEST
    ).stdout
    assert "→ assistant".encode() in printed
    assert b"\r" not in printed
    assert b"\x1b" not in printed


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
def test_a_command_that_cannot_do_its_work_names_the_reason(
    market: Path, arguments: list[str], code: int, complaint: str
) -> None:
    """It ends with the exit code of a failure or of wrong usage."""
    Path("broken.jsonl").write_bytes(market.read_bytes()[:100].rpartition(b"\n")[0] + b"\n{broken")
    warm = chat("Bread?", "Yes.", temperature=1)
    write_cassette("warmer.jsonl", [warm], {"model": "m", "temperature": 1})
    Path("empty.jsonl").touch()
    assert complaint in done(*arguments, code=code)


# Records as conversations


def text_of(records: list[Record], settings: dict[str, Any] | None = None) -> str:
    """Return what ``llmcall show`` prints of records."""
    return done("show", write_cassette("shown.jsonl", records, settings or {}))


def test_a_history_just_above_is_not_repeated() -> None:
    """Each draw has it."""
    messages = conversation("s#0", TURNS)[1].request["messages"]
    shown = text_of([chat(messages, answer, f"s#{draw}") for draw, answer in enumerate("abc")])
    assert shown.count("… 3 messages as above") == 2
    assert shown.count(TURNS[0][0]) == 1


def test_a_schema_that_was_shown_above_is_not_repeated() -> None:
    schema = {"type": "json_schema", "json_schema": {"name": "answer", "schema": {"d": "x" * 200}}}
    shown = text_of([chat(text, "1", response_format=schema) for text in "ab"])
    assert shown.count("x" * 200) == 1
    assert shown.count("response_format=… as above") == 1


def choices() -> Record:
    """Return a record with two choices, one of them cut."""
    record = chat("?", "A")
    first = record.response["choices"][0]
    record.response["choices"] = [first, {**first, "index": 1, "finish_reason": "length"}]
    return record


ASKED: list[Any] = [{"role": "user", "content": "What does bread cost?"}]
RESULT = {"role": "tool", "tool_call_id": "c1", "content": "3"}
PARTS = [{"type": "text", "text": "What is it?"}, {"type": "file", "file": {"file_id": "f"}}]
PICTURE = {"image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}, "type": "image_url"}
SHOWN = [
    (chat(ASKED, CALLING), ['calls price_of({"item": "bread"})  [call00001]']),
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
    (
        chat("?", {"content": None, "audio": {"data": "UklG", "transcript": "Two coins."}}),
        ["→ assistant", "says: Two coins."],
    ),
    (
        chat("?", {"role": "assistant", "content": "", "images": [PICTURE]}),
        ["→ assistant", f"[image {sha256(json.dumps(PICTURE).encode()).hexdigest()[:8]}]"],
    ),
    (
        chat("?", {"role": "assistant", "content": [PICTURE]}),
        ["→ assistant", f"[image {sha256(json.dumps(PICTURE).encode()).hexdigest()[:8]}]"],
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
    (
        chat("?", "!", "s#0").replace(caller="task main 0/task ask 1"),
        ["#0  m  asked by task main 0/task ask 1"],
    ),
    (embedding("bread", [0.5, 0.25, 1, 2]), ["text", "bread", "→ embedding", "4 numbers"]),
    (
        function("price", {"item": "b"}, 3.5),
        ["price  version=2", "arguments", '{"item": "b"}', "→ result", "3.5"],
    ),
]


def use_a_tool(path: str, call_id: str) -> None:
    """Record a call of a tool and the answer to its result."""
    calling = {**CALLING, "tool_calls": [{**CALLING["tool_calls"][0], "id": call_id}]}
    called = completion(None)
    called["choices"][0] |= {"message": calling, "finish_reason": "tool_calls"}
    client = Responding(called, completion("Three coins."), model="m")
    with llmcall.cassette(path), llmcall.scope("lisa"):
        reply = client.send_message(ASKED)
        assert reply is not None
        result = {**RESULT, "tool_call_id": reply.tool_calls[0]["id"]}  # type: ignore[index]
        client.send_message([*ASKED, reply, result])


def test_show_numbers_the_calls_of_tools_and_repeats_no_history() -> None:
    """An answer has the number that its tool's result refers to."""
    use_a_tool(TAPE, "call_9f3")
    shown = [line.strip() for line in done("show", TAPE).splitlines()]
    assert shown.count('calls price_of({"item": "bread"})  [call00001]') == 1
    assert "tool (call00001)" in shown


def test_diff_finds_no_change_in_the_ids_of_tool_calls() -> None:
    """Neither in the answer that makes them nor in the request that sends them back."""
    use_a_tool("one.jsonl", "call_9f3")
    use_a_tool("other.jsonl", "toolu_01")
    found = llmcall.compare("one.jsonl", "other.jsonl")
    assert (found.same, found.divergences) == (2, [])


def test_a_forgotten_answer_is_asked_again_alone() -> None:
    """By its key, as the table has it. The cassette and the disk cache lose it; the others stay."""
    answers = iter(["perhaps", "yes", "no", "no"])
    client = ScriptedClient(lambda messages: next(answers), cache_mode="auto")
    agrees = llmcall.LLMCall(
        user="Do you agree, {{ person }}?",
        output_type=Literal["yes", "no"],
        output_retries=0,
        client=client,
    )
    persons = [{"person": name} for name in ("Ada", "Ben", "Cleo")]

    def forget(key: str) -> str:
        return run_command("cassette", "forget", TAPE, key).output

    def ask() -> Any:
        with llmcall.cassette(TAPE, mode="update"):
            return agrees.table(persons, key="person", scope="survey", workers=1, on_error="none")

    key = ask()["cache_key"][0]
    said = forget(key)
    assert said.startswith("1 record dropped from tape.jsonl, 1 from the cache ")
    assert len(read_records(TAPE)) == len(list(client.cache.records())) == 2
    assert list(ask()["value"]) == ["no", "yes", "no"]
    assert forget("zzz").startswith("Error: no key begins with 'zzz' among 3 records of tape.jsonl")


@pytest.mark.parametrize("command", ["forget", "merge"])
def test_a_command_does_not_overwrite_what_was_recorded_meanwhile(
    command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process finishes its recording after the command read the file."""
    with llmcall.cassette(TAPE):
        ScriptedClient(lambda messages: "yes", cache_mode="off").send_message("Agreed?")
    fsync, recorded = os.fsync, b"the other's answers"

    def finish(file: int) -> None:
        Path(TAPE).write_bytes(recorded)
        fsync(file)

    monkeypatch.setattr(os, "fsync", finish)
    monkeypatch.setenv("LLMCALL_CACHE_NAMESPACE", "new keys")
    arguments = {
        "forget": [read_records(TAPE)[0].cache_key],
        "merge": [TAPE, "--to", TAPE],
    }
    reported = done("cassette", command, TAPE, *arguments[command], code=1)
    assert "another process wrote tape.jsonl" in reported
    assert Path(TAPE).read_bytes() == recorded


THREE_EQUAL_CALLS = """
import sys, llmcall
from llmcall.testing import ScriptedClient
answers = iter(sys.argv[1])
client = ScriptedClient(lambda messages: next(answers), cache_mode="auto")
with llmcall.scope("s"):
    print("".join(client.send_message("A letter?").content for _ in range(3)))
"""


@pytest.mark.ci
@pytest.mark.parametrize(("draw", "expected"), [(1, "AXC"), (0, "XBC"), (2, "ABX")])
def test_a_forgotten_draw_moves_no_other_under_run(draw: int, expected: str) -> None:
    """Nobody else asked the same, so the gap is the caller's own."""
    Path("three.py").write_text(THREE_EQUAL_CALLS, encoding="utf-8")

    def recorded(mode: str, answers: str) -> str:
        command = [sys.executable, "-m", "llmcall", "run", "--cassette", TAPE, "--mode", mode]
        run_of_three = [*command, "three.py", answers]
        return subprocess.run(run_of_three, capture_output=True, text=True, check=True).stdout

    assert recorded("once", "ABC") == "ABC\n"
    done("cassette", "forget", TAPE, read_records(TAPE)[draw].cache_key)
    assert recorded("update", "X") == expected + "\n"


@pytest.mark.parametrize(("record", "expected"), SHOWN)
def test_show_prints_a_record_of_any_kind(record: Record, expected: list[str]) -> None:
    """Tools, their calls and results, refusals, choices, media, callers, embeddings and functions."""
    shown = [line.strip().removeprefix("--- call 1  ") for line in text_of([record]).splitlines()]
    assert [line for line in shown if line in expected] == expected


# git


def git(*arguments: str) -> str:
    """Run git in the working directory, without anybody's configuration."""
    identity = ("-c", "user.name=A", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false")
    environment = {**os.environ, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
    done = subprocess.run(
        ["git", *identity, *arguments],
        env=environment,
        check=True,
        capture_output=True,
        timeout=LONGEST,
    )
    return done.stdout.decode()


@pytest.fixture
def repository() -> Path:
    """A repository that compares cassettes as conversations, with one recorded and committed."""
    git("init", "-q", "-b", "main")
    Path(".gitattributes").write_text(ATTRIBUTES, encoding="utf-8")
    key, command = TEXTCONV
    git(
        "config",
        key,
        command.replace("llmcall", f"{shlex.quote(Path(sys.executable).as_posix())} -m llmcall", 1),
    )
    path = write_cassette("tests/cassettes/test_a/test_b.jsonl", conversation("lisa#0", TURNS))
    git("add", ".")
    git("commit", "-q", "-m", "one")
    return path


@pytest.mark.newest_only
def test_git_shows_what_was_answered_otherwise(repository: Path) -> None:
    """The difference has two lines and no JSON."""
    changed = [*TURNS[:1], ("And for 5?", "Gladly."), TURNS[2]]
    write_cassette(str(repository), conversation("lisa#0", changed))
    shown = [
        line
        for line in git("diff").splitlines()
        if line[:1] in "+-" and line[:3] not in ("+++", "---")
    ]
    assert shown == ["-    No.", "+    Gladly."]
    assert "+    Perhaps." in git("show", "HEAD")


@pytest.mark.ci
@pytest.mark.newest_only
def test_git_shows_a_damaged_cassette_as_it_is(repository: Path) -> None:
    """The fault stands above it, and git goes on."""
    repository.write_bytes(b"\xff\x1b[31m" + repository.read_bytes())
    shown = git("diff")
    assert "+cannot be read: " in shown
    assert '"kind": "chat"' in shown
    assert "\x1b" not in shown


def test_git_and_the_command_merge_two_branches_to_the_same_records(repository: Path) -> None:
    """The branches recorded other calls."""
    first = read_records(repository)
    for branch in ("left", "right"):
        git("checkout", "-q", "-b", branch, "main")
        write_cassette(str(repository), [*first, *conversation(f"{branch}#0", TURNS)])
        git("commit", "-q", "-a", "-m", branch)
        Path(f"{branch}.jsonl").write_bytes(repository.read_bytes())
    git("merge", "-q", "-m", "both", "left")
    done("cassette", "merge", "left.jsonl", "right.jsonl", "--to", "both.jsonl")
    by_command = read_records(Path("both.jsonl"))
    assert len(by_command) == 9
    assert {record.cache_key for record in read_records(repository)} == {
        record.cache_key for record in by_command
    }


# merge


def test_merge_writes_every_record_of_both() -> None:
    """Those of a scope stand in the order of the calls; the command says how many there are."""
    calls = [chat(text, "!", "s#0") for text in "abcde"]
    write_cassette("one.jsonl", [calls[1], calls[3]])
    write_cassette("other.jsonl", calls)
    printed = done("cassette", "merge", "one.jsonl", "other.jsonl", "-o", "both.jsonl")
    assert "5 records written to both.jsonl" in printed
    assert Path("both.jsonl").read_bytes() == Path("other.jsonl").read_bytes()


def test_a_merge_with_an_incomplete_recording_is_incomplete() -> None:
    """So ``once`` goes on recording the merged file, too."""
    path = write_cassette("one.jsonl", [chat("a", "1", "s#0")])
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace("{", '{"complete": false, ', 1), encoding="utf-8")
    write_cassette("other.jsonl", [chat("b", "2", "s#0")])
    done("cassette", "merge", "other.jsonl", "one.jsonl", "-o", "both.jsonl")
    header = Path("both.jsonl").read_text(encoding="utf-8").partition("\n")[0]
    assert json.loads(header)["complete"] is False


def test_a_run_without_options_differs_from_one_with_some() -> None:
    """Recordings of the two are not merged; with one that no run made, it stays a run's."""
    for name, run in (
        ("plain", '"run": {}, '),
        ("named", '"run": {"scope": "X"}, '),
        ("block", ""),
    ):
        path = write_cassette(f"{name}.jsonl", [chat(name, "1", "s#0")])
        text = path.read_text(encoding="utf-8")
        path.write_text(text.replace("{", f"{{{run}", 1), encoding="utf-8")
    printed = done("cassette", "merge", "plain.jsonl", "named.jsonl", "-o", "both.jsonl", code=1)
    assert "run ({} and {'scope': 'X'}); keep both files, or record one again" in printed
    done("cassette", "merge", "plain.jsonl", "block.jsonl", "-o", "both.jsonl")
    header = Path("both.jsonl").read_text(encoding="utf-8").partition("\n")[0]
    assert json.loads(header)["run"] == {}


@pytest.fixture
def merge() -> tuple[str, ...]:
    """The command that merges two cassettes with different answers into the first one."""
    write_cassette("one.jsonl", [chat("a", "1", "s#0"), chat("b", "0", "s#0")])
    write_cassette("other.jsonl", [chat("a", "2", "s#0"), chat("b", "0", "s#0")])
    return ("cassette", "merge", "one.jsonl", "other.jsonl", "-o", "one.jsonl")


def answers_in(path: str) -> list[str]:
    """Return the answers in a cassette."""
    return [str(record.answer) for record in read_records(Path(path))]


def test_merge_lists_conflicts_and_writes_nothing(merge: tuple[str, ...]) -> None:
    """Each has its request and both answers."""
    printed = done(*merge, code=1)
    assert 'conflict: s#0 m "a": "1" | "2"' in printed
    assert "have different answers to 1 request, so nothing was written" in printed
    assert answers_in("one.jsonl") == ["1", "0"]


@pytest.mark.parametrize(("choice", "answer"), [("keep", "1"), ("replace", "2")])
def test_merge_writes_the_answer_that_on_conflict_names(
    choice: str, answer: str, merge: tuple[str, ...]
) -> None:
    """The conflicts are listed all the same."""
    assert "conflict: " in done(*merge, "--on-conflict", choice)
    assert answers_in("one.jsonl") == [answer, "0"]


# check


def test_the_advice_of_a_miss_beside_a_regular_expression_can_be_pasted(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """What it says to write keeps both out of the keys; recorded again, replays warn of nothing."""
    Path("config.ini").write_text("[Cache]\nNORMALIZE = Ticket no. \\d+\\.\n", encoding="utf-8")
    llmcall.reset()
    numbers = iter(map(uuid.UUID, map("{:032}".format, range(4))))

    def ask(mode: str) -> None:
        client = ScriptedClient(["Yes."], model="m", on_error="raise")
        with llmcall.cassette("tape.jsonl", mode=mode), llmcall.scope("lisa"):
            client.send_message(f"Ticket no. 17. Number {next(numbers)}?")

    ask("once")
    with pytest.raises(llmcall.CacheMissError) as caught:
        ask("none")
    _, found, advice = str(caught.value).partition("to record  ")
    assert found
    Path("config.ini").write_text(
        "[Cache]\n" + advice.partition("in the section")[0], encoding="utf-8"
    )
    llmcall.reset()
    assert llmcall.settings().cache_normalize == (r"Ticket no. \d+\.", "uuids")
    ask("rewrite")
    caplog.clear()
    ask("none")
    assert not caplog.messages


def test_a_normalizer_of_the_recording_that_is_not_set_here_is_no_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """What is set here is in effect; one that the recording lacks is not."""
    write_cassette("tape.jsonl", [chat("Bread?", "Yes.")], {"cache_normalize": ["times", "uuids"]})
    for names, is_told in (("uuids", False), ("uuids, addresses", True)):
        Path("config.ini").write_text(f"[Cache]\nNORMALIZE = {names}\n", encoding="utf-8")
        llmcall.reset()
        with llmcall.cassette("tape.jsonl", mode="none"):
            pass
        assert ("has no effect" in caplog.text) is is_told
    assert "record everything again in mode 'rewrite'" in caplog.text


def test_check_names_wrong_keys_and_missing_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    """A request under another key than its own by the header, and a missing draw; nothing of a sound
    file.
    """
    monkeypatch.setenv("LLMCALL_CACHE_NORMALIZE", "times")
    client = ScriptedClient(lambda messages: "Yes.")
    with llmcall.cassette(TAPE), llmcall.scope("s"):
        for _ in range(3):
            client.send_message("It is 12:30.")
    assert json.loads(done("cassette", "check", TAPE, "--json")) == []
    header, first, _, last = Path(TAPE).read_text(encoding="utf-8").splitlines(keepends=True)
    other = json.loads(first)
    other["request"]["messages"][0]["content"] = "It is 12:31."
    other["key"] = record_of("chat", "s#0", other["request"], {}).cache_key
    Path(TAPE).write_text(f"{header}{json.dumps(other)}\n{last}", "utf-8")
    found = json.loads(done("cassette", "check", TAPE, "--json", code=1))
    assert [(finding["about"], finding["record"], finding["sample"]) for finding in found] == [
        ("key", 1, "s#0"),
        ("draws", 2, "s#2"),
    ]


def test_check_names_a_request_that_was_changed_by_hand() -> None:
    with llmcall.cassette(TAPE):
        ScriptedClient(["Yes."]).send_message("Tea?")
    Path(TAPE).write_text(Path(TAPE).read_text("utf-8").replace("Tea?", "Coffee?"), "utf-8")
    assert f"{TAPE}:2: its key does not match its request" in done(
        "cassette", "check", TAPE, code=1
    )


def test_check_names_a_recording_that_broke_off() -> None:
    """It lacks what would have been asked later; a run in the mode ``once`` completes it."""
    client = ScriptedClient(lambda messages: "Yes.")
    with pytest.raises(ZeroDivisionError), llmcall.cassette(TAPE), llmcall.scope("s"):
        client.send_message("Hello")
        raise ZeroDivisionError
    [finding] = json.loads(done("cassette", "check", TAPE, "--json", code=1))
    assert (finding["about"], finding["record"]) == ("complete", 0)
    assert done("cassette", "check", TAPE, code=1).startswith("the recording is incomplete: ")
    with llmcall.cassette(TAPE), llmcall.scope("s"):
        client.send_message("Hello")
    assert json.loads(done("cassette", "check", TAPE, "--json")) == []
