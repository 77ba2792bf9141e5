"""``llmcall.drift``: a recorded study asked again, a little, to see whether its model has changed."""

from __future__ import annotations

import json
import math
import random
import statistics
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy
import pandas
import pytest
from clients import client_for
from commands import done, run
from pytest_httpserver import HTTPServer
from servers import Answer, ScriptedServer, completion, refusal, refusing

import llmcall
from llmcall.errors import CacheMissError, ConfigError, EmptyAnswerError, InvalidRequestError
from llmcall.experiments.drift.estimate import estimate_shift
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
    model: Model, actors: int = 10, draws: int = 10, *, path: str = STUDY, **params: Any
) -> str:
    """Record a survey: each actor is asked one question several times."""

    def ask(number: int) -> Any:
        asked = f"You are person {number}{'!' * (number % 3)} How good is bread?"
        return model.client.send_message(asked, **{"temperature": 1, **params})

    with llmcall.cassette(path):
        llmcall.map(ask, range(actors), key=str, scope="survey", repeats=draws, workers=1)
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
    with pytest.raises(llmcall.CacheError, match=r"can be asked again: where= selects none"):
        llmcall.drift(STUDY, where=lambda record: False, to=CHECK)


def test_last_asks_the_last_request_of_each_conversation(model: Model) -> None:
    """One that no other request of its scope goes on from; of arms, that of each arm."""
    record_games(model, 2)
    written = done("drift", STUDY, "--share", 1, "--last", "--to", CHECK)
    assert "6 calls, sampled from 6 different recorded requests" in written
    with llmcall.cassette("arms.jsonl"), llmcall.scope("r"):
        asked = [{"role": "user", "content": "Rules."}]
        for name in ("control", "treated"):
            with llmcall.arm(name):
                agreed = model.client.send_message(asked, temperature=1)
                decide = [*asked, agreed, {"role": "user", "content": f"Give {name}?"}]
                model.client.send_message(decide, temperature=1)
    assert "2 calls," in done("drift", "arms.jsonl", "--share", 1, "--last", "--dry-run")


def test_the_estimate_is_that_of_the_table(model: Model) -> None:
    """Each new answer less the mean of the recorded draws, averaged within actors, then over them."""
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
    expected = difference.groupby(frame["actor"]).mean().mean()
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


def test_the_interval_comes_from_actors_and_not_from_calls(model: Model) -> None:
    """Ten calls of an actor that changed are not ten independent changes.

    Resampling calls would make the interval a third as wide.
    """
    model.answer = lambda messages, chance: "3"
    record(model, 20, 2)
    risen = {str(number) for number in range(0, 20, 2)}

    def moved(messages: list[Any], chance: random.Random) -> str:
        return "5" if messages[0]["content"].split()[3].rstrip("!") in risen else "1"

    model.answer = moved
    found = llmcall.drift(STUDY, calls=200, to=CHECK).shifts["answer"]
    half = 2.093 * statistics.stdev([2, -2] * 10) / math.sqrt(20)
    assert found.estimate == pytest.approx(0)
    assert found.high == pytest.approx(half, rel=0.15)
    assert found.low == pytest.approx(-half, rel=0.15)


def test_a_shift_that_all_answers_make_is_found(model: Model) -> None:
    """A model that answers higher by one point; the text says how wide the interval is."""
    record(model, 20, 10)
    model.shift = 1
    drift = llmcall.drift(STUDY, calls=100, to=CHECK)
    found = drift.shifts["answer"]
    assert 0 < found.low < 1 < found.high
    width = f"{found.high - found.low:.2f}"
    assert width in str(drift)
    assert "The intervals come from resampling 20 actors." in str(drift)


def test_drift_never_says_that_nothing_changed(model: Model) -> None:
    """Nor does it give p-values, also if all answers are the same: the interval has no width."""
    model.answer = lambda messages, chance: "3"
    record(model, 20, 10)
    words = str(llmcall.drift(STUDY, calls=100, to=CHECK)).lower()
    assert "+0.00 to +0.00" in words
    for forbidden in (
        "no drift",
        "no change",
        "unchanged",
        "nothing changed",
        "not changed",
        "p =",
    ):
        assert forbidden not in words


def test_one_call_has_no_interval(model: Model) -> None:
    """Any shift is possible."""
    record(model, 3, 4)
    drift = llmcall.drift(STUDY, calls=1, to=CHECK)
    assert math.isinf(drift.shifts["answer"].low)
    assert "−∞ to +∞" in str(drift)


def test_a_single_actor_is_resampled_by_request(model: Model) -> None:
    with llmcall.cassette(STUDY), llmcall.scope("ann"):
        for number in range(20):
            for _ in range(3):
                model.client.send_message(f"Question {number}", temperature=1)
    drift = llmcall.drift(STUDY, calls=20, to=CHECK)
    assert drift.shifts["answer"].low < drift.shifts["answer"].high
    assert "resampling 20 requests of one actor, so they apply to this actor only" in str(drift)


def share_with_zero(
    shift: float, *, actors: int, draws: int, calls: int, trials: int = 500
) -> float:
    """Return in which share of simulated studies the interval holds 0.

    :param shift: of the answers, whose standard deviation is 1.
    :param actors: each has an opinion of its own, and one question.
    :param draws: recorded of each question.
    :param calls: new answers to each question.
    """
    chance = numpy.random.default_rng(1)
    holds_zero = 0
    for _ in range(trials):
        answers = chance.normal(size=(actors, draws + calls)) + chance.normal(size=(actors, 1))
        answers[:, draws:] += shift
        names = numpy.repeat(numpy.arange(actors), draws + calls)
        is_new = numpy.tile(numpy.arange(draws + calls) >= draws, actors)
        table = pandas.DataFrame({"is_new": is_new, "actor": names, "request": names})
        table["value"] = answers.ravel()
        found = estimate_shift(table, "value")
        assert found is not None
        holds_zero += found.low <= 0 <= found.high
    return holds_zero / trials


@pytest.mark.slow
@pytest.mark.parametrize(("actors", "calls"), [(10, 1), (40, 1), (100, 1), (20, 3)])
def test_without_drift_19_of_20_intervals_hold_0(actors: int, calls: int) -> None:
    assert 0.93 <= share_with_zero(0, actors=actors, draws=5, calls=calls) <= 0.97


@pytest.mark.slow
@pytest.mark.parametrize(("actors", "draws", "calls"), [(40, 10, 1), (40, 5, 2), (80, 1, 1)])
def test_half_a_standard_deviation_is_found_in_four_of_five_studies(
    actors: int, draws: int, calls: int
) -> None:
    """With 40 actors and ten recorded draws, or 80 with one."""
    assert share_with_zero(0.5, actors=actors, draws=draws, calls=calls) <= 0.2


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
    assert drift.unreadable.now == drift.unreadable.before == 0.5
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
    drift = llmcall.drift(STUDY, share=1, value=len, to=CHECK)
    assert drift.shifts["answer"].now == 11


def test_value_may_fail_to_read(model: Model) -> None:
    """``None``, ``nan`` and a ``ValueError`` all mean unreadable; several numbers are several values."""
    model.answer = lambda messages, chance: chance.choice(["1", "2", "x"])
    record(model, 20, 5)
    drift = llmcall.drift(STUDY, calls=50, value=float, to=CHECK)
    assert 0.1 < drift.unreadable.now < 0.6
    assert list(drift.shifts) == ["answer"]
    both = llmcall.drift(
        STUDY, calls=50, value=lambda text: {"a": float("nan"), "b": len(text)}, to=CHECK
    )
    assert list(both.shifts) == ["b"]


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
    assert found.low > 0
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
        assert "ANOTHER MODEL: gpt-6.1-terra is asked instead of gpt-6-luna" in words
    assert "ANOTHER MODEL" not in str(llmcall.drift(STUDY, share=1, dry_run=True))
    assert drift.model == "gpt-6.1-terra"
    assert set(drift.to_frame()["asked"]) == {"gpt-6.1-terra"}
    printed = json.loads(
        run(
            "drift", STUDY, "--share", 1, "--model", "gpt-6.1-terra", "--to", CHECK, "--json"
        ).output
    )
    assert printed["another_model"] == "gpt-6.1-terra"


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
        ({}, ValueError, "to= "),
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
    """One sentence; a plan needs neither."""
    record(model, 3, 1)
    monkeypatch.setitem(sys.modules, missing, None)
    assert llmcall.drift(STUDY, share=1, dry_run=True).calls == 3
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
    "arguments", [[STUDY], [STUDY, "--to", CHECK, "--share", 3], ["no.jsonl", "--to", CHECK]]
)
def test_the_command_exits_with_2_for_wrong_usage(model: Model, arguments: list[Any]) -> None:
    """Without ``--to``, with a wrong share, without the file."""
    record(model, 3, 1)
    done("drift", *arguments, code=2)
    assert model.asked == 3


def test_the_command_reads_by_a_function(model: Model) -> None:
    """``--value MODULE:FUNCTION`` finds a module in the working directory."""
    record(model, 3, 2)
    Path("reading_bread.py").write_text("def length(text):\n    return len(text)\n")
    options = [STUDY, "--share", 1, "--to", CHECK]
    assert "answer" in done("drift", *options, "--value", "reading_bread:length")
    assert "no_such" in done("drift", *options, "--value", "reading_bread:no_such", code=2)
