"""``llmcall.drift``: a recorded study asked again, a little, to see whether its model has changed."""

from __future__ import annotations

import json
import math
import random
import re
import statistics
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from clients import client_for
from commands import done, run
from pytest_httpserver import HTTPServer
from scipy import stats
from servers import Answer, ScriptedServer, completion, refusal, refusing

import llmcall
from llmcall.errors import CacheMissError, ConfigError, EmptyAnswerError, InvalidRequestError
from llmcall.testing import ScriptedClient

STUDY, CHECK = "study.jsonl", "check.jsonl"
NOISE = {1: 0.1, 2: 0.2, 3: 0.4, 4: 0.2, 5: 0.1}  # of an answer on five points


class Model:
    """A model whose answers are drawn at random, around a persona's own opinion.

    The n-th answer to the same messages is always the same one, whichever thread asks first.

    :ivar shift: what is added to an answer, on average.
    :ivar answer: returns the answer to messages, with a source of chance.
    :ivar client: the registered client of the process.
    """

    def __init__(self, seed: int = 0, **settings: Any) -> None:
        self.seed = seed
        self.shift = 0.0
        self.answer: Callable[[list[Any], random.Random], Any] = self.rating
        self._lock = threading.Lock()
        self._times: Counter[str] = Counter()
        self.client = ScriptedClient(self._drawn, model="gpt-6-luna", **settings)
        llmcall.register_client("scripted", self.client)
        llmcall.force_api_type("scripted")

    def _drawn(self, messages: list[Any]) -> Any:
        asked = json.dumps(messages)
        with self._lock:
            self._times[asked] += 1
            chance = random.Random(f"{self.seed} {self._times[asked]} {asked}")
        return self.answer(messages, chance)

    def number(self, chance: random.Random) -> int:
        """Return a number on five points, shifted."""
        [drawn] = chance.choices(list(NOISE), list(NOISE.values()))
        return drawn + (chance.random() < self.shift)

    def rating(self, messages: list[Any], chance: random.Random) -> str:
        """Return a rating, higher by the opinion of the persona that is asked."""
        return str(self.number(chance) + len(messages[0]["content"]) % 3)

    @property
    def asked(self) -> int:
        """Return how many requests it got."""
        return len(self.client.requests)


@pytest.fixture
def model() -> Iterator[Model]:
    """Return the model that this process asks."""
    yield Model()
    llmcall.reset()


def record(
    model: Model,
    /,
    actors: int = 10,
    draws: int = 10,
    *,
    path: str = STUDY,
    scope: str = "survey",
    **params: Any,
) -> str:
    """Record a survey: each actor is asked one question several times."""

    def ask(number: int) -> Any:
        asked = f"You are person {number}{'!' * (number % 3)} How good is bread?"
        return model.client.send_message(asked, **{"temperature": 1, **params})

    with llmcall.cassette(path):
        llmcall.map(ask, range(actors), key=str, scope=scope, repeats=draws, workers=1)
    return path


def samples(path: str = CHECK) -> list[str]:
    """Return the samples on a cassette, sorted."""
    return sorted(str(record.sample) for record in llmcall.types.Cassette(path).all_records())


def body_of(request: Any) -> dict[str, Any]:
    """Return what a request sends."""
    return dict(request.body)


# The sample


def test_the_requests_are_sent_as_they_were_recorded(model: Model) -> None:
    """Messages, model and parameters are the recorded ones, whatever is configured now."""
    record(model, 3, 1, max_tokens=5, stop="x")
    recorded = sorted(
        json.dumps(body_of(request), sort_keys=True) for request in model.client.requests
    )
    with llmcall.configured(temperature=0, top_p=0.5, max_tokens=100, model="gpt-6.1-terra"):
        llmcall.drift(STUDY, share=1, to=CHECK)
    again = [body_of(request) | {"stop": "x"} for request in model.client.requests[3:]]
    assert sorted(json.dumps(body, sort_keys=True) for body in again) == recorded


def test_the_results_of_tools_are_sent_with_the_ids_of_their_calls(model: Model) -> None:
    """Of nine letters and digits, which every API takes."""
    call = {"type": "function", "function": {"name": "price_of", "arguments": "{}"}}
    messages = [
        {"role": "user", "content": "Bread?"},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": f"c{n}", **call} for n in "12"],
        },
        *({"role": "tool", "tool_call_id": f"c{n}", "content": n} for n in "21"),
    ]
    with llmcall.cassette(STUDY), llmcall.scope("lisa"):
        model.client.send_message(messages, temperature=1)
    llmcall.drift(STUDY, calls=1, to=CHECK)
    _, calling, second, first = body_of(model.client.requests[-1])["messages"]
    ids = [made["id"] for made in calling["tool_calls"]]
    assert [first["tool_call_id"], second["tool_call_id"]] == ids
    assert all(len(made) == 9 and made.isalnum() for made in ids)


def test_a_larger_sample_of_drift_contains_the_smaller_one(model: Model) -> None:
    """So a check can be enlarged."""
    record(model, 40, 1)
    llmcall.drift(STUDY, calls=5, to="a")
    llmcall.drift(STUDY, calls=9, to="b")
    assert set(samples("a")) < set(samples("b"))


def test_the_actors_are_asked_evenly(model: Model) -> None:
    """An actor with many requests has no more calls than others, as long as they have some."""
    with llmcall.cassette(STUDY):
        for actor, questions in (("ann", 50), ("ben", 5), ("cleo", 5)):
            with llmcall.scope(actor):
                for number in range(questions):
                    model.client.send_message(f"{actor} {number}", temperature=1)
    drift = llmcall.drift(STUDY, calls=9, to=CHECK)
    assert Counter(drift.to_frame()["actor"]) == {"ann": 3, "ben": 3, "cleo": 3}


def test_a_share_beside_a_number_of_calls_is_refused() -> None:
    """One of them would be ignored in silence."""
    with pytest.raises(ValueError, match="both say how many calls: give one"):
        llmcall.drift("study.jsonl", share=0.5, calls=3, dry_run=True)


def test_the_share_of_drift_counts_different_requests(model: Model) -> None:
    """Repeats of a request count once."""
    record(model, 20, 5)
    assert llmcall.drift(STUDY, share=0.25, to=CHECK).calls == 5


def test_the_draws_are_named_by_their_actor(model: Model) -> None:
    """The scope path without repeats, and a number that counts the check's equal requests."""
    record(model, 2, 3)
    llmcall.drift(STUDY, calls=5, to=CHECK)
    assert set(samples()) == {
        "~drift/survey/0#0",
        "~drift/survey/0#1",
        "~drift/survey/1#0",
        "~drift/survey/1#1",
        *({"~drift/survey/0#2", "~drift/survey/1#2"} & set(samples())),
    }
    assert len(samples()) == 5


def test_the_disk_cache_neither_supplies_nor_keeps_the_answers(tmp_path: Path) -> None:
    """A second file is answered anew, and the cache stays as it is."""
    model = Model(cache_mode="auto", cache_path=str(tmp_path / "cache"))
    record(model, 4, 1)
    before = len(model.client.cache)
    for to in ("a", "b"):
        llmcall.drift(STUDY, share=1, to=to)
    assert model.asked == 4 + 4 + 4
    assert len(model.client.cache) == before


def test_the_recording_stays_as_it_is(model: Model) -> None:
    """Not a byte of it changes, and it cannot be the file of the check."""
    record(model, 3, 2)
    before = Path(STUDY).read_bytes()
    llmcall.drift(STUDY, share=1, to=CHECK)
    assert Path(STUDY).read_bytes() == before
    for named in (STUDY, (STUDY, "survey"), llmcall.types.Cassette(STUDY)):
        with pytest.raises(ValueError, match="the recording itself"):
            llmcall.drift(named, share=1, to=STUDY)


@pytest.mark.parametrize("run", [(), (3, "survey"), 3])
def test_drift_of_something_that_is_no_run_says_what_a_run_is(run: object) -> None:
    with pytest.raises(TypeError, match="is not a run; give a path, a Cassette or a cache"):
        llmcall.drift(run, share=1, to=CHECK)


def test_drift_leaves_out_and_counts_requests_that_cannot_be_sent_as_recorded(model: Model) -> None:
    """Requests with normalized text, and those with an image that only its digest is known of."""
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}
    with llmcall.configured(cache_normalize=("times",)), llmcall.cassette(STUDY):
        for text in ("Rate bread.", "It is 10:15. Rate bread.", "It is 11:45. Rate cake."):
            model.client.send_message(text, temperature=1)
        model.client.send_message([{"role": "user", "content": [image]}], temperature=1)
    plan = llmcall.drift(STUDY, share=1, dry_run=True)
    assert plan.calls == 1
    for words in (
        str(plan),
        str(llmcall.drift(STUDY, share=1, to=CHECK)),
    ):
        assert "2 requests with normalized text" in words
        assert "1 request with an image" in words


def test_a_scope_of_a_recording_can_be_checked(model: Model) -> None:
    record(model, 12, 1)
    drift = llmcall.drift((STUDY, "survey/1*"), share=1, to=CHECK)
    assert set(drift.to_frame()["actor"]) == {"survey/1", "survey/10", "survey/11"}


# The estimate


def record_games(model: Model, games: int = 6, actors: str = "abc") -> str:
    """Record games of two turns: an actor agrees to play, in words, and then decides, by a number."""

    def answer(messages: list[Any], chance: random.Random) -> str:
        return "Let's play." if len(messages) == 1 else str(model.number(chance))

    model.answer = answer
    with llmcall.cassette(STUDY):
        for game in range(games):
            for name in actors:
                with llmcall.scope(f"game-{game}"), llmcall.scope(name):
                    rules = [{"role": "user", "content": f"The rules of game {game}."}]
                    agreed = model.client.send_message(rules, temperature=1)
                    decide = [*rules, agreed, {"role": "user", "content": "Give?"}]
                    model.client.send_message(decide, temperature=1)
    return STUDY


def test_where_selects_the_requests_that_drift_samples(model: Model) -> None:
    """Result and plan say so; the others decide nothing: words beside the numbers are no unreadable
    answers.
    """
    record_games(model)

    def decides(record: llmcall.types.Record) -> bool:
        return len(record.request["messages"]) > 1

    plan = llmcall.drift(STUDY, share=1, where=decides, dry_run=True)
    drift = llmcall.drift(STUDY, share=1, where=decides, to=CHECK)
    assert plan.calls == drift.calls == 18
    assert drift.unreadable.before == drift.unreadable.now == 0
    note = "The sample is drawn from the requests that where= (--last) selects."
    assert note in str(plan).splitlines() and note in str(drift).splitlines()
    assert all(len(body_of(request)["messages"]) == 3 for request in model.client.requests[-18:])


def test_where_selects_requests_and_not_the_answers_beside_them(model: Model) -> None:
    """A new answer is compared with all recorded answers to the same request."""
    record(model, 3, 4)
    drift = llmcall.drift(
        STUDY, share=1, where=lambda record: record.sample == "survey/1#0", to=CHECK
    )
    [numbers] = drift.to_frame()["recorded"]
    assert (drift.calls, len(numbers)) == (1, 4)


def test_a_where_that_selects_no_request_is_an_error(model: Model) -> None:
    record(model, 3, 1)
    with pytest.raises(llmcall.CacheError, match=r"can be resent: where= selects none"):
        llmcall.drift(STUDY, where=lambda record: False, to=CHECK)


def test_last_asks_the_last_request_of_each_conversation(model: Model) -> None:
    """One that no other request of its scope goes on from; of arms, that of each arm."""
    record_games(model, 2)
    written = done("drift", STUDY, "--share", 1, "--last", "-o", CHECK)
    assert "6 calls, sampled from 6 different recorded requests" in written
    with llmcall.cassette("arms.jsonl"), llmcall.scope("r"):
        asked = [{"role": "user", "content": "Rules."}]
        for name in ("control", "treated"):
            with llmcall.arm(name):
                agreed = model.client.send_message(asked, temperature=1)
                decide = [*asked, agreed, {"role": "user", "content": f"Give {name}?"}]
                model.client.send_message(decide, temperature=1)
    assert "2 calls," in done("drift", "arms.jsonl", "--share", 1, "--last", "--dry-run")


def test_last_asks_a_cell_that_was_not_asked_again(model: Model) -> None:
    """Of a table's cells in one scope, the first is asked again; its question alone is not the last."""
    said = iter(["Three.", "3", "4"])
    model.answer = lambda messages, chance: next(said)
    rate = llmcall.LLMCall(user="Rate.", output_type=int, client=model.client)
    with llmcall.cassette(STUDY):
        rate.table([{}], vary={"temperature": [0, 1]}, scope="survey", workers=1)
    said = iter("34")
    done("drift", STUDY, "--share", 1, "--last", "--to", CHECK)
    asked = [body_of(request) for request in model.client.requests[3:]]
    assert sorted((body["temperature"], len(body["messages"])) for body in asked) == [
        (0, 3),
        (1, 1),
    ]


def test_the_estimate_is_that_of_the_table(model: Model) -> None:
    """Each new answer less the mean of the recorded draws, averaged within requests, then over them."""
    with llmcall.cassette(STUDY):
        for agent in range(5):
            messages = [{"role": "system", "content": f"You are agent {agent}."}]
            with llmcall.scope("town"), llmcall.scope(agent):
                for day in range(3):
                    messages.append({"role": "user", "content": f"Day {day}: your mood?"})
                    messages.append(model.client.send_message(messages, temperature=1))
    model.shift = 0.5
    drift = llmcall.drift(STUDY, calls=11, to=CHECK)
    frame = drift.to_frame()
    difference = frame["value"] - frame["recorded"].map(statistics.mean)
    expected = difference.groupby(frame["request"]).mean().mean()
    assert drift.shifts["answer"].estimate == pytest.approx(expected)
    assert drift.shifts["answer"].now - drift.shifts["answer"].before == pytest.approx(expected)


def test_all_recorded_draws_of_a_request_count(model: Model) -> None:
    """Those of other actors and of repeats as well."""
    answers = iter(["1", "2", "3", "6", "5"])
    model.answer = lambda messages, chance: next(answers)
    with llmcall.cassette(STUDY):
        for actor, times in (("ann", 2), ("ben", 1)):
            with llmcall.scope(actor):
                for _ in range(times):
                    model.client.send_message("Rate bread.", temperature=1)
    model.answer = lambda messages, chance: "5"
    drift = llmcall.drift(STUDY, share=1, to=CHECK)
    assert drift.shifts["answer"].before == pytest.approx(2)
    assert list(drift.to_frame()["recorded"]) == [[1, 2, 3], [1, 2, 3]]


def test_the_larger_of_the_spreads_within_and_between_requests_counts(model: Model) -> None:
    """Half of the actors have risen by two and half have fallen, which no spread of their answers shows."""
    record(model, 20, 10)

    def moved(messages: list[Any], chance: random.Random) -> str:
        number = int(messages[0]["content"].split()[3].rstrip("!"))
        return str(int(model.rating(messages, chance)) + (2 if number % 2 else -2))

    model.answer = moved
    drift = llmcall.drift(STUDY, calls=200, to=CHECK)
    frame = drift.to_frame()
    difference = frame["value"] - frame["recorded"].map(statistics.mean)
    shifts = difference.groupby(frame["request"]).mean()
    found = drift.shifts["answer"]
    half = 1.97 * statistics.stdev(shifts) / math.sqrt(20)
    assert (found.high - found.low) / 2 == pytest.approx(half, rel=0.01)


def test_each_request_has_its_own_spread(model: Model) -> None:
    """By Satterthwaite's formula, over the recorded and the new answers of two requests; both are asked
    again, so the spread between them counts only if it is larger, and here it is not.
    """
    answers = {"quiet": [3.0, 3.2, 3.1, 2.9, 3.0, 3.2], "loud": [1.0, 9.0, 4.0, 8.0, 2.0, 5.0]}
    said = {name: iter(numbers) for name, numbers in answers.items()}
    model.answer = lambda messages, chance: str(next(said[messages[0]["content"]]))
    with llmcall.cassette(STUDY):
        for name in answers:
            with llmcall.scope(name):
                for _ in range(3):
                    model.client.send_message(name, temperature=1)
    drift = llmcall.drift(STUDY, calls=6, to=CHECK)
    sides = [numbers[part] for numbers in answers.values() for part in (slice(3), slice(3, 6))]
    parts = [statistics.variance(side) / 3 / 4 for side in sides]
    freedom = sum(parts) ** 2 / sum(part**2 / 2 for part in parts)
    half = stats.t.ppf(0.975, freedom) * math.sqrt(sum(parts))
    found = drift.shifts["answer"]
    assert (found.high - found.low) / 2 == pytest.approx(half)


def test_single_draws_are_read_between_requests(model: Model) -> None:
    """Student's interval of the differences; by hand from the table."""
    record(model, 20, 5)
    drift = llmcall.drift(STUDY, share=1, to=CHECK)
    frame = drift.to_frame()
    differences = list(frame["value"] - frame["recorded"].map(statistics.mean))
    half = 2.093024 * statistics.stdev(differences) / math.sqrt(20)
    found = drift.shifts["answer"]
    assert found.low == pytest.approx(statistics.mean(differences) - half)
    assert found.high == pytest.approx(statistics.mean(differences) + half)


def test_a_shift_that_all_answers_make_is_found(model: Model) -> None:
    """A model that answers higher by one point; the text says how wide the interval is."""
    record(model, 20, 10)
    model.shift = 1
    drift = llmcall.drift(STUDY, calls=100, to=CHECK)
    found = drift.shifts["answer"]
    assert 0 < found.low < 1 < found.high
    width = f"{found.high - found.low:.2f}"
    assert width in str(drift)


def test_drift_never_says_that_nothing_changed(model: Model) -> None:
    """Nor does it give p-values, also if all answers are the same. Equal numbers have no interval; a line
    says why, and how rare other answers may be: 1 - .05 ** (1 / 100).
    """
    model.answer = lambda messages, chance: "3"
    record(model, 20, 10)
    drift = llmcall.drift(STUDY, calls=100, to=CHECK)
    words = str(drift).lower()
    assert drift.shifts["answer"].estimate == 0
    assert math.isnan(drift.shifts["answer"].low)
    assert (
        "no interval of answer: the 100 differences from the recorded answers show no spread"
        in words
    )
    assert "at most 3.0 % of all answers would differ" in words
    assert drift.to_dict()["shifts"]["answer"]["low"] is None
    for forbidden in (
        "no drift",
        "no change",
        "unchanged",
        "nothing changed",
        "not changed",
        "p =",
    ):
        assert forbidden not in words


def test_an_end_that_rounds_to_zero_shows_on_which_side_it_is(model: Model) -> None:
    """Student's interval of 0, 1, 1, 1 is .75 ± 3.182446 · .5 / √4: it contains 0."""
    model.answer = lambda messages, chance: "3"
    record(model, 4, 1)
    model.answer = lambda messages, chance: "3" if "person 0" in str(messages) else "4"
    drift = llmcall.drift(STUDY, share=1, to=CHECK)
    assert drift.shifts["answer"].low == pytest.approx(-0.0456116, abs=1e-7)
    assert "−0.0 to +1.5" in str(drift)


def test_yes_and_no_always_have_an_interval_with_width(model: Model) -> None:
    """As if one more answer were yes and one no, now and then (Agresti and Caffo, 2000)."""
    model.answer = lambda messages, chance: "yes"
    record(model, 20, 10)
    found = llmcall.drift(STUDY, calls=100, to=CHECK).shifts["answer"]
    center = 101 / 102 - 201 / 202
    half = 1.968 * math.sqrt(1 / 102**2 + 1 / 202**2)  # Student's, of 260 degrees of freedom
    assert (found.low, found.high) == pytest.approx((center - half, center + half), rel=1e-3)


def test_one_call_has_no_interval_and_says_how_many_have(model: Model) -> None:
    record(model, 3, 4)
    drift = llmcall.drift(STUDY, calls=1, to=CHECK)
    assert math.isnan(drift.shifts["answer"].low)
    assert "only one request has answers that were read then and now: 2 give one" in str(drift)
    assert "none" in str(drift)
    record(model, 1, 4, path="single.jsonl")
    drift = llmcall.drift("single.jsonl", calls=1, to="single-check.jsonl")
    assert "one new answer shows no spread: 2 calls give one" in str(drift)
    record(model, 1, 1, path="once.jsonl")
    drift = llmcall.drift("once.jsonl", calls=5, to="once-check.jsonl")
    assert "the request was recorded once, which shows no spread" in str(drift)


SIMULATION = import_module("benchmarks.coverage")


@pytest.mark.ci
@pytest.mark.parametrize(
    "study",
    [SIMULATION.DRIFTS[number] for number in (0, 5, 13, 15, 17, 19)],
    ids=lambda study: study.name,
)
def test_the_shift_of_numbers_is_held_in_93_to_97_percent_of_studies(study: Any) -> None:
    """Of 200 studies, with two standard errors of the simulation; in more, where requests shift
    differently or have two draws: the larger of two spreads counts, and few degrees of freedom.
    """
    found = SIMULATION.drift_coverage(study, 200)
    is_wider = study.shift_spread or len(study.noises) > 1 or study.draws_in_turn
    most = 1 if is_wider else 0.97 + 0.024
    assert 0.93 - 0.036 <= found.holds <= most
    assert (found.missing, found.narrowest > 0) == (0, True)
    llmcall.reset()


@pytest.mark.ci
@pytest.mark.parametrize(
    "study", [SIMULATION.DRIFTS[number] for number in (10, 11)], ids=lambda study: study.name
)
def test_the_shift_of_ratings_is_held_even_if_a_request_has_two_draws(study: Any) -> None:
    """Two ratings of a request are often equal. Of 200 studies, as above; too coarse for an upper bound."""
    found = SIMULATION.drift_coverage(study, 200)
    assert found.holds >= 0.93 - 0.036
    assert (found.missing, found.narrowest > 0) == (0, True)
    llmcall.reset()


@pytest.mark.ci
@pytest.mark.parametrize(
    "study",
    [SIMULATION.YES_DRIFTS[number] for number in (1, 8)],
    ids=lambda study: study.name,
)
def test_the_shift_of_yes_and_no_is_held_in_92_percent_of_studies(study: Any) -> None:
    found = SIMULATION.drift_coverage(study, 200)
    assert found.holds >= 0.92 - 0.038
    assert (found.missing, found.narrowest > 0) == (0, True)
    llmcall.reset()


# What is read


def test_fields_of_json_are_values(model: Model) -> None:
    """Number fields and yes-or-no fields, each with its own shift."""

    def answer(messages: list[Any], chance: random.Random) -> Any:
        agrees = chance.random() < 0.3 + model.shift / 2
        return {"price": model.number(chance), "agrees": agrees, "why": f"Of {chance.random()}"}

    model.answer = answer
    record(model, 20, 10)
    model.shift = 1
    drift = llmcall.drift(STUDY, calls=100, to=CHECK)
    assert set(drift.shifts) == {"price", "agrees"}
    assert drift.shifts["price"].estimate == pytest.approx(1, abs=0.35)
    assert drift.shifts["agrees"].estimate == pytest.approx(0.5, abs=0.15)


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("**Answer: 3**", {"answer": 3}),
        ('{"value": true}', {"answer": 1}),
        ('{"value": "no"}', {"answer": 0}),  # of a Literal["yes", "no"], with structured output
        (
            '```json\n{"vote": "No.", "price": 1.234, "why": "I like 3."}\n```',
            {"vote": 0, "price": 1.234},
        ),
        ("about 3", {}),
        ("45.000", {}),
    ],
)
def test_answers_are_read_by_the_rule_of_typed_output(
    model: Model, text: str, values: dict[str, float]
) -> None:
    """The whole of an answer, or a field of its object; what the rule does not read is unreadable."""
    model.answer = lambda messages, chance: "3" if "person 0" in str(messages) else text
    record(model, 2, 1)
    model.answer = lambda messages, chance: text
    drift = llmcall.drift(STUDY, share=1, to=CHECK)
    frame = drift.to_frame()
    found = {name: shift.now for name, shift in drift.shifts.items()}
    assert found == values
    assert set(frame["unreadable"]) == {not values}


TRAVEL = ["car", "bus", "on foot"]


def record_choices(path: str, chosen: Callable[[int], str], repeats: int = 1) -> None:
    """Record how 30 persons travel; each reads the options in an order of its own.

    :param chosen: returns what a person takes.
    """

    def answer(messages: list[Any]) -> dict[str, Any]:
        person, _, *listed = messages[-1]["content"].splitlines()[:5]
        text = chosen(int(person.split()[1]))
        [letter] = [line[0] for line in listed if line.endswith(text)]
        day = 86400 * (20_000 if path == STUDY else 20_100)  # so no answer can be in both files
        return {**completion(letter), "created": day}

    travel = llmcall.choice(
        "Person {{ number }} travels. How?",
        TRAVEL,
        order="shuffle",
        client=ScriptedClient(answer),
    )
    with llmcall.cassette(path), llmcall.scope("travel"):
        travel.map(
            [{"number": number} for number in range(30)], key="number", repeats=repeats, workers=1
        )


def test_answers_of_choice_are_read_as_options() -> None:
    """Whatever letter an option has for a person: here, two thirds move from the car to the bus."""
    record_choices(STUDY, lambda number: "car")
    record_choices("later.jsonl", lambda number: "car" if number % 3 == 0 else "bus")
    drift = llmcall.drift(STUDY, against="later.jsonl")
    estimates = {name: shift.estimate for name, shift in drift.shifts.items()}
    assert estimates == pytest.approx({"car": -2 / 3, "bus": 2 / 3, "on foot": 0})
    assert drift.shifts["bus"].low > 0.4
    assert drift.shifts["on foot"].low < 0 < drift.shifts["on foot"].high


def test_the_shift_of_an_options_share_is_that_of_its_probability() -> None:
    """A known one: half as many take the car."""
    chance = random.Random(3)
    record_choices(STUDY, lambda number: "car" if chance.random() < 0.8 else "bus", 10)
    record_choices("later.jsonl", lambda number: "car" if chance.random() < 0.4 else "on foot", 10)
    shifts = llmcall.drift(STUDY, against="later.jsonl").shifts
    for name, truth in {"car": -0.4, "bus": -0.2, "on foot": 0.6}.items():
        assert shifts[name].low < truth < shifts[name].high
        assert shifts[name].high - shifts[name].low < 0.18


def test_a_letter_that_no_option_has_is_unreadable() -> None:
    record_choices(STUDY, lambda number: "car")
    lines = Path(STUDY).read_text().splitlines()
    answered = [re.sub(r'"content": "[A-C]"', '"content": "D"', line) for line in lines]
    Path("later.jsonl").write_text("\n".join(answered) + "\n")
    drift = llmcall.drift(STUDY, against="later.jsonl")
    assert (drift.unreadable.now, drift.shifts) == (1, {})


def test_speeches_beside_votes_are_counted_as_unreadable(model: Model) -> None:
    """A scope leaves them out."""

    def answer(messages: list[Any], chance: random.Random) -> str:
        return "My friends, bread is life." if "speak" in str(messages) else "yes"

    model.answer = answer
    with llmcall.cassette(STUDY):
        for person in range(4):
            with llmcall.scope(person):
                for asked in ("speak", "speak again", "vote"):
                    with llmcall.scope(asked.split()[0]):
                        model.client.send_message(f"{person}: {asked}", temperature=1)
    drift = llmcall.drift(STUDY, share=1, to=CHECK)
    assert drift.unreadable.now == drift.unreadable.before == 8 / 12
    assert drift.shifts["answer"].answers == 4
    done("drift", STUDY, "--scope", "*/vote", "--share", 1, "--to", "votes.jsonl")
    votes = llmcall.drift((STUDY, "*/vote"), share=1, to="votes.jsonl")
    assert (votes.calls, votes.unreadable.now) == (4, 0)


def test_drift_of_free_texts_needs_value(model: Model) -> None:
    """The error quotes some and names ``value=``."""
    model.answer = lambda messages, chance: "I'd say so."
    record(model, 5, 2)
    with pytest.raises(ValueError, match=r"give value= \(--value\).*I'd say so"):
        llmcall.drift(STUDY, share=1, to=CHECK)
    with pytest.raises(ValueError, match=r"give value= \(--value\)"):
        llmcall.drift(STUDY, share=1, dry_run=True)
    drift = llmcall.drift(STUDY, share=1, value=len, to=CHECK)
    assert drift.shifts["answer"].now == 11


def test_value_may_fail_to_read(model: Model) -> None:
    """``None``, ``nan`` and a ``ValueError`` all mean unreadable; several numbers are several values. A plan names
    the share. If no request can be compared, the report says so.
    """
    model.answer = lambda messages, chance: chance.choice(["1", "2", "x"])
    record(model, 20, 5)
    drift = llmcall.drift(STUDY, calls=50, value=float, to=CHECK)
    assert 0.1 < drift.unreadable.now < 0.6
    assert list(drift.shifts) == ["answer"]
    both = llmcall.drift(
        STUDY, calls=50, value=lambda text: {"a": float("nan"), "b": len(text)}, to=CHECK
    )
    assert list(both.shifts) == ["b"]
    none = llmcall.drift(STUDY, calls=50, value=lambda text: None, to=CHECK)
    assert (none.unreadable.before, none.unreadable.now, none.shifts) == (1, 1, {})
    assert "No interval of answer: no request has an answer that was read then" in str(none)
    plan = llmcall.drift(STUDY, calls=50, value=lambda text: None, dry_run=True)
    assert "100.0 % of the recorded answers are unreadable." in str(plan)


def test_value_may_not_return_a_text(model: Model) -> None:
    """The error names the function and the type, before a call is made."""
    record(model, 2, 2)
    asked = model.asked
    for value in str.strip, lambda text: {"rating": text}:
        words = rf"value= \(--value\): .*{value.__name__}.* returned '.*', a str\. Return a number"
        with pytest.raises(ValueError, match=words):
            llmcall.drift(STUDY, calls=1, value=value, to=CHECK)
    assert model.asked == asked


def marked(kind: str) -> Any:
    """Return an answer that is unreadable or refused."""
    message: dict[str, Any] = {"role": "assistant", "content": "well"}
    if kind == "refused":
        message = {"role": "assistant", "content": None, "refusal": "I cannot."}
    return {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}


@pytest.mark.parametrize("kind", ["unreadable", "refused"])
def test_answers_without_a_value_are_shares_of_their_own(model: Model, kind: str) -> None:
    """Unreadable and refused answers, before and now."""
    share = 0.1

    def answer(messages: list[Any], chance: random.Random) -> Any:
        return marked(kind) if chance.random() < share else str(model.number(chance))

    model.answer = answer
    record(model, 20, 10)
    share = 0.6
    drift = llmcall.drift(STUDY, calls=100, to=CHECK)
    found = getattr(drift, kind)
    assert found.before == pytest.approx(0.1, abs=0.06)
    assert found.now == pytest.approx(0.6, abs=0.2)
    (other,) = {"unreadable", "refused"} - {kind}
    assert getattr(drift, other).now == 0
    assert drift.shifts["answer"].answers == pytest.approx(40, abs=15)


# Replay


def test_the_check_replays_byte_for_byte(httpserver: HTTPServer) -> None:
    """With the server dead: the same text, the same table, the same file."""
    chance = random.Random(1)
    answers = [Answer(200, completion(str(chance.randint(1, 5)))) for _ in range(40)]
    server = ScriptedServer(httpserver, *answers)
    client = client_for(server.base_url)
    llmcall.register_client("openai", client)
    with llmcall.cassette(STUDY):
        for actor in range(5):
            with llmcall.scope(actor):
                for _ in range(4):
                    client.send_message(f"You are {actor}.", temperature=1)
    first = llmcall.drift(STUDY, calls=15, to=CHECK)
    written = Path(CHECK).read_bytes()
    assert len(server.requests) == 35
    with refusing() as address:
        llmcall.register_client("openai", client_for(address))
        again = llmcall.drift(STUDY, calls=15, to=CHECK)
    assert (str(again), again.cost) == (str(first), first.cost)
    assert again.to_frame().to_json() == first.to_frame().to_json()
    assert Path(CHECK).read_bytes() == written


def test_a_complete_check_asks_nothing_else(model: Model) -> None:
    """Another seed is another check: the error says how to go on."""
    record(model, 20, 1)
    llmcall.drift(STUDY, calls=5, to=CHECK)
    asked = model.asked
    with pytest.raises(CacheMissError, match=r"contains another check.*LLMCALL_CASSETTE_MODE=new"):
        llmcall.drift(STUDY, calls=9, to=CHECK)
    assert model.asked == asked
    with llmcall.configured(cassette_mode="new"):
        assert llmcall.drift(STUDY, calls=9, to=CHECK).calls == 9
    assert model.asked == asked + 4


def test_an_empty_answer_is_counted_and_asked_again(model: Model) -> None:
    """It stops no check; a later one asks again for what is missing."""
    record(model, 10, 2)
    model.answer = lambda messages, chance: (
        EmptyAnswerError("no") if "person 3" in str(messages) else "3"
    )
    drift = llmcall.drift(STUDY, share=1, to=CHECK)
    assert (drift.calls, drift.unanswered) == (9, 1)
    assert "1 further call got no answer" in str(drift)
    asked = model.asked
    model.answer = lambda messages, chance: "3"
    assert llmcall.drift(STUDY, share=1, to=CHECK).unanswered == 0
    assert model.asked == asked + 1


# Another model


def test_a_model_that_is_gone_is_an_error_that_names_the_option_model(
    httpserver: HTTPServer,
) -> None:
    """The API's own words, and ``model=`` as the way on."""
    server = ScriptedServer(httpserver, Answer(200, completion("3")))
    llmcall.register_client("openai", client_for(server.base_url))
    with llmcall.cassette(STUDY), llmcall.scope("ann"):
        llmcall.client("openai").send_message("Rate bread.", temperature=1)
    gone = "The model `gpt-6-luna` has been deprecated."
    httpserver.clear()
    server = ScriptedServer(httpserver, refusal(404, gone, code="model_not_found"))
    with pytest.raises(InvalidRequestError, match=rf"{gone} If the model no longer exists, "):
        llmcall.drift(STUDY, share=1, to=CHECK)
    assert "model=" in run("drift", STUDY, "--share", 1, "--to", CHECK).output


def test_another_model_is_marked_in_every_output(model: Model) -> None:
    record(model, 10, 3)
    options: dict[str, Any] = {"share": 1, "model": "gpt-6.1-terra"}
    drift = llmcall.drift(STUDY, to=CHECK, **options)
    assert {body_of(request)["model"] for request in model.client.requests[30:]} == {
        "gpt-6.1-terra"
    }
    for words in (
        str(drift),
        repr(drift),
        str(llmcall.drift(STUDY, dry_run=True, **options)),
    ):
        assert "ANOTHER MODEL: gpt-6.1-terra answers instead of gpt-6-luna" in words
    assert "ANOTHER MODEL" not in str(llmcall.drift(STUDY, share=1, dry_run=True))
    assert drift.model == "gpt-6.1-terra"
    assert set(drift.to_frame()["asked"]) == {"gpt-6.1-terra"}
    printed = json.loads(
        run(
            "drift", STUDY, "--share", 1, "--model", "gpt-6.1-terra", "--to", CHECK, "--json"
        ).output
    )
    assert printed["another_model"] == "gpt-6.1-terra"


def test_requests_that_differ_in_their_model_alone_are_one_to_another_model(model: Model) -> None:
    """It is asked once, and its answer stands against those of all recorded models."""
    model.answer = lambda messages, chance: "2" if len(model.client.requests) <= 5 else "4"
    rate = llmcall.LLMCall(user="{{ name }}, rate the bread.", client=model.client)
    with llmcall.cassette(STUDY):
        rate.table(
            [{"name": name} for name in "abcde"],
            vary={"model": ["one", "two"]},
            scope="survey",
            workers=1,
        )
    drift = llmcall.drift(STUDY, share=1, model="three", to=CHECK)
    assert (drift.calls, model.asked, len(samples())) == (5, 15, 5)
    assert "ANOTHER MODEL: three answers instead of one, two" in str(drift)
    found = drift.shifts["answer"]
    assert (found.before, found.now, found.answers) == (3, 4, 5)
    compared = llmcall.drift(STUDY, model="three", against=CHECK)
    assert (compared.calls, compared.shifts["answer"].before) == (5, 3)


def test_served_models_and_days_then_and_now(model: Model) -> None:
    """Both are in the text, by the server's names."""
    snapshot = "gpt-6-luna-2026-05-01"
    rating = {"role": "assistant", "content": "3"}
    created = 1_777_600_000  # 1 May 2026
    model.answer = lambda messages, chance: {
        "model": snapshot,
        "created": created,
        "choices": [{"index": 0, "message": rating, "finish_reason": "stop"}],
    }
    record(model, 3, 2)
    snapshot = "gpt-6-luna-2026-10-01"
    created = 1_795_320_000  # 22 November 2026
    drift = llmcall.drift(STUDY, share=1, to=CHECK)
    assert "then: gpt-6-luna-2026-05-01 (2026-05-01)" in str(drift)
    assert "now:  gpt-6-luna-2026-10-01 (2026-11-22)" in str(drift)
    assert list(drift.served.before) == ["gpt-6-luna-2026-05-01"]


# The plan


def test_a_dry_run_makes_no_call(model: Model) -> None:
    """It says calls and cost, and needs no file."""
    llmcall.configure(prices={"gpt-6-luna": (0.001, 0.001)})
    record(model, 20, 10)
    plan = llmcall.drift(STUDY, calls=100, dry_run=True)
    assert model.asked == 200
    assert plan.calls == 100
    assert str(plan).startswith("100 calls, cost <$0.0001")
    printed = json.loads(done("drift", STUDY, "--share", 1, "--dry-run", "--json"))
    assert printed["calls"] == 20


def test_a_plan_costs_what_the_recorded_answers_say(httpserver: HTTPServer) -> None:
    """Their tokens at the present price; unknown without a price."""
    server = ScriptedServer(httpserver, Answer(200, completion("3")))
    client = client_for(server.base_url, prices={"gpt-6-luna": (1.0, 2.0)})
    llmcall.register_client("openai", client)
    with llmcall.cassette(STUDY):
        for actor in range(4):
            with llmcall.scope(actor):
                client.send_message(f"You are {actor}.", temperature=1)
    plan = llmcall.drift(STUDY, share=1, dry_run=True)
    assert plan.cost == pytest.approx(4 * (12 * 1 + 3 * 2) / 1e6)
    assert llmcall.drift(STUDY, share=1, model="nobodys", dry_run=True).cost is None
    drift = llmcall.drift(STUDY, share=1, to=CHECK)
    assert drift.cost == pytest.approx(plan.cost)


def test_the_default_asks_for_a_useful_interval_at_a_tenth_of_the_cost(model: Model) -> None:
    """Of 200 answers 20, and the plan says what width they give: an answer's variance is 1.2."""
    record(model, 40, 5)
    plan = llmcall.drift(STUDY, dry_run=True)
    deviation = math.sqrt(1.2)
    assert plan.calls == 20
    half = (
        2.093 * deviation * math.sqrt(1 / 20 + 1 / 100)
    )  # 5 recorded answers of each of 20 requests
    assert plan.width == pytest.approx(2 * half, rel=0.1)
    assert f"answer: expect a 95 % interval about {plan.width:.2g} wide" in str(plan)


def test_a_plan_counts_each_choice_of_a_call_as_an_answer(model: Model) -> None:
    """Six choices are as good as six draws: the plan of each expects the same interval."""

    def choices(messages: list[Any], chance: random.Random) -> dict[str, Any]:
        said = [{"role": "assistant", "content": model.rating(messages, chance)} for _ in range(6)]
        return {
            "choices": [
                {"index": index, "message": message, "finish_reason": "stop"}
                for index, message in enumerate(said)
            ]
        }

    record(model, 20, 6)
    of_draws = llmcall.drift(STUDY, calls=120, dry_run=True)
    model.answer = choices
    record(model, 20, 1, path="choices.jsonl", n=6)
    of_choices = llmcall.drift("choices.jsonl", calls=20, dry_run=True)
    assert of_draws.width is not None
    assert of_choices.width == pytest.approx(of_draws.width, rel=0.3)
    found = llmcall.drift("choices.jsonl", calls=20, to=CHECK).shifts["answer"]
    assert of_choices.width == pytest.approx(found.high - found.low, rel=0.3)


def test_a_plan_expects_no_wider_interval_of_yes_and_no_than_there_can_be(model: Model) -> None:
    """A share's shift lies between -1 and 1. Two calls say nearly nothing."""
    model.answer = lambda messages, chance: chance.choice(["yes", "no"])
    record(model, 5, 4)
    plan = llmcall.drift(STUDY, calls=2, dry_run=True)
    assert plan.width == 2
    found = llmcall.drift(STUDY, calls=2, to=CHECK).shifts["answer"]
    assert found.high - found.low <= plan.width


def test_the_default_asks_no_more_than_a_useful_interval_needs(model: Model) -> None:
    """It is .2 recorded standard deviations wide. Here persons differ by 10 points, and answers to the
    same request by 1.2 ** .5: with 10 of them, Student's interval of 7 degrees of freedom is narrow
    enough, with 8 it is not.
    """

    def answer(messages: list[Any], chance: random.Random) -> str:
        return str(model.number(chance) + 10 * (len(messages[0]["content"]) % 3))

    model.answer = answer
    record(model, 3, 80)
    plan = llmcall.drift(STUDY, dry_run=True)
    useful = 0.2 * math.sqrt(1.2 + 100 * 2 / 3)
    quantiles = {8: 2.571, 10: 2.365, 12: 2.262}  # of Student's distribution, for calls less 3
    widths = {
        calls: 2 * quantile * math.sqrt(1.2 * (1 / calls + 1 / 240))
        for calls, quantile in quantiles.items()
    }
    assert widths[12] < useful < widths[8]
    assert 8 < plan.calls <= 12
    assert plan.width == pytest.approx(useful, rel=0.1)
    assert llmcall.drift(STUDY).calls == plan.calls


def test_the_default_costs_at_most_a_tenth_of_the_run(httpserver: HTTPServer) -> None:
    """By the costs of its calls, which differ; at least one call."""
    short, long = (Answer(200, completion(text)) for text in ("3", "4"))
    long.body["usage"].update(prompt_tokens=1200, completion_tokens=3)
    server = ScriptedServer(httpserver, *[short] * 30, *[long] * 5)
    client = client_for(server.base_url, prices={"gpt-6-luna": (1.0, 1.0)})
    llmcall.register_client("openai", client)
    with llmcall.cassette(STUDY):
        for actor in range(35):
            with llmcall.scope(actor):
                client.send_message(f"You are {actor}.", temperature=1)
    cost = (30 * 15 + 5 * 1203) / 1e6
    plan = llmcall.drift(STUDY, dry_run=True)
    assert plan.cost is not None
    assert plan.calls >= 1 and (plan.cost <= cost / 10 or plan.calls == 1)


def test_recorded_functions_change_nothing_in_the_default_of_calls(httpserver: HTTPServer) -> None:
    """One answer costs ten times each of the others: a tenth of the cost pays for more of those."""
    short, long = (Answer(200, completion(text)) for text in ("3", "4"))
    long.body["usage"].update(prompt_tokens=147)
    server = ScriptedServer(httpserver, *[short] * 30, *[long] * 5)
    client = client_for(server.base_url, prices={"gpt-6-luna": (1.0, 1.0)})
    llmcall.register_client("openai", client)
    plans = []
    for path in ("without.jsonl", "with.jsonl"):
        with llmcall.cassette(path):
            for actor in range(35):
                with llmcall.scope(actor):
                    client.send_message(f"You are {actor}.", temperature=1)
            if path == "with.jsonl":
                for side in range(100):
                    llmcall.recorded(lambda side: side, name="dice")(side)
        plans.append(llmcall.drift(path, dry_run=True))
    assert (plans[0].calls, plans[0].cost) == (plans[1].calls, plans[1].cost)


# Another recording


def test_two_recordings_are_compared_without_a_call(model: Model) -> None:
    """Each answer of the other run stands for a new one; the estimate is that of a check with the same
    answers.
    """
    record(model, 12, 6)
    model.shift = 1
    record(model, 12, 6, path="later.jsonl", scope="later")
    asked = model.asked
    drift = llmcall.drift(STUDY, against="later.jsonl")
    assert (model.asked, drift.calls) == (asked, 72)
    then, now = (
        [float(record.answer) for record in llmcall.types.Cassette(path).all_records()]
        for path in (STUDY, "later.jsonl")
    )
    found = drift.shifts["answer"]
    assert found.estimate == pytest.approx(statistics.mean(now) - statistics.mean(then))
    assert found.low < 1 < found.high
    assert "72 answers in later.jsonl to 12 of 12 different requests in study.jsonl" in str(drift)
    assert done("drift", STUDY, "--against", "later.jsonl").strip() == str(drift)


def test_answers_that_both_recordings_share_are_left_out_and_said_first(model: Model) -> None:
    """The second one took the first one's from the cache, and asked three actors more."""
    model = Model(cache_mode="auto", cache_path="cache")
    record(model, 4, 3)
    record(model, 7, 3, path="later.jsonl")
    assert model.asked == 21
    with llmcall.cassette("later.jsonl", mode="new"), llmcall.scope("again"):
        for _ in range(5):
            model.client.send_message("You are person 0 How good is bread?", temperature=1)
    drift = llmcall.drift(STUDY, against="later.jsonl")
    assert drift.calls == 5
    assert str(drift).startswith("LEFT OUT: 12 answers that both runs share (key, sample, answer;")
    with pytest.raises(
        llmcall.CacheError, match=r"all 12 answers of .* so none is new\. Record the"
    ):
        llmcall.drift("later.jsonl", against=STUDY)


def test_equal_answers_of_other_days_are_not_shared() -> None:
    """Half of the persons answer as before, half a year later: they count."""
    record_choices(STUDY, lambda number: "car")
    record_choices("later.jsonl", lambda number: "car" if number % 2 else "bus")
    drift = llmcall.drift(STUDY, against="later.jsonl")
    assert (drift.calls, drift.shifts["car"].estimate) == (30, -0.5)


def test_a_recording_is_not_compared_with_itself(model: Model) -> None:
    record(model, 3, 1)
    with pytest.raises(llmcall.CacheError, match=r"all 3 answers of study.jsonl .*so none is new"):
        llmcall.drift(STUDY, against=STUDY)


def test_only_equal_requests_of_two_recordings_are_compared(model: Model) -> None:
    """The others are counted."""
    record(model, 6, 3)
    record(model, 9, 3, path="later.jsonl", scope="later")
    drift = llmcall.drift(STUDY, against="later.jsonl")
    assert drift.calls == 18
    assert "Not compared: 9 answers in later.jsonl to other requests." in str(drift)
    narrow = llmcall.drift((STUDY, "survey/1"), against="later.jsonl")
    assert narrow.calls == 3


def test_recordings_without_a_common_request_are_an_error(model: Model) -> None:
    """It names the command that shows what differs, and ``model=``, which compares two models."""
    record(model, 3, 2)
    record(model, 3, 2, path="terra.jsonl", model="gpt-6.1-terra", reasoning_effort="none")
    with pytest.raises(
        llmcall.CacheError, match=r"no chat request in common; 'llmcall diff'.*model="
    ):
        llmcall.drift(STUDY, against="terra.jsonl")
    drift = llmcall.drift(STUDY, against="terra.jsonl", model="gpt-6.1-terra")
    assert (drift.calls, drift.model) == (6, "gpt-6.1-terra")


@pytest.mark.parametrize("options", [{"to": CHECK}, {"share": 1}, {"calls": 3}, {"dry_run": True}])
def test_a_comparison_of_recordings_takes_nothing_that_asks(
    model: Model, options: dict[str, Any]
) -> None:
    record(model, 3, 1)
    record(model, 3, 1, path="later.jsonl", scope="later")
    with pytest.raises(ValueError, match=r"against= .*makes no call"):
        llmcall.drift(STUDY, against="later.jsonl", **options)
    arguments = [text for name, value in options.items() for text in (f"--{name}", str(value))]
    if "dry_run" in options:
        arguments = ["--dry-run"]
    assert "makes no call" in run("drift", STUDY, "--against", "later.jsonl", *arguments).output


# Tables


def test_the_table_has_a_row_for_each_new_answer(model: Model) -> None:
    """With the recorded ones, for people's own models."""
    record(model, 5, 4)
    frame = llmcall.drift(STUDY, calls=10, to=CHECK).to_frame()
    assert len(frame) == 10
    assert all(len(values) == 4 for values in frame["recorded"])
    assert list(frame["value"]) == [float(text) for text in frame["text"]]


# Arguments and the command


@pytest.mark.parametrize(
    ("options", "kind", "words"),
    [
        ({"to": CHECK, "share": 0}, ValueError, "share is 0"),
        ({"to": CHECK, "share": 2}, ValueError, "calls="),
        ({"to": CHECK, "calls": 0}, ValueError, "calls is 0"),
        ({"to": CHECK, "calls": 1.5}, TypeError, "calls is 1.5"),
        ({"to": CHECK, "value": 3}, TypeError, "value is 3"),
        ({"to": CHECK, "where": 3}, TypeError, "where is 3"),
    ],
)
def test_a_wrong_argument_of_drift_is_refused_before_any_call(
    model: Model, options: dict[str, Any], kind: type[Exception], words: str
) -> None:
    """It names the argument."""
    record(model, 3, 1)
    with pytest.raises(kind, match=words):
        llmcall.drift(STUDY, **options)
    assert model.asked == 3


@pytest.mark.parametrize("missing", ["pandas", "scipy.stats"])
def test_without_the_extra_it_says_so_before_any_call(
    model: Model, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    """One sentence."""
    record(model, 3, 1)
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ConfigError, match=f"extra 'study'.*{missing} is not installed"):
        llmcall.drift(STUDY, share=1, to=CHECK)
    assert model.asked == 3


def test_the_command_prints_the_shifts_and_replays(model: Model) -> None:
    """With the exit code 0, whatever the interval; ``--json`` is JSON."""
    record(model, 20, 10)
    model.shift = 1
    options = ("drift", STUDY, "--calls", 100, "--to", CHECK)
    text = done(*options)
    assert "95 % interval" in text
    assert done(*options) == text
    assert json.loads(done(*options, "--json"))["shifts"]["answer"]["low"] > 0


@pytest.mark.parametrize(
    "arguments", [[STUDY, "--to", CHECK, "--share", 3], ["no.jsonl", "--to", CHECK]]
)
def test_the_command_exits_with_2_for_wrong_usage(model: Model, arguments: list[Any]) -> None:
    """With a wrong share, without the file."""
    record(model, 3, 1)
    done("drift", *arguments, code=2)
    assert model.asked == 3


def test_the_new_answers_are_recorded_beside_the_recording(model: Model) -> None:
    """Unless ``--to`` names another file; a cache needs one."""
    record(model, 3, 1)
    done("drift", STUDY, "--calls", 3)
    assert len(samples("study.drift.jsonl")) == 3
    asked = model.asked
    assert llmcall.drift(STUDY, calls=3).calls == 3
    assert model.asked == asked
    cache = llmcall.ResponseCache("cache")
    cache.load(STUDY)
    with pytest.raises(ValueError, match=r"to= \(--to\) is missing"):
        llmcall.drift(cache, calls=3)


def test_the_command_reads_by_a_function(model: Model) -> None:
    """``--value MODULE:FUNCTION`` finds a module in the working directory."""
    record(model, 3, 2)
    Path("reading_bread.py").write_text("def length(text):\n    return len(text)\n")
    options = [STUDY, "--share", 1, "--to", CHECK]
    assert "answer" in done("drift", *options, "--value", "reading_bread:length")
    assert "no_such" in done("drift", *options, "--value", "reading_bread:no_such", code=2)
