"""Runs compared: where two recordings of one program part, and why."""

from __future__ import annotations

import hashlib
import json
import random
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from itertools import permutations
from pathlib import Path
from typing import Any

import openai
import pytest
from commands import done
from conversations import chat, conversation, written
from hypothesis import given, settings
from hypothesis import strategies as st
from sdk_programs import KEY, Server, http

import llmcall
from llmcall.testing import ScriptedClient

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


def test_equal_runs() -> None:
    """Two equal runs part nowhere, also where a first scope names each of them."""
    one, other = play("rep-1.jsonl", scope="rep-1/"), play("rep-2.jsonl", scope="rep-2/")
    for pair in ((one, one), (one, other), (play("bare.jsonl"), other)):
        found = llmcall.compare(*pair)
        assert counts(found) == (9, 0, 0, 0) and not found.parted
        assert {row.scope for row in found.rows} >= {"lisa"} or pair == (one, one)
    assert str(found).splitlines() == [
        "9 calls: 9 the same, 0 changed, 0 added, 0 missing",
        "The runs do not diverge.",
    ]


def test_a_changed_prompt_is_told_once() -> None:
    """The same changed word of several actors is one line; who only hears their other answers does
    not part.
    """

    def louder(name: str, number: int, heard: str) -> str:
        return agreed(name, number, heard) + "!"

    found = llmcall.compare(play("a.jsonl"), play("b.jsonl", louder, word="generous"))
    assert counts(found) == (0, 9, 0, 0)
    assert [each[:3] for each in found.parted] == [("emma", 0, "prompt"), ("lisa", 0, "prompt")]
    assert found.parted[0].before == "You are emma, a thrifty buyer."
    assert str(found).splitlines()[1:] == [
        "the same change in 2 scopes (emma, lisa): the prompt changed: [-thrifty-] {+generous+}"
    ]


def test_the_models_that_gave_different_answers() -> None:
    """If two models under one name gave different answers to the same request, both are named."""

    def run(path: str, served: str, answer: str) -> Path:
        record = chat("Bread?", answer, "lisa#0")
        record.response["model"] = served
        return written(path, [record])

    one = run("a.jsonl", "m-2026-01", "Yes.")
    found = llmcall.compare(one, run("b.jsonl", "m-2026-05", "No."))
    assert str(found).splitlines()[1] == (
        'lisa, call 1: the same request has different answers: "Yes." → "No." '
        "(answered by m-2026-01 and m-2026-05)"
    )
    assert found.parted[0].served == ("m-2026-01", "m-2026-05")
    same = llmcall.compare(one, run("b.jsonl", "m-2026-01", "No."))
    assert "answered by" not in str(same)


def test_only_the_first_cause_parts() -> None:
    """An actor parts where its answer to the same request differs, and not again where histories
    repeat it.
    """

    def other(name: str, number: int, heard: str) -> str:
        return "I changed my mind" if (name, number) == ("emma", 1) else agreed(name, number, heard)

    found = llmcall.compare(play("a.jsonl"), play("b.jsonl", other))
    assert [(each.scope, each.place, each.why) for each in found.parted] == [("emma", 1, "draw")]
    assert found.parted[0].after == "I changed my mind"
    changed = [(row.scope, row.place) for row in found.rows if row.status == "changed"]
    assert changed[:2] == [("bart", 1), ("emma", 1)]  # bart heard it


def test_a_change_after_another_draw() -> None:
    """What the program changed after an actor's runs parted by chance is told as well, once for all
    who share it.
    """

    def ask(name: str, answer: str, verb: str, top_p: float | None) -> Path:
        records = []
        for actor in ACTORS:
            turns = [(f"Do you {word} it?", f"{actor} {answer}") for word in ("take", verb, verb)]
            *begun, last = conversation(f"{actor}#0", turns)
            records += [
                *begun,
                chat(last.request["messages"], turns[-1][1], f"{actor}#0", top_p=top_p),
            ]
        return written(name, records)

    one = ask("a.jsonl", "does.", "buy", None)
    found = llmcall.compare(one, ask("b.jsonl", "does, and so on.", "sell", 0.5))
    assert {(each.place, each.why) for each in found.parted} == {(0, "draw")} and len(
        found.parted
    ) == 3
    assert {each[1:5] for each in found.later} == {
        (1, "prompt", "Do you buy it?", "Do you sell it?")
    }
    assert str(found).splitlines()[-1] == (
        "the same change in 3 scopes (bart, emma, lisa), after it had diverged: the prompt changed: [-buy-] {+sell+}"
    )
    assert json.loads(json.dumps(found.to_dict()))["later"][0]["why"] == "prompt"
    [*_, last] = llmcall.compare(one, ask("b.jsonl", "does, and so on.", "buy", 0.5)).later
    assert (last.place, last.why, last.after) == (2, "parameters", "top_p=0.5")
    assert not llmcall.compare(one, ask("b.jsonl", "does, and so on.", "buy", None)).later


def test_added_and_missing_calls() -> None:
    """A round more, and an actor less, are added and missing calls."""
    one = play("a.jsonl", hears=False)
    found = llmcall.compare(one, play("b.jsonl", actors=("lisa", "emma"), rounds=4, hears=False))
    assert counts(found) == (6, 0, 2, 3)
    assert {(each.scope, each.place, each.why) for each in found.parted} == {
        ("lisa", 3, "added"),
        ("emma", 3, "added"),
        ("bart", 0, "missing"),
    }
    assert str(found).splitlines()[1:] == [
        'bart, call 1: the other run ends, or does not make this call: "Round 0. You heard: nothing"',
        "the same change in 2 scopes (emma, lisa): the other run has an additional call",
    ]


def test_renamed_actors() -> None:
    """An actor under another name is matched by its first prompt, or by what the caller says."""

    def record(path: str, scope: str, question: str = "Bread?") -> Path:
        return written(path, [chat(question, "Yes", f"day/{scope}#0")])

    one, other = record("a.jsonl", "lisa"), record("b.jsonl", "elisabeth")
    found = llmcall.compare(one, other)
    assert counts(found) == (1, 0, 0, 0) and set(found.renamed) and "elisabeth" in str(found)
    changed = record("b.jsonl", "elisabeth", "Cheese?")
    assert llmcall.compare(one, changed).changed == 0
    assert "no actor in common" in str(llmcall.compare(one, changed))
    assert llmcall.compare(one, changed, align={"day/elisabeth": "day/lisa"}).changed == 1


def test_an_actor_whose_naming_system_message_was_edited() -> None:
    """Actors that are named by their system messages are paired by the likeness of their prompts,
    and told as edited; without that option of the run, they are two actors.
    """

    def village(path: str, lisa: str, run: dict[str, Any] | None) -> Path:
        records = []
        for name, told in (
            ("lisa", f"a {lisa} buyer who has two children"),
            ("bart", "a calm baker"),
        ):
            system = f"You are {name}, {told}. You live in a small village."
            digest = hashlib.sha256(system.encode()).hexdigest()[:8]
            scope = f"{system[:20]}-{digest}"
            turns = [("Bread?", f"{name}: yes."), ("Milk?", f"{name}: no.")]
            records += conversation(f"{scope}#0", turns, system)
        return written(path, records, run=run)

    option = {"actor": "system"}
    one, other = village("a.jsonl", "thrifty", option), village("b.jsonl", "generous", option)
    found = llmcall.compare(one, other)
    assert counts(found) == (2, 2, 0, 0)
    assert [(each.place, each.why) for each in found.parted] == [(0, "prompt")]
    assert "its system message, which names it, was edited" in str(found)
    assert str(found).endswith("call 1: the prompt changed: [-thrifty-] {+generous+}")
    apart = llmcall.compare(
        village("a.jsonl", "thrifty", None), village("b.jsonl", "generous", None)
    )
    assert counts(apart) == (2, 0, 2, 2)


def test_an_edited_actor_of_patched() -> None:
    """``patched`` writes no options into the header: its actors' names tell that their system
    messages name them.
    """

    def village(path: str, lisa: str) -> Path:
        client = openai.OpenAI(api_key=KEY, http_client=http.Client(transport=Server().transport))
        with llmcall.cassette(path), llmcall.patched(actor="system", cache_mode="off"):
            for who in (f"Lisa, a {lisa} buyer", "Bart, a calm baker"):
                system = {"role": "system", "content": f"You are {who}. You live in a village."}
                client.chat.completions.create(model="gpt-4o-mini", messages=[system, ASKED])
        return Path(path)

    found = llmcall.compare(village("a.jsonl", "thrifty"), village("b.jsonl", "generous"))
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


def test_edited_system_messages_of_many_actors() -> None:
    """If all of them were edited alike, each actor is paired with itself, also where the edit has
    the words of some actors.
    """
    work = ["a farmer", "a driver", "a teacher"]
    before = [
        f"You are Nr. {number}, {work[number % 3]}, {20 + number} years old. You live in a village."
        for number in range(60)
    ]
    after = [each.replace("a village", "a town near the house of a farmer") for each in before]
    found = llmcall.compare(personas("a.jsonl", before), personas("b.jsonl", after))
    assert paired_systems(found) == set(zip(before, after, strict=True))


def test_edited_system_messages_with_the_same_words() -> None:
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


def test_the_spread_of_several_runs() -> None:
    """Each question of the first run has the answers and their counts, whatever the runs are
    called.

    JSON is counted by its value.
    """
    answers = ['{"buy": true, "n": 1}', '{"n": 1, "buy": true}', '{"buy": false}']
    runs = [
        play(
            f"{n}.jsonl",
            lambda *_, n=n: answers[n],
            scope=f"rep-{max(n, 1)}/",
            rounds=1,
            hears=False,
        )  # type: ignore[misc]
        for n in range(3)
    ]
    spread = llmcall.compare(*runs).spread
    assert [(each.place, each.answers) for each in spread] == 3 * [
        (0, {answers[0]: 2, answers[2]: 1})
    ]


def test_what_a_run_may_be(tmp_path: Path) -> None:
    """A cassette, an export, a cache, its directory, and a scope of it are runs."""
    client = replicated()
    cache = client.cache
    cache.export("all.jsonl")
    cache.export(tmp_path / "all.jsonl")
    assert counts(llmcall.compare((cache, "rep-1"), (cache, "rep-2"))) == (1, 0, 0, 0)
    assert counts(llmcall.compare(cache, tmp_path / "all.jsonl")) == (2, 0, 0, 0)
    with llmcall.cassette("tape.jsonl") as tape, llmcall.scope("rep-1"), llmcall.scope("lisa"):
        client.send_message("Bread?", temperature=1, on_error="raise")
        assert counts(llmcall.compare(tape, (cache.path, "rep-1"))) == (1, 0, 0, 0)
        assert counts(llmcall.compare((tape, "rep-1/lisa"), ("all.jsonl", "rep-2"))) == (1, 0, 0, 0)
    assert counts(llmcall.compare(("all.jsonl", "rep-1"), ("all.jsonl", "rep-2/l*"))) == (
        1,
        0,
        0,
        0,
    )
    assert counts(llmcall.compare((tmp_path / "all.jsonl", "rep-*"), cache)) == (2, 0, 0, 0)
    for whole in (cache, "tape.jsonl"):
        with pytest.raises(llmcall.CacheError, match="nothing is recorded in the scope 'rep-9' of"):
            llmcall.compare(cache, (whole, "rep-9"))
    with pytest.raises(TypeError, match="at least two runs"):
        llmcall.compare(cache)
    with pytest.raises(TypeError, match="is not a run"):
        llmcall.compare(cache, 3)


def test_what_a_comparison_shows() -> None:
    """A comparison is a data frame, JSON, and HTML in which hostile text is inert."""
    found = llmcall.compare(
        play("a.jsonl"), play("b.jsonl", lambda *_: "<script>alert(1)</script>")
    )
    frame = found.to_frame()
    assert list(frame.columns)[:4] == ["scope", "place", "status", "prompt"] and len(frame) == 9
    assert json.loads(json.dumps(found.to_dict()))["changed"] == found.changed
    assert "<script>" not in found._repr_html_() and "&lt;script&gt;" in found._repr_html_()
    assert repr(found) == "Comparison(same=0, changed=9, added=0, missing=0, parted=1)"


calls = st.tuples(st.sampled_from("ab"), st.sampled_from("xyzw"))
questions = st.dictionaries(calls, st.sampled_from("12"), min_size=1)


@settings(max_examples=40)
@given(questions, questions)
def test_every_call_has_one_row(
    one: dict[tuple[str, str], str], other: dict[tuple[str, str], str]
) -> None:
    """Each call of both runs stands in exactly one row, and nothing is the same that differs."""
    for path, made in (("one.jsonl", one), ("other.jsonl", other)):
        written(
            path,
            [
                chat(question, made[actor, question], f"{actor}#0")
                for actor, question in sorted(made)
            ],
        )
    found = llmcall.compare("one.jsonl", "other.jsonl")
    assert found.same + found.changed + found.missing == len(one)
    assert found.same + found.changed + found.added == len(other)
    # If the actors differ, one name may be the whole run's.
    if {actor for actor, _ in one} == {actor for actor, _ in other}:
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


def test_where_a_cause_cannot_be_told_from_a_consequence() -> None:
    """A changed number that another's answer changed to as well is told, and marked as doubtful."""

    def run(path: str, asked: str, answer: str) -> Path:
        question = chat("How much?", answer, "emma#0")
        return written(path, [question, chat(f"Do you pay {asked} coins?", "Yes.", "lisa#0")])

    found = llmcall.compare(run("a.jsonl", "3", "3"), run("b.jsonl", "5", "5"))
    assert str(found).splitlines()[1:] == [
        'emma, call 1: the same request has different answers: "3" → "5"',
        "lisa, call 1: the prompt changed: [-3-] {+5+} (perhaps a consequence: emma said so in call 1)",
    ]
    assert found.to_dict()["parted"][1]["doubt"].startswith("perhaps a consequence")


def test_short_answers_that_the_program_repeats_in_each_round() -> None:
    """A short answer that the prompts of other rounds repeat in the same place explains a change."""

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
    """Where only blanks or marks of a prompt changed, the words beside them are shown."""
    other = written("b.jsonl", [chat(asked, "Yes.", "lisa#0")])
    found = llmcall.compare(written("a.jsonl", [chat("Bread?", "Yes.", "lisa#0")]), other)
    assert found.parted[0].in_words() == shown


# The command line


def test_diff() -> None:
    """diff prints the comparison, or JSON; the exit code tells of differences only where it is
    asked to.
    """
    one, other = play("a.jsonl"), play("b.jsonl", word="generous")
    done("diff", one, one, "--exit-code")
    assert "[-thrifty-] {+generous+}" in done("diff", one, other)
    done("diff", one, other, "--exit-code", code=1)
    assert json.loads(done("diff", one, other, "--json"))["parted"][0]["why"] == "prompt"
    for arguments in ((one,), (one, "none.jsonl")):
        done("diff", *arguments, code=2)


def test_diff_of_scopes() -> None:
    """Two scopes of the configured cache, of a file or of a directory are compared by their names
    or patterns.
    """
    client = replicated()
    client.cache.export("all.jsonl")
    for whole in ([], ["all.jsonl"], [client.cache.path]):
        for one, other in (("rep-1", "rep-2"), ("rep-1/l*", "*-2")):
            assert done("diff", *whole, "--scope", one, "--with", other).startswith(
                "1 call: 1 the same"
            )
        assert done("show", *whole, "--scope", "rep-1*").count("=== rep-1/lisa") == 1


def test_nothing_to_show(tmp_path: Path) -> None:
    """A scope or a folder that holds no record is told in a sentence."""
    diff = ["diff", "--scope", "nobody", "--with", "rep-1"]
    for arguments in (
        diff,
        ["show", "--scope", "nobody"],
        ["show", tmp_path],
        ["report", tmp_path, "-o", "p.html"],
    ):
        assert "nothing is recorded in" in done(*arguments, code=1) and not Path("p.html").exists()


def headings(*arguments: str) -> list[str]:
    """Return the headings that show prints."""
    lines = done("show", *arguments).splitlines()
    return [line.removeprefix("=== ") for line in lines if line.startswith("=== ")]


def test_show_by_round() -> None:
    """show prints each actor's calls together, or the n-th call of each beside the others'."""
    path = play("a.jsonl")
    assert headings(path) == ["bart", "emma", "lisa"]
    assert headings(path, "--by", "round") == ["call 1", "call 2", "call 3"]
    by_round = done("show", path, "--by", "round")
    assert by_round.index("lisa says 0") < by_round.index("bart says 1")


# Rounds as a level of the scope


def market(
    path: str, nesting: str, *, rounds: int = 12, late: str = "", word: str = "thrifty"
) -> str:
    """Write down some days of a market; of one actor, an answer of the third day may differ.

    :param nesting: the scope of a call.
    """
    records = []
    for day in range(1, rounds + 1):
        for name in ACTORS:
            persona = {"role": "system", "content": f"You are {name}, a {word} buyer."}
            asked = {"role": "user", "content": f"Day {day}. Do you buy bread?"}
            said = f"{name} says {day}"
            answer = late if late and (name, day) == ("emma", 3) else said
            scope = nesting.format(day=day, name=name)
            records.append(chat([persona, asked], answer, f"{scope}#0"))
    return str(written(path, records))


@pytest.mark.parametrize(
    ("nesting", "level", "name"),
    [
        ("rep-1/day-{day}/{name}", None, "rep-1/emma"),
        ("rep-1/{name}/Day {day}", None, "rep-1/emma"),
        ("day_{day}/{name}", None, "emma"),
        ("rep-1/{day}/{name}", 2, "rep-1/emma"),
        ("rep-1/trial{day}/{name}", "trial", "rep-1/emma"),
    ],
)
def test_rounds_as_a_level_of_the_scope(nesting: str, level: str | int | None, name: str) -> None:
    """An actor's calls in all rounds are its run, in the order of the rounds, and compared as one."""
    one, other = market("a.jsonl", nesting), market("b.jsonl", nesting, late="I went home.")
    found = llmcall.compare(one, other, round=level)
    [parting] = found.parted
    days = [row.round for row in found.rows if row.scope == name]
    assert (parting.scope, parting.place, parting.round) == (name, 2, days[2])
    assert [re.sub(r"\D", "", day) for day in days] == [str(day) for day in range(1, 13)]
    assert f"{name}, call 3 ({days[2]}): the same request has different answers" in str(found)
    options = [] if level is None else ["--round", str(level)]
    assert headings(one, "--by", "round", *options) == days
    assert done("diff", one, other, *options).strip() == str(found)


def test_a_scope_that_is_no_round() -> None:
    """Numbered repeats and agents are no rounds, nor are days in which nobody comes back."""
    for nesting in ("rep-{day}/{name}", "{name}/agent-{day}"):
        path = market("a.jsonl", nesting)
        assert not any(row.round for row in llmcall.compare(path, path).rows)
    days = written("a.jsonl", [chat("Hi", "Yes.", f"day-{n}/guest-{n}#0") for n in range(3)])
    assert headings(str(days), "--by", "round") == ["call 1"]


def test_runs_of_which_only_one_has_rounds_in_its_scopes() -> None:
    """A run whose rounds are a level is compared with one whose rounds are an actor's calls."""
    found = llmcall.compare(
        market("a.jsonl", "rep-1/round-{day}/{name}"), market("b.jsonl", "rep-1/{name}")
    )
    assert counts(found) == (36, 0, 0, 0)
    assert [each.name for each in found.rounds] == [f"round-{day}" for day in range(1, 13)]


def test_an_unknown_level_is_an_error() -> None:
    """A level that no run has is an error that lists the known ones."""
    path = market("a.jsonl", "rep-1/round-{day}/{name}")
    known = (
        "the scopes have no level 'week'; known levels: 1 or 'rep' (rep-1); "
        "2 or 'round' (round-1, round-2, round-3 and 9 more); 3 (bart, emma, lisa)"
    )
    with pytest.raises(ValueError, match=re.escape(known)):
        llmcall.compare(path, path, round="week")
    for command in (["show", path], ["diff", path, path], ["report", path, "-o", "x.html"]):
        assert "known levels: 1 or 'rep'" in " ".join(
            done(*command, "--round", "week", code=2).split()
        )


# How a change spreads


def test_how_a_change_spreads() -> None:
    """The share of changed calls is told for each round, in the text, the data frame and JSON."""
    one, other = play("a.jsonl", rounds=4), play("b.jsonl", rounds=4, say=changed_by_emma)
    found = llmcall.compare(one, other)
    assert [(each.name, each.calls, each.changed) for each in found.rounds] == [
        ("call 1", 3, 0),
        ("call 2", 3, 2),
        ("call 3", 3, 1),
        ("call 4", 3, 0),
    ]
    assert str(found).splitlines()[1] == (
        "changed calls: none in call 1, 67% in call 2, 33% in call 3, none in call 4"
    )
    frame = found.to_frame()
    assert set(frame[frame.place == 1].changed_in_round) == {2 / 3}
    assert json.loads(json.dumps(found.to_dict()))["rounds"][1]["changed"] == 2


def changed_by_emma(name: str, number: int, heard: str) -> str:
    """Answer otherwise as emma, once; who hears it says so."""
    if (name, number) == ("emma", 1):
        return "I changed my mind, and the others should hear of it"
    return agreed(name, number, heard)


def test_the_spread_of_a_change_by_round() -> None:
    """Rounds that are a level of the scope are named; many are told in stretches."""
    nesting = "rep-1/round-{day}/{name}"
    one = market("a.jsonl", nesting, rounds=40)
    found = llmcall.compare(one, market("b.jsonl", nesting, rounds=40, late="I went home."))
    assert "changed calls: none in round-1 to round-2, 33% in round-3, none in round-4" in str(
        found
    )


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


def test_one_of_several_choices_heard_by_another() -> None:
    """A prompt that repeats the second choice of an earlier answer does not part, where that choice
    differed.
    """

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
def test_why_runs_part(
    message: dict[str, Any], params: dict[str, Any], why: str, shown: str
) -> None:
    """A changed model, changed parameters, what differs beside a message's text, and a message more
    are told.
    """
    messages = [message, ASKED] if message["role"] == "system" else [message]
    other = written("b.jsonl", [chat(messages, "Yes.", "lisa#0", **params)])
    found = llmcall.compare(written("a.jsonl", [chat("Bread?", "Yes.", "lisa#0")]), other)
    assert shown in str(found) and found.parted[0].why == why and found.parted[0].in_words()
