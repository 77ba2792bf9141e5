"""Runs compared: where two recordings of one program part, and why."""

from __future__ import annotations

import hashlib
import json
import random
import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from itertools import permutations
from pathlib import Path
from typing import Any

import openai
import pytest
from commands import done
from conversations import chat, conversation, record_of, written
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sdk_programs import KEY, Server, http

import llmcall
from llmcall.testing import ScriptedClient

pytestmark = pytest.mark.newest_only

ACTORS = ("lisa", "emma", "bart")
ASKED = {"role": "user", "content": "Bread?"}
Say = Callable[[str, int, str], str]


def agreed(name: str, number: int, heard: str) -> str:
    """Answer the same in every run."""
    return f"{name} says {number}, having heard {len(heard)} letters"


def play(
    path: str,
    say: Say = agreed,
    *,
    scope: str = "",
    word: str = "thrifty",
    actors: tuple[str, ...] = ACTORS,
    rounds: int = 3,
    hears: bool = True,
    **params: Any,
) -> str:
    """Write down some rounds in which each actor hears what the one before said; the bart of every
    run is calm.
    """
    records, heard = [], "nothing"
    for number in range(rounds):
        for name in actors:
            messages = [
                {
                    "role": "system",
                    "content": f"You are {name}, a {'calm' if name == 'bart' else word} buyer.",
                },
                {
                    "role": "user",
                    "content": f"Round {number}. You heard: {heard if hears else 'nothing'}",
                },
            ]
            heard = say(name, number, heard)
            records.append(chat(messages, heard, f"{scope}{name}#0", **params))
    return str(written(path, records))


def replicated() -> ScriptedClient:
    """Return a client whose cache has two replicates of a run."""
    client = ScriptedClient(lambda messages: "Yes", cache_mode="auto")
    for name in ("rep-1", "rep-2"):
        with llmcall.scope(name), llmcall.scope("lisa"):
            client.send_message("Bread?", temperature=1, on_error="raise")
    return client


def counts(found: llmcall.Comparison) -> tuple[int, int, int, int]:
    """Return the counts of a comparison."""
    return found.same, found.changed, found.added, found.missing


def test_a_run_compared_with_itself_does_not_diverge() -> None:
    """The text says so, and how many calls there are."""
    one = play("a.jsonl", scope="rep-1/")
    found = llmcall.compare(one, one)
    assert counts(found) == (9, 0, 0, 0)
    assert not found.parted
    assert str(found).splitlines() == [
        "9 calls: 9 the same, 0 changed, 0 added, 0 missing",
        "The runs do not diverge.",
    ]


@pytest.mark.parametrize("scope", ["rep-1/", ""])
def test_a_first_scope_that_names_a_run_does_not_matter(scope: str) -> None:
    """Whether both runs have one or only one of them; the actors are named without it."""
    found = llmcall.compare(play("a.jsonl", scope=scope), play("b.jsonl", scope="rep-2/"))
    assert counts(found) == (9, 0, 0, 0)
    assert not found.parted
    assert {row.scope for row in found.rows} >= {"lisa"}


@pytest.fixture
def louder() -> llmcall.Comparison:
    """A comparison of runs in which a word of two personas, and so every answer, changed."""

    def say(name: str, number: int, heard: str) -> str:
        return agreed(name, number, heard) + "!"

    return llmcall.compare(play("a.jsonl"), play("b.jsonl", say, word="generous"))


def test_an_actor_that_only_hears_other_answers_does_not_part(louder: llmcall.Comparison) -> None:
    """All calls changed, and the two actors whose personas changed part."""
    assert counts(louder) == (0, 9, 0, 0)
    assert [each[:3] for each in louder.parted] == [("emma", 0, "prompt"), ("lisa", 0, "prompt")]
    assert louder.parted[0].before == "You are emma, a thrifty buyer."


def test_a_changed_word_that_actors_share_is_told_once(louder: llmcall.Comparison) -> None:
    """In one line that names them."""
    assert str(louder).splitlines()[1:] == [
        "the same change in 2 scopes (emma, lisa): the prompt changed: [-thrifty-] {+generous+}"
    ]


def served_run(path: str, served: str, answer: str) -> Path:
    """Write down a run of one call, which a model answered."""
    record = chat("Bread?", answer, "lisa#0")
    record.response["model"] = served
    return written(path, [record])


def test_two_models_that_gave_different_answers_are_named() -> None:
    """They stand under one name, and were asked the same."""
    one = served_run("a.jsonl", "m-2026-01", "Yes.")
    found = llmcall.compare(one, served_run("b.jsonl", "m-2026-05", "No."))
    assert str(found).splitlines()[1] == (
        'lisa, call 1: the same request has different answers: "Yes." → "No." '
        "(answered by m-2026-01 and m-2026-05)"
    )
    assert found.parted[0].served == ("m-2026-01", "m-2026-05")


@pytest.mark.parametrize(
    ("answer", "other", "where"),
    [
        ("Yes, please.", "Yes,\n  please.", "only in white space"),
        (f"{'Yes, ' * 100} please.", f"{'Yes, ' * 100} thanks.", "after these words"),
    ],
)
def test_answers_that_look_the_same_in_one_line_are_told_apart(
    answer: str, other: str, where: str
) -> None:
    """A line that shows the same words twice says how the answers differ."""
    one = served_run("a.jsonl", "m", answer)
    found = llmcall.compare(one, served_run("b.jsonl", "m", other))
    assert str(found).splitlines()[1].endswith(f" (they differ {where})")


def test_of_answers_with_the_same_words_the_field_that_differs_is_shown() -> None:
    """One was cut, say, or came from another model."""
    one = written("a.jsonl", [chat("Bread?", "Yes", "lisa#0")])
    record = chat("Bread?", "Yes", "lisa#0")
    record.response["choices"][0]["finish_reason"] = "length"
    cut = written("b.jsonl", [record])
    assert str(llmcall.compare(one, cut)).splitlines()[1] == (
        "lisa, call 1: the same request has different answers: "
        '"response.choices[0].finish_reason="stop"" → '
        '"response.choices[0].finish_reason="length""'
    )


def test_one_model_that_gave_different_answers_is_not_named() -> None:
    """It is no cause."""
    one = served_run("a.jsonl", "m-2026-01", "Yes.")
    found = llmcall.compare(one, served_run("b.jsonl", "m-2026-01", "No."))
    assert "different answers" in str(found)
    assert "answered by" not in str(found)


def test_an_actor_parts_once_where_its_answer_differs() -> None:
    """Not again in calls whose histories repeat the answer, and not those who heard it."""

    def other(name: str, number: int, heard: str) -> str:
        return "I changed my mind" if (name, number) == ("emma", 1) else agreed(name, number, heard)

    found = llmcall.compare(play("a.jsonl"), play("b.jsonl", other))
    assert [(each.scope, each.place, each.why) for each in found.parted] == [("emma", 1, "draw")]
    assert found.parted[0].after == "I changed my mind"
    changed = [(row.scope, row.place) for row in found.rows if row.status == "changed"]
    assert changed[:2] == [("bart", 1), ("emma", 1)]  # bart heard it


def told_at(path: str, price: str, calls: dict[str, int], told: dict[str, int]) -> Path:
    """Write down a run in which each actor once hears the same news, and repeats them."""
    records = []
    for name, count in calls.items():
        for number in range(count):
            news = f"News: bread costs {price} coins at the market from this morning on."
            heard, said = (news, news) if number == told[name] else ("No news.", "Well.")
            records.append(chat(f"You are {name}. Hour {number}. {heard}", said, f"{name}#0"))
    return written(path, records)


@pytest.mark.parametrize(
    ("calls", "told", "parted"),
    [
        ({"lisa": 4, "bart": 8}, {"lisa": 1, "bart": 2}, [("lisa", 1)]),
        ({"lisa": 4, "bart": 4}, {"lisa": 1, "bart": 1}, [("bart", 1), ("lisa", 1)]),
    ],
    ids=["one earlier", "at once"],
)
def test_of_changed_prompts_that_each_answer_repeats_the_first_are_told(
    calls: dict[str, int], told: dict[str, int], parted: list[tuple[str, int]]
) -> None:
    """Each may repeat the other's answer; the program changed at least the first."""
    one = told_at("a.jsonl", "three", calls, told)
    found = llmcall.compare(one, told_at("b.jsonl", "nine", calls, told))
    assert [(each.scope, each.place) for each in found.parted] == parted


def market_of(name: str, answer: str, verb: str, top_p: float | None) -> Path:
    """Write down a run of three calls of each actor: all answers, the later questions and the last
    call's ``top_p`` are given.
    """
    records = []
    for actor in ACTORS:
        turns = [(f"Do you {word} it?", f"{actor} {answer}") for word in ("take", verb, verb)]
        *begun, last = conversation(f"{actor}#0", turns)
        records += [
            *begun,
            chat(last.request["messages"], turns[-1][1], f"{actor}#0", top_p=top_p),
        ]
    return written(name, records)


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        ("see «word»now", "see (word)then", "[-see «word-] {+see (word+} … [-»now-] {+)then+}"),
        ("a, longword. Z", "a; longword cat Z", "[-a, longword-] {+a; longword+} … [-.-] {+cat+}"),
    ],
)
def test_the_words_beside_a_changed_mark_are_the_same_in_both_prompts(
    before: str, after: str, told: str
) -> None:
    """They end before the next change, whose words stand in its own brackets."""
    one = written("a.jsonl", [chat(before, "Yes.", "lisa#0")])
    other = written("b.jsonl", [chat(after, "Yes.", "lisa#0")])
    assert str(llmcall.compare(one, other)).endswith(f"the prompt changed: {told}")


def compare_later(verb: str, top_p: float | None) -> llmcall.Comparison:
    """Compare runs that part by chance in the first call, and in which more may change later."""
    one = market_of("a.jsonl", "does.", "buy", None)
    return llmcall.compare(one, market_of("b.jsonl", "does, and so on.", verb, top_p))


def test_a_prompt_that_changed_after_another_draw_is_told() -> None:
    """Once for all who share it, in the text and in JSON."""
    found = compare_later("sell", 0.5)
    assert sorted((each.scope, each.place, each.why) for each in found.parted) == [
        (name, 0, "draw") for name in sorted(ACTORS)
    ]
    assert {each[1:5] for each in found.later} == {
        (1, "prompt", "Do you buy it?", "Do you sell it?")
    }
    assert str(found).splitlines()[-1] == (
        "the same change in 3 scopes (bart, emma, lisa), after it had diverged: the prompt changed: [-buy-] {+sell+}"
    )
    assert json.loads(json.dumps(found.to_dict()))["later"][0]["why"] == "prompt"


def test_a_parameter_that_changed_after_another_draw_is_told() -> None:
    """With its value and its call."""
    [*_, last] = compare_later("buy", 0.5).later
    assert (last.place, last.why, last.after) == (2, "parameters", "top_p=0.5")


CIRCUMSTANCES: list[dict[str, Any]] = [
    {"usage": {"prompt_tokens": 20, "completion_tokens": 50, "total_tokens": 70}},
    {"service_tier": "flex"},
]


@pytest.mark.parametrize("kind", ["chat", "http"])
@pytest.mark.parametrize("more", CIRCUMSTANCES, ids=str)
def test_an_answer_that_says_the_same_is_the_same(kind: str, more: dict[str, Any]) -> None:
    """The tokens of a reasoning model differ in each call."""
    for path, changes in (("one.jsonl", {}), ("other.jsonl", more)):
        record = chat("Bread?", "Yes.", "lisa#0")
        request, response = record.request, {**record.response, **changes}
        if kind == "http":
            request = {"method": "POST", "host": "h", "path": "/v1/responses", "body": {}}
            response = {"value": {"status": 200, "body": json.dumps(response)}}
        written(path, [record_of(kind, "lisa#0", request, response)])
    found = llmcall.compare("one.jsonl", "other.jsonl")
    assert (found.same, found.changed, dict(found.parted)) == (1, 0, {})


def test_nothing_is_told_after_another_draw_if_the_program_is_the_same() -> None:
    """What changed later are consequences."""
    assert not compare_later("buy", None).later


@pytest.fixture
def longer() -> llmcall.Comparison:
    """A comparison with a run of a round more and an actor less."""
    one = play("a.jsonl", hears=False)
    return llmcall.compare(one, play("b.jsonl", actors=("lisa", "emma"), rounds=4, hears=False))


def test_a_round_more_and_an_actor_less_are_added_and_missing_calls(
    longer: llmcall.Comparison,
) -> None:
    """The others are the same."""
    assert counts(longer) == (6, 0, 2, 3)
    assert {(each.scope, each.place, each.why) for each in longer.parted} == {
        ("lisa", 3, "added"),
        ("emma", 3, "added"),
        ("bart", 0, "missing"),
    }


@given(
    asked=st.lists(st.sampled_from("ab"), min_size=1, max_size=12),
    added=st.lists(st.tuples(st.integers(0, 12), st.sampled_from("cd")), max_size=8),
)
@settings(deadline=None, max_examples=30)
def test_draws_that_both_runs_have_are_the_same_whatever_is_asked_between(
    asked: list[str], added: list[tuple[int, str]]
) -> None:
    """An actor asks the same question many times, and one run asks others in between."""
    longer = list(asked)
    for place, question in added:
        longer.insert(place, question)
    for path, questions in (("one.jsonl", asked), ("two.jsonl", longer)):
        counter: Counter[str] = Counter()
        records = []
        for question in questions:
            draw = counter[question]
            counter[question] += 1
            records.append(
                chat([{**ASKED, "content": question}], f"{question} {draw}", f"ann#{draw}")
            )
        written(path, records)
    assert counts(llmcall.compare("one.jsonl", "two.jsonl")) == (len(asked), 0, len(added), 0)
    assert counts(llmcall.compare("two.jsonl", "one.jsonl")) == (len(asked), 0, 0, len(added))


@given(order=st.permutations(range(8)), changed=st.integers(0, 7))
@settings(deadline=None, max_examples=20)
def test_the_order_of_calls_that_are_made_at_once_does_not_matter(
    order: list[int], changed: int
) -> None:
    """Each run may record another one first. The one that changed is told."""
    for path, numbers, asked in (("one.jsonl", range(8), None), ("two.jsonl", order, changed)):
        records = []
        for number in numbers:
            content = f"Buy {number} loaves?" if number != asked else f"Buy {number} eggs?"
            records.append(chat([{**ASKED, "content": content}], "Yes", "ann#0"))
        written(path, records)
    found = llmcall.compare("one.jsonl", "two.jsonl")
    assert counts(found) == (7, 1, 0, 0)
    assert "{+eggs+}" in str(found)


def test_added_and_missing_calls_are_told(longer: llmcall.Comparison) -> None:
    """An added round once for all actors."""
    assert str(longer).splitlines()[1:] == [
        'bart, call 1: the other run ends, or does not make this call: "Round 0. You heard: nothing"',
        "the same change in 2 scopes (emma, lisa): the other run has an additional call",
    ]


def one_call(path: str, name: str, question: str = "Bread?") -> Path:
    """Write down a run of one call of an actor."""
    return written(path, [chat(question, "Yes", f"day/{name}#0")])


def test_an_actor_under_another_name_is_matched_by_its_first_prompt() -> None:
    """The text names both."""
    found = llmcall.compare(one_call("a.jsonl", "lisa"), one_call("b.jsonl", "elisabeth"))
    assert counts(found) == (1, 0, 0, 0)
    assert found.renamed
    assert "elisabeth" in str(found)


def test_runs_without_an_actor_in_common_are_told() -> None:
    """Neither names nor first prompts agree."""
    found = llmcall.compare(
        one_call("a.jsonl", "lisa"), one_call("b.jsonl", "elisabeth", "Cheese?")
    )
    assert found.changed == 0
    assert "no actor in common" in str(found)


def test_the_caller_may_say_who_is_who() -> None:
    """With ``align``, actors of different names and prompts are compared."""
    one, other = one_call("a.jsonl", "lisa"), one_call("b.jsonl", "elisabeth", "Cheese?")
    assert llmcall.compare(one, other, align={"day/elisabeth": "day/lisa"}).changed == 1


def village(path: str, lisa: str, run: dict[str, Any] | None) -> Path:
    """Write down a run whose actors are named by their system messages; one of them is given."""
    records = []
    for name, told in (("lisa", f"a {lisa} buyer who has two children"), ("bart", "a calm baker")):
        system = f"You are {name}, {told}. You live in a small village."
        digest = hashlib.sha256(system.encode()).hexdigest()[:8]
        turns = [("Bread?", f"{name}: yes."), ("Milk?", f"{name}: no.")]
        records += conversation(f"{system[:20]}-{digest}#0", turns, system)
    return written(path, records, run=run)


def test_actors_named_by_their_system_messages_are_paired_by_likeness() -> None:
    """One whose system message was edited is told as edited."""
    option = {"actor": "system"}
    found = llmcall.compare(
        village("a.jsonl", "thrifty", option), village("b.jsonl", "generous", option)
    )
    assert counts(found) == (2, 2, 0, 0)
    assert [(each.place, each.why) for each in found.parted] == [(0, "prompt")]
    assert "its system message, which names it, was edited" in str(found)
    assert str(found).endswith("call 1: the prompt changed: [-thrifty-] {+generous+}")


def test_actors_with_names_of_their_own_are_not_paired_by_likeness() -> None:
    """Without the option of the run, an edited actor is another one."""
    found = llmcall.compare(
        village("a.jsonl", "thrifty", None), village("b.jsonl", "generous", None)
    )
    assert counts(found) == (2, 0, 2, 2)


def test_an_edited_actor_of_patched_is_paired_by_likeness() -> None:
    """``patched`` writes no options into the header: its actors' names tell that their system
    messages name them.
    """

    def patched_village(path: str, lisa: str) -> Path:
        client = openai.OpenAI(api_key=KEY, http_client=http.Client(transport=Server().transport))
        with llmcall.cassette(path), llmcall.patched(actor="system", cache_mode="off"):
            for who in (f"Lisa, a {lisa} buyer", "Bart, a calm baker"):
                system = {"role": "system", "content": f"You are {who}. You live in a village."}
                client.chat.completions.create(model="gpt-4o-mini", messages=[system, ASKED])
        return Path(path)

    one, other = patched_village("a.jsonl", "thrifty"), patched_village("b.jsonl", "generous")
    found = llmcall.compare(one, other)
    assert counts(found) == (1, 1, 0, 0)
    assert "its system message, which names it, was edited" in str(found)


def personas(path: str, personas: Iterable[str]) -> Path:
    """Write down a run whose actors are named by their system messages, by their digests."""
    scopes = {hashlib.sha256(each.encode()).hexdigest()[:12]: each for each in personas}
    records = [
        record
        for scope in sorted(scopes)
        for record in conversation(f"{scope}#0", [("Bread?", "Yes.")], scopes[scope])
    ]
    return written(path, records, run={"actor": "system"})


def paired_systems(found: Any) -> set[tuple[str, ...]]:
    """Return the system messages of the calls that are paired."""
    return {
        tuple(record.request["messages"][0]["content"] for record in (pair.one, pair.other))
        for pair in found.pairs
        if pair.one and pair.other
    }


def test_actors_whose_system_messages_were_edited_alike_are_paired() -> None:
    """If all of them were edited alike, each actor is paired with itself, also if the edit has the
    words of some actors.
    """
    work = ["a farmer", "a driver", "a teacher"]
    before = [
        f"You are Nr. {number}, {work[number % 3]}, {20 + number} years old. You live in a village."
        for number in range(60)
    ]
    after = [each.replace("a village", "a town near the house of a farmer") for each in before]
    found = llmcall.compare(personas("a.jsonl", before), personas("b.jsonl", after))
    assert paired_systems(found) == set(zip(before, after, strict=True))


def test_the_order_of_words_pairs_edited_actors() -> None:
    """The order of their words tells actors apart, too."""
    before = [f"You are {one} and trade with {other}." for one, other in permutations("ABCD", 2)]
    after = [f"{each} Be brief." for each in before]
    found = llmcall.compare(personas("a.jsonl", before), personas("b.jsonl", after))
    assert paired_systems(found) == set(zip(before, after, strict=True))


def test_other_people_are_no_edited_ones() -> None:
    """Actors that share only the words of all actors are not paired."""
    template = "You are {}, {} years old and {}. You live in a small village by the sea. Be brief."
    one = [template.format(*each) for each in [("Lisa", 34, "thrifty"), ("Bart", 20, "calm")]]
    other = [template.format(*each) for each in [("Emma", 61, "generous"), ("Hugo", 47, "loud")]]
    found = llmcall.compare(personas("a.jsonl", one), personas("b.jsonl", other))
    assert counts(found) == (0, 0, 2, 2)


@pytest.fixture
def replicates() -> ScriptedClient:
    """A client whose cache has two replicates of a run; all of them are exported too."""
    client = replicated()
    client.cache.export("all.jsonl")
    return client


Run = Callable[[Any], Any]
RUNS: dict[str, tuple[Run, Run]] = {
    "a cache": (lambda cache: cache, lambda cache: cache),
    "an export": (lambda cache: "all.jsonl", lambda cache: cache),
    "a path": (lambda cache: Path("all.jsonl").resolve(), lambda cache: cache),
    "a cache's directory": (lambda cache: cache.path, lambda cache: cache),
    "a pattern": (lambda cache: ("all.jsonl", "rep-*"), lambda cache: cache),
}


@pytest.mark.parametrize("run", RUNS)
def test_a_cache_its_directory_and_an_export_are_runs(run: str, replicates: ScriptedClient) -> None:
    """They hold the same."""
    one, other = RUNS[run]
    cache = replicates.cache
    assert counts(llmcall.compare(one(cache), other(cache))) == (2, 0, 0, 0)


SCOPES: dict[str, tuple[Run, Run]] = {
    "of a cache": (lambda cache: (cache, "rep-1"), lambda cache: (cache, "rep-2")),
    "of a directory": (lambda cache: (cache, "rep-1"), lambda cache: (cache.path, "rep-2")),
    "by a pattern": (lambda cache: ("all.jsonl", "rep-1"), lambda cache: ("all.jsonl", "rep-2/l*")),
}


@pytest.mark.parametrize("scopes", SCOPES)
def test_a_scope_is_a_run(scopes: str, replicates: ScriptedClient) -> None:
    """Of a cache, its directory or a file, by its name or a pattern."""
    one, other = SCOPES[scopes]
    cache = replicates.cache
    assert counts(llmcall.compare(one(cache), other(cache))) == (1, 0, 0, 0)


def test_an_open_cassette_is_a_run(replicates: ScriptedClient) -> None:
    """And a scope of it."""
    with llmcall.cassette("tape.jsonl") as tape, llmcall.scope("rep-1"), llmcall.scope("lisa"):
        replicates.send_message("Bread?", temperature=1, on_error="raise")
        cached = (replicates.cache.path, "rep-1")
        assert counts(llmcall.compare(tape, cached)) == (1, 0, 0, 0)
        exported = ("all.jsonl", "rep-2")
        assert counts(llmcall.compare((tape, "rep-1/lisa"), exported)) == (1, 0, 0, 0)


@pytest.mark.parametrize("kind", ["cache", "file"])
def test_a_scope_in_which_nothing_is_recorded_is_an_error(
    kind: str, replicates: ScriptedClient
) -> None:
    """The error names the scope."""
    whole: Any = replicates.cache if kind == "cache" else "all.jsonl"
    with pytest.raises(llmcall.CacheError, match="nothing is recorded in the scope 'rep-9' of"):
        llmcall.compare(replicates.cache, (whole, "rep-9"))


def test_one_run_is_not_compared() -> None:
    """At least two are needed."""
    with pytest.raises(TypeError, match="at least two runs"):
        llmcall.compare(play("a.jsonl"))


def test_what_is_no_run_is_refused() -> None:
    """The error says which argument it is."""
    with pytest.raises(TypeError, match="is not a run"):
        llmcall.compare(play("a.jsonl"), 3)


@pytest.fixture
def hostile() -> llmcall.Comparison:
    """A comparison with answers that look like markup."""
    return llmcall.compare(play("a.jsonl"), play("b.jsonl", lambda *_: "<script>alert(1)</script>"))


def test_a_comparison_is_a_data_frame(hostile: llmcall.Comparison) -> None:
    """With a row for each call."""
    frame = hostile.to_frame()
    assert list(frame.columns)[:4] == ["scope", "place", "status", "prompt"]
    assert len(frame) == 9


def test_a_comparison_is_json(hostile: llmcall.Comparison) -> None:
    """Its dict has the counts."""
    assert json.loads(json.dumps(hostile.to_dict()))["changed"] == hostile.changed


def test_a_comparison_in_a_notebook_escapes_its_texts(hostile: llmcall.Comparison) -> None:
    """Markup is shown as text."""
    shown = hostile._repr_html_()
    assert "&lt;script&gt;" in shown
    assert "<script>" not in shown


def test_the_repr_of_a_comparison_has_its_counts(hostile: llmcall.Comparison) -> None:
    """And no text."""
    assert repr(hostile) == "Comparison(same=0, changed=9, added=0, missing=0, parted=1)"


calls = st.tuples(st.sampled_from("ab"), st.sampled_from("xyzw"))
questions = st.dictionaries(calls, st.sampled_from("12"), min_size=1)


def compare_answers(
    one: dict[tuple[str, str], str], other: dict[tuple[str, str], str]
) -> llmcall.Comparison:
    """Compare runs that gave answers to the questions of actors."""
    for path, made in (("one.jsonl", one), ("other.jsonl", other)):
        calls = sorted(made)
        records = [chat(question, made[actor, question], f"{actor}#0") for actor, question in calls]
        written(path, records)
    return llmcall.compare("one.jsonl", "other.jsonl")


@settings(max_examples=40)
@given(questions, questions)
def test_every_call_has_one_row(
    one: dict[tuple[str, str], str], other: dict[tuple[str, str], str]
) -> None:
    """Each call of both runs stands in exactly one row."""
    found = compare_answers(one, other)
    assert found.same + found.changed + found.missing == len(one)
    assert found.same + found.changed + found.added == len(other)


@settings(max_examples=40)
@given(questions, questions)
def test_nothing_is_the_same_that_differs(
    one: dict[tuple[str, str], str], other: dict[tuple[str, str], str]
) -> None:
    """Runs part if a call of one of them has no equal in the other."""
    # If the actors differ, one name may be the whole run's.
    assume({actor for actor, _ in one} == {actor for actor, _ in other})
    found = compare_answers(one, other)
    assert bool(found.parted) == (one != other)
    assert found.same == len(one.items() & other.items())


# Causes and consequences

WORDS = ("yes", "no", "maybe", "3", "5", "thrifty", "generous", "bread", "milk", "it's", "cheap")
EDITS = [("thrifty", "generous"), ("3", "5"), ("yes", "no"), ("bread", "")]
STYLES: dict[str, Callable[[dict[str, str]], str]] = {
    "strip": lambda said: "; ".join(f"{name} said {text.strip()}" for name, text in said.items()),
    "cut": lambda said: " | ".join(f"{name} said {text[:40]}..." for name, text in said.items()),
    "printed": lambda said: f"They said {said}.",
    "stripped": lambda said: str({name: text.strip() for name, text in said.items()}),
    "dumped": lambda said: f"You know {json.dumps({'answers': said})}",
    "joined": lambda said: "All in turn: " + ", ".join(text.strip() for text in said.values()),
    "list": lambda said: f"In turn: {list(said.values())}, which was all.",
    "json": lambda said: "\n".join(
        f"- {name}: {json.loads(text)['says']}" for name, text in said.items()
    ),
}
ORDERS = [["lisa", "emma", "bart"], ["bart", "lisa", "emma"], ["emma", "bart", "lisa"]]


@dataclass(frozen=True)
class World:
    """Actors who quote each other, each of them the last answers; one thing may be changed."""

    style: str
    seed: int
    words: int
    heard: int
    order: list[str]
    change: str = ""
    actor: str = ""
    round: int = 0
    edit: tuple[str, str] = ("", "")

    def play(self, path: str) -> str:
        """Write down three rounds."""
        records = []
        said: dict[str, str] = {}
        for number in range(3):
            for name in self.order:
                is_changed = name == self.actor
                persona = f"You are {name}, a thrifty buyer of bread with 3 coins. Say yes or no."
                if is_changed and self.change == "persona":
                    persona = persona.replace(*self.edit)
                asked = "Will you buy bread for 3 coins? Be thrifty, say yes."
                if is_changed and self.change == "prompt" and number == self.round:
                    asked = asked.replace(*self.edit)
                heard = dict([*said.items()][-self.heard :])
                content = f"Day {number}. {STYLES[self.style](heard) if heard else ''} {asked}"
                messages = [
                    {"role": "system", "content": persona},
                    {"role": "user", "content": content},
                ]
                is_drawn = is_changed and self.change == "draw" and number == self.round
                answer = self.answer(f"{messages}{is_drawn}")
                said.pop(name, None)
                said[name] = answer
                records.append(chat(messages, answer, f"{name}#0"))
        return str(written(path, records))

    def answer(self, prompt: str) -> str:
        """Answer by the prompt alone, with blanks around, or as JSON."""
        chance = random.Random(f"{self.seed} {prompt}")
        text = " ".join(chance.choice(WORDS) for _ in range(self.words))
        if self.style == "json":
            return json.dumps({"mood": chance.choice(WORDS), "says": text})
        return chance.choice(["", " "]) + text + chance.choice(["", " ", "\n", "."])


worlds = st.builds(
    World,
    style=st.sampled_from(sorted(STYLES)),
    seed=st.integers(0, 10**6),
    words=st.integers(1, 12),
    heard=st.integers(1, 3),
    order=st.sampled_from(ORDERS),
    change=st.sampled_from(["persona", "prompt", "draw"]),
    actor=st.sampled_from(ACTORS),
    round=st.integers(0, 2),
    edit=st.sampled_from(EDITS),
)


@pytest.mark.newest_only
@settings(max_examples=100)
@given(worlds)
def test_a_cause_is_told_and_no_consequence(world: World) -> None:
    """Whatever the actors quote of each other, and however, the one change is told as the cause.

    What else is told is marked as doubtful, which only short answers make necessary.
    """
    before = replace(world, change="").play("a.jsonl")
    found = llmcall.compare(before, world.play("b.jsonl"))
    truth = (world.actor, world.round * (world.change != "persona"), world.change)
    if world.change == "persona":
        truth = (world.actor, 0, "prompt")
    if world.change == "draw" and found.same == 9:
        return  # the other draw is the same answer
    told = {(each.scope, each.place, each.why): each for each in found.parted}
    assert truth in told
    assert {key for key, each in told.items() if not each.doubt} <= {truth}
    assert world.words < 6 or set(told) == {truth}
    assert all(re.search(r"\w", each.in_words()) for each in found.parted)


def test_an_answer_that_comes_later_explains_nothing() -> None:
    """A change in a prompt is told, though later answers of other actors changed in the same words."""

    def run(path: str, word: str) -> Path:
        lisa = [chat(f"Day {day}: be {word}.", f"I am {word} now.", "lisa#0") for day in range(2)]
        bart = [chat(f"Day {day}", "Hm.", "bart#0") for day in range(2)]
        heard = f"Lisa says: {word}"
        return written(path, [*lisa, *bart, chat(heard, f"Day 0: be {word}.", "bart#0")])

    found = llmcall.compare(run("a.jsonl", "thrifty"), run("b.jsonl", "generous"))
    told = [(each.scope, each.place, each.why, each.doubt) for each in found.parted]
    assert ("lisa", 0, "prompt", "") in told


def test_a_change_that_may_be_a_consequence_is_told_as_doubtful() -> None:
    """A number changed in a prompt as another actor's answer did; the two may have one cause."""

    def run(path: str, asked: str, answer: str) -> Path:
        question = chat("How much?", answer, "emma#0")
        return written(path, [question, chat(f"Do you pay {asked} coins?", "Yes.", "lisa#0")])

    found = llmcall.compare(run("a.jsonl", "3", "3"), run("b.jsonl", "5", "5"))
    assert str(found).splitlines()[1:] == [
        'emma, call 1: the same request has different answers: "3" → "5"',
        "lisa, call 1: the prompt changed: [-3-] {+5+} (perhaps a consequence: emma said so in call 1)",
    ]
    assert found.to_dict()["parted"][1]["doubt"].startswith("perhaps a consequence")


def test_a_short_answer_that_prompts_repeat_in_one_place_explains_a_change() -> None:
    """The prompts of other rounds repeat it in the same place."""

    def run(path: str, last: str) -> Path:
        emma = [chat(f"Day {day}?", said, "emma#0") for day, said in enumerate(["yes", "no", last])]
        lisa = [
            chat(f"Day {day}. They said {{'emma': '{each.answer}'}}", "Hm.", "lisa#0")
            for day, each in enumerate(emma)
        ]
        return written(path, [*emma, *lisa])

    found = llmcall.compare(run("a.jsonl", "yes"), run("b.jsonl", "no"))
    assert [(each.scope, each.place, each.why) for each in found.parted] == [("emma", 2, "draw")]


@pytest.mark.parametrize(
    ("asked", "shown"),
    [("Bread ?", "[-Bread?-] {+Bread ?+}"), ("Bread?\n", "[-Bread?-] {+Bread?\\n+}")],
)
def test_a_changed_blank_is_shown_with_its_words(asked: str, shown: str) -> None:
    """If only blanks or marks of a prompt changed, the words beside them are shown."""
    other = written("b.jsonl", [chat(asked, "Yes.", "lisa#0")])
    found = llmcall.compare(written("a.jsonl", [chat("Bread?", "Yes.", "lisa#0")]), other)
    assert found.parted[0].in_words() == shown


# The command line


@pytest.fixture
def two_runs() -> tuple[str, str]:
    """Two cassettes, in whose prompts a word differs."""
    return play("a.jsonl"), play("b.jsonl", word="generous")


def test_diff_prints_the_comparison(two_runs: tuple[str, str]) -> None:
    """As text, or as JSON; differences are no failure."""
    assert "[-thrifty-] {+generous+}" in done("diff", *two_runs)
    assert json.loads(done("diff", *two_runs, "--json"))["parted"][0]["why"] == "prompt"


def test_the_exit_code_of_diff_tells_of_differences_if_it_is_asked_to(
    two_runs: tuple[str, str],
) -> None:
    """With --exit-code it is 1 if there are any."""
    done("diff", two_runs[0], two_runs[0], "--exit-code", code=0)
    done("diff", *two_runs, "--exit-code", code=1)


@pytest.mark.parametrize("other", [[], ["none.jsonl"]])
def test_diff_without_a_second_run_is_wrong_usage(
    other: list[str], two_runs: tuple[str, str]
) -> None:
    """If it is not named, or not there."""
    done("diff", two_runs[0], *other, code=2)


@pytest.fixture(params=["configured", "file", "directory"])
def whole(request: pytest.FixtureRequest, replicates: ScriptedClient) -> list[str]:
    """The arguments that name a cache with two replicates, or its export."""
    named = {
        "configured": [],
        "file": ["all.jsonl"],
        "directory": [str(replicates.cache.path)],
    }
    found: list[str] = named[request.param]
    return found


@pytest.mark.parametrize(("one", "other"), [("rep-1", "rep-2"), ("rep-1/l*", "*-2")])
def test_diff_compares_two_scopes(whole: list[str], one: str, other: str) -> None:
    """By their names or by patterns."""
    printed = done("diff", *whole, "--scope", one, "--with", other)
    assert printed.startswith("1 call: 1 the same")


def test_diff_matches_actors_by_their_paths_below_two_scopes() -> None:
    """As if each scope were a run of its own."""
    one = play("a.jsonl", scope="town/0/")
    other = play("b.jsonl", scope="town/1/", word="generous")
    done("cassette", "merge", one, other, "-o", "town.jsonl")
    printed = done("diff", "town.jsonl", "--scope", "town/0", "--with", "town/1")
    assert printed == done("diff", play("c.jsonl"), play("d.jsonl", word="generous"))


def test_a_call_in_the_scope_of_the_whole_run_is_one_of_no_actor() -> None:
    """It is not outside any scope."""
    path = written("runs.jsonl", [chat([ASKED], name, f"{name}#0") for name in ("rep-1", "rep-2")])
    assert "outside any actor's scope, call 1" in done(
        "diff", path, "--scope", "rep-1", "--with", "rep-2"
    )


def test_show_shows_a_scope(whole: list[str]) -> None:
    """By a pattern; the actor of the other replicate is not shown."""
    assert headings(*whole, "--scope", "rep-1*") == ["rep-1/lisa"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["diff", "--scope", "nobody", "--with", "rep-1"],
        ["show", "--scope", "nobody"],
        ["show", "."],
        ["report", ".", "-o", "p.html"],
    ],
)
def test_a_scope_or_folder_without_records_is_told_in_a_sentence(arguments: list[str]) -> None:
    """The command fails, and writes nothing."""
    assert "nothing is recorded in" in done(*arguments, code=1)
    assert not Path("p.html").exists()


def headings(*arguments: str) -> list[str]:
    """Return the headings that show prints."""
    lines = done("show", *arguments).splitlines()
    return [line.removeprefix("=== ") for line in lines if line.startswith("=== ")]


def test_show_prints_the_calls_of_each_actor_together() -> None:
    """The actors are the headings."""
    assert headings(play("a.jsonl")) == ["bart", "emma", "lisa"]


def test_show_by_round_prints_the_calls_of_a_round_together() -> None:
    """The n-th calls of all actors stand below one another."""
    path = play("a.jsonl")
    assert headings(path, "--by", "round") == ["call 1", "call 2", "call 3"]
    printed = done("show", path, "--by", "round")
    assert printed.index("lisa says 0") < printed.index("bart says 1")


def test_a_wording_of_a_changed_prompt_always_shows_words() -> None:
    """Whatever differs in a prompt, its line shows it: blanks, empty messages, names and calls."""
    user = {"role": "user", "content": "Bread?"}
    tool = {"id": "1", "type": "function", "function": {"name": "buy", "arguments": "{}"}}
    empty: list[dict[str, Any]] = [
        {"role": "assistant", "content": ""},
        {"role": "assistant", "content": None},
        {"role": "assistant", "content": None, "tool_calls": [tool]},
        {"role": "assistant", "content": "  "},
        {"role": "assistant", "content": "\u200b"},
    ]
    prompts = [[user], *([each, user] for each in empty), [{**user, "role": "system"}]]
    for number, one in enumerate(prompts):
        for other in prompts[:number] + prompts[number + 1 :]:
            runs = [
                written(f"{name}.jsonl", [chat(messages, "Yes.", "lisa#0")])
                for name, messages in (("a", one), ("b", other))
            ]
            [parting] = llmcall.compare(*runs).parted
            assert re.search(r"\[-.*\S.*-\]|\{\+.*\S.*\+\}", parting.in_words()), (one, other)


def test_a_prompt_that_repeats_a_later_choice_of_an_answer_does_not_part() -> None:
    """The choice that differed is the cause."""

    def record(name: str, second: str) -> Path:
        lisa = chat("Two ideas?", "A market it is.", "lisa#0", n=2)
        message = {"role": "assistant", "content": second}
        lisa.response["choices"].append({"index": 1, "message": message, "finish_reason": "stop"})
        return written(name, [lisa, chat(f"Lisa proposes: {second}", "Fine.", "emma#0")])

    found = llmcall.compare(
        record("a.jsonl", "A walk along the river."), record("b.jsonl", "An evening at home.")
    )
    assert [(each.scope, each.why) for each in found.parted] == [("lisa", "draw")]


@pytest.mark.parametrize(
    ("message", "params", "why", "shown"),
    [
        (
            {"role": "user", "content": "Bread?", "name": "Ann"},
            {},
            "prompt",
            "the prompt changed: {+Ann+}",
        ),
        (
            {"role": "user", "content": [{"type": "text", "text": "Bread?"}]},
            {},
            "prompt",
            "the prompt changed: ",
        ),
        (
            {"role": "system", "content": "Be brief."},
            {},
            "prompt",
            "the prompt changed: {+Be brief.+}",
        ),
        (ASKED, {"model": "gpt-4o"}, "model", '"m" → "gpt-4o"'),
        (ASKED, {"top_p": 0.5}, "parameters", '"top_p=null" → "top_p=0.5"'),
    ],
)
def test_why_runs_part_is_told(
    message: dict[str, Any], params: dict[str, Any], why: str, shown: str
) -> None:
    """By another model or parameter, a field beside a message's text, or a message more."""
    messages = [message, ASKED] if message["role"] == "system" else [message]
    other = written("b.jsonl", [chat(messages, "Yes.", "lisa#0", **params)])
    found = llmcall.compare(written("a.jsonl", [chat("Bread?", "Yes.", "lisa#0")]), other)
    assert found.parted[0].why == why
    assert found.parted[0].in_words()
    assert shown in str(found)
