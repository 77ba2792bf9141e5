"""Overrides: the user's own answers in place of the model's."""

from __future__ import annotations

import contextlib
import itertools
import json
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas
import pytest
from clients import (
    WAYS,
    Server,
    http,
    plain_program,
)
from commands import done
from errors import check_error, error_table
from servers import TOOL_CALL

import llmcall
from llmcall import CacheMissError, ResponseCache, ScopeError, arm, cassette, override, scope
from llmcall.testing import ScriptedClient

NO = {("Ben", 2): "no"}
PEOPLE = ("Ann", "Ben")


class Town:
    """People who are asked twice, first of themselves and then of what the one before them said.

    :ivar sent: what a model was asked, in order.
    """

    def __init__(self) -> None:
        self.sent: list[str] = []
        self._numbers = itertools.count(1)
        self.client = ScriptedClient(self._answer, cache_mode="auto", on_error="raise")

    def _answer(self, messages: Any) -> str:
        self.sent.append(messages[-1]["content"])
        return f"answer {next(self._numbers)}"

    def ask(self, text: str, **parameters: Any) -> str:
        """Return an answer."""
        reply = self.client.send_message(text, temperature=1, **parameters)
        assert reply is not None and reply.content is not None
        return reply.content

    def play(self) -> list[str]:
        """Return what the people said."""
        said = ["nothing"]
        for _ in "ab":
            for name in PEOPLE:
                with scope(name):
                    said.append(self.ask(f"{name}, they said {said[-1]}."))
        return said[1:]


@pytest.fixture
def town() -> Town:
    return Town()


def records(path: str) -> list[dict[str, Any]]:
    """Return the records of a file, by its lines."""
    lines = Path(path).read_text(encoding="utf-8").splitlines()
    return [entry for entry in map(json.loads, lines) if "kind" in entry]


# What is sent, recorded and replayed


def test_an_override_is_not_sent_and_what_it_leaves_alone_replays(town: Town) -> None:
    """Ann is asked nothing anew; Ben's second call is not sent."""
    with cassette("a.jsonl"):
        town.play()
    town.sent.clear()
    with cassette("b.jsonl"), override(NO):
        said = town.play()
    assert (said, town.sent) == (["answer 1", "answer 2", "answer 3", "no"], [])


def test_only_the_calls_that_it_changes_are_sent(town: Town) -> None:
    """Ann quotes Ben in her second call."""
    with cassette("a.jsonl"):
        town.play()
    town.sent.clear()
    with cassette("b.jsonl"), override({("Ben", 1): "no"}):
        town.play()
    assert town.sent == ["Ann, they said no.", "Ben, they said answer 5."]


def test_the_file_marks_it_and_replays_without_the_block(town: Town) -> None:
    """The mark stands beside the key of one record."""
    with cassette("b.jsonl"), override(NO):
        said = town.play()
    assert [entry.get("override") for entry in records("b.jsonl")] == [None, None, None, True]
    town.sent.clear()
    with cassette("b.jsonl", mode="none"):
        assert town.play() == said
    assert not town.sent


def test_the_same_run_writes_the_same_bytes(town: Town) -> None:
    """The override's record depends on nothing else."""
    with cassette("b.jsonl"), override(NO):
        town.play()
    with cassette("c.jsonl"), override(NO):
        town.play()
    assert Path("b.jsonl").read_bytes() == Path("c.jsonl").read_bytes()


def test_the_disk_cache_never_holds_it(town: Town, caplog: pytest.LogCaptureFixture) -> None:
    """Neither while it is recorded, nor when a file with it is loaded, nor when an update moves it out."""
    with cassette("b.jsonl"), override(NO):
        town.play()
    cache = ResponseCache("other")
    assert cache.load("b.jsonl") == len(records("b.jsonl")) - 1
    with cassette("b.jsonl", mode="update"):
        town.ask("something else")
    assert "1 deleted, because no model gave the answer" in caplog.text
    found = [record.answer for source in (cache, town.client.cache) for record in source.records()]
    assert "no" not in found and "answer 1" in found


@pytest.mark.parametrize("mode", ["new", "update", "rewrite"])
def test_a_complete_file_keeps_its_recorded_answers(
    town: Town, caplog: pytest.LogCaptureFixture, mode: str
) -> None:
    """Nothing is sent, and the error names a new cassette. A program that goes on is told of nothing else."""
    with llmcall.configured(cache_mode="off"), cassette("a.jsonl"):
        town.play()
    before = Path("a.jsonl").read_bytes()
    town.sent.clear()
    words = f"a.jsonl is complete .* in mode '{mode}' would replace: record into a new cassette"
    with pytest.raises(llmcall.ConfigError, match=words), cassette("a.jsonl", mode=mode):
        with override({("Ann", 1): "no"}), pytest.raises(llmcall.ConfigError) as refused:
            town.play()
        raise refused.value
    assert (Path("a.jsonl").read_bytes(), town.sent) == (before, [])
    assert "answered no call" not in caplog.text


def arrived(order: Sequence[int], path: str, mode: str = "once") -> list[str]:
    """Let three threads of Ben ask, each its own question, which arrive in an order; return their answers."""
    client = ScriptedClient(lambda messages: f"to {messages[-1]['content']}", on_error="raise")
    turns = [threading.Event() for _ in range(4)]
    turns[0].set()
    said: dict[int, str] = {}

    def ask(number: int) -> None:
        turn = order.index(number)
        turns[turn].wait()
        said[number] = client.send_message(f"question {number}", temperature=1).content
        turns[turn + 1].set()

    with cassette(path, mode=mode), scope("Ben", process=True):
        threads = [threading.Thread(target=ask, args=(number,)) for number in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    return [said[number] for number in range(3)]


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_over_a_recording_calls_count_in_its_order(order: tuple[int, ...]) -> None:
    """Whichever thread's call arrives first."""
    arrived((0, 1, 2), "a.jsonl")
    shown = [record.prompt for record in llmcall.cassette("a.jsonl").all_records()]
    with override({("Ben", 2): "no"}):
        said = arrived(order, "a.jsonl", mode="none")
    assert [shown[n] for n in range(3) if said[n] == "no"] == [shown[1]]


def test_in_a_replay_a_call_that_it_changes_is_an_ordinary_miss(town: Town) -> None:
    """What it leaves alone replays."""
    with cassette("a.jsonl"):
        town.play()
    with cassette("a.jsonl", mode="none"), override(NO):
        assert town.play()[-1] == "no"
    with (
        pytest.raises(CacheMissError),
        cassette("a.jsonl", mode="none"),
        override({("Ann", 1): "no"}),
    ):
        town.play()


@pytest.mark.parametrize("way", WAYS)
def test_every_way_to_ask_gets_it(town: Town, way: str) -> None:
    """Streams and event loops, too."""
    with override({("Ben", 1): "no"}), scope("Ben"):
        reply = WAYS[way](town.client, "Bread?", temperature=1)
    assert reply is not None
    assert (reply.content, reply.finish_reason, town.sent) == ("no", "stop", [])


# Which call


def test_calls_before_the_block_count_in_a_cassette(town: Town) -> None:
    """The file's calls are counted, not the block's."""
    with cassette("a.jsonl"), scope("Ben"):
        first = town.ask("one")
        with override(NO):
            assert [first, town.ask("two"), town.ask("three")] == ["answer 1", "no", "answer 2"]


def test_a_failed_call_does_not_count() -> None:
    """It made no record; the call that is made again takes its number."""
    failures = [llmcall.ServiceError("down")]

    def answer(messages: Any) -> str:
        if failures:
            raise failures.pop()
        return "yes"

    client = ScriptedClient(answer, on_error="raise", retry_max_attempts=1)
    with override(NO), scope("Ben"):
        with pytest.raises(llmcall.ServiceError):
            client.send_message("one", temperature=1)
        said = [client.send_message("one", temperature=1).content for _ in "ab"]
    assert said == ["yes", "no"]


@pytest.mark.parametrize("actor", ["Ben", "day-1/Ben", "trial/day-1/Ben"])
def test_the_actor_is_its_path_or_the_last_levels(town: Town, actor: str) -> None:
    """Whole names only: "Big Ben" is another one."""
    with override({(actor, 1): "no"}), scope("trial"), scope("day-1"):
        with scope("Big Ben"):
            assert town.ask("Bread?") == "answer 1"
        with scope("Ben"):
            assert town.ask("Bread?") == "no"


def test_an_actor_that_fits_two_scopes_is_an_error(town: Town) -> None:
    """At the first call in the second one."""
    with override({("Ben", 1): "no"}):
        with scope("day-1"), scope("Ben"):
            town.ask("Bread?")
        with (
            scope("day-2"),
            scope("Ben"),
            pytest.raises(ScopeError, match="fits two scopes, day-1/Ben and day-2/Ben"),
        ):
            town.ask("Bread?")


def test_a_block_in_a_scope_holds_for_the_calls_in_there(town: Town) -> None:
    """So a play that opens one may run in several repeats at once."""
    said = []
    for day in ("day-1", "day-2"):
        with scope(day), override({("Ben", 1): f"no on {day}"}), scope("Ben"):
            said.append(town.ask("Bread?"))
    assert said == ["no on day-1", "no on day-2"]


def test_an_override_that_no_call_got_is_named(
    town: Town, caplog: pytest.LogCaptureFixture
) -> None:
    """With how many calls the actor made, or with the actors that there were."""
    with override({("Ben", 3): "no", ("Bem", 1): "no"}):
        town.play()
    words = [record.getMessage() for record in caplog.records]
    assert words == [
        "the override of Ben's call 3 answered no call: Ben made 2 calls",
        "the override of Bem's call 1 answered no call: no actor has that name. Did you mean 'Ben'? "
        "(the actors: Ann, Ben)",
    ]


# Arms


def vote(town: Town, dissenter: str | None = None) -> list[str]:
    """Return what two people say, of whom one may say no."""
    said = []
    with override({(dissenter, 1): "no"}) if dissenter else contextlib.nullcontext():
        for name in PEOPLE:
            with scope(name):
                said.append(town.ask(f"{name}, do you agree?"))
    return said


@pytest.mark.parametrize("has_file", [True, False])
@pytest.mark.feature("arms")
def test_an_arm_gets_its_own_override_and_the_others_the_models_answer(
    town: Town, has_file: bool
) -> None:
    """Though all arms make the same requests, which they share otherwise."""
    variants: dict[str, dict[str, Any]] = {
        "as it was": {},
        **{name: {"dissenter": name} for name in PEOPLE},
    }
    with cassette("a.jsonl") if has_file else contextlib.nullcontext():
        runs = llmcall.arms(lambda **options: vote(town, **options), variants, scope="v", repeats=2)
    assert [[runs[name, repeat] for name in variants] for repeat in (0, 1)] == [
        [[first, second], ["no", second], [first, "no"]]
        for first, second in (runs["as it was", 0], runs["as it was", 1])
    ]
    assert len(town.sent) == 4


def test_a_file_with_arms_replays_without_their_blocks(town: Town) -> None:
    """Each arm gets the answers that it had."""

    def both(dissenter: str | None) -> list[list[str]]:
        said = []
        with scope("v"):
            for name, who in (("control", None), ("treated", dissenter)):
                with arm(name):
                    said.append(vote(town, who))
        return said

    with cassette("a.jsonl"):
        recorded = both("Ben")
    with cassette("a.jsonl", mode="none"):
        assert both(None) == recorded
    assert recorded == [["answer 1", "answer 2"], ["answer 1", "no"]]


def test_an_override_around_all_arms_is_one_answer(town: Town) -> None:
    """It belongs to the request, so the arms share it."""
    with cassette("a.jsonl"), override({("Ben", 1): "no"}), scope("v"):
        for name in ("a", "b"):
            with arm(name):
                assert vote(town)[1] == "no"


# The answer


def test_a_message_with_tool_calls_is_an_answer() -> None:
    """As Chat Completions has it; neither a cassette nor a cache is needed."""
    with override({("Ben", 1): CALLING}), scope("Ben"):
        reply = ScriptedClient(cache_mode="off").send_message("Bread?", temperature=1)
    assert reply.tool_calls == [TOOL_CALL]
    assert (reply.content, reply.finish_reason) == (None, "tool_calls")


def test_a_text_that_a_typed_call_cannot_read_is_asked_again() -> None:
    """The next answer is the model's."""
    client = ScriptedClient(["no"], on_error="raise")
    buys = llmcall.LLMCall(user="Do you buy?", output_type=bool, client=client)
    with override({("Ben", 1): "perhaps"}), scope("Ben"):
        assert buys() is False


@error_table(
    ("TypeError: override has the key 'Ben'; it must be", lambda: override({"Ben": "no"})),  # type: ignore[dict-item]
    ("TypeError: override has the key ('Ben', True)", lambda: override({("Ben", True): "no"})),
    ("TypeError: the override of Ben's call 1 is int", lambda: override({("Ben", 1): 3})),  # type: ignore[dict-item]
    ("ValueError: the override of Ben's call 1 is empty", lambda: override({("Ben", 1): ""})),
    (
        "ValueError: the override of Ben's call 1 has a lone surrogate",
        lambda: override({("Ben", 1): "\ud800"}),
    ),
)
def test_a_wrong_argument_is_named(line: str, call: Any) -> None:
    """Before anything runs."""
    check_error(line, call)


# Programs


@pytest.fixture
def server() -> Server:
    """A model's server."""
    return Server()


@contextlib.contextmanager
def overridden(answer: Any, path: str = "p.jsonl") -> Iterator[None]:
    """Override the only call of a program's Ben, in a cassette."""
    with cassette(path), override({("Ben", 1): answer}), scope("Ben"):
        yield


QUESTION: Any = [{"role": "user", "content": "Bread?"}]
CALLING = {"tool_calls": [TOOL_CALL]}


def test_a_programs_chat_gets_it(server: Server) -> None:
    """The SDK reads a whole completion, and the replay's is the same."""
    client = plain_program(server)
    asked = {"model": "gpt-4o-mini", "messages": QUESTION, "n": 2}
    with overridden("no"):
        found = client.chat.completions.create(**asked)
    with cassette("p.jsonl", mode="none"), scope("Ben"):
        assert client.chat.completions.create(**asked) == found
    texts = [(choice.message.content, choice.finish_reason) for choice in found.choices]
    assert (texts, found.model) == ([("no", "stop"), ("no", "stop")], "gpt-4o-mini")
    assert not server.requests


def test_a_programs_streamed_chat_gets_it(server: Server) -> None:
    """Text and tool calls come in chunks."""
    client = plain_program(server)
    asked = {"model": "gpt-4o-mini", "messages": QUESTION, "stream": True}
    with overridden({"content": "Let me look.", **CALLING}):
        chunks = [chunk.choices[0] for chunk in client.chat.completions.create(**asked)]
    assert "".join(chunk.delta.content or "" for chunk in chunks) == "Let me look."
    pieces = [call.function for chunk in chunks for call in chunk.delta.tool_calls or ()]
    assert pieces[0].name == "price_of"
    assert "".join(piece.arguments or "" for piece in pieces) == '{"item": "bread"}'
    assert chunks[-1].finish_reason == "tool_calls" and not server.requests


MESSAGES = "https://api.anthropic.com/v1/messages"
ASKED_THERE = {"model": "claude-haiku-5", "max_tokens": 9, "messages": QUESTION}


@pytest.mark.parametrize(
    ("recorded", "answer", "error"),
    [
        (
            None,
            "no",
            "goes into the recorded response to that call, but none is recorded: record the run",
        ),
        ({"type": "text", "text": "yes"}, CALLING, "must be a text"),
        (
            {"type": "tool_use", "name": "f", "input": {}},
            "no",
            "the recorded response to that call has no text",
        ),
    ],
)
def test_another_api_takes_a_text_over_a_recorded_one(
    server: Server, recorded: Any, answer: Any, error: str
) -> None:
    """The program's own call says what is wrong, and nothing is sent."""
    server.failures = [(200, {}, {"model": "m", "content": [recorded], "stop_reason": "end_turn"})]
    with http.Client(transport=server.transport) as client:
        if recorded:
            with cassette("a.jsonl"), scope("Ben"):
                client.post(MESSAGES, json=ASKED_THERE)
        server.requests.clear()
        with pytest.raises((llmcall.ConfigError, ValueError), match=error), overridden(answer):
            client.post(MESSAGES, json=ASKED_THERE)
    assert not server.requests


# What is said of it


@pytest.fixture
def forked(town: Town) -> None:
    """The files of a run, and of one with an override."""
    with cassette("a.jsonl"):
        town.play()
    with cassette("b.jsonl"), override({("Ben", 1): "no"}):
        town.play()


def test_readers_say_overridden(forked: None) -> None:
    """show and diff; frames have a column."""
    shown = done("show", "b.jsonl")
    [line] = [line for line in shown.splitlines() if "overridden" in line]
    assert line.startswith("--- call 1")
    assert 'Ben, call 1: the answer is overridden: "answer 2" → "no"' in done(
        "diff", "a.jsonl", "b.jsonl"
    )
    frame = llmcall.cassette("b.jsonl").to_frame()
    assert list(frame[frame.override].answer) == ["no"]


@pytest.mark.feature("report")
def test_the_report_counts_overridden_answers(forked: None) -> None:
    """As those of the author, not of a model."""
    done("report", "b.jsonl", "-o", "b.html")
    assert "1 answer given by the author, not by a model" in Path("b.html").read_text()


def test_it_is_not_counted_as_a_models_answer(forked: None) -> None:
    """It has no served model, no tokens, and cost nothing."""
    frame = llmcall.cassette("b.jsonl").to_frame()
    [row] = frame[frame.override].to_dict("records")
    assert pandas.isna(row["served"]) and row["cost"] == 0.0


@pytest.mark.ci
@pytest.mark.feature("resend")
def test_it_is_not_sent_again(forked: None) -> None:
    """A model did not answer, so there is nothing to compare with."""
    plan = llmcall.resend("b.jsonl", share=1, dry_run=True)
    assert plan.misses == 3
