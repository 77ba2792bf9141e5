"""Cassettes: who may answer in each mode, when and how the file is written, and whose settings
hold.
"""

from __future__ import annotations

import asyncio
import functools
import itertools
import json
import logging
import os
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

import commands
import openai
import pytest
from clients import client_for, http
from commands import LONGEST, NEEDS_POSIX, RunningProgram, ran, start
from pytest_httpserver import HTTPServer
from servers import OK, Answer, ScriptedServer, completion, embeddings, refusal

import llmcall
from llmcall import (
    CacheCorruptError,
    CacheError,
    CacheMissError,
    OpenAIClient,
    ResponseCache,
    cassette,
    scope,
)
from llmcall.testing import ScriptedClient

PATH = "tape.jsonl"


def counting(**settings: Any) -> ScriptedClient:
    """Return a client whose answers are numbered, so that no two are the same."""
    client = ScriptedClient(lambda messages: f"answer {len(client.requests)}", **settings)
    return client


def echoing(**settings: Any) -> ScriptedClient:
    """Return a client that repeats the last words of what it was asked."""
    return ScriptedClient(
        lambda messages: f"{len(messages)}: {messages[-1]['content'][-20:]}", **settings
    )


def answer_to(client: llmcall.LLMClient, text: str = "Hi", **arguments: Any) -> Any:
    """Ask and return the answer's text."""
    return client.send_message(text, on_error="raise", **arguments).content


def taped(*texts: str, path: str = PATH) -> None:
    """Record a cassette that answers each text by "recorded" and the text."""
    with cassette(path, mode="rewrite"):
        client = ScriptedClient(lambda messages: "recorded " + messages[-1]["content"])
        for text in texts:
            answer_to(client, text)


def lines(path: str | Path = PATH) -> list[Any]:
    """Return the lines of a cassette, parsed."""
    return [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]


def asked_in(path: str | Path = PATH) -> list[Any]:
    """Return the last message of each record in a cassette."""
    return [
        line["request"]["messages"][-1]["content"]
        for line in lines(path)
        if line.get("kind") == "chat"
    ]


def header(path: str | Path = PATH) -> Any:
    """Return the settings in a cassette's header."""
    return lines(path)[0]["settings"]


def is_complete(path: str | Path = PATH) -> bool:
    """Return whether a cassette's header says that it was recorded to its end."""
    return bool(lines(path)[0].get("complete", True))


def config_file(text: str) -> None:
    """Write a config.ini, and have it read."""
    Path("config.ini").write_text(text)
    llmcall.reset()


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return the warnings that were logged."""
    return [entry.getMessage() for entry in caplog.records if entry.levelno == logging.WARNING]


def played(client: ScriptedClient, *, until: int = 99) -> list[str]:
    """Run three actors over two rounds; fail before a call."""
    answers, number = [], itertools.count()
    with scope("trial"):
        for turn in range(2):
            for name in ("zoe", "adam", "lisa"):
                with scope(name):
                    if next(number) == until:
                        raise ZeroDivisionError
                    answers.append(
                        answer_to(client, f"{name} in round {turn}. " + "A long rule. " * 50)
                    )
    return answers


# Modes


@pytest.fixture(params=[False, True], ids=["no file", "an empty file"])
def state(request: pytest.FixtureRequest) -> str:
    """Have no cassette, or an empty file; return what errors say of it."""
    if request.param:
        Path(PATH).touch()
    return "is empty" if request.param else "does not exist"


def test_mode_none_refuses_what_is_not_recorded_and_writes_nothing(state: str) -> None:
    """The error says that there is no file, or an empty one."""
    exists = Path(PATH).exists()
    with (
        pytest.raises(CacheMissError, match=f"which {state}: 0 records"),
        cassette(PATH, mode="none"),
    ):
        answer_to(counting())
    assert Path(PATH).exists() is exists


NO_CASSETTE = "this is not a cassette of llmcall: "
NO_CASSETTES = {
    "Git LFS": (
        "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n",
        "this is a Git LFS pointer, and the cassette itself is not here: fetch it with 'git lfs pull'",
    ),
    "VCR": ("interactions:\n- request:\n    body: null\n", NO_CASSETTE),
    "fine-tuning": ('{"messages": [{"role": "user", "content": "Hi"}]}\n', NO_CASSETTE),
    "notes": ("Dear diary,\n", NO_CASSETTE),
    "JSON": ("[]\n", NO_CASSETTE),
    "bytes": ("SQLite format 3\0", NO_CASSETTE),
}


@pytest.mark.parametrize(
    ("name", "mode"),
    [
        *((name, "rewrite") for name in NO_CASSETTES),
        *(("notes", mode) for mode in ("none", "once", "new", "update")),
    ],
)
def test_a_file_that_is_no_cassette_is_refused(name: str, mode: str) -> None:
    """No mode asks a model first, nor writes over it."""
    text, message = NO_CASSETTES[name]
    Path(PATH).write_text(text, encoding="utf-8")
    client = counting()
    with (
        pytest.raises(CacheCorruptError, match=re.escape(f"{PATH}:1: {message}")),
        cassette(PATH, mode=mode),
    ):
        answer_to(client)
    assert client.requests == []
    assert Path(PATH).read_text(encoding="utf-8") == text


@pytest.mark.parametrize("mode", ["once", "new"])
def test_modes_once_and_new_record_where_nothing_is_recorded(mode: str, state: str) -> None:
    """A question that comes again is replayed."""
    client = counting()
    with cassette(PATH, mode=mode) as tape:
        answers = [answer_to(client), answer_to(client, "Bye"), answer_to(client)]
    assert answers == ["answer 1", "answer 2", "answer 1"]
    assert asked_in() == ["Hi", "Bye"]
    assert (tape.recorded, tape.replayed) == (2, 1)


def test_mode_new_adds_what_is_missing() -> None:
    """It replays what is there, asks the rest and adds it; ``unused`` has the records that answered no call."""
    taped("a", "b")
    with cassette(PATH, mode="new") as tape:
        assert answer_to(counting(), "b") == "recorded b"
        assert answer_to(counting(), "c") == "answer 1"
        assert [record.request["messages"][0]["content"] for record in tape.unused()] == ["a"]
    assert asked_in() == ["a", "b", "c"]
    assert (tape.replayed, tape.recorded, tape.records) == (1, 1, 3)


def test_mode_rewrite_asks_again_even_what_the_disk_cache_has() -> None:
    """Within the run a question that comes again is replayed."""
    taped("Hi", "Old")
    client = counting(cache_mode="auto")
    answer_to(client, "Bye")
    with cassette(PATH, mode="rewrite") as tape:
        answers = [answer_to(client), answer_to(client, "Bye"), answer_to(client)]
    assert answers == ["answer 2", "answer 3", "answer 2"]
    assert asked_in() == ["Hi", "Bye"]
    assert (tape.replayed, tape.recorded) == (1, 2)


@pytest.mark.parametrize("cache_mode", ["auto", "replay", "refresh", "off"])
@pytest.mark.parametrize("mode", ["once", "new", "rewrite"])
@pytest.mark.parametrize("past_cache", [False, True])
def test_the_cassettes_mode_decides_whether_to_ask(
    mode: str, cache_mode: str, past_cache: bool
) -> None:
    """The cache's mode says only whether the disk may answer."""
    answer_to(ScriptedClient(["cached"], cache_mode="auto"))
    client = ScriptedClient(["asked", "asked"], cache_mode=cache_mode)
    arguments: dict[str, Any] = {"cache": False} if past_cache else {}
    from_cache = cache_mode in ("auto", "replay") and mode != "rewrite" and not past_cache
    with cassette(PATH, mode=mode) as tape:
        assert answer_to(client, **arguments) == ("cached" if from_cache else "asked")
        assert answer_to(client, "new", **arguments) == "asked"
    assert (tape.recorded, asked_in()) == (2, ["Hi", "new"])


@pytest.mark.parametrize("cache_mode", ["auto", "replay", "refresh", "off"])
@pytest.mark.parametrize("mode", ["none", "replay", "once"])
def test_a_cassette_that_only_reads_asks_nobody_and_leaves_its_file(
    mode: str, cache_mode: str
) -> None:
    """Neither the model nor the disk cache answers, whatever the cache's mode."""
    taped("Hi")
    before = Path(PATH).read_bytes()
    answer_to(ScriptedClient(["cached"], cache_mode="auto"), "new")
    client = counting(cache_mode=cache_mode)
    with pytest.raises(CacheMissError), cassette(PATH, mode=mode) as tape:
        assert answer_to(client) == answer_to(client, cache=False) == "recorded Hi"
        answer_to(client, "new")
    assert (tape.replayed, tape.recorded, client.requests) == (2, 0, [])
    assert Path(PATH).read_bytes() == before


# When the file is written


def test_the_file_of_a_block_is_written_at_its_end() -> None:
    """Its folders are made with the first answer, and until the end the answers are in a cache beside it."""
    with cassette(Path("a/b/undisturbed.jsonl")):
        assert not Path("a").exists()
        played(echoing())
        assert os.listdir("a/b") == [".undisturbed.jsonl.answers"]
    assert os.listdir("a/b") == ["undisturbed.jsonl"]


def test_a_recording_that_went_on_is_that_of_an_undisturbed_run() -> None:
    """The bytes are the same, and the answers. Until then, its header says that it broke off; now it is complete."""
    with cassette("undisturbed.jsonl"):
        expected = played(echoing())
    for until in (2, 4, 6):
        with pytest.raises(ZeroDivisionError), cassette(PATH):
            played(echoing(), until=until)
            raise ZeroDivisionError
        assert (is_complete(), len(asked_in())) == (False, until)
    client = echoing()
    with cassette(PATH) as tape:
        assert played(client) == expected
    assert (tape.replayed, tape.recorded, client.requests) == (6, 0, [])
    assert Path(PATH).read_bytes() == Path("undisturbed.jsonl").read_bytes()
    with pytest.raises(CacheMissError), cassette(PATH):
        answer_to(echoing(), "something else")


@pytest.mark.parametrize(
    ("until", "mode"),
    [
        *((2, mode) for mode in ("once", "new", "update")),
        *((99, mode) for mode in ("new", "update", "rewrite")),
    ],
)
@pytest.mark.feature("plans")
def test_a_plan_for_other_rows_leaves_a_recording_as_it_is(until: int, mode: str) -> None:
    """A dry run comes to its end, but asks nothing, and drops no answer. A broken recording goes on then."""
    with suppress(ZeroDivisionError), cassette(PATH):
        played(echoing(), until=until)
    before = Path(PATH).read_bytes()
    with cassette(PATH, mode):
        llmcall.LLMCall(user="{{ word }}", client=echoing()).map([{"word": "a"}], dry_run=True)
    assert Path(PATH).read_bytes() == before
    with cassette(PATH):
        assert len(played(echoing())) == 6


@pytest.mark.feature("plans")
def test_a_record_whose_call_is_not_made_keeps_its_settings() -> None:
    """That of a dry run, and that of a recorded function, which an update does not run again."""
    config_file("[OpenAI]\nMODEL = fake-1\nEMBEDDING_MODEL = fake-3\n")
    ask = llmcall.LLMCall(user="{{ word }}", client=echoing())

    @llmcall.recorded
    def look() -> int:
        return len(answer_to(echoing(), "a", max_tokens=9))

    with cassette(PATH), scope("s"):
        ask(word="b")
        look()
    with cassette(PATH, mode="update"), scope("s"):
        ask.map([{"word": "b"}], dry_run=True, scope=None)
        look()
        answer_to(echoing(), "c", model="fake-2")
    assert "a" in asked_in() and "c" in asked_in()
    assert header() == {"model": "fake-1"}


@pytest.mark.parametrize(("code", "complete"), [(None, True), (0, True), (1, False)])
def test_a_program_that_ends_itself_has_ended_well(code: int | None, complete: bool) -> None:
    """sys.exit() and sys.exit(0) inside the block are no failures; sys.exit(1) is one."""
    with pytest.raises(SystemExit), cassette(PATH):
        answer_to(echoing())
        raise SystemExit(code)
    assert is_complete() is complete


def test_a_rewrite_that_fails_or_answers_no_call_leaves_the_old_file() -> None:
    """An exception ends it, or the program goes on after its calls failed."""
    taped("Old")
    with pytest.raises(ZeroDivisionError), cassette(PATH, mode="rewrite"):
        answer_to(counting())
        raise ZeroDivisionError
    assert asked_in() == ["Old"]
    with cassette(PATH, mode="rewrite"):
        assert ScriptedClient([llmcall.AuthenticationError("no")]).send_message("Hi") is None
    assert asked_in() == ["Old"]


@pytest.mark.parametrize(
    "arguments",
    [
        {"actor": "sytem"},
        {"hosts": "https://api.example.com"},
        {"hosts": ["a:80"]},
        {"hosts": ["*"]},
    ],
)
def test_a_cassette_that_a_wrong_argument_refuses_stays_closed(arguments: Any) -> None:
    """The next one records."""
    with pytest.raises(ValueError, match=r"actor|hosts"), cassette(PATH, **arguments):
        pass
    with cassette(PATH):
        answer_to(counting())
    assert asked_in() == ["Hi"]


def test_a_close_in_a_block_leaves_it_open() -> None:
    """A block closes its cassette itself, and records until then."""
    with cassette(PATH) as tape:
        answer_to(echoing(), "first")
        tape.close()
        answer_to(echoing(), "second")
    assert asked_in() == ["first", "second"]


def test_a_notebooks_closed_cassette_is_that_of_a_block() -> None:
    """The bytes are the same, though a cell failed and ran again."""
    with cassette("block.jsonl"):
        played(echoing())
    tape = cassette(PATH).open()
    with pytest.raises(ZeroDivisionError):
        played(echoing(), until=4)
    played(echoing())
    tape.close()
    assert Path(PATH).read_bytes() == Path("block.jsonl").read_bytes()


UNCLOSED = """
llmcall.cassette("tape.jsonl", mode=sys.argv[1]).open()
client = ScriptedClient(lambda messages: messages[-1]["content"], on_error="raise")
client.send_message("known")
if sys.argv[2] == "missed":
    try:
        client.send_message("swallowed")
    except llmcall.CacheMissError:
        pass
"""


@pytest.mark.parametrize(
    ("mode", "last_call", "consequence"),
    [
        ("new", "known", "opened with open() but not closed"),
        ("none", "known", "1 record was not used; mode 'update'"),
        ("none", "missed", "1 call had no recorded answer"),
    ],
)
def test_a_process_that_ends_before_a_cassette_is_closed_warns(
    mode: str, last_call: str, consequence: str
) -> None:
    """Nobody may have run a notebook's last cell. A refused call is warned of, since nobody is left to
    get its error.
    """
    with cassette(PATH):
        answer_to(echoing(), "unused")
        if mode == "none":
            answer_to(echoing(), "known")
    with start(UNCLOSED, mode, last_call) as process:
        _, errors = process.communicate(timeout=LONGEST)
    assert consequence in errors
    assert "Traceback" not in errors


FIRST_CELL = """
tape = llmcall.cassette(PATH, mode=mode)
tape.open()
trial = llmcall.scope("trial")
"""
SECOND_CELL = """
with trial:
    answers.append([answer_to(client, text) for text in ("Hi", "Hi", "Bye")])
"""
LAST_CELL = "tape.close()"


@pytest.mark.parametrize("mode", ["once", "new"])
def test_cells_that_run_again_ask_only_what_is_new(mode: str) -> None:
    """The first cell opens the file again, and the draws begin from 0; once closed, the file stays complete."""
    client, answers = counting(cache_mode="off"), list[Any]()
    names = {**globals(), "mode": mode, "client": client, "answers": answers}

    def run(*cells: str) -> None:
        for cell in cells:
            exec(cell, names)

    run(FIRST_CELL, SECOND_CELL, FIRST_CELL, SECOND_CELL)
    assert answers == [["answer 1", "answer 2", "answer 3"]] * 2
    run(FIRST_CELL, SECOND_CELL.replace('"Bye"', '"Bye", "New"'))
    assert answers[-1] == ["answer 1", "answer 2", "answer 3", "answer 4"]
    run(LAST_CELL, FIRST_CELL, SECOND_CELL, LAST_CELL)
    assert is_complete()
    assert len(client.requests) == len(asked_in()) == 4


def test_an_answer_after_the_end_is_returned_but_not_recorded(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A warning says so."""
    with cassette(PATH):
        stream = counting().stream_message("Hi")
    assert "".join(stream) == "answer 1"
    assert warnings(caplog) == [
        f"{PATH}: no call was answered while it was open, so nothing was written",
        f"an answer came after the cassette {PATH} was closed, so the file lacks it",
    ]
    assert not Path(PATH).exists()


def test_failures_are_named_at_the_end(caplog: pytest.LogCaptureFixture) -> None:
    """One warning says how many calls failed, in which scopes, and what helps."""
    client = ScriptedClient([llmcall.ContentFilterError("no"), llmcall.APIError("no")])
    with cassette(PATH):
        client.send_message("a")
        with scope("lisa"):
            client.send_message("b")
        assert warnings(caplog) == []
    (warning,) = warnings(caplog)
    assert "2 calls" in warning
    assert "1 outside any scope, 1 in scope 'lisa'" in warning
    assert "ContentFilterError. Change" in warning


NOTHING = "Nothing was written. Fix the cause and rerun. The first"
AGAIN = "Fix the cause and rerun; only missing answers are requested. The first"
AGAIN_NEW = "Fix the cause and rerun with mode 'new'; only missing answers are requested. The first"


@pytest.mark.parametrize(
    ("mode", "is_caught", "questions", "advice", "next_mode", "asked"),
    [
        ("once", False, "b", NOTHING, "once", "b"),
        ("once", True, "b", NOTHING, "once", "b"),
        ("once", False, "ab", AGAIN, "once", "b"),
        ("once", True, "ab", AGAIN_NEW, "new", "b"),
        ("new", True, "b", NOTHING, "new", "b"),
        ("new", True, "ab", AGAIN, "new", "b"),
        ("update", False, "ab", AGAIN, "update", "b"),
        ("update", True, "ab", AGAIN, "update", "b"),
        ("rewrite", False, "ab", NOTHING, "rewrite", "ab"),
        ("rewrite", True, "ab", AGAIN_NEW, "new", "b"),
    ],
)
def test_the_advice_after_a_failed_call_is_true(
    mode: str,
    is_caught: bool,
    questions: str,
    advice: str,
    next_mode: str,
    asked: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Nothing was written if it says so, and who follows it asks only what is missing."""
    if mode == "rewrite":
        with cassette(PATH):
            answer_to(ScriptedClient(["old"]), "a")
    before = Path(PATH).read_bytes() if Path(PATH).exists() else None

    def answer(messages: Any) -> Any:
        return "yes" if messages[-1]["content"] == "a" else llmcall.APIError("no")

    end = nullcontext() if is_caught else pytest.raises(llmcall.APIError)
    with end, cassette(PATH, mode=mode):
        client = ScriptedClient(answer, on_error="none" if is_caught else "raise")
        for question in questions:
            client.send_message(question)
    after = Path(PATH).read_bytes() if Path(PATH).exists() else None
    assert (after == before) is (advice == NOTHING)
    (warning,) = (text for text in warnings(caplog) if "call failed" in text)
    assert warning.startswith(
        f"{PATH}: 1 call failed (1 outside any scope). A replay will differ from this run"
    )
    assert advice in warning

    again = counting()
    with cassette(PATH, mode=next_mode):
        for question in questions:
            answer_to(again, question)
    assert "".join(request.body["messages"][-1]["content"] for request in again.requests) == asked


@pytest.mark.parametrize("mode", ["once", "new", "update"])
def test_a_cassette_counts_the_answers_of_an_earlier_run(
    mode: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The disk cache had them, and does not know whether this process asked before; who wanted another repeat
    must know.
    """
    client = counting(cache_mode="auto")
    for text in "ab":
        answer_to(client, text)
    with cassette(PATH, mode=mode):
        for text in "abc":
            answer_to(client, text)
    assert warnings(caplog) == [
        f"{PATH}: 2 answers reused from the disk cache, from an earlier run, or from identical calls in this one. "
        "For new ones, use another scope name and a new cassette"
    ]


def beside_a_quicker_run(question: str = "Hi") -> ScriptedClient:
    """Return a client for a draw of the scope "run", which another run gets an answer to in the meantime."""

    def answer(messages: object) -> str:
        ResponseCache("cache").put(request, completion("theirs"))
        return "ours"

    client = ScriptedClient(answer, cache_mode="auto", cache_path="cache")
    with scope("run"):
        request = client.build_request(question)
    return client


def test_the_answer_of_a_run_at_the_same_time_is_reported_as_one_of_an_earlier_run(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Whatever was stored first is what both get, though both have paid."""
    client = beside_a_quicker_run()
    with cassette(PATH) as tape, scope("run"):
        assert answer_to(client) == "theirs"
    assert (tape.asked, tape.supplied) == (1, 1)
    [warning] = warnings(caplog)
    assert "1 answer reused from the disk cache, from an earlier run" in warning


def test_a_result_that_another_run_stored_first_was_asked_of_no_server() -> None:
    """The function ran, and its result is not the one that counts."""

    @llmcall.recorded(name="price")
    def price() -> str:
        if Path("theirs.jsonl").exists():
            llmcall.client().cache.load("theirs.jsonl")
            return "ours"
        return "theirs"

    with llmcall.configured(cache_path="other"), cassette("theirs.jsonl"), scope("run"):
        price()
    with cassette(PATH) as tape, scope("run"):
        assert price() == "theirs"
    assert (tape.recorded, tape.asked, tape.supplied) == (1, 0, 1)


def test_a_stream_beside_a_quicker_run_is_recorded_as_it_was_read() -> None:
    """Its pieces cannot be taken back."""
    client = beside_a_quicker_run()
    for _ in range(2):
        with cassette(PATH) as tape, scope("run"), client.stream_message("Hi") as stream:
            assert ("".join(stream), stream.reply.content) == ("ours", "ours")
        assert tape.supplied == 0
    assert len(client.requests) == 1


@pytest.mark.parametrize("mode", ["none", "once", "rewrite"])
def test_no_cassette_counts_answers_that_it_recorded_or_replayed(
    mode: str, caplog: pytest.LogCaptureFixture
) -> None:
    """They are those of this run, or of the file."""
    client = counting(cache_mode="auto")
    with cassette(PATH):
        answer_to(client)
    with cassette(PATH, mode=mode):
        answer_to(client)
    assert warnings(caplog) == []


def test_a_run_that_a_budget_ended_says_that_no_replay_is_as_it_was(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The warning counts the calls that were refused."""
    client = ScriptedClient(["yes"])
    with cassette(PATH), llmcall.budget(calls=1), scope("lisa"):
        answer_to(client, "a")
        for _ in range(2):
            with pytest.raises(llmcall.BudgetExceededError):
                answer_to(client, "b")
    (warning,) = warnings(caplog)
    assert "2 calls had no budget left and raised BudgetExceededError (2 in scope 'lisa'" in warning
    assert f"A replay will differ from this run. {AGAIN_NEW}" in warning


# Blocks, decorators, threads and tasks


def test_a_decorated_function_has_a_cassette_for_each_call() -> None:
    """The first call records, the second replays; outside the function the cassette is closed."""
    client = counting()
    ask = cassette(PATH)(lambda text: answer_to(client, text))
    assert (ask("Hi"), ask(text="Hi")) == ("answer 1", "answer 1")
    with pytest.raises(CacheMissError):
        ask("Bye")
    assert (len(client.requests), asked_in()) == (1, ["Hi"])
    assert answer_to(client) == "answer 2"


def test_a_decorated_asynchronous_function_has_a_cassette_for_each_call() -> None:
    """It stays open until the function has ended."""
    client = counting()

    @cassette(PATH)
    async def ask(text: str) -> Any:
        reply = await client.asend_message(text, on_error="raise")
        return reply.content

    assert asyncio.run(ask("Hi")) == asyncio.run(ask("Hi")) == "answer 1"
    assert (len(client.requests), asked_in()) == (1, ["Hi"])


def test_the_inner_of_two_cassettes_counts_until_it_closes() -> None:
    """Then the outer one goes on."""
    client = counting()
    with cassette("outer.jsonl") as outer:
        answer_to(client, "a")
        with cassette("inner.jsonl") as inner:
            answer_to(client, "a")
            answer_to(client, "b")
        answer_to(client, "a")
        answer_to(client, "c")
    assert (asked_in("outer.jsonl"), asked_in("inner.jsonl")) == (["a", "c"], ["a", "b"])
    assert (outer.records, outer.replayed, inner.records) == (2, 1, 2)


@pytest.mark.parametrize("other", [PATH, f"link/{PATH}"])
def test_a_file_that_is_open_already_cannot_be_opened(other: str) -> None:
    """Another name for it makes no difference. The error says where it is open."""
    os.symlink(".", "link")
    with (
        cassette(PATH),
        pytest.raises(CacheError, match="is already open in a block"),
        cassette(other),
    ):
        pass
    tape = cassette(PATH)
    tape.open()
    with (
        pytest.raises(CacheError, match=r"by an earlier open\(\); .*tape\.close\(\)"),
        cassette(other),
    ):
        pass
    tape.close()


def test_identical_calls_at_once_get_what_is_recorded() -> None:
    """Two calls past the disk cache ask at once; both return the answer that the file holds."""
    both = threading.Barrier(2, timeout=60)

    def answer(messages: Any) -> str:
        both.wait()
        return threading.current_thread().name

    client = ScriptedClient(answer)
    with cassette(PATH), ThreadPoolExecutor(2) as executor:
        asked = [executor.submit(answer_to, client, cache=False) for _ in range(2)]
        answers = [future.result() for future in asked]
    assert len(client.requests) == 2
    recorded = lines()[1]["response"]["choices"][0]["message"]["content"]
    assert answers == [recorded, recorded]


@NEEDS_POSIX
def test_calls_of_a_forked_process_are_recorded() -> None:
    """By the process that opened the cassette; the forked one sends what is new."""
    program = """
        client = ScriptedClient(lambda messages: messages[-1]["content"], on_error="raise")
        with llmcall.cassette("tape.jsonl"):
            client.send_message("known")
            child = os.fork()
            if not child:
                asked = len(client.requests)
                print(*(client.send_message(text).content for text in ("known", "new")), len(client.requests) - asked)
                sys.exit()
            assert os.waitpid(child, 0)[1] == 0
    """
    assert ran(program).split() == ["known", "new", "1"]
    assert asked_in() == ["known", "new"]


@NEEDS_POSIX
def test_bound_functions_draw_from_the_numbers_of_the_process_that_records_theirs() -> None:
    """In arms, too: what two of them ask is one draw."""
    program = """
        import multiprocessing
        from concurrent.futures import ProcessPoolExecutor
        client = ScriptedClient(lambda messages: "six")
        def ask():
            return client.send_message("Roll the dice.").sample
        def asked():
            with ProcessPoolExecutor(1, multiprocessing.get_context("fork")) as pool:
                return [pool.submit(llmcall.bind(ask)).result() for _ in range(2)]
        with llmcall.cassette("tape.jsonl"):
            with llmcall.scope("s"):
                print(ask(), *asked(), ask())
            with llmcall.scope("t"):
                for name in ("control", "treated"):
                    with llmcall.arm(name):
                        print(ask(), *asked())
    """
    assert ran(program).split() == ["s#0", "s#1", "s#2", "s#3", *["t#0", "t#1", "t#2"] * 2]
    assert [line.get("arms") for line in lines()[-3:]] == [["control", "treated"]] * 3


@NEEDS_POSIX
def test_calls_of_a_forked_process_do_not_pass_a_replay_by() -> None:
    """Nothing is asked there, and the block raises what the forked process got."""
    with cassette(PATH):
        answer_to(echoing(), "known")
    program = """
        client = ScriptedClient(lambda messages: messages[-1]["content"], on_error="raise")
        try:
            with llmcall.cassette("tape.jsonl", mode="none"):
                child = os.fork()
                if not child:
                    try:
                        client.send_message("new")
                    except llmcall.CacheMissError:
                        print(len(client.requests), flush=True)
                    os._exit(0)
                os.waitpid(child, 0)
        except llmcall.CacheMissError:
            print("raised")
    """
    assert ran(program).split() == ["0", "raised"]


# Kinds of calls


@pytest.fixture
def embedder(httpserver: HTTPServer) -> tuple[ScriptedServer, OpenAIClient]:
    """A server that embeds one text after the other, and its client."""
    server = ScriptedServer(
        httpserver, OK._replace(body=embeddings([0.1, 0.2])), OK._replace(body=embeddings([3, 4]))
    )
    return server, client_for(server.base_url)


Embedder = tuple[ScriptedServer, OpenAIClient]


def test_a_cassette_asks_only_for_the_embeddings_it_lacks(embedder: Embedder) -> None:
    """Each text is a record, which is looked up once for a call."""
    server, client = embedder
    with client:
        with cassette(PATH):
            live = client.get_embedding("a")
        with cassette(PATH, mode="new") as tape:
            assert client.get_embedding(["a", "b", "a"]) == [live, [3.0, 4.0], live]
    assert (tape.replayed, tape.recorded) == (1, 1)
    assert [request.body["input"] for request in server.requests] == [["a"], ["b"]]


def test_a_fallback_replays_from_the_cassette_alone(httpserver: HTTPServer) -> None:
    """Its settings name no fallback."""
    server = ScriptedServer(
        httpserver, refusal(400, "too long", code="context_length_exceeded"), OK
    )
    settings: dict[str, Any] = {"model": "small", "fallbacks": {"small": ("large",)}}
    with client_for(server.base_url, **settings) as client, scope("a"), cassette(PATH):
        live = client.send_message("Hi", on_error="raise")
    with ResponseCache(llmcall.settings().cache_path) as cache:
        cache.clear()
    with OpenAIClient(model="small") as elsewhere, cassette(PATH, mode="none") as tape, scope("a"):
        again = elsewhere.send_message("Hi", on_error="raise")
        assert tape.unused() == []
    assert (again, again.cache_key, again.sample) == (live, live.cache_key, "a#0")
    assert (tape.records, len(server.requests)) == (1, 2)


# Settings


EVERY_SETTING = """
[OpenAI]
MODEL = cheap
EMBEDDING_MODEL = vectors
TEMPERATURE = 0
MAX_TOKENS = 50
TOP_P = 0.9
FREQUENCY_PENALTY = 0.0
PRESENCE_PENALTY = 0.25
REASONING_EFFORT = low
TIMEOUT = 7
[Cache]
NAMESPACE = lab
NORMALIZE = times
  x+
MODE = off
[Aliases]
cheap = gpt-4o-mini
"""


def test_the_header_has_what_environment_and_files_put_into_keys() -> None:
    """It has no setting that does not matter to keys, and no argument in code, nor what each call gives itself."""
    config_file(EVERY_SETTING)
    with llmcall.configured(presence_penalty=1.5), cassette(PATH):
        answer_to(ScriptedClient(["yes"], top_p=0.1), temperature=0.5, seed=3)
    assert header() == {
        "model": "cheap",
        "max_tokens": 50,
        "frequency_penalty": 0,
        "reasoning_effort": "low",
        "cache_namespace": "lab",
        "cache_normalize": ["times", "x+"],
        "aliases": {"cheap": "gpt-4o-mini"},
    }


def test_a_call_that_is_added_gets_a_parameter_that_each_recorded_call_named(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """As in a fresh recording: nothing recorded says that it has no value."""
    config_file("[OpenAI]\nMODEL = fake-1\nTEMPERATURE = 0.5\n")
    with cassette(PATH):
        answer_to(counting(), temperature=1)
    assert header() == {"model": "fake-1"}
    with cassette(PATH, mode="new"):
        answer_to(counting(), temperature=1)
        answer_to(counting(), "Later")
    assert header() == {"model": "fake-1", "temperature": 0.5}
    assert lines()[-1]["request"]["temperature"] == 0.5
    assert warnings(caplog) == []


def test_a_setting_is_in_the_header_while_a_record_depends_on_it() -> None:
    config_file("[OpenAI]\nMODEL = fake-1\nTEMPERATURE = 0.5\n")
    with cassette(PATH):
        answer_to(counting())
    with cassette(PATH, mode="update"):
        answer_to(counting(), temperature=1)
    assert header() == {"model": "fake-1"}


def test_the_header_has_the_aliases_of_the_models_that_were_called() -> None:
    """Others hold as they are set here, unless a recorded call named a model so."""
    config_file("[Aliases]\nquick = cheap\ncheap = fake-1\nother = fake-1\n")
    with cassette(PATH):
        answer_to(counting(), model="quick")
        answer_to(counting(), model="fake-2")
    assert header() == {"aliases": {"cheap": "fake-1", "other": "fake-1", "quick": "cheap"}}
    config_file("[Aliases]\nquick = fake-3\nfake-2 = fake-3\n")
    client = counting()
    with cassette(PATH, mode="none"):
        for model in ("quick", "other", "fake-2"):
            answer_to(client, model=model)
    assert client.requests == []


def test_a_record_names_the_template_that_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the variables that it used; an update names it in a recording that lacks it."""
    ask = llmcall.LLMCall(user="{{ who }}: {{ what }}?", client=echoing())
    with cassette(PATH):
        for who in ("Ann", "B" * 100):
            ask(who=who, what=[1, "two"])
        answer_to(echoing())
    first, second = (line["form"] for line in lines()[1:] if "form" in line)
    assert first["variables"] == {"what": '[1, "two"]', "who": "Ann"}
    assert second["variables"]["who"] == "B" * 59 + "…"
    assert (first["name"], first["digest"]) == ("{{ who }}: {{ what }}?", second["digest"])
    recorded = Path(PATH).read_text()
    Path(PATH).write_text(re.sub(r'"form": \{.*?\}\}, ', "", recorded))
    with cassette(PATH, mode="update"):
        for who in ("Ann", "B" * 100):
            ask(who=who, what=[1, "two"])
        answer_to(echoing())
    assert Path(PATH).read_text() == recorded


def test_a_form_has_no_field_that_its_template_does_not_use() -> None:
    """A row may hold an address, which is not the model's business."""
    ask = llmcall.LLMCall(user="You are {{ row.age }}, {{ row.job }}.", client=echoing())
    with cassette(PATH):
        ask(row={"name": "Ann Smith", "job": "baker", "age": 34})
    assert lines()[1]["form"]["variables"] == {"row": '{"age": 34, "job": "baker"}'}


@pytest.mark.feature("arms")
def test_of_two_calls_that_share_a_record_the_first_in_order_names_its_form() -> None:
    """Not the one that came first: the other thread may be faster."""
    second_has_asked = threading.Event()

    def play(mood: str, wait: bool) -> None:
        if wait:
            second_has_asked.wait()
        llmcall.LLMCall(user="Hello{{ mood[9:] }}", client=echoing())(mood=mood)
        second_has_asked.set()

    with cassette(PATH):
        llmcall.arms(
            play,
            {"one": {"mood": "good", "wait": True}, "two": {"mood": "bad", "wait": False}},
            scope="app",
            workers=2,
        )
    assert lines()[1]["form"]["variables"] == {"mood": "good"}


def test_the_header_has_what_the_block_sets_before_its_first_call(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A program may read a file of variables of its own."""
    with cassette(PATH):
        monkeypatch.setenv("LLMCALL_TEMPERATURE", "0.5")
        answer_to(counting())
    assert header()["temperature"] == 0.5


def test_the_header_holds_on_another_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """It stands above the environment and files for clients made earlier, too, while it is open."""
    config_file(EVERY_SETTING)
    with cassette(PATH):
        answer_to(ScriptedClient(["yes"]), "It is 10:15")
    monkeypatch.setenv("LLMCALL_TOP_P", "0.5")
    config_file("[OpenAI]\nMODEL = other\nTEMPERATURE = 1\n[Aliases]\ncheap = dear\n")
    early = counting()
    with cassette(PATH, mode="none"):
        assert [answer_to(client, "It is 23:59") for client in (early, counting())] == [
            "yes",
            "yes",
        ]
    assert early.build_request("It is 23:59").model == "other"


def test_a_client_beside_the_local_model_replays_elsewhere(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With ``API_TYPE = local``, another client's default model is none of the local one's; here, with
    and without that setting.
    """
    client = ScriptedClient(["Yes."], cache_mode="auto")
    monkeypatch.setenv("LLMCALL_API_TYPE", "local")
    with llmcall.cassette("tape.jsonl"):
        client.send_message("Bread?")
    assert len(client.requests) == 1
    for name in ("local", "openai"):
        monkeypatch.setenv("LLMCALL_API_TYPE", name)
        with llmcall.cassette("tape.jsonl", mode="none"):
            assert client.send_message("Bread?").content == "Yes."


def test_settings_that_code_gives_a_client_are_not_in_the_header() -> None:
    """The code sets it in a replay, too."""
    with llmcall.configured(temperature=0.5):
        client = OpenAIClient(settings=llmcall.settings())
    client.transport = counting()
    with cassette(PATH):
        answer_to(client)
    assert "temperature" not in header()


def record_before_the_model_changes() -> None:
    """Record a call with the model of config.ini, which names another one then."""
    config_file("[OpenAI]\nMODEL = gpt-4o-mini\n")
    with cassette(PATH):
        answer_to(counting())
    config_file("[OpenAI]\nMODEL = gpt-5\n")


OVERRIDDEN = "no effect: "  # in the line that names settings that the file's own override
TO_USE_THEM = (
    "To use what is set here, record everything again in mode 'rewrite', or set it in code"
)


@pytest.mark.parametrize("mode", ["none", "once", "new", "update"])
def test_settings_that_the_file_overrides_are_named_in_every_mode(
    mode: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A changed model would else replay the old one, or be answered by it, without a word."""
    record_before_the_model_changes()
    with cassette(PATH, mode=mode):
        answer_to(counting())
    [line] = [message for message in caplog.messages if OVERRIDDEN in message]
    assert line == (
        f"MODEL = gpt-5 of config.ini has no effect: {PATH} was recorded with gpt-4o-mini. {TO_USE_THEM}"
    )


def test_overridden_settings_are_named_whole_with_their_sources(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Long ones, too; of a section, the entries that the file does not have."""
    long_name = "a-model-with-a-long-name/" * 5
    monkeypatch.setenv("LLMCALL_MODEL", long_name)
    config_file("[Aliases]\ntiny = gpt-4o-mini\nhuge = gpt-5\n")
    with cassette(PATH):
        answer_to(counting())
        answer_to(counting(), model="tiny")
    monkeypatch.setenv("LLMCALL_MODEL", f"{long_name}2")
    config_file("[OpenAI]\nTOP_P = 0.5\n[Aliases]\ntiny = gpt-4o\nhuge = gpt-5\n")
    with cassette(PATH, mode="none"):
        answer_to(counting())
    [line] = [message for message in caplog.messages if OVERRIDDEN in message]
    assert line == (
        f"MODEL = {long_name}2 of the environment has no effect: {PATH} was recorded with {long_name}; "
        f"TOP_P = 0.5 of config.ini has no effect: {PATH} was recorded with no TOP_P; [Aliases] tiny = gpt-4o of "
        f"config.ini has no effect: {PATH} was recorded with tiny = gpt-4o-mini. {TO_USE_THEM}"
    )


def test_equal_settings_defaults_and_code_are_not_named(caplog: pytest.LogCaptureFixture) -> None:
    """They change nothing, or go before the file's."""
    record_before_the_model_changes()
    config_file("[OpenAI]\nMODEL = gpt-4o-mini\n")
    with llmcall.configured(temperature=0.5), cassette(PATH, mode="new"):
        answer_to(counting())
    assert not [message for message in caplog.messages if OVERRIDDEN in message]


def test_settings_of_a_cassette_that_cannot_be_opened_do_not_stay(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Several errors may stop it after it read the file."""

    def refuse(record: logging.LogRecord) -> bool:
        raise InterruptedError(record.getMessage())

    record_before_the_model_changes()
    monkeypatch.setattr(logging.getLogger("llmcall"), "filters", [refuse])
    with pytest.raises(InterruptedError), cassette(PATH):
        pass
    assert llmcall.settings().model == "gpt-5"


SECTIONS = """
[Model my-*]
STRUCTURED_OUTPUT = yes
REFUSED_PARAMETERS = top_p, seed
[Model my-other-model]
CONTEXT_WINDOW = 4096
"""


def rated(model: str = "my-model") -> int:
    """Ask for a number, which goes by the API's structured output if the model has it."""
    client = ScriptedClient(['{"value": 4}'], model=model)
    return llmcall.LLMCall(user="How good is it?", output_type=int, client=client).call()  # type: ignore[no-any-return]


def test_the_section_of_a_used_model_is_in_the_header() -> None:
    """A rewrite on the same machine gives the same bytes."""
    config_file(SECTIONS)
    with cassette(PATH):
        assert rated() == 4
    expected = {"my-model": {"refused_parameters": ["top_p", "seed"], "structured_output": True}}
    assert header()["models"] == expected
    recorded = Path(PATH).read_bytes()
    with cassette(PATH, mode="rewrite"):
        rated()
    assert Path(PATH).read_bytes() == recorded


@pytest.mark.parametrize("elsewhere", ["", "[Model my-model]\nSTRUCTURED_OUTPUT = no\n"])
def test_the_section_of_a_model_in_the_header_holds_on_another_machine(elsewhere: str) -> None:
    """The section is missing there, or another."""
    config_file(SECTIONS)
    with cassette(PATH):
        rated()
    config_file(elsewhere)
    with cassette(PATH, mode="none") as tape:
        assert rated() == 4
    assert tape.replayed == 1


@pytest.mark.parametrize("joined", ["merged", "concatenated"])
def test_cassettes_with_sections_of_different_models_can_be_merged(joined: str) -> None:
    """The command joins them, or one stands behind the other in a file."""
    config_file(SECTIONS)
    with cassette("one.jsonl"):
        rated()
    with cassette("other.jsonl"):
        rated("my-third-model")
    if joined == "merged":
        commands.done("cassette", "merge", "one.jsonl", "other.jsonl", "-o", "both.jsonl")
    else:
        union = Path("one.jsonl").read_text() + Path("other.jsonl").read_text()
        Path("both.jsonl").write_text(union)
    config_file("")
    with cassette("both.jsonl", mode="none"):
        assert (rated(), rated("my-third-model")) == (4, 4)


ENDPOINTS = """
[Endpoint one]
MODELS = gpt-4o-mini
BASE_URL = http://localhost:1/v1
NAMESPACE = vllm
"""


def test_the_namespace_of_an_endpoint_is_in_the_header() -> None:
    """It holds if the section is another or missing."""
    config_file(ENDPOINTS)
    client = OpenAIClient()
    client.transport = counting()
    with cassette(PATH):
        answer_to(client, model="gpt-4o-mini")
        answer_to(client, model="gpt-4o")
    assert header() == {"namespaces": {"gpt-4o-mini": "vllm"}}
    config_file(ENDPOINTS.replace("vllm", "ollama"))
    with cassette(PATH, mode="none"), OpenAIClient() as fresh:
        answers = [answer_to(fresh, model=model) for model in ("gpt-4o-mini", "gpt-4o")]
    assert answers == ["answer 1", "answer 2"]


# [Cassette] PATH and MODE


ASK = """
client = ScriptedClient(lambda messages: f"answer {os.getpid()}")
print(client.send_message(sys.argv[1] if len(sys.argv) > 1 else "Hi", on_error="raise").content)
"""


def test_a_cassette_named_by_the_environment_records_and_replays_a_script() -> None:
    """The header's settings hold from the first call on."""
    environment = {"LLMCALL_CASSETTE_PATH": "tapes/run.jsonl"}
    live = ran(ASK, **environment, LLMCALL_TEMPERATURE="0.5", LLMCALL_MODEL="gpt-4o")
    assert ran(ASK, **environment, LLMCALL_TEMPERATURE="1") == live


@pytest.mark.parametrize(("mode", "found"), [("new", ["Old", "Hi"]), ("rewrite", ["Old"])])
def test_a_named_cassette_is_written_though_the_run_fails(mode: str, found: list[str]) -> None:
    """A ``rewrite`` that failed writes nothing."""
    taped("Old")
    environment = {"LLMCALL_CASSETTE_PATH": PATH, "LLMCALL_CASSETTE_MODE": mode}
    with start(f"{ASK}\nraise ZeroDivisionError", **environment) as process:
        process.communicate(timeout=LONGEST)
    assert (asked_in(), process.returncode) == (found, 1)


def test_a_cassette_in_code_counts_inside_a_named_one() -> None:
    """The named one goes on afterwards."""
    client = counting()
    llmcall.configure(cassette_path="named.jsonl")
    answer_to(client, "a")
    with cassette(PATH):
        answer_to(client, "b")
    answer_to(client, "c")
    llmcall.reset()
    assert (asked_in("named.jsonl"), asked_in()) == (["a", "c"], ["b"])


# The file


def test_nothing_of_the_machine_is_in_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """No key, host, header, path, time or version of the machine that recorded reaches it."""
    monkeypatch.setenv("OPENAI_API_KEY", "key-of-mine")
    monkeypatch.setenv("LLMCALL_BASE_URL", "http://host.of.mine/v1")
    llmcall.reset()
    with cassette(PATH):
        echoing().send_message("Hi", extra_headers={"x-secret": "header-of-mine"}, timeout=7)
        echoing().send_message("Hi", timeout=8, seed=1)
    written = Path(PATH).read_text(encoding="utf-8")
    traces = ["of-mine", "of.mine", str(Path.cwd()), llmcall.__version__, "scripted", "time"]
    assert [trace for trace in traces if trace in written] == []


def test_the_same_calls_twice_give_the_same_bytes() -> None:
    """It does not matter whether models answer or the disk cache."""
    kept = []
    for mode in ("auto", "auto", "off"):
        with (
            llmcall.configured(cache_mode=mode),
            cassette(PATH, mode="rewrite" if mode == "off" else "once"),
        ):
            played(echoing(cache_mode=mode))
        assert len(asked_in()) == 6
        kept.append(Path(PATH).read_bytes())
        Path(PATH).unlink()
    assert kept[0] == kept[1] == kept[2]


def messages_in_file() -> list[tuple[str | None, str]]:
    """Return sample and first message of each record in the file."""
    return [(line.get("sample"), line["request"]["messages"][0]["content"]) for line in lines()[1:]]


def test_records_stand_by_scope_path_and_then_as_called() -> None:
    """Records without a sample come first, as called."""
    client = echoing()
    with cassette(PATH):
        for name in ("b", "a"):
            with scope(name):
                for text in ("2", "1"):
                    answer_to(client, text)
                    with scope("c"):
                        answer_to(client, "3")
        answer_to(client, "before")
        answer_to(client, "after")
    assert messages_in_file() == [
        (None, "before"),
        (None, "after"),
        ("a#0", "2"),
        ("a#0", "1"),
        ("a/c#0", "3"),
        ("a/c#1", "3"),
        ("b#0", "2"),
        ("b#0", "1"),
        ("b/c#0", "3"),
        ("b/c#1", "3"),
    ]


def test_records_of_a_map_stand_by_its_items() -> None:
    """A record that several items use stands with the first of them, whichever asked first."""
    client, is_last_done = echoing(), threading.Event()

    def ask(item: int) -> None:
        assert item == 2 or is_last_done.wait(60)  # the last item asks first
        for text in (f"item {item}", "what all ask", f"item {item}, again"):
            answer_to(client, text)
        is_last_done.set()

    with cassette(PATH):
        answer_to(client, "before")
        llmcall.map(ask, [0, 1, 2], workers=3, progress=False)
        answer_to(client, "after")
    items = [f"item {number}{more}" for number in range(3) for more in ("", ", again")]
    items.insert(1, "what all ask")
    assert messages_in_file() == [(None, text) for text in ("before", *items, "after")]


@pytest.mark.parametrize("mode", ["none", "once", "new"])
def test_a_damaged_file_is_refused_by_its_line_and_left(mode: str) -> None:
    """The settings stay as they were."""
    taped("a", "b")
    Path(PATH).write_bytes(before := Path(PATH).read_bytes()[:-20])
    with (
        pytest.raises(llmcall.CacheCorruptError, match=r"tape\.jsonl:3: .* cut off"),
        cassette(PATH, mode=mode),
    ):
        pass
    assert Path(PATH).read_bytes() == before
    assert llmcall.settings().origin("MODEL") == "default"


def test_mode_rewrite_replaces_a_damaged_file() -> None:
    """It does not read the old one."""
    taped("a", "b")
    Path(PATH).write_bytes(Path(PATH).read_bytes()[:-20])
    taped("a")
    assert asked_in() == ["a"]


# Several processes, and processes that are killed


RECORD = """
client = ScriptedClient(lambda messages: sys.argv[1], cache_mode="auto", cache_path=sys.argv[1])
with llmcall.cassette("tape.jsonl", mode=sys.argv[2]):
    for number in range(20):
        client.send_message(f"{number}")
    print("ready", flush=True)
    sys.stdin.readline()
"""


@pytest.mark.newest_only
def test_the_second_of_two_processes_that_write_one_cassette_is_refused() -> None:
    """It gets an error when it finishes, and the file is the first one's, whole."""
    taped("Hi")
    with start(RECORD, "one", "new") as one, start(RECORD, "other", "new") as other:
        for process in (one, other):
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        reported = one.communicate("\n", timeout=LONGEST)[1]
        before = Path(PATH).read_bytes()
        complaints = other.communicate("\n", timeout=LONGEST)[1]
    assert reported.startswith("tape.jsonl: 1 record was not used; ")
    assert (one.returncode, other.returncode, Path(PATH).read_bytes()) == (0, 1, before)
    assert (
        f"CacheError: another process wrote {os.path.realpath(PATH)} after this one read it"
        in complaints
    )
    assert b'"one"' in before
    assert b'"other"' not in before


def lines_of(processes: list[RunningProgram]) -> list[str]:
    """Return the next line that each process prints, without its end."""
    lines = []
    for process in processes:
        assert process.stdout is not None
        lines.append(process.stdout.readline().rstrip())
    return lines


KILLED_WHILE_WRITING = """
def stay(*paths):
    print("ready", flush=True)
    sys.stdin.read()
os.replace = stay
with llmcall.cassette("tape.jsonl"):
    ScriptedClient(lambda messages: "Hi", cache_mode="off").send_message("Hi")
"""


@pytest.mark.newest_only
def test_a_writer_that_was_killed_leaves_no_lock(caplog: pytest.LogCaptureFixture) -> None:
    """The next one neither waits nor warns, and removes the file of the lock."""
    with start(KILLED_WHILE_WRITING) as killed:
        assert lines_of([killed]) == ["ready"]
        assert Path(f".{PATH}.lock").exists()
        killed.kill()
        killed.wait()
    taped("Hi")
    assert asked_in() == ["Hi"]
    assert warnings(caplog) == []
    assert not Path(f".{PATH}.lock").exists()


@pytest.mark.parametrize("mode", ["once", "new", "update"])
def test_a_recording_without_a_call_says_that_nothing_was_written(
    mode: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A lazy iterator, and a cassette around another one, make none."""
    client, said = echoing(), "no call was answered while it was open, so nothing was written"
    with cassette("outer.jsonl", mode=mode), cassette(PATH, mode=mode):
        lazy = (answer_to(client, word) for word in ["Hi"])
        next(lazy)
    tape = cassette("cells.jsonl", mode=mode).open()
    tape.close()
    with cassette("lazy.jsonl", mode=mode):
        lazy = (answer_to(client, word) for word in ["Hi"])
    names = ["outer.jsonl", "cells.jsonl", "lazy.jsonl"]
    assert caplog.messages == [f"{name}: {said}" for name in names]
    assert not any(map(os.path.exists, names))


def test_a_process_that_writes_is_waited_for() -> None:
    """The one that waited finds the other's file, and does not write over it."""
    with start(KILLED_WHILE_WRITING.replace("sys.stdin.read()", WRITE_LATER)) as first:
        with pytest.raises(CacheError, match="another process wrote"), cassette(PATH):
            answer_to(echoing(), "Bye")
            assert lines_of([first]) == ["ready"]
            assert first.stdin is not None
            first.stdin.close()
        assert first.wait() == 0
    assert asked_in() == ["Hi"]


WRITE_LATER = """sys.stdin.read()
    time.sleep(0.5)
    os.rename(*paths)
import time"""


# What no call used


def test_mode_update_moves_unused_records_to_the_cache(caplog: pytest.LogCaptureFixture) -> None:
    """It keeps what is used and asks for what is missing."""
    taped("Hi", "Bye", "Ciao")
    client = counting(cache_mode="auto")
    with cassette(PATH, mode="update") as tape:
        assert answer_to(client, "Bye") == "recorded Bye"
        assert answer_to(client, "Hello") == "answer 1"
    assert asked_in() == ["Bye", "Hello"]
    assert (tape.asked, tape.replayed) == (1, 1)
    assert "tape.jsonl: 2 records were not used; moved to the disk cache" in caplog.text


def failing(client: ScriptedClient) -> None:
    """Make a call that fails; the program catches the error."""
    with pytest.raises(llmcall.APIError):
        client.send_message("Refused", on_error="raise")


def leaving(client: ScriptedClient) -> None:
    """End the block by an exception."""
    raise KeyError


@pytest.mark.parametrize(("acting", "error"), [(failing, None), (leaving, KeyError)])
def test_mode_update_keeps_the_records_of_a_run_that_did_not_end_well(
    acting: Any, error: Any
) -> None:
    """After an exception or a failed call, it is not known what a whole run would have used."""
    taped("Hi", "Bye")
    client = ScriptedClient([llmcall.InvalidRequestError("no")] * 2)
    with pytest.raises(error) if error else nullcontext(), cassette(PATH, mode="update"):
        answer_to(client, "Bye")
        acting(client)
    assert asked_in() == ["Hi", "Bye"]


def test_mode_update_may_be_set_in_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """The block is the whole process, which ends well if no exception ends it."""
    taped("Hi", "Bye")
    monkeypatch.setenv("LLMCALL_CASSETTE_PATH", PATH)
    monkeypatch.setenv("LLMCALL_CASSETTE_MODE", "update")
    with start("ScriptedClient(['asked']).send_message('Bye')\nsys.exit()") as process:
        process.communicate(timeout=LONGEST)
    assert asked_in() == ["Bye"]


@pytest.mark.parametrize("mode", ["none", "once", "new"])
def test_a_replay_that_leaves_records_unused_counts_them(
    mode: str, caplog: pytest.LogCaptureFixture
) -> None:
    """It says how many records were not used, and names the mode that takes them out."""
    taped("Hi", "Bye", "Ciao")
    with cassette(PATH, mode=mode):
        answer_to(counting(), "Bye")
    words = "tape.jsonl: 2 records were not used; mode 'update' moves them"
    assert words in caplog.text and asked_in() == ["Hi", "Bye", "Ciao"]


def test_a_table_says_which_records_were_used() -> None:
    """By a call since the cassette was opened; another cassette of the same file may have used others."""
    taped("Hi", "Bye")
    with cassette(PATH, mode="new") as tape:
        answer_to(counting(), "Bye")
        answer_to(counting(), "Hello")
        table = tape.to_frame().set_index("prompt")
    assert table["used"].to_dict() == {"Hi": False, "Bye": True, "Hello": True}
    assert not cassette(PATH).to_frame()["used"].any()


SECRET = "sk-" + "aB3dE6gH9jK2mN5pQ8sT1vW4yZ7"


def with_a_credential(client: ScriptedClient) -> None:
    """Record a call, and one with a text that looks like a credential."""
    with cassette(PATH), scope("a"):
        client.send_message("Hi")
        client.send_message(
            [
                {"role": "user", "content": "Hi"},
                {"role": "user", "content": f"My key is {SECRET}"},
            ]
        )


def asking_with_a_credential() -> None:
    echoing().send_message(f"My key is {SECRET}")


def asking_in_an_arm_that_is_no_text() -> None:
    with llmcall.arm("half \ud800"):
        echoing().send_message("Hi?")


def asking_with_a_variable_that_is_no_text() -> None:
    call = llmcall.LLMCall(user="{% if mood %}Hi?{% endif %}", client=echoing())
    call(mood="half \ud800")


def getting_a_fingerprint_that_looks_like_a_credential() -> None:  # the header would have it
    made = {**completion("Yes."), "system_fingerprint": SECRET}
    ScriptedClient([made], model="m").send_message("Hi?")


def calling_a_tool_with_a_deep_result() -> None:
    nested: Any = "x"
    for _ in range(300):
        nested = [nested]
    llmcall.recorded(lambda: nested, name="tool")()


@pytest.mark.parametrize(
    ("act", "reason"),
    [
        (asking_with_a_credential, "request.messages[0].content contains what looks like"),
        (
            getting_a_fingerprint_that_looks_like_a_credential,
            "served[1] contains what looks like",
        ),
        (asking_in_an_arm_that_is_no_text, "arms[0] has a lone surrogate at index 5"),
        (
            asking_with_a_variable_that_is_no_text,
            "form.variables.mood has a lone surrogate at index 5",
        ),
        (calling_a_tool_with_a_deep_result, "its request or response is nested too deeply"),
    ],
)
def test_a_record_that_cannot_be_written_is_left_out_and_named_and_the_file_has_all_others(
    act: Any, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The file is incomplete, so the next run asks for what it lacks."""
    with cassette(PATH) as tape, scope("a"):
        answer_to(echoing(), "First")
        act()
        answer_to(echoing(), "Last")
    [warning] = warnings(caplog)
    assert warning.startswith(f"{PATH}: 1 record is left out, so the file is incomplete: record ")
    assert f" (sample 'a#0'): {reason}" in warning
    assert SECRET not in warning + Path(PATH).read_text()
    assert asked_in() == ["First", "Last"]
    assert not is_complete()
    assert tape.records == 2
    with cassette(PATH, mode="none"), scope("a"):
        assert answer_to(echoing(), "Last")


def test_a_fingerprint_that_is_no_text_does_not_keep_a_cassette_from_being_written() -> None:
    """As a model's name, it has a question mark there."""
    made = {**completion("Yes."), "system_fingerprint": "fp \ud800"}
    with cassette(PATH):
        answer_to(ScriptedClient([made], model="m"), "First")
    assert '"fp ?"' in Path(PATH).read_text() and asked_in() == ["First"]


@pytest.mark.parametrize(
    ("name", "value"), [("NAMESPACE", SECRET), ("NORMALIZE", SECRET), ("NORMALIZE", "\udcff")]
)
def test_settings_that_no_header_can_hold_are_refused_before_the_first_call(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answers could not be written."""
    monkeypatch.setenv(f"LLMCALL_CACHE_{name}", value)
    client = counting()
    with cassette(PATH), pytest.raises((CacheError, ValueError), match=r"settings\.cache_n"):
        answer_to(client, "Hi")
    assert not client.requests and not Path(PATH).exists()


def test_the_answer_of_a_record_that_is_left_out_stays_in_the_disk_cache() -> None:
    """Once the record is allowed, nothing is asked again."""
    client = echoing(cache_mode="auto")
    with_a_credential(client)
    with llmcall.configured(cassette_allow=("sk-a[A-Za-z0-9]+",)):
        with_a_credential(client)
    assert is_complete()
    assert SECRET in Path(PATH).read_text()
    assert len(client.requests) == 2


def test_a_record_of_the_file_that_may_no_longer_be_written_moves_to_the_disk_cache() -> None:
    """It was allowed when it was recorded."""
    with llmcall.configured(cassette_allow=("sk-a[A-Za-z0-9]+",)):
        with_a_credential(echoing())
    with cassette(PATH, mode="new"), scope("a"):
        answer_to(echoing(), "New")
    assert SECRET not in Path(PATH).read_text()
    with llmcall.configured(cassette_allow=("sk-a[A-Za-z0-9]+",)):
        client = echoing(cache_mode="auto")
        with_a_credential(client)
    assert not client.requests


# Credentials that a request used itself; no provider's look like this one
OWN_KEY = "open-SESAME-12-for-the-gateway"


def with_own_key(base_url: str, text: str) -> None:
    with client_for(base_url, api_key=OWN_KEY, cache_mode="off") as client:
        client.send_message(text)


def with_a_function_as_key(base_url: str, text: str) -> None:
    with client_for(base_url, api_key=lambda: OWN_KEY, cache_mode="off") as client:
        client.send_message(text)


def with_a_header_of_a_gateway(base_url: str, text: str) -> None:
    with client_for(base_url, cache_mode="off") as client:
        client.send_message(text, extra_headers={"x-portkey-api-key": OWN_KEY})


def with_a_program(base_url: str, text: str) -> None:
    sdk = openai.OpenAI(base_url=base_url, api_key=OWN_KEY)
    sdk.chat.completions.create(model="m", messages=[{"role": "user", "content": text}])


def with_a_header(headers: Any, base_url: str, text: str, query: str = "") -> None:
    body = {"model": "m", "messages": [{"role": "user", "content": text}]}
    with http.Client(headers=headers) as client:
        client.post(f"{base_url}/chat/completions{query}", json=body)


def with_a_query(base_url: str, text: str) -> None:
    with_a_header({}, base_url, text, f"?key={OWN_KEY}")


def with_a_password_in_the_address(base_url: str, text: str) -> None:
    with_a_header({}, base_url.replace("://", f"://ada:{OWN_KEY}@"), text)


def with_a_body(base_url: str, text: str) -> None:
    sdk = openai.OpenAI(
        base_url=base_url, api_key="EMPTY"
    )  # a proxy takes the key of a provider there
    messages: Any = [{"role": "user", "content": text}]
    sdk.chat.completions.create(model="m", messages=messages, extra_body={"api_key": OWN_KEY})


WAYS_TO_SHOW_A_KEY = [
    with_own_key,
    with_a_function_as_key,
    with_a_header_of_a_gateway,
    with_a_program,
    with_a_query,
    with_a_password_in_the_address,
    with_a_body,
    *(
        functools.partial(with_a_header, {name: value})
        for name, value in {
            "X-Subscription-Token": OWN_KEY,
            "Helicone-Auth": f"Bearer {OWN_KEY}",
            "X-Gateway": f"Bearer {OWN_KEY}",
            "Cookie": f"theme=dark; session={OWN_KEY}",
        }.items()
    ),
]


@pytest.mark.parametrize("ask", WAYS_TO_SHOW_A_KEY)
def test_a_credential_that_a_request_used_is_written_in_no_record_whatever_it_looks_like(
    ask: Any, httpserver: HTTPServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither in a prompt nor in an answer; the other records are written."""
    repeated = Answer(200, completion(f"Your key is {OWN_KEY}."))
    server = ScriptedServer(httpserver, OK, repeated, OK)
    with cassette(PATH), scope("a"):
        for text in (f"Use {OWN_KEY}", "Repeat it", "Hi"):
            ask(server.base_url, text)
    assert OWN_KEY not in Path(PATH).read_text()
    [warning] = warnings(caplog)
    assert OWN_KEY not in warning
    assert asked_in() == ["Hi"]
    assert warning.count("contains a credential that this program uses") == 2
    assert not is_complete()


@pytest.mark.parametrize(
    ("key", "more"), [("later-key-7f3a9c", ""), ("later-key-b81e04", "." * 600)]
)
def test_a_credential_that_a_later_request_used_is_written_in_no_record(
    key: str, more: str, httpserver: HTTPServer, caplog: pytest.LogCaptureFixture
) -> None:
    """It was none yet when the record was stored."""
    url = ScriptedServer(httpserver, OK, OK).base_url
    with cassette(PATH), scope("a"):
        client_for(url, api_key=OWN_KEY).send_message(f"Use {key}{more}", model="m")
        client_for(url, api_key=key).send_message("Hi", model="m")
    assert key not in Path(PATH).read_text()
    assert "contains a credential that this program uses" in warnings(caplog)[0]
    assert asked_in() == ["Hi"]


@pytest.mark.parametrize("sample", [None, OWN_KEY])
def test_a_scope_or_sample_with_a_used_credential_is_named_without_it(
    sample: str | None, httpserver: HTTPServer, caplog: pytest.LogCaptureFixture
) -> None:
    """The warning says which record is left out, and does not hold what it must not hold."""
    client = client_for(ScriptedServer(httpserver, OK).base_url, api_key=OWN_KEY)
    with cassette(PATH), scope("a" if sample else f"a {OWN_KEY}"):
        client.send_message("Hi", model="m", sample=sample)
    [warning] = warnings(caplog)
    assert OWN_KEY not in warning + Path(PATH).read_text()
    assert "sample contains a credential that this program uses" in warning


def test_a_model_named_like_a_used_credential_costs_its_own_record_alone(
    httpserver: HTTPServer,
) -> None:
    """The header lists the models that answered: the others are in it."""
    named = Answer(200, completion(model=OWN_KEY))
    client = client_for(ScriptedServer(httpserver, OK, named).base_url, api_key=OWN_KEY)
    with cassette(PATH), scope("a"):
        for text in ("Hi", "Who are you?"):
            client.send_message(text, model="m")
    assert OWN_KEY not in Path(PATH).read_text()
    assert asked_in() == ["Hi"]


def test_the_password_of_a_proxy_is_written_in_no_record(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whether or not a request went through the proxy."""
    monkeypatch.setenv("HTTPS_PROXY", f"http://ada:{OWN_KEY}@proxy.example:3128")
    with cassette(PATH), scope("a"):
        answer_to(echoing(), f"The proxy's password is {OWN_KEY}")
        answer_to(echoing(), "Hi")
    assert asked_in() == ["Hi"]


def test_a_dummy_instead_of_a_key_may_stand_in_a_record(httpserver: HTTPServer) -> None:
    """People give local servers one, and write the words in prompts."""
    server = ScriptedServer(httpserver, OK)
    words = ["not-needed", "ollama", "EMPTY", "local-key", "sk-no-key-required"]
    with cassette(PATH), scope("a"):
        for word in words:
            with client_for(server.base_url, api_key=word) as client:
                client.send_message(f"Is {word} a key?")
    assert asked_in() == [f"Is {word} a key?" for word in words]


# Replaying on another machine


BLOCKED = """
import importlib.abc

class Blocker(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.partition(".")[0] in {"openai", "pydantic", "httpx", "httpx2", "tiktoken", "diskcache", "tenacity"}:
            raise AssertionError(f"{name} is imported")

def no_network(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.sendto", "socket.bind"):
        raise AssertionError(f"{event}: the network is used")

sys.meta_path.insert(0, Blocker())
sys.addaudithook(no_network)
"""


def test_a_replay_needs_no_network_no_key_and_no_sdk() -> None:
    """It imports nothing that belongs to the SDK."""
    program = """
import asyncio
client = llmcall.OpenAIClient(on_error="raise")
if sys.argv[1] == "record":
    client.transport = ScriptedClient(lambda messages: f"{messages[-1]['content']}!")
    llmcall.register_client("openai", client)
clock = llmcall.recorded(name="clock")(lambda: 7)
with llmcall.cassette("tape.jsonl"), llmcall.scope("trial"):
    messages = [{"role": "system", "content": "Long " * 200}, {"role": "user", "content": "Hi"}]
    for _ in range(3):
        messages += [client.send_message(messages), {"role": "user", "content": "And?"}]
    print(messages, clock())
    print("".join(client.stream_message("Hi")), asyncio.run(client.asend_message("Hi")))
"""
    live = ran(program, "record")
    assert ran(BLOCKED + program, "replay") == live


# Paths


def test_a_tilde_is_the_users_home() -> None:
    """Wherever code names a file: a shell does not read it there."""
    home = Path.home()
    with cassette("~/tapes/one.jsonl") as tape:
        answer_to(counting(cache_mode="auto"), "Hi")
    with cassette("~/tapes/one.jsonl", mode="none"):
        assert answer_to(counting(), "Hi") == "answer 1"
    assert tape.path == home / "tapes/one.jsonl"
    assert llmcall.client("openai").cache.export("~/exported.jsonl") == 1
    assert ResponseCache("other").load("~/exported.jsonl") == 1
    assert llmcall.compare("~/tapes/one.jsonl", home / "exported.jsonl").changed == 0
    assert [path.name for path in home.glob("*.jsonl")] == ["exported.jsonl"]
    assert not Path("~").exists()


@pytest.mark.parametrize("mode", ["none", "once", "new", "update", "rewrite"])
@pytest.mark.parametrize("path", ["folder", "folder/", "."])
def test_a_folder_is_no_cassette(path: str, mode: str) -> None:
    """The error names it and the remedy, before anything is asked."""
    Path("folder").mkdir()
    with pytest.raises(
        CacheError, match=r"is a folder, .* name a file in it, such as .*run\.jsonl"
    ):
        cassette(path, mode=mode).open()


@pytest.mark.parametrize("path", [None, "", 3, b"tape.jsonl"])
def test_what_is_no_path_is_refused(path: Any) -> None:
    """A text that is empty, too."""
    with pytest.raises(TypeError, match="is not the path of a cassette; name a file"):
        cassette(path)


# The order of the last run


DAYS = ("day 1", "day 2", "day 3", "day 4", "day 5")
RAINY = ("day 1", "day 2 and it rains", "day 3", "day 4", "day 5")


def asked_days(mode: str, days: tuple[str, ...], path: str = PATH) -> None:
    """Ask some days in one scope."""
    with cassette(path, mode=mode), scope("town"):
        for day in days:
            answer_to(echoing(), day)


@pytest.mark.parametrize(
    "days",
    [
        RAINY,
        ("day 0", *DAYS),
        DAYS[::-1],
        DAYS[1:],
        (*DAYS, "day 1"),
    ],
    ids=["changed", "put in", "reordered", "left out", "asked again"],
)
def test_an_updated_file_is_a_fresh_recording_of_the_same_calls(days: tuple[str, ...]) -> None:
    """Byte for byte."""
    asked_days("once", DAYS)
    asked_days("update", days)
    asked_days("once", days, "fresh.jsonl")
    assert Path(PATH).read_bytes() == Path("fresh.jsonl").read_bytes()


def test_mode_new_keeps_an_unused_record_behind_its_predecessor() -> None:
    """So the old wording of a prompt stands before the new one."""
    asked_days("once", DAYS)
    asked_days("new", RAINY)
    assert asked_in() == ["day 1", "day 2", "day 2 and it rains", "day 3", "day 4", "day 5"]


@pytest.mark.parametrize("part", [("day 1",), ("day 3",), ("day 2", "day 5")])
def test_mode_new_leaves_the_file_of_a_run_of_a_part(part: tuple[str, ...]) -> None:
    """Calls that a run does not make stay where they were."""
    asked_days("once", DAYS)
    before = Path(PATH).read_bytes()
    asked_days("new", part)
    assert Path(PATH).read_bytes() == before


def test_a_cassette_shows_its_path_its_mode_and_its_counts() -> None:
    """In a notebook, too; what is in a file that was not read is not counted."""
    tape = llmcall.cassette("<b>.jsonl")
    assert repr(tape) == "cassette('<b>.jsonl', mode='once')"
    with tape:
        ScriptedClient(["Yes."]).send_message("Bread?", on_error="raise")
    assert repr(tape) == (
        "cassette('<b>.jsonl', mode='once', records=1, replayed=0, recorded=1, asked=1)"
    )
    shown = tape._repr_html_()
    assert "&lt;b&gt;.jsonl" in shown
    assert "<td>once</td><td>1</td><td>0</td><td>1</td><td>1</td>" in shown
