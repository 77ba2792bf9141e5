"""Which earlier answers a prompt quotes: ``llmcall show RUN --heard SCOPE CALL``."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from commands import done
from conversations import chat, written

from llmcall.types import Record

pytestmark = pytest.mark.newest_only

SAYS = "I will bring two loaves of bread and some cheese to the river."
ANSWER = json.dumps({"mood": "glad", "says": SAYS})
QUOTED = SAYS.rstrip(".")
STYLES: dict[str, Callable[[str], str]] = {
    "whole": lambda answer: f"Lisa said: {answer}",
    "stripped": lambda answer: f"News: '{json.loads(answer)['says'].strip('.')}'! And you?",
    "cut": lambda answer: f"Lisa: {json.loads(answer)['says'][:40]}... What now?",
    "dumped": lambda answer: json.dumps({"heard": [json.loads(answer)["says"]]}),
    "shouted": lambda answer: json.loads(answer)["says"].upper(),
}


def play(path: str, tell: Callable[[str], str], scope: str = "rep-1/{name}") -> str:
    """Write down three rounds: lisa speaks, and then bart, who is told what lisa said before."""
    records: list[Record] = []
    said = ""
    for number in range(1, 4):
        lisa, bart = (f"{scope.format(name=name, round=number)}#0" for name in ("lisa", "bart"))
        heard = tell(said) if said else "Nothing yet."
        records.append(chat(f"Day {number}. {heard}", f"Bart hums on day {number}.", bart))
        said = ANSWER if number == 2 else json.dumps({"mood": "sad", "says": f"No {number}."})
        records.append(chat(f"Day {number}. Speak.", said, lisa))
    return str(written(path, records))


@pytest.mark.parametrize("style", STYLES)
def test_a_quote_says_who_said_it_in_which_call(style: str) -> None:
    """It is found whole, stripped, cut, as a field, in JSON and in other letters."""
    path = play("a.jsonl", STYLES[style])
    head, line = done("show", path, "--heard", "rep-1/bart", "3").splitlines()
    assert head == "rep-1/bart, call 3"
    assert line.startswith('message 1 quotes rep-1/lisa, call 2: "')


def test_the_first_prompt_quotes_nothing() -> None:
    """The command says so."""
    path = play("a.jsonl", STYLES["whole"])
    assert "no message quotes an earlier answer" in done("show", path, "--heard", "rep-1/lisa", "1")


def test_a_prompt_may_quote_a_call_whose_actor_had_made_as_many() -> None:
    """Nobody knows which of the two came first."""
    path = written("b.jsonl", [chat(SAYS, "Hm.", "bart#0"), *lisa_says(SAYS, calls=2)[1:]])
    assert "quotes lisa" in done("show", str(path), "--heard", "bart", "1")


def test_a_prompt_does_not_quote_what_is_said_much_later() -> None:
    """The words were nobody's then."""
    answers = [chat(SAYS, "Hm.", "bart#0"), chat("And?", "Hm, hm.", "bart#0")]
    path = written("c.jsonl", [*answers, *lisa_says(SAYS, calls=3)])
    assert "no message quotes" in done("show", str(path), "--heard", "bart", "1")


def lisa_says(last: str, *, calls: int) -> list[Record]:
    """Return calls of lisa, of which only the last one gives the answer."""
    said = ["Hello."] * (calls - 1) + [last]
    return [chat(f"Day {day}?", each, "lisa#0") for day, each in enumerate(said)]


def test_a_short_answer_is_a_quote_only_behind_the_name_of_who_said_it() -> None:
    """Anybody says yes."""
    votes = [chat("Vote", "yes", "lisa#0"), chat("Vote", "no", "bart#0")]
    told = chat("Bart voted no, and Lisa voted: yes. Do you say yes?", "Hm.", "emma#0")
    before = chat("Hello", "Hello, all of you.", "emma#0")
    path = written("a.jsonl", [*votes, before, told])
    lines = done("show", str(path), "--heard", "emma", "2").splitlines()
    assert lines[1:] == [
        'message 1 quotes bart, call 1: "no"',
        'message 1 quotes lisa, call 1: "yes"',
    ]


@pytest.fixture
def with_a_history() -> str:
    """A run in which lisa's prompts repeat her answers, and quote what two others said alike."""
    messages = [{"role": "user", "content": "Day 1?"}]
    records = []
    for day in (2, 3, 4):
        answer = f"It is day {day - 1}, and I stay at home."
        records.append(chat(messages, answer, "lisa#0"))
        messages = [*messages, {"role": "assistant", "content": answer}]
        messages = [*messages, {"role": "user", "content": f"Day {day}? {SAYS}"}]
    same = [chat("Speak", SAYS, f"{name}#0") for name in ("bart", "emma")]
    return str(written("a.jsonl", [*records, *same]))


def test_the_own_answers_that_a_history_repeats_are_one_line(with_a_history: str) -> None:
    """They are the actor's own."""
    _, line, *_ = done("show", with_a_history, "--heard", "lisa", "3").splitlines()
    assert line == "messages 2, 4 repeat its own answers of calls 1 to 2"


def test_several_answers_with_the_same_words_are_counted(with_a_history: str) -> None:
    """Any of them may be meant."""
    *_, line, _ = done("show", with_a_history, "--heard", "lisa", "3").splitlines()
    assert line.startswith("message 3 quotes bart, call 1, or 1 other answer with the same")


def test_quotes_as_json_have_message_actor_call_and_others(with_a_history: str) -> None:
    """The lines say the same."""
    [*_, found] = json.loads(done("show", with_a_history, "--heard", "lisa", "3", "--json"))
    assert (found["message"], found["actor"], found["call"], found["others"]) == (5, "bart", 1, 1)


def test_a_call_is_known_by_its_actor_or_by_its_scope_path() -> None:
    """If rounds are a level of the scopes."""
    path = play("a.jsonl", STYLES["whole"], "rep-1/round-{round}/{name}")
    by_actor = done("show", path, "--heard", "rep-1/bart", "3")
    assert by_actor == done("show", path, "--heard", "rep-1/round-3/bart", "1")
    assert by_actor.startswith("rep-1/bart, call 3 (round-3)\nmessage 1 quotes rep-1/lisa, call 2")


def test_an_unknown_scope_is_an_error_that_says_which_there_are() -> None:
    """It is wrong usage."""
    path = play("a.jsonl", STYLES["whole"])
    unknown = done("show", path, "--heard", "lisa", "1", code=2)
    assert "has no scope 'lisa'; it has rep-1/bart, rep-1/lisa" in " ".join(unknown.split())


def test_an_unknown_call_is_an_error_that_says_how_many_there_are() -> None:
    """It is wrong usage."""
    path = play("a.jsonl", STYLES["whole"])
    missing = done("show", path, "--heard", "rep-1/lisa", "4", code=2)
    assert "it has 3 calls, numbered from 1" in " ".join(missing.split())


@pytest.mark.parametrize(("heard_in", "told"), [(1, False), (2, True), (3, True)])
def test_a_prompt_quotes_no_answer_of_a_later_round(heard_in: int, told: bool) -> None:
    """Whoever speaks first within a round, what is said in the second is not heard in the first."""
    says = {1: "Nothing.", 2: SAYS, 3: "Nothing more."}
    records = [
        record
        for number in says
        for record in (
            chat(f"Day {number}. Speak.", says[number], f"round-{number}/lisa#0"),
            chat(f"Day {number}. Lisa said: {SAYS}", "Hm.", f"round-{number}/bart#0"),
        )
    ]
    path = written("a.jsonl", records)
    shown = done("show", str(path), "--heard", f"round-{heard_in}/bart", "1")
    assert ("quotes lisa, call 2" in shown) is told
    assert ("no message quotes an earlier answer" in shown) is not told


def test_a_call_outside_the_rounds_may_quote_each_of_them() -> None:
    """A moderator who sums up what was said in five rounds stands in no round."""
    says = [f"In round {number} I will bring two loaves of bread." for number in range(1, 6)]
    records = [
        chat(f"Round {number}. Speak.", text, f"round-{number}/lisa#0")
        for number, text in enumerate(says, 1)
    ]
    records.append(chat("Sum up:\n" + "\n".join(says), "Bread.", "moderator#0"))
    path = written("a.jsonl", records)
    shown = done("show", str(path), "--heard", "moderator", "1")
    assert [f"lisa, call {number}:" in shown for number in range(1, 6)] == [True] * 5


def test_an_answer_of_a_history_is_the_actors_own_whoever_else_said_it() -> None:
    """Others answer a closed question in the same words."""
    records = []
    for name in ("lisa", "bart", "emma"):
        asked = {"role": "user", "content": "Bread?"}
        said = {"role": "assistant", "content": "No."}
        records.append(chat([asked], "No.", f"{name}#0"))
        records.append(chat([asked, said, {**asked, "content": "Salt?"}], "No.", f"{name}#0"))
    path = written("a.jsonl", records)
    _, *lines = done("show", str(path), "--heard", "lisa", "2").splitlines()
    assert lines == [
        "message 2 repeats its own answers of call 1",
        "no message quotes an earlier answer of another actor",
    ]


def test_a_prompt_quotes_no_later_answer_of_its_own_actor() -> None:
    """What an actor says in its second call is not quoted in its first."""
    path = written("a.jsonl", [chat(SAYS, "Hm.", "lisa#0"), chat("And?", SAYS, "lisa#0")])
    [_, line] = done("show", str(path), "--heard", "lisa", "1").splitlines()
    assert line == "no message quotes an earlier answer of another actor"
