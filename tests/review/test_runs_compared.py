"""Runs compared: the calls that two runs have in common, and where each actor's runs part."""

from __future__ import annotations

import hashlib
import json
import random
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from commands import ROOT, done
from files import chat, conversation, embedding, record_of, write_cassette
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import llmcall
from llmcall.testing import ScriptedClient

pytestmark = pytest.mark.newest_only

ACTORS = ("bart", "emma", "lisa")
ASKED = {"role": "user", "content": "Bread?"}
Say = Callable[[str, int], str]


def agreed(name: str, number: int) -> str:
    """Answer the same in every run."""
    return f"{name} says {number}"


def play(
    path: str,
    say: Say = agreed,
    *,
    scope: str = "",
    words: dict[str, str] | None = None,
    actors: tuple[str, ...] = ACTORS,
    rounds: int = 3,
) -> str:
    """Write down some rounds in which each actor hears what all said in the round before.

    :param words: by actor, a word of the persona.
    """
    records, heard = [], ["nothing"]
    for number in range(rounds):
        answers = []
        for name in actors:
            word = (words or {}).get(name, "thrifty")
            messages = [
                {"role": "system", "content": f"You are {name}, a {word} buyer."},
                {"role": "user", "content": f"Round {number}. You heard: {', '.join(heard)}."},
            ]
            answers.append(say(name, number))
            records.append(chat(messages, answers[-1], f"{scope}{name}#0"))
        heard = answers
    return str(write_cassette(path, records))


def spoken(path: str, *calls: tuple[str, str, str]) -> Path:
    """Write down calls: who asks, what, and the answer."""
    return write_cassette(path, [chat(asked, said, f"{name}#0") for name, asked, said in calls])


def one_call(path: str, question: str = "Bread?", answer: str = "Yes.", **params: Any) -> Path:
    """Write down a run of one call of lisa."""
    return write_cassette(path, [chat(question, answer, "lisa#0", **params)])


def counts(found: llmcall.types.Comparison) -> tuple[int, int, int, int]:
    """Return the counts of a comparison."""
    return found.same, found.changed, found.added, found.missing


def causes(found: llmcall.types.Comparison) -> list[tuple[str, int, str]]:
    """Return the divergences that follow from nothing."""
    return [
        (divergence.scope, divergence.index, divergence.reason)
        for divergence in found.divergences
        if not divergence.caused_by
    ]


# Actors and calls in pairs


def test_a_run_compared_with_its_copy_does_not_diverge() -> None:
    """The text says so, and how many calls there are."""
    found = llmcall.compare(play("a.jsonl", scope="rep-1/"), play("b.jsonl", scope="rep-1/"))
    assert counts(found) == (9, 0, 0, 0)
    assert not found.divergences
    assert str(found).splitlines() == [
        "9 calls: 9 the same, 0 changed, 0 added, 0 missing",
        "The runs do not diverge.",
    ]


@pytest.mark.parametrize(("scope", "other"), [("rep-1/", "rep-2/"), ("", "rep-2/"), ("r/", "r/")])
def test_a_first_level_that_names_a_run_is_left_out(scope: str, other: str) -> None:
    """On both sides, whether both runs have one or only one of them."""
    found = llmcall.compare(play("a.jsonl", scope=scope), play("b.jsonl", scope=other))
    assert counts(found) == (9, 0, 0, 0)
    assert {row.scope for row in found.rows} == set(ACTORS)


def test_embeddings_are_in_no_scope() -> None:
    """So they change nothing about the first level."""
    for number in range(2):
        records = [embedding("bread", [0.5]), chat("Hi", "Yes.", f"rep-{number}/lisa#0")]
        write_cassette(f"{number}.jsonl", records)
    found = llmcall.compare("0.jsonl", "1.jsonl")
    assert [(row.scope, row.status) for row in found.rows] == [("", "same"), ("lisa", "same")]


def test_embeddings_move_no_call_of_the_level_that_is_left_out() -> None:
    """Its first call is call 1, as ``llmcall show`` counts."""
    for name in ("run", "rep-2"):
        write_cassette(f"{name}.jsonl", [embedding("bread", [0.5]), chat("Hi", name, f"{name}#0")])
    [divergence] = llmcall.compare("run.jsonl", "rep-2.jsonl").divergences
    assert (divergence.scope, divergence.index) == ("", 0)


def test_a_call_outside_any_scope_is_not_the_only_actors() -> None:
    """The actor's name may have changed with its prompt: it is reported, whatever was asked
    outside.
    """
    for name in ("lisa", "liz"):
        records = [chat("Bread?", name, f"{name}#0"), chat(f"Sum up: {name}", "Done.")]
        write_cassette(f"{name}.jsonl", records)
    found = llmcall.compare("lisa.jsonl", "liz.jsonl")
    assert {(divergence.scope, divergence.reason) for divergence in found.divergences} == {
        ("", "prompt"),
        ("lisa", "missing"),
        ("liz", "added"),
    }


def test_actors_whose_changed_system_messages_name_them_are_paired() -> None:
    """With ``actor="system"``, the actor of a changed message has another name."""
    runs = []
    for number, trait in enumerate(("", "really ")):
        records = []
        for name in ("Ada", "Bea"):
            system = f"You are {name}. {name} {trait}loves bread."
            digest = hashlib.sha256(system.encode()).hexdigest()
            records += conversation(f"{system[:20]}-{digest[:8]}#0", [("Bread?", "Yes.")], system)
        runs.append(write_cassette(f"{number}.jsonl", records))
    found = llmcall.compare(*runs)
    assert counts(found) == (0, 2, 0, 0)
    assert str(found).splitlines()[1] == (
        "the same change for 2 actors (You are Ada. Ada lov…; You are Bea. Bea lov…): the prompt changed: {+really+}"
    )


def test_one_changed_prompt_among_equal_ones_is_paired_with_its_own_round() -> None:
    """The rounds after it ask the same words after another history."""
    runs = []
    for number, word in enumerate(("Go on.", "Go on, with a subsidy.")):
        turns = [("Go on.", "0"), (word, f"{number}a"), ("Go on.", f"{number}b")]
        runs.append(write_cassette(f"{number}.jsonl", conversation("lisa#0", turns)))
    found = llmcall.compare(*runs)
    assert counts(found) == (1, 2, 0, 0)
    assert causes(found) == [("lisa", 1, "prompt")]


@pytest.mark.parametrize(
    "align", [{"elisabeth": "lisa"}, lambda name: name.replace("elisabeth", "lisa")]
)
def test_compare_takes_names_of_actors_by_a_dict_or_a_function(align: Any) -> None:
    """By a dict or a function from the other run's names to the first one's."""
    other = play("b.jsonl", actors=("bart", "elisabeth"), rounds=1)
    found = llmcall.compare(play("a.jsonl", actors=("bart", "lisa"), rounds=1), other, align=align)
    assert counts(found) == (1, 1, 0, 0)


def test_a_round_more_and_an_actor_less_are_added_and_missing_calls() -> None:
    """Once for all actors that have it."""
    one = play("a.jsonl", rounds=2)
    other = play("b.jsonl", rounds=3, actors=("emma", "lisa"))
    found = llmcall.compare(one, other)
    assert (found.added, found.missing) == (2, 2)
    assert "bart, call 1: b.jsonl ends, or does not make this call" in str(found)


def asked_in_turn(path: str, questions: Sequence[str]) -> Path:
    """Write down what x asks, each repeated question as its next draw; and one call of y."""
    draws = [questions[:number].count(asked) for number, asked in enumerate(questions)]
    records = [
        chat(asked, f"{asked}{draw}", f"x#{draw}")
        for asked, draw in zip(questions, draws, strict=True)
    ]
    return write_cassette(path, [*records, chat("end", "end", "y#0")])


@settings(max_examples=40)
@given(st.lists(st.sampled_from("abcd"), max_size=8), st.lists(st.sampled_from("abcd"), max_size=8))
def test_identical_requests_are_the_same_in_whatever_order(
    one: list[str], other: list[str]
) -> None:
    """Each call has one row, and each draw that both runs have is the same."""
    found = llmcall.compare(asked_in_turn("a.jsonl", one), asked_in_turn("b.jsonl", other))
    assert found.same == (Counter(one) & Counter(other)).total() + 1
    assert found.same + found.changed + found.missing == len(one) + 1
    assert found.same + found.changed + found.added == len(other) + 1
    assert bool(found.divergences) == (sorted(one) != sorted(other))


def test_calls_that_only_one_run_makes_stand_between_the_same_calls() -> None:
    """They are not the same one: what the runs have in common separates them."""
    found = llmcall.compare(asked_in_turn("a.jsonl", "acb"), asked_in_turn("b.jsonl", "abd"))
    assert [(row.status, row.answer, row.other_answer) for row in found.rows] == [
        ("same", "a0", "a0"),
        ("missing", "c0", None),
        ("same", "b0", "b0"),
        ("added", None, "d0"),
        ("same", "end", "end"),
    ]


def test_a_changed_prompt_is_paired_wherever_its_thread_made_the_call() -> None:
    """Threads of one actor make calls in any order; only the prompt changed, and no call was added."""
    one = asked_in_turn("a.jsonl", ["Is it cold outside?", "Do you buy bread?"])
    other = asked_in_turn("b.jsonl", ["Do you buy bread today?", "Is it cold outside?"])
    assert counts(llmcall.compare(one, other)) == (2, 1, 0, 0)


def test_the_calls_of_callers_are_the_same_by_their_callers() -> None:
    """Two tasks ask the same in one scope, and then what they were answered."""

    def run(path: str, word: str, order: Sequence[str]) -> Path:
        records = []
        for number, caller in enumerate(order):
            first = chat("Go.", f"{caller} goes", f"run#{number}").replace(caller=caller)
            more = chat(f"{word} on: 1, 2, 3.", f"{caller} {word}", f"run#{number}")
            records += [first, more.replace(caller=caller)]
        return write_cassette(path, records)

    found = llmcall.compare(
        run("a.jsonl", "Go", ("task 0", "task 1")), run("b.jsonl", "Run", ("task 1", "task 0"))
    )
    pairs = [(row.answer, row.other_answer) for row in found.rows if "on" in (row.prompt or "")]
    assert pairs == [("task 0 Go", "task 0 Run"), ("task 1 Go", "task 1 Run")]


def test_threads_without_names_whose_prompts_all_changed_are_paired_by_their_words() -> None:
    """They may have made their calls in another order."""
    for path, order, tone in (("a.jsonl", "0123", "politely"), ("b.jsonl", "2031", "rudely")):
        records = [chat(f"Say q{n} {tone}", f"{tone} {n}", "run#0") for n in order]
        write_cassette(path, records)
    pairs = [(row.answer, row.other_answer) for row in llmcall.compare("a.jsonl", "b.jsonl").rows]
    assert sorted(pairs) == [(f"politely {n}", f"rudely {n}") for n in range(4)]


@pytest.mark.parametrize("role", ["system", "user"])
def test_an_actor_who_remembers_other_things_is_paired_round_by_round(role: str) -> None:
    """Though some words of a round occur in another round of the other run."""
    days = {
        "a.jsonl": (
            "Ben sold milk",
            "Cem ate bread",
            "Dan sold tea",
            "Eve ate jam",
            "Fay lost oil",
        ),
        "b.jsonl": (
            "Cem sold tea",
            "Dan ate jam",
            "Ben lost bread",
            "Fay sold milk",
            "Eve ate oil",
        ),
    }
    for path, heard in days.items():
        records = []
        for number in range(6):
            messages = {"system": "You are Ann.", "user": "What next?"}
            messages[role] += f" You remember: {', '.join(heard[:number])}."
            asked = [{"role": name, "content": text} for name, text in messages.items()]
            records.append(chat(asked, f"{path} {number}", f"ann#{number}"))
        write_cassette(path, records)
    pairs = [(row.answer, row.other_answer) for row in llmcall.compare("a.jsonl", "b.jsonl").rows]
    assert pairs == [(f"a.jsonl {number}", f"b.jsonl {number}") for number in range(6)]


def test_a_difference_lists_all_its_reasons() -> None:
    """The model, the prompt and the parameters; each is the same change only with the same ones."""
    runs = []
    for path, model, word, top_p in (("a.jsonl", "m", "thrifty", 0.1), ("b.jsonl", "n", "rich", 1)):
        records = []
        for name in ("ada", "ben", "cleo"):
            system = {
                "role": "system",
                "content": f"You are {word if name == 'ben' else 'thrifty'}.",
            }
            params = {"top_p": top_p} if name != "cleo" else {}
            records.append(chat([system, ASKED], "Yes.", f"{name}#0", **params, model=model))
        runs.append(write_cassette(path, records))
    found = llmcall.compare(*runs)
    assert {divergence.scope: divergence.reasons for divergence in found.divergences} == {
        "ada": ("model", "parameters"),
        "ben": ("model", "prompt", "parameters"),
        "cleo": ("model",),
    }
    assert [(divergence.reason, divergence.before) for divergence in found.divergences] == [
        ("model", "m")
    ] * 3
    assert str(found).splitlines()[1:] == [
        'ada, call 1: the model changed: "m" → "n"; the parameters changed: "top_p=0.1" → "top_p=1"',
        'ben, call 1: the model changed: "m" → "n"; the prompt changed: [-thrifty-] {+rich+}; '
        'the parameters changed: "top_p=0.1" → "top_p=1"',
        'cleo, call 1: the model changed: "m" → "n"',
    ]


def test_words_that_follow_are_marked_beside_a_reason_of_the_call() -> None:
    """A new model changes all calls; what Ben heard from Ada changed with it."""

    def run(path: str, model: str, word: str) -> Path:
        calls = [("Say.", f"{word}!", "ada#0"), (f"She said {word}.", "Hm.", "ben#0")]
        return write_cassette(
            path, [chat(asked, said, at, model=model) for asked, said, at in calls]
        )

    found = llmcall.compare(run("a.jsonl", "m", "yes"), run("b.jsonl", "n", "no"))
    assert [(divergence.reasons, divergence.caused_by) for divergence in found.divergences] == [
        (("model",), None),
        (("model", "prompt"), None),
    ]
    assert str(found).splitlines()[2] == (
        'ben, call 1: the model changed: "m" → "n"; the prompt changed: [-yes-] {+no+} (perhaps a consequence '
        "of ada, call 1)"
    )


@pytest.mark.parametrize("number", [0, 1, 3])
def test_a_call_more_in_a_growing_history_is_added(number: int) -> None:
    """The calls after it have its answer in their histories, and are matched by what they ask."""
    turns = [("Bread?", "Yes."), ("Milk?", "No."), ("Eggs?", "Maybe.")]
    more = [*turns[:number], ("Salt?", "Never."), *turns[number:]]
    runs = [
        write_cassette(f"{len(spoken)}.jsonl", conversation("lisa#0", spoken))
        for spoken in (turns, more)
    ]
    found = llmcall.compare(*runs)
    assert counts(found) == (number, 3 - number, 1, 0)
    assert causes(found) == [("lisa", number, "added")]


calls = st.tuples(st.sampled_from("ab"), st.sampled_from("xyzw"))
questions = st.dictionaries(calls, st.sampled_from("12"), min_size=1)


@given(questions, questions)
def test_requests_or_answers_that_differ_are_never_the_same(
    one: dict[tuple[str, str], str], other: dict[tuple[str, str], str]
) -> None:
    """Runs part if a call of one of them has no equal in the other."""
    # If the actors differ, one name may be the whole run's.
    assume({actor for actor, _ in one} == {actor for actor, _ in other})
    for path, made in (("one.jsonl", one), ("other.jsonl", other)):
        records = [chat(what, made[actor, what], f"{actor}#0") for actor, what in sorted(made)]
        write_cassette(path, records)
    found = llmcall.compare("one.jsonl", "other.jsonl")
    assert bool(found.divergences) == (one != other)
    assert found.same == len(one.items() & other.items())


@pytest.mark.parametrize("kind", ["chat", "http"])
@pytest.mark.parametrize("more", [{"usage": {"total_tokens": 70}}, {"service_tier": "flex"}])
def test_answers_of_equal_text_are_the_same_whatever_their_tokens(
    kind: str, more: dict[str, Any]
) -> None:
    """The tokens of a reasoning model differ in each call."""
    for path, changes in (("one.jsonl", {}), ("other.jsonl", more)):
        record = chat("Bread?", "Yes.", "lisa#0")
        request, response = record.request, {**record.response, **changes}
        if kind == "http":
            request = {"method": "POST", "host": "h", "path": "/v1/responses", "body": {}}
            response = {"value": {"status": 200, "body": json.dumps(response)}}
        write_cassette(path, [record_of(kind, "lisa#0", request, response)])
    assert counts(llmcall.compare("one.jsonl", "other.jsonl")) == (1, 0, 0, 0)


@pytest.mark.parametrize(
    "part",
    [
        {"type": "tool_use", "id": "ID", "name": "f", "input": {"id": 1}},
        {"type": "function_call", "id": "fc_ID", "call_id": "ID", "name": "f", "arguments": "{}"},
        {"functionCall": {"id": "ID", "name": "f", "args": {"id": 1}}},
    ],
)
def test_the_ids_of_tool_calls_make_no_other_answer(part: dict[str, Any]) -> None:
    """The arguments of a tool do."""
    text = json.dumps({"content": [part]})
    for path, body in (
        ("one.jsonl", text),
        ("ids.jsonl", text.replace("ID", "XY")),
        ("given.jsonl", text.replace("{}", "{1}").replace('{"id": 1}', '{"id": 2}')),
    ):
        request = {"method": "POST", "path": "/messages", "body": {}}
        write_cassette(path, [record_of("http", "lisa#0", request, {"value": {"body": body}})])
    assert counts(llmcall.compare("one.jsonl", "ids.jsonl")) == (1, 0, 0, 0)
    assert counts(llmcall.compare("one.jsonl", "given.jsonl")) == (0, 1, 0, 0)


def test_an_answer_is_the_same_over_both_wires() -> None:
    """The wire is no part of a request: chat completions gave one answer, the Responses API the other."""
    record = chat("Bread?", "Yes.", "lisa#0")
    part = {"type": "output_text", "text": "Yes.", "annotations": []}
    output = [{"type": "message", "id": "msg_1", "role": "assistant", "content": [part]}]
    response = {"object": "response", "model": "m-2026", "status": "completed", "output": output}
    for path, body in (("one.jsonl", record.response), ("other.jsonl", response)):
        write_cassette(path, [record.replace(response=body)])
    found = llmcall.compare("one.jsonl", "other.jsonl")
    assert counts(found) == (1, 0, 0, 0)
    assert [(row.answer, row.other_answer) for row in found.rows] == [("Yes.", "Yes.")]
    assert "→ assistant\n    Yes.\n" in done("show", "other.jsonl")


# Why runs part


@pytest.mark.parametrize(
    ("messages", "params", "why", "shown"),
    [
        ([{**ASKED, "name": "Ann"}], {}, "prompt", "{+Ann+}"),
        ([{"role": "user", "content": [{"type": "text", "text": "Milk?"}]}], {}, "prompt", "Milk?"),
        ([{"role": "system", "content": "Be brief."}, ASKED], {}, "prompt", "{+Be brief.+}"),
        ([ASKED], {"model": "gpt-4o"}, "model", '"m" → "gpt-4o"'),
        ([ASKED], {"top_p": 0.5}, "parameters", '"top_p=null" → "top_p=0.5"'),
    ],
)
def test_compare_names_why_runs_part(
    messages: list[Any], params: dict[str, Any], why: str, shown: str
) -> None:
    """By another model or parameter, a field beside a message's text, or a message more."""
    other = write_cassette("b.jsonl", [chat(messages, "Yes.", "lisa#0", **params)])
    found = llmcall.compare(one_call("a.jsonl"), other)
    assert causes(found) == [("lisa", 0, why)]
    assert shown in str(found)


def test_equal_requests_with_different_answers_part_by_a_draw() -> None:
    """The words are those of the answers."""
    for path, served, answer in (("a.jsonl", "m-01", "Yes."), ("b.jsonl", "m-05", "No.")):
        record = chat("Bread?", answer, "lisa#0")
        record.response["model"] = served
        write_cassette(path, [record])
    found = llmcall.compare("a.jsonl", "b.jsonl")
    [divergence] = found.divergences
    assert (divergence.reason, divergence.before, divergence.after) == ("draw", "Yes.", "No.")
    assert str(found).splitlines()[1] == (
        'lisa, call 1: the same request has different answers: "Yes." → "No."'
    )


# Causes and consequences


def loudly(name: str, number: int) -> str:
    """Answer as always, but loudly, unless it is bart."""
    return f"{agreed(name, number)}{', loudly' if name != 'bart' else ''}"


def test_equal_changes_of_several_actors_are_one_line() -> None:
    """It names them; the calls that follow are counted in the last line."""
    words = {"emma": "generous", "lisa": "generous"}
    found = llmcall.compare(play("a.jsonl"), play("b.jsonl", loudly, words=words))
    assert counts(found) == (1, 8, 0, 0)
    assert causes(found) == [("emma", 0, "prompt"), ("lisa", 0, "prompt")]
    assert found.divergences[1].before == "You are emma, a thrifty buyer."
    assert str(found).splitlines()[1:] == [
        "the same change for 2 actors (emma, lisa): the prompt changed: [-thrifty-] {+generous+}",
        "1 more actor (bart) changed later: their prompts quote answers that had already changed, so this may just "
        "follow.",
    ]


def test_the_change_that_came_first_is_the_first_line() -> None:
    """Emma's second prompt holds a count that the program made of what Lisa said at first."""

    def asked(path: str, who: str, count: int) -> Path:
        prompts = {
            "emma#0": "Bread?",
            "emma#1": f"{count} buy.",
            "lisa#0": f"You are {who}. Bread?",
        }
        return write_cassette(path, [chat(text, "Yes.", at) for at, text in prompts.items()])

    found = llmcall.compare(asked("a.jsonl", "thrifty", 3), asked("b.jsonl", "generous", 4))
    assert str(found).splitlines()[1:] == [
        "lisa, call 1: the prompt changed: [-thrifty-] {+generous+}",
        "emma, call 2: the prompt changed: [-3-] {+4+}",
    ]


def test_actors_that_make_fewer_or_more_calls_are_one_line() -> None:
    """With the number of calls of each; the repeats of an item are one actor."""

    def run(path: str, *scopes: str) -> Path:
        return write_cassette(path, [chat(f"Call {n}?", "Yes.", at) for n, at in enumerate(scopes)])

    both = "eve#0", "eve#1"
    less = run("less.jsonl", *both)
    more = run("more.jsonl", *both, "ada#0", "ada#1", "ben#0", "ben/~1#0", "ben/~2#0")
    assert str(llmcall.compare(more, less)).splitlines()[1:] == [
        "2 actors make fewer calls in less.jsonl: ada (2), ben (3)"
    ]
    assert str(llmcall.compare(less, more)).splitlines()[1:] == [
        "2 actors make more calls in more.jsonl: ada (2), ben (3)"
    ]


def test_a_prompt_follows_from_the_first_answer_that_holds_its_words() -> None:
    """Of all with a smaller place or the same one: the first by place, then in the file."""

    def run(path: str, word: str) -> Path:
        asked = {"ann": "Say.", "bob": f"Ann said {word}.", "cem": f"They said {word}."}
        return spoken(path, *((name, text, f"I am {word}!") for name, text in asked.items()))

    found = llmcall.compare(run("a.jsonl", "happy"), run("b.jsonl", "sad"))
    assert [divergence.caused_by for divergence in found.divergences] == [
        None,
        ("ann", 0),
        ("ann", 0),
    ]


def test_a_prompt_with_words_of_several_answers_follows_from_the_first() -> None:
    """Each stretch of changed words stands in one of them."""

    def run(path: str, one: str, two: str) -> Path:
        heard = f"Ann: {one} Bob: {two} And you?"
        return spoken(path, ("ann", "Say.", one), ("bob", "Say.", two), ("cem", heard, "Hm."))

    found = llmcall.compare(run("a.jsonl", "Yes, I do.", "No!"), run("b.jsonl", "Never.", "Oh no?"))
    assert [(divergence.reason, divergence.caused_by) for divergence in found.divergences] == [
        ("draw", None),
        ("draw", None),
        ("prompt", ("ann", 0)),
    ]


@pytest.mark.parametrize(
    "tell",
    [
        str,
        json.dumps,
        lambda answers: json.loads(answers)["says"],
        lambda answers: json.dumps([answers, 1]),
    ],
)
def test_an_answer_is_known_however_it_is_written_into_a_prompt(tell: Callable[[str], str]) -> None:
    """As it is, as JSON in JSON, or one of its fields."""

    def run(path: str, word: str) -> Path:
        answer = json.dumps({"mood": word, "says": f'He is "{word}",\nthe café says'})
        return spoken(path, ("ann", "?", answer), ("bob", f"Hear: {tell(answer)}", "Hm"))

    found = llmcall.compare(run("a.jsonl", "happy"), run("b.jsonl", "sad"))
    assert found.divergences[1].caused_by == ("ann", 0)


def test_a_quote_that_is_cut_within_a_word_follows_from_its_answer() -> None:
    """As a program cuts what others said at some length."""

    def run(path: str, said: str) -> Path:
        return spoken(path, ("ann", "?", said), ("bob", f"Hear: {said[:20]}…", "Hm."))

    found = llmcall.compare(
        run("a.jsonl", "I shall buy the bread tomorrow."),
        run("b.jsonl", "Nobody sells good milk in here."),
    )
    assert found.divergences[1].caused_by == ("ann", 0)


@pytest.mark.parametrize(
    "other",
    [
        {"heard": "sad", "top_p": 0.5},  # a parameter follows from nothing
        {"heard": "sad and tired"},  # no answer has all of these words
        {"heard": "sad", "question": "What now, then?"},  # another stretch is in no answer
    ],
)
def test_a_prompt_with_a_word_that_no_answer_has_follows_from_nothing(
    other: dict[str, Any],
) -> None:
    """Nothing is inferred away."""

    def run(path: str, answer: str, **options: Any) -> Path:
        question = options.pop("question", "What now?")
        heard = chat(f"Ann is {options.pop('heard')}. {question}", "Hm.", "bob#0", **options)
        return write_cassette(path, [chat("?", answer, "ann#0"), heard])

    one = run("a.jsonl", "I am happy.", heard="happy")
    found = llmcall.compare(one, run("b.jsonl", "I am sad.", **other))
    assert len(found.divergences) == 2
    assert not any(divergence.caused_by for divergence in found.divergences)


def test_a_treated_actor_does_not_follow_from_one_who_repeats_it_in_the_same_round() -> None:
    """Ben is treated; Ada hears him, and the models of both repeat their questions."""

    def run(path: str, subsidy: int, decision: str) -> Path:
        ben = echoed(subsidy, decision, "ben")
        asked = f"Ben says: {ben.answer} And you?"
        return write_cassette(path, [chat(asked, f"You ask: {asked} No.", "ada#0"), ben])

    found = llmcall.compare(run("a.jsonl", 0, "Never."), run("b.jsonl", 15, "Yes, gladly."))
    assert causes(found) == [("ben", 0, "prompt")]


Call = tuple[str, int]  # an actor and its place


@dataclass(frozen=True)
class Talk:
    """A random program of actors who quote each other. It knows what each of them was told.

    :param seed: chooses who speaks when and who is quoted; an answer's words are in no other answer.
    :param changed: the call whose answer is another one.
    """

    names: tuple[str, ...]
    rounds: int
    seed: int
    changed: Call | None = None

    def play(self, path: str) -> tuple[Path, dict[Call, set[Call]]]:
        """Write down the run, and return for each call the calls whose answers it quotes."""
        chance = random.Random(self.seed)
        said: dict[Call, str] = {}
        records, quoted = [], {}
        for number in range(self.rounds):
            for name in chance.sample(self.names, len(self.names)):
                heard = [call for call in said if chance.random() < 0.4]
                quotes = "; ".join(f"{speaker} said: {said[speaker, n]}" for speaker, n in heard)
                asked = f"Round {number}. {quotes or 'Nobody spoke'}. What do you say, {name}?"
                drawn = (name, number) == self.changed
                digest = hashlib.sha256(f"{asked}{drawn}".encode()).hexdigest()
                said[name, number] = " ".join(digest[n : n + 9] for n in range(0, 36, 9))
                quoted[name, number] = set(heard)
                records.append(chat(asked, said[name, number], f"{name}#0"))
        return write_cassette(path, sorted(records, key=lambda record: record.scope)), quoted


@given(st.permutations(["ada", "ben", "cem", "dan"]), st.integers(1, 3), st.integers(0, 10**6))
def test_compare_tells_the_cause_of_random_programs_and_what_follows(
    names: list[str], rounds: int, seed: int
) -> None:
    """One answer is another one on purpose. Whatever quotes it, or what quotes that, follows."""
    cause = (names[0], seed % rounds)
    talk = Talk(tuple(names), rounds, seed)
    one, quoted = talk.play("a.jsonl")
    other, _ = replace(talk, changed=cause).play("b.jsonl")
    tainted = {cause}
    for call, heard in quoted.items():
        if heard & tainted:
            tainted.add(call)
    found = llmcall.compare(one, other)
    assert causes(found) == [(*cause, "draw")]
    firsts = {name: min(n for who, n in tainted if who == name) for name, _ in tainted}
    assert {divergence.scope: divergence.index for divergence in found.divergences} == firsts
    for divergence in found.divergences:
        if divergence.caused_by:
            assert divergence.caused_by in quoted[divergence.scope, divergence.index] & tainted


def echoed(
    subsidy: int, answer: str, scope: str, *, arms: tuple[str, ...] = ()
) -> llmcall.types.Record:
    """Return a call whose model repeats its question, and decides."""
    asked = f"A heat pump with {subsidy} percent off. Do you buy?"
    return chat(asked, f"{subsidy} percent off? {answer}", f"{scope}#0").with_arms(arms)


def echoes(path: str, subsidy: int, scopes: list[str], *, arms: tuple[str, ...] = ()) -> Path:
    """Write down calls whose model repeats its question, each with other words of its own."""
    return write_cassette(
        path,
        [
            echoed(subsidy, f"I {WORDS[(subsidy + number) % 5]}.", scope, arms=arms)
            for number, scope in enumerate(scopes)
        ],
    )


@pytest.mark.parametrize(
    ("scopes", "arms"),
    [
        ([f"app/{number}" for number in range(20)], ("all",)),  # repeats of arms
        ([f"app/{number}/ann" for number in range(20)], ("all",)),
        ([f"survey/~{number:016x}" for number in range(20)], ()),  # rows of a table
        (["survey/~00000000000000aa", "survey/~00000000000000aa/~1"], ()),  # repeats of one row
        ([f"rep-{number}/ann" for number in range(20)], ()),  # first levels
        ([f"survey/{name}" for name in ACTORS], ()),  # rows with keys: by their words alone
    ],
)
def test_only_answers_that_a_caller_could_have_read_explain_its_prompt(
    scopes: list[str], arms: tuple[str, ...]
) -> None:
    """Of a model that repeats its question, in files."""
    one = echoes("a.jsonl", 0, scopes, arms=arms)
    found = llmcall.compare(one, echoes("b.jsonl", 15, scopes, arms=arms))
    assert len(found.divergences) == len(scopes)
    assert not any(divergence.caused_by for divergence in found.divergences)


def heard(
    path: str,
    subsidy: int,
    decision: str,
    worlds: list[str],
    names: tuple[object, object] = ("ann", "ben"),
) -> Path:
    """Write down worlds in which Ben reads what Ann said, whose model repeats its question."""
    records = []
    for world in worlds:
        ann, ben = (world.format(name) for name in names)
        first = echoed(subsidy, decision, ann, arms=("all",))
        asked = f"Ann says: {first.answer} And you?"
        records += [first, chat(asked, "Hm.", f"{ben}#0").with_arms(("all",))]
    return write_cassette(path, records)


@pytest.mark.parametrize(
    ("world", "names"),
    [
        *(
            (world, ("ann", "ben"))
            for world in (
                *("{}", "app/3/{}", "rep-1/{}"),
                *("town/{}", "town/{}/plan", "rep-1/town/{}/plan"),
            )
        ),
        ("app/3/{}", (0, 1)),  # the number of a repeat of arms is the first one below their scope
    ],
)
def test_an_answer_of_another_actor_of_the_same_world_explains_a_prompt(
    world: str, names: tuple[object, object]
) -> None:
    """Though its model repeats the question."""
    one = heard("a.jsonl", 0, "Never.", [world], names)
    found = llmcall.compare(one, heard("b.jsonl", 15, "Yes, gladly.", [world], names))
    assert [divergence.caused_by is None for divergence in found.divergences] == [True, False]


@pytest.mark.parametrize("level", ["app/{}", "rep-{}"])
def test_each_repeat_has_its_own_causes(level: str) -> None:
    """A prompt follows from an answer of its own repeat."""
    worlds = [f"{level.format(number)}/{{}}" for number in range(3)]
    one = heard("a.jsonl", 0, "Never.", worlds)
    found = llmcall.compare(one, heard("b.jsonl", 15, "Yes, gladly.", worlds))
    sources = [
        divergence.caused_by and divergence.caused_by.scope for divergence in found.divergences
    ]
    names = [divergence.scope for divergence in found.divergences]
    assert sources[0::2] == [None] * 3
    assert sources[1::2] == names[0::2]


def test_an_earlier_map_explains_the_prompts_of_a_later_one() -> None:
    """Two rounds of a map: its items read what the others were answered in the round before."""

    def run(path: str, mood: str) -> Path:
        ann, ben = "day/~00000000000000aa#0", "day/~00000000000000bb#0"
        records = [chat("Ann?", mood, ann), chat("Ben?", "Hm.", ben)]
        return write_cassette(path, [*records, chat(f"Ann is {mood}. And you?", "Hm.", ben)])

    found = llmcall.compare(run("a.jsonl", "happy"), run("b.jsonl", "sad"))
    assert [divergence.caused_by is None for divergence in found.divergences] == [True, False]


def test_the_words_of_added_and_missing_calls_explain_a_prompt() -> None:
    """Only one of the runs has the actor who says so."""

    def run(path: str, name: str, good: str) -> Path:
        heard = "bob", f"They say that {good} is dear.", "Hm."
        return spoken(path, (name, "Hi", f"Oh, {good} is dear."), heard)

    found = llmcall.compare(run("a.jsonl", "ann", "bread"), run("b.jsonl", "abe", "milk"))
    assert [
        (divergence.scope, divergence.reason, divergence.caused_by)
        for divergence in found.divergences
    ] == [
        ("abe", "added", None),
        ("ann", "missing", None),
        ("bob", "prompt", ("abe", 0)),
    ]


WORDS = ("yes", "no", "maybe", "3", "5", "thrifty", "generous", "bread", "milk", "it's", "cheap")
# Runs, and forms of a comparison


@pytest.fixture
def replicates() -> ScriptedClient:
    """A client whose cache has two replicates of a run; all of them are exported too."""
    client = ScriptedClient(lambda messages: "Yes", cache_mode="auto")
    for name in ("rep-1", "rep-2"):
        with llmcall.scope(name), llmcall.scope("lisa"):
            client.send_message("Bread?", temperature=1, on_error="raise")
    client.cache.export("all.jsonl")
    return client


Run = Callable[[Any], Any]
RUNS: dict[str, tuple[Run, Run]] = {
    "a cache": (lambda cache: cache, lambda cache: "all.jsonl"),
    "a path": (lambda cache: Path("all.jsonl").resolve(), lambda cache: cache.path),
    "a pattern": (lambda cache: ("all.jsonl", "rep-*"), lambda cache: cache),
    "scopes": (lambda cache: (cache, "rep-1"), lambda cache: (cache.path, "rep-2")),
    "scopes of a file": (
        lambda cache: ("all.jsonl", "rep-1"),
        lambda cache: ("all.jsonl", "*2/l*"),
    ),
}


@pytest.mark.parametrize("run", RUNS)
def test_a_cache_its_directory_an_export_and_a_scope_are_runs(
    run: str, replicates: ScriptedClient
) -> None:
    """They hold the same."""
    one, other = RUNS[run]
    found = llmcall.compare(one(replicates.cache), other(replicates.cache))
    assert counts(found) == (1 if run.startswith("scopes") else 2, 0, 0, 0)


def test_an_open_cassette_is_a_run(replicates: ScriptedClient) -> None:
    with llmcall.cassette("tape.jsonl") as tape, llmcall.scope("rep-1"), llmcall.scope("lisa"):
        replicates.send_message("Bread?", temperature=1, on_error="raise")
        cached = (replicates.cache.path, "rep-1")
        assert counts(llmcall.compare(tape, cached)) == (1, 0, 0, 0)
        exported = ("all.jsonl", "rep-2")
        assert counts(llmcall.compare((tape, "rep-1/lisa"), exported)) == (1, 0, 0, 0)


def test_a_scope_in_which_nothing_is_recorded_is_an_error(replicates: ScriptedClient) -> None:
    """The error names the scope, and the command that shows those that there are."""
    words = "nothing is recorded in the scope 'rep-9' of .*; 'llmcall show' "
    with pytest.raises(llmcall.CacheError, match=words):
        llmcall.compare(replicates.cache, (replicates.cache, "rep-9"))


@pytest.mark.parametrize(
    ("others", "says"), [((), "takes two runs or more"), ((3,), "is not a run")]
)
def test_comparing_what_is_no_run_is_an_error(others: tuple[Any, ...], says: str) -> None:
    """The error says what is."""
    with pytest.raises(TypeError, match=says):
        llmcall.compare(play("a.jsonl"), *others)


def test_several_runs_are_compared_with_the_first() -> None:
    """Each row and divergence says with which."""
    others = [play("b.jsonl"), play("c.jsonl", words={"emma": "generous"})]
    found = llmcall.compare(play("a.jsonl"), *others)
    assert {row.run for row in found.rows if row.status == "changed"} == {2}
    assert "emma, call 1 of c.jsonl: the prompt changed" in str(found)


def test_a_comparison_is_a_data_frame_and_in_a_notebook_escapes_its_texts() -> None:
    """Markup is shown as text; the repr has only counts."""
    other = play("b.jsonl", lambda *_: "<script>alert(1)</script>")
    hostile = llmcall.compare(play("a.jsonl"), other)
    frame = hostile.to_frame()
    assert list(frame.columns)[:4] == ["scope", "index", "status", "prompt"]
    assert len(frame) == len(hostile.rows) == 9
    shown = hostile._repr_html_()
    assert "&lt;script&gt;" in shown
    assert "<script>" not in shown
    assert repr(hostile) == "Comparison(same=0, changed=9, added=0, missing=0, divergences=3)"


def test_a_comparison_in_a_notebook_is_a_table_with_coloured_words() -> None:
    """Words that were removed and added are elements, without the marks that they have in a terminal."""
    comparison = llmcall.compare(play("a.jsonl"), play("b.jsonl", words={"lisa": "generous"}))
    shown = re.sub(r' style="[^"]*"', "", comparison._repr_html_())
    assert "<td>the prompt changed: <del>thrifty</del> <ins>generous</ins></td>" in shown
    assert "<th>lisa, call 1</th>" in shown


# The command line


@pytest.fixture
def two_runs() -> tuple[str, str]:
    """Two cassettes, in whose prompts a word differs."""
    return play("a.jsonl"), play("b.jsonl", words={"lisa": "generous"})


def test_diff_prints_the_comparison(two_runs: tuple[str, str]) -> None:
    """As text, or as JSON; differences are no failure, unless --exit-code is given."""
    assert "[-thrifty-] {+generous+}" in done("diff", *two_runs)
    assert json.loads(done("diff", *two_runs, "--json"))["divergences"][0]["reason"] == "prompt"
    done("diff", *two_runs, "--exit-code", code=1)
    done("diff", two_runs[0], two_runs[0], "--exit-code", code=0)


def test_diff_prints_a_comment_for_a_pull_request(two_runs: tuple[str, str]) -> None:
    """Its head, the changes, and a folded table of the calls that differ."""
    lines = done("diff", *two_runs, "--markdown").splitlines()
    assert lines[0] == (
        "**`a.jsonl` → `b.jsonl`**: 9 calls: 6 the same, 3 changed, 0 added, 0 missing"
    )
    assert lines[2] == "- `lisa, call 1: the prompt changed: [-thrifty-] {+generous+}`"
    assert lines[4] == "<details><summary>3 calls changed, added or missing</summary>"
    assert lines[6:9] == [
        "| actor | call | | `a.jsonl` | `b.jsonl` |",
        "|---|---|---|---|---|",
        "| `lisa` | 1 | changed | `lisa says 0` | `lisa says 0` |",
    ]
    assert lines[-1] == "</details>"


def test_a_comment_for_a_pull_request_runs_nothing_of_an_answer() -> None:
    """Texts stand in code spans: no markup, no link, no cell, and nobody is called."""
    text = "</details> @ann `x` ``y`` | #1 [a](b)\n<script>"
    printed = done(
        "diff", str(one_call("a.jsonl")), str(one_call("b.jsonl", answer=text)), "--markdown"
    )
    row = printed.splitlines()[-3]
    assert row.endswith("| ``` </details> @ann `x` ``y`` \\| #1 [a](b) <script> ``` |")


def test_the_fields_of_diffs_json_are_in_the_reference(two_runs: tuple[str, str]) -> None:
    """Each of them, and no other."""
    found = json.loads(done("diff", *two_runs, "--json"))
    fields = {*found}
    for name in ("divergences", "rows"):
        fields |= {f"{name}.{field}" for field in found[name][0]}
    page = (ROOT / "docs" / "reference" / "commands.rst").read_text(encoding="utf-8")
    _, _, table = page.partition("``diff`` prints one object")
    documented = set()
    for cell in re.findall(r"\* - (``.*``)", table):
        head = ""
        for name in re.findall(r"``(.*?)``", cell):
            head = name.partition("[].")[0] + "." if "[]." in name else head
            documented.add(
                name.replace("[].", ".") if "[]." in name else f"{head}{name.lstrip('.')}"
            )
    assert documented == fields


@pytest.mark.parametrize(("one", "other"), [("rep-1", "rep-2"), ("rep-1/l*", "*-2")])
@pytest.mark.parametrize("whole", [".llmcall/cache", "all.jsonl"])
@pytest.mark.usefixtures("replicates")
def test_diff_compares_two_scopes(whole: str, one: str, other: str) -> None:
    """Of a cache or a file, by their names or by patterns."""
    printed = done("diff", whole, "--scope", one, "--with", other)
    assert printed.startswith("1 call: 1 the same")


@pytest.fixture
def heard_by_bart() -> tuple[str, str]:
    """Two runs in which bart hears what another persona changed, below scopes that name the runs."""

    words = {"emma": "generous", "lisa": "generous"}
    return play("a.jsonl", scope="r1/"), play("b.jsonl", loudly, words=words, scope="r2/")


@pytest.mark.parametrize("scope", ["r1/bart", "*/bart"])
def test_diff_of_a_scope_keeps_the_reasons_from_other_scopes(
    heard_by_bart: tuple[str, str], scope: str
) -> None:
    """Bart's prompts follow from answers that are not shown; the scope need match in one run alone."""
    assert done("diff", *heard_by_bart, "--scope", scope).splitlines() == [
        "3 calls: 1 the same, 2 changed, 0 added, 0 missing",
        "1 more actor (bart) changed later: their prompts quote answers that had already changed, so this may just "
        "follow.",
    ]
    found = json.loads(done("diff", *heard_by_bart, "--scope", scope, "--json"))
    assert [divergence["caused_by"] for divergence in found["divergences"]] == [["emma", 0]]
    assert {row["scope"] for row in found["rows"]} == {"bart"}


@pytest.mark.feature("report")
def test_a_report_of_a_scope_of_two_runs_keeps_their_reasons(
    heard_by_bart: tuple[str, str],
) -> None:
    """It shows both sides of the scope's calls, and no others."""
    one, other = heard_by_bart
    done("report", one, "--against", other, "--scope", "r1/bart", "-o", "page.html")
    html = Path("page.html").read_text(encoding="utf-8")
    assert "perhaps a consequence of emma, call 1" in html
    assert "bart says 2" in html
    assert "You are emma" not in html
    found = re.search(r'id="data">(.*?)</script>', html, re.DOTALL)
    assert found is not None
    cells = json.loads(found[1])["cells"]
    assert [sorted(cells["one"]), sorted(cells["other"])] == [[0, 1, 2], [3, 4, 5]]


def test_an_actor_that_one_run_lacks_is_no_sign_of_other_scopes() -> None:
    """The runs have others in common."""
    one, other = play("a.jsonl"), play("b.jsonl", actors=ACTORS[:2])
    assert done("diff", one, other, "--scope", "lisa").splitlines() == [
        "3 calls: 0 the same, 0 changed, 0 added, 3 missing",
        'lisa, call 1: b.jsonl ends, or does not make this call: "Round 0. You heard: nothing."',
    ]


def test_a_scope_that_neither_run_has_is_an_error(heard_by_bart: tuple[str, str]) -> None:
    """It names both, and the command that shows the scopes: a comparison leaves out a common first level."""
    printed = done("diff", *heard_by_bart, "--scope", "marge", code=1)
    assert "nothing is recorded in the scope 'marge' of a.jsonl or b.jsonl" in printed
    assert "'llmcall show' with the whole run shows the scopes" in printed


def headings(*arguments: str) -> list[str]:
    """Return the headings that show prints."""
    return re.findall(r"(?m)^=== (.*)", done("show", *arguments))


def test_show_prints_the_calls_of_each_actor_or_round_together() -> None:
    """A round has the n-th calls of all actors."""
    path = play("a.jsonl")
    assert headings(path) == ["bart", "emma", "lisa"]
    assert headings(path, "--scope", "l*") == ["lisa"]
    assert headings(path, "--by", "round") == ["call 1", "call 2", "call 3"]
    printed = done("show", path, "--by", "round")
    assert printed.index("lisa says 0") < printed.index("bart says 1")


# The order of actors

NUMBERED = [f"survey/{number}" for number in (*range(1, 12), "Ann")]


@pytest.fixture
def numbered() -> str:
    """A run of twelve actors, of which eleven are called by a number."""
    return str(
        write_cassette("numbered.jsonl", [chat("Bread?", "Yes.", f"{name}#0") for name in NUMBERED])
    )


def test_numbers_of_actors_are_sorted(numbered: str) -> None:
    """By show, compare and frames; the file's order is that of the texts."""
    in_file = re.findall('"sample": ?"(.*?)#', Path(numbered).read_text())
    assert in_file == sorted(NUMBERED) != NUMBERED
    assert headings(numbered) == NUMBERED
    assert list(llmcall.cassette(numbered).to_frame()["scope"]) == NUMBERED
    other = write_cassette("other.jsonl", [chat("Cake?", "Yes.", f"{name}#0") for name in NUMBERED])
    found = llmcall.compare(numbered, other)
    names = [name.removeprefix("survey/") for name in NUMBERED]
    assert [row.scope for row in found.rows] == names
    assert [divergence.scope for divergence in found.divergences] == names


@pytest.mark.feature("report")
def test_report_sorts_the_numbers_of_actors(numbered: str) -> None:
    """The rows of its table stand in that order."""
    done("report", numbered, "-o", "page.html")
    page = Path("page.html").read_text(encoding="utf-8")
    assert json.loads(re.findall(r'"rows": (\[.*?\])', page)[0]) == NUMBERED
