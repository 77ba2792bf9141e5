"""``llmcall.drift``: a recorded study asked again, a little, to see whether its model has changed."""

from __future__ import annotations

import itertools
import json
import math
import random
import re
import statistics
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import NormalDist
from typing import Any

import pytest
from commands import done, run
from ctrl_c import ctrl_c_interrupts, press_ctrl_c
from pytest_httpserver import HTTPServer
from servers import Answer, ScriptedServer, client_for, completion, refusal, refusing

import llmcall
from llmcall.errors import (
    BudgetExceededError,
    CacheError,
    CacheMissError,
    ContentFilterError,
    ContextLengthError,
    EmptyAnswerError,
    InvalidRequestError,
)
from llmcall.study.drift.student import student_quantile
from llmcall.testing import ScriptedClient

pytestmark = pytest.mark.newest_only

STUDY, CHECK = "study.jsonl", "check.jsonl"
NOISE = {1: 0.1, 2: 0.2, 3: 0.4, 4: 0.2, 5: 0.1}  # of an answer on five points
SIGMA = math.sqrt(1.2)  # its standard deviation
HISTORIES = 3  # calls of an agent with memory


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
        self.client = ScriptedClient(self._drawn, model="gpt-4o-mini", **settings)
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
    return sorted(str(each.sample) for each in llmcall.Cassette(path).all_records())


def body_of(request: Any) -> dict[str, Any]:
    """Return what a request sends."""
    return dict(request.body)


# The sample


def test_the_requests_are_sent_as_they_were_recorded(model: Model) -> None:
    """Messages, model and parameters are the recorded ones, whatever is configured now."""
    record(model, 3, 1, max_tokens=5, stop="x")
    recorded = sorted(json.dumps(body_of(each), sort_keys=True) for each in model.client.requests)
    with llmcall.configured(temperature=0, top_p=0.5, max_tokens=100, model="gpt-5"):
        llmcall.drift(STUDY, share=1, to=CHECK)
    again = [body_of(each) | {"stop": "x"} for each in model.client.requests[3:]]
    assert sorted(json.dumps(each, sort_keys=True) for each in again) == recorded


def test_the_same_seed_asks_the_same_requests(model: Model) -> None:
    """Another one asks others."""
    record(model, 40, 1)
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        llmcall.drift(STUDY, calls=5, seed=seed, to=name)
    assert samples("a") == samples("b") != samples("c")


def test_more_calls_begin_with_the_same_ones(model: Model) -> None:
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


def test_a_share_is_that_of_the_different_requests(model: Model) -> None:
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


def test_a_request_outside_any_scope_has_a_draw_without_a_path(model: Model) -> None:
    """A loop without scopes can be checked as well."""
    with llmcall.cassette(STUDY):
        for number in range(3):
            model.client.send_message(f"Question {number}", temperature=1)
    llmcall.drift(STUDY, calls=6, to=CHECK)
    assert samples() == ["~drift#0"] * 3 + ["~drift#1"] * 3


def test_an_open_scope_does_not_enter_the_names(model: Model) -> None:
    """Wherever the check is called from, it is the same one."""
    record(model, 2, 2)
    with llmcall.scope("mine"):
        llmcall.drift(STUDY, share=1, to=CHECK)
    assert samples() == ["~drift/survey/0#0", "~drift/survey/1#0"]


def test_equal_requests_at_once_each_get_an_answer(tmp_path: Path) -> None:
    """Neither the disk cache nor a call under way answers for another one."""
    model = Model(cache_mode="auto", cache_path=str(tmp_path / "cache"))
    with llmcall.cassette(STUDY):
        for actor in ("ann", "ben"):
            with llmcall.scope(actor):
                model.client.send_message("Rate bread.", temperature=1)
    all_under_way = threading.Barrier(6)

    def once_all_are_under_way(messages: list[Any], chance: random.Random) -> str:
        return str(10 + all_under_way.wait(timeout=30))

    model.answer = once_all_are_under_way
    drift = llmcall.drift(STUDY, calls=6, to=CHECK)
    assert sorted(drift.to_frame()["value"]) == [10, 11, 12, 13, 14, 15]


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
    for named in (STUDY, (STUDY, "survey"), llmcall.Cassette(STUDY)):
        with pytest.raises(ValueError, match="the recording itself"):
            llmcall.drift(named, share=1, to=STUDY)


def test_what_cannot_be_sent_as_it_was_is_left_out_and_counted(model: Model) -> None:
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


def test_a_model_that_a_fallback_stood_in_for_is_not_asked_again(model: Model) -> None:
    """Its record holds no answer; the fallback's does."""

    def answer(messages: list[Any], chance: random.Random) -> Any:
        return ContextLengthError("too long") if model.asked == 1 else "3"

    model.answer = answer
    with llmcall.configured(fallbacks={"gpt-4o-mini": ("large",)}), llmcall.cassette(STUDY) as tape:
        model.client.send_message("Rate bread.", temperature=1)
    assert tape.records == 2
    assert llmcall.drift(STUDY, share=1, dry_run=True).calls == 1


@pytest.mark.parametrize("kind", ["embeddings", "left out"])
def test_an_empty_sample_is_an_error(model: Model, kind: str) -> None:
    """A recording with nothing to ask again is told apart from one without drift."""
    model.answer = lambda texts, chance: [0.1, 0.2] if kind == "embeddings" else "3"
    with llmcall.configured(cache_normalize=("times",)), llmcall.cassette(STUDY):
        if kind == "embeddings":
            model.client.get_embedding("bread")
        else:
            model.client.send_message("It is 10:15.", temperature=1)
    with pytest.raises(CacheError, match=r"no chat request in study\.jsonl can be asked again"):
        llmcall.drift(STUDY, share=1, to=CHECK)


def test_a_scope_of_a_recording_can_be_checked(model: Model) -> None:
    """As wherever a run is meant."""
    record(model, 12, 1)
    drift = llmcall.drift((STUDY, "survey/1*"), share=1, to=CHECK)
    assert set(drift.to_frame()["actor"]) == {"survey/1", "survey/10", "survey/11"}


def test_a_cassette_just_recorded_can_be_checked(model: Model) -> None:
    """Also by the object."""
    record(model, 3, 2)
    assert llmcall.drift(llmcall.Cassette(STUDY), share=1, to=CHECK).calls == 3


def test_a_cache_can_be_checked(tmp_path: Path) -> None:
    """A cache's scope is a run as well."""
    model = Model(cache_mode="auto", cache_path=str(tmp_path / "cache"))
    for number in range(4):
        with llmcall.scope(f"ann-{number}"):
            model.client.send_message("Rate bread.", temperature=1)
    assert llmcall.drift(model.client.cache, share=1, to=CHECK).calls == 4


# Agents with memory


def talk(model: Model, agents: int = 8) -> None:
    """Record agents that remember what they said."""
    with llmcall.cassette(STUDY):
        for agent in range(agents):
            messages = [{"role": "system", "content": f"You are agent {agent}."}]
            with llmcall.scope("town"), llmcall.scope(agent):
                for day in range(HISTORIES):
                    messages.append({"role": "user", "content": f"Day {day}: your mood?"})
                    messages.append(model.client.send_message(messages, temperature=1))


def test_agents_are_tested_call_by_call_with_their_recorded_histories(model: Model) -> None:
    """The new answers enter no prompt."""
    talk(model)
    recorded = [each.messages for each in model.client.requests]
    model.shift = 1
    drift = llmcall.drift(STUDY, share=1, to=CHECK)
    again = [each.messages for each in model.client.requests[len(recorded) :]]
    assert sorted(map(json.dumps, again)) == sorted(map(json.dumps, recorded))
    assert drift.calls == 8 * HISTORIES
    assert len(set(drift.to_frame()["actor"])) == 8


# The estimate


def test_the_estimate_is_that_of_the_table(model: Model) -> None:
    """Each new answer less the mean of the recorded draws, averaged within actors, then over them."""
    talk(model, 5)
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
    """A model that answers higher by one point."""
    record(model, 20, 10)
    model.shift = 1
    drift = llmcall.drift(STUDY, calls=100, to=CHECK)
    found = drift.shifts["answer"]
    assert 0 < found.low < 1 < found.high
    assert found.p < 0.001
    assert "is higher now, by" in str(drift)


def test_it_never_says_that_nothing_changed(model: Model) -> None:
    """Where an interval holds 0, it says what would have been found."""
    record(model, 20, 10)
    drift = llmcall.drift(STUDY, calls=100, to=CHECK)
    assert not drift.differs
    words = str(drift).lower()
    assert "would have been found with a power of 0.8; there may be a smaller one" in words
    for forbidden in ("no drift", "no change", "unchanged", "nothing changed", "has not changed"):
        assert forbidden not in words


def test_a_deterministic_model_that_answers_the_same_has_a_shift_of_zero(model: Model) -> None:
    """At temperature 0, equal answers are equal."""
    model.answer = lambda messages, chance: str(len(messages[0]["content"]) % 5)
    record(model, 10, 1, temperature=0)
    found = llmcall.drift(STUDY, share=1, to=CHECK).shifts["answer"]
    assert (found.estimate, found.low, found.high, found.p) == (0, 0, 0, 1)


def constant(number: float) -> Callable[[list[Any], random.Random], str]:
    """Return what a model answers that always says the same."""
    return lambda messages, chance: str(number)


def test_equal_answers_say_which_share_of_other_answers_would_show(model: Model) -> None:
    """Nothing varies, so the interval has no width, and the check says what it may have missed."""
    model.answer = constant(3)
    record(model, 10, 3)
    text = str(llmcall.drift(STUDY, calls=20, to=CHECK))
    assert "each new answer has the same value as all recorded answers to its request" in text
    assert (
        "If 7.7 % of the answers were different now, at least one of the 20 would show it" in text
    )
    assert "there may be a rarer change" in text
    assert "a shift of" not in text.lower()


@pytest.mark.parametrize(("actors", "draws"), [(6, 1), (3, 4), (2, 5)])
def test_answers_that_all_changed_from_one_constant_to_another_are_drift(
    model: Model, actors: int, draws: int
) -> None:
    """The exit code is 1, and the text says that every answer changed."""
    model.answer = constant(3)
    record(model, actors, draws)
    model.answer = constant(4)
    text = done("drift", STUDY, "--share", 1, "--to", CHECK, code=1)
    assert "'answer' is higher now, by 1.0 " in text
    assert "Each new answer differs from the recorded ones by the same amount" in text
    found = llmcall.drift(STUDY, share=1, to=CHECK).shifts["answer"]
    assert (found.before, found.now, found.low, found.high) == (3, 4, 1, 1)


@pytest.mark.parametrize(("actors", "draws"), [(2, 1), (5, 1), (2, 3)])
def test_a_few_answers_that_changed_alike_may_have_done_so_by_chance(
    model: Model, actors: int, draws: int
) -> None:
    """If any of a request's answers may be the new one, they often all differ alike by chance. So the
    interval has no ends, the plan names no shift, and the exit code is 0.
    """
    model.answer = constant(3)
    record(model, actors, draws)
    model.answer = constant(4)
    drift = llmcall.drift(STUDY, share=1, to=CHECK)
    found = drift.shifts["answer"]
    chance = (2 if draws == 1 else 1) / (draws + 1) ** actors
    assert found.p == pytest.approx(chance)
    assert found.estimate == 1 and (found.low, found.high) == (-math.inf, math.inf)
    assert not drift.differs
    assert "no shift, however large, would have been found" in str(drift)
    assert "too few answers" in str(drift)
    assert llmcall.drift(STUDY, share=1, dry_run=True).shift is None


@pytest.mark.parametrize("number", [0.1, 0.7, 1e-9, 1.1e9])
def test_equal_answers_have_a_shift_of_exactly_zero(model: Model, number: float) -> None:
    """The rounding of a mean is no drift."""
    model.answer = constant(number)
    record(model, 7, 3)
    drift = llmcall.drift(STUDY, share=1, to=CHECK)
    assert drift.shifts["answer"].estimate == 0 and not drift.differs


def test_values_that_differ_by_rounding_are_equal(model: Model) -> None:
    """The interval has no width, and the check says what it may have missed."""
    model.answer = constant(0.1)
    record(model, 2, 1)
    model.answer = constant(0.3)
    read = {"0.1": 0.1 + 0.2, "0.3": 0.3}
    drift = llmcall.drift(STUDY, share=1, to=CHECK, value=lambda text: read[text])
    found = drift.shifts["answer"]
    assert (found.estimate, found.low, found.high) == (0, 0, 0)
    assert "each new answer has the same value" in str(drift)


def test_a_common_shift_of_decimals_has_no_width(model: Model) -> None:
    """The rounding of differences is no variance."""
    model.answer = lambda messages, chance: f"0.{len(messages[0]['content']) % 3 + 1}"
    record(model, 7, 3)
    model.answer = lambda messages, chance: f"0.{len(messages[0]['content']) % 3 + 2}"
    found = llmcall.drift(STUDY, share=1, to=CHECK).shifts["answer"]
    assert (found.low, found.high) == pytest.approx((0.1, 0.1)) and found.found == 0


def test_actors_that_agree_by_chance_do_not_hide_how_their_answers_vary(model: Model) -> None:
    """If the recorded draws of a request differ, the interval has a width."""
    answers = itertools.cycle(["2", "4"])
    model.answer = lambda messages, chance: next(answers)
    record(model, 3, 4)
    model.answer = constant(4)
    found = llmcall.drift(STUDY, share=1, to=CHECK).shifts["answer"]
    assert found.estimate == 1
    assert found.low < 0 < 2 < found.high
    assert (found.low + found.high) / 2 == pytest.approx(found.estimate)


UP, DOWN = ([3], [4]), ([3], [2])  # a request's recorded and new answers
NOISY = ([3, 3.1], [3.05])


def check_questions(
    model: Model, actors: int, questions: Sequence[tuple[Sequence[Any], Sequence[Any]]]
) -> llmcall.Drift:
    """Return a check of actors that are all asked the same questions, with given answers.

    :param questions: the recorded and the new answers to each question.
    """
    left = {
        f"You are person {actor}. Question {number}?": iter([*recorded, *new])
        for actor in range(actors)
        for number, (recorded, new) in enumerate(questions)
    }
    model.answer = lambda messages, chance: str(next(left[messages[0]["content"]]))
    with llmcall.cassette(STUDY):
        for actor in range(actors):
            with llmcall.scope(actor):
                for number, (recorded, _) in enumerate(questions):
                    for _ in recorded:
                        asked = f"You are person {actor}. Question {number}?"
                        model.client.send_message(asked, temperature=1)
    calls = actors * sum(len(new) for _, new in questions)
    return llmcall.drift(STUDY, calls=calls, to=CHECK)


@pytest.mark.parametrize(
    ("actors", "questions", "least_width"),
    [
        (2, [UP, DOWN], math.inf),
        (6, [UP, DOWN], 1),
        (6, [([3] * 4, [4]), ([3] * 4, [2])], 0.5),
        (6, [([3], [4, 4]), ([3], [2, 2])], 0.5),
        (6, [(["yes"], ["no"]), (["no"], ["yes"])], 1),
        (6, [([3] * 4, [4]), ([3] * 4, [2]), NOISY], 0.4),
    ],
)
def test_opposite_shifts_that_cancel_do_not_hide_that_answers_vary(
    model: Model, actors: int, questions: Any, least_width: float
) -> None:
    """If the shifts of each actor cancel, the interval has a width, and the check finds no shift that
    is small.
    """
    [found] = check_questions(model, actors, questions).shifts.values()
    assert found.estimate == 0 and found.p == 1
    assert found.high - found.low >= least_width
    assert found.found >= least_width / 2


def test_a_large_shift_that_all_actors_share_does_not_widen_its_interval(model: Model) -> None:
    """The interval is as wide as the recorded answers to each request vary."""
    found = check_questions(model, 10, [([2, 4, 2, 4], [13])]).shifts["answer"]
    error = math.sqrt(4 / 3 * (1 + 1 / 4) / 10)
    half = student_quantile(0.975, 9) * error
    assert (found.low, found.high) == pytest.approx((10 - half, 10 + half))


@pytest.mark.parametrize(("often", "rarely"), [("no", "yes"), ("4", "5")])
def test_rare_answers_that_are_missing_by_chance_are_no_drift(
    model: Model, often: str, rarely: str
) -> None:
    """The interval of a share, or of a rating, is as wide as the answers to one request vary."""
    times = Counter[str]()

    def answer(messages: list[Any], chance: random.Random) -> str:
        asked = messages[0]["content"]
        times[asked] += 1
        is_odd = int(asked.split()[3].rstrip("!")) % 2
        return rarely if is_odd and times[asked] == 1 else often

    model.answer = answer
    record(model, 10, 10)
    found = llmcall.drift(STUDY, share=1, to=CHECK).shifts["answer"]
    assert found.estimate == pytest.approx(-0.05)
    assert found.low < -0.1 < 0 < found.high


def test_a_plan_for_answers_that_never_vary(model: Model) -> None:
    """It names no shift of 0."""
    model.answer = constant(3)
    record(model, 5, 3)
    text = str(llmcall.drift(STUDY, share=1, dry_run=True))
    assert "any shift that all new answers share would be found" in text
    assert "a shift of" not in text


def test_one_call_has_no_interval(model: Model) -> None:
    """It says that it says nothing."""
    record(model, 3, 4)
    drift = llmcall.drift(STUDY, calls=1, to=CHECK)
    assert math.isinf(drift.shifts["answer"].low) and not drift.differs
    assert "−∞ to +∞" in str(drift)
    assert "One new answer says nothing" in str(drift)
    assert "no shift, however large, would have been found" in str(drift)


def test_a_single_actor_is_resampled_by_request(model: Model) -> None:
    """And the text says so."""
    with llmcall.cassette(STUDY), llmcall.scope("ann"):
        for number in range(20):
            for _ in range(3):
                model.client.send_message(f"Question {number}", temperature=1)
    drift = llmcall.drift(STUDY, share=1, to=CHECK)
    assert drift.shifts["answer"].low < drift.shifts["answer"].high
    assert "resampling requests" in str(drift)


def ask_again(model: Model, recorded: Sequence[Any], new: Sequence[Any]) -> llmcall.Drift:
    """Return a check of a single request, with given answers."""
    answers = itertools.chain(recorded, new)
    model.answer = lambda messages, chance: str(next(answers))
    with llmcall.cassette(STUDY), llmcall.scope("ann"):
        for _ in recorded:
            model.client.send_message("How good is bread?", temperature=1)
    return llmcall.drift(STUDY, calls=len(new), to=CHECK)


def test_many_answers_to_a_single_request_show_no_more_than_its_recorded_ones(
    model: Model,
) -> None:
    """One recorded answer may be the odd one by chance, and ten new ones don't change that."""
    drift = ask_again(model, [1], [3, 4, 3, 3, 5, 2, 4, 3, 3, 4])
    assert math.isinf(drift.shifts["answer"].low) and not drift.differs
    assert "too few answers" in str(drift)
    assert "they apply to this request only" in str(drift)
    assert "sampled from 1 different recorded request in" in str(drift)
    plan = llmcall.drift(STUDY, calls=10, dry_run=True)
    assert plan.shift is None
    for text in (str(drift), str(plan)):
        assert "The power is low" not in text  # no shift has any


def test_a_single_request_that_is_answered_higher_is_drift(model: Model) -> None:
    """Its interval comes from exchanging its new and recorded answers."""
    drift = ask_again(model, [1, 2, 3, 2, 1, 2], [4, 5, 4, 6, 5, 4, 5, 4])
    found = drift.shifts["answer"]
    assert 1 < found.low < found.estimate < found.high < 5
    assert found.p < 0.01
    planned = llmcall.drift(STUDY, calls=8, dry_run=True).shift
    assert planned == pytest.approx(found.found, rel=0.2)


def test_a_share_shifts_by_100_points_at_most(model: Model) -> None:
    """An interval ends there, and a shift that cannot be is not said to be found."""
    answers = itertools.cycle(["buy", "sell", "sell", "buy", "buy", "sell"])
    model.answer = lambda messages, chance: next(answers)
    record(model, 3, 2)
    plan = llmcall.drift(STUDY, share=1, dry_run=True)
    assert "no shift, however large, would be found" in str(plan)
    drift = llmcall.drift(STUDY, share=1, to=CHECK)
    found = drift.shifts["buy"]
    assert found.low >= -1 and found.high <= 1 and math.isinf(found.found)
    assert "'buy': no shift, however large, would have been found" in str(drift)
    assert "too few answers" in str(drift)


def test_a_shift_that_rounds_to_zero_has_no_sign(model: Model) -> None:
    """It is written with as many digits as its interval warrants."""
    answers = iter([3, 3, 4, 1.9999])
    model.answer = lambda messages, chance: str(next(answers))
    record(model, 2, 1)
    drift = llmcall.drift(STUDY, share=1, to=CHECK)
    assert drift.shifts["answer"].estimate < 0
    assert re.search(r"answer +3 +3 +0 +−9 to \+9$", str(drift), re.MULTILINE)


def test_a_shift_of_hundreds_has_no_decimals(model: Model) -> None:
    """Its interval warrants none."""
    answers = iter([300, 300, 400, 200])
    model.answer = lambda messages, chance: str(next(answers))
    record(model, 2, 1)
    text = str(llmcall.drift(STUDY, share=1, to=CHECK))
    assert re.search(r"answer +300 +300 +0 +−917 to \+917$", text, re.MULTILINE)


def test_a_shift_of_tiny_numbers_is_written_with_its_digits(model: Model) -> None:
    """However small they are."""
    model.answer = lambda messages, chance: f"{model.number(chance)}e-15"
    record(model, 10, 10)
    model.shift = 1
    text = str(llmcall.drift(STUDY, calls=100, to=CHECK))
    assert re.search(r"'answer' is higher now, by 0\.0{14,15}[1-9]", text)


@pytest.mark.parametrize("actors", [2, 7], ids=["no ends", "no width"])
def test_a_common_shift_of_thousandths_is_written_with_its_digits(
    model: Model, actors: int
) -> None:
    """Its interval does not tell how many it needs."""
    model.answer = constant(0.001)
    record(model, actors, 1)
    model.answer = constant(0.004)
    text = str(llmcall.drift(STUDY, share=1, to=CHECK))
    assert re.search(r"answer +0\.0010 +0\.0040 +\+0\.0030", text)


def test_the_actors_are_counted(model: Model) -> None:
    """Only the repeats of a map are left out: those of other scopes count as actors."""
    with llmcall.cassette(STUDY):
        for number in range(12):
            with llmcall.scope(f"rep-{number}"), llmcall.scope("ann"):
                model.client.send_message("How good is bread?", temperature=1)
    text = str(llmcall.drift(STUDY, share=1, to=CHECK))
    assert "The intervals come from resampling 12 actors, such as rep-0/ann." in text


def test_few_actors_are_called_few(model: Model) -> None:
    """Their interval is rough."""
    record(model, 4, 4)
    assert "4 actors" in str(llmcall.drift(STUDY, calls=40, to=CHECK))


def test_p_values_and_intervals_are_adjusted_for_their_number(model: Model) -> None:
    """The same answers beside three other values: a larger p-value, a wider interval."""
    record(model, 20, 10)
    model.shift = 0.3
    alone = llmcall.drift(STUDY, calls=60, to=CHECK).shifts["answer"]

    def four(text: str) -> dict[str, float]:
        number = int(text)
        return {"answer": number, "a": number == 1, "b": number == 2, "c": number % 2}

    beside = llmcall.drift(STUDY, calls=60, to=CHECK, value=four).shifts["answer"]
    assert beside.estimate == alone.estimate
    assert beside.p > alone.p
    assert beside.high - beside.low > alone.high - alone.low


# Values


def test_intervals_and_p_values_agree_for_hundreds_of_values(model: Model) -> None:
    """However small Holm's method makes the levels."""
    fields = 130

    def rate(messages: list[Any], chance: random.Random) -> Any:
        strength = model.shift / fields
        return {
            f"field {number:03}": chance.gauss(number * strength, 1) for number in range(fields)
        }

    model.answer = rate
    record(model, 12, 2)
    model.shift = 12
    shifts = llmcall.drift(STUDY, calls=12, to=CHECK).shifts.values()
    assert {shift.leaves_zero for shift in shifts} == {True, False}
    assert all(shift.leaves_zero == (shift.p < 0.05) for shift in shifts)


def test_fields_of_json_are_values(model: Model) -> None:
    """Number fields and yes-or-no fields, each with its own shift, adjusted for their number."""

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
    assert "adjusted for 2 comparisons by Holm's method" in str(drift)
    assert all((each.p < 0.05) == each.leaves_zero for each in drift.shifts.values())


def test_fields_that_are_not_compared_are_named(model: Model) -> None:
    """A choice among texts may have changed completely; the plan says so, too."""
    model.answer = lambda messages, chance: {"why": "So.", "choice": "tax", "agrees": True}
    record(model, 4, 2)
    told = "Not compared: 'why', 'choice', because most of their values are neither numbers nor"
    assert told in str(llmcall.drift(STUDY, share=1, dry_run=True))
    assert told in str(llmcall.drift(STUDY, share=1, to=CHECK))
    assert "Not compared" not in str(
        llmcall.drift(STUDY, share=1, to=CHECK, value=lambda text: "tax" in text)
    )


def test_a_field_that_answers_lack_is_told(model: Model) -> None:
    """A model that leaves a question out more often has changed."""
    numbers = itertools.count()
    rarely = 10

    def rate(messages: list[Any], chance: random.Random) -> Any:
        lacks = next(numbers) % rarely == 0
        return {"score": None if lacks else 3, "agrees": True}

    model.answer = rate
    record(model, 10, 4)
    rarely, numbers = 2, itertools.count()
    told = str(llmcall.drift(STUDY, share=1, to=CHECK))
    assert "Not given: 'score' in 4 of 40 recorded and 5 of 10 new answers." in told


def test_yes_and_no_are_one_value(model: Model) -> None:
    """The share of yes, and named so."""
    model.answer = lambda messages, chance: "Yes." if chance.random() < 0.2 + model.shift else "No"
    record(model, 20, 10)
    model.shift = 0.6
    drift = llmcall.drift(STUDY, calls=100, to=CHECK)
    assert drift.shifts["answer"].estimate == pytest.approx(0.6, abs=0.15)
    assert "The share of 'answer = yes' is higher now" in str(drift)
    assert "answer = yes: a shift of" in str(llmcall.drift(STUDY, calls=100, dry_run=True))


def test_texts_that_differ_by_a_mark_are_different_options(model: Model) -> None:
    """ "C#" is not "C" in quotes or bold."""
    model.answer = lambda messages, chance: chance.choice(["C", "**C**", "C#.", "`C#`"])
    record(model, 20, 10)
    model.answer = lambda messages, chance: "C#"
    drift = llmcall.drift(STUDY, calls=100, to=CHECK)
    assert drift.shifts["C"].now == 0


@pytest.mark.parametrize("order", ["given", "rotate", "reverse", "shuffle"])
def test_the_letter_of_an_option_counts_as_the_option(model: Model, order: str) -> None:
    """In another order, the same letter is another option; the shifts of letters would cancel."""
    often, rarely = "tax", "ban"

    def choose(messages: list[Any], chance: random.Random) -> str:
        lines: list[str] = messages[-1]["content"].split("\n")
        wanted = rarely if "0 do?" in lines[0] else often
        return next(line[:2] for line in lines if line.endswith(f". {wanted}"))

    model.answer = choose
    question = llmcall.choice("What should {{ town }} do?", ["tax", "ban"], order=order)
    towns = [{"town": f"town {number}"} for number in range(20)]
    with llmcall.cassette(STUDY):
        question.map(towns, scope="survey", key="town", repeats=2)
    often, rarely = rarely, often
    drift = llmcall.drift(STUDY, share=1, to=CHECK)
    assert (drift.shifts["ban"].before, drift.shifts["ban"].now) == pytest.approx((0.1, 0.9))
    assert drift.differs


@pytest.mark.parametrize("excuse", ["I cannot choose.", "I cannot choose, {}."])
def test_an_answer_that_names_no_option_is_unreadable(model: Model, excuse: str) -> None:
    """In the recording and in the check, whatever its words: it is no option of its own."""
    excuses = itertools.count()

    def choose(messages: list[Any], chance: random.Random) -> str:
        town = int(messages[-1]["content"].split("town ")[1].split(" ")[0])
        return excuse.format(next(excuses)) if town % 2 else "A"

    model.answer = choose
    question = llmcall.choice("What should town {{ town }} do?", ["tax", "ban"])
    with llmcall.cassette(STUDY):
        question.map([{"town": town} for town in range(60)], scope="survey", key="town")
    excuse = "I have no preference."
    drift = llmcall.drift(STUDY, share=1, to=CHECK)
    assert (drift.unreadable.before, drift.unreadable.now) == (0.5, 0.5)
    assert (drift.shifts["tax"].before, drift.shifts["tax"].now) == (1, 1)


def test_a_few_different_texts_are_shares(model: Model) -> None:
    """The share of each."""
    model.answer = lambda messages, chance: chance.choice(["Buy", "buy.", "Sell", "Wait"])
    record(model, 20, 10)
    model.answer = lambda messages, chance: chance.choice(["Buy", "Wait"])
    drift = llmcall.drift(STUDY, calls=200, to=CHECK)
    assert set(drift.shifts) == {"Buy", "Sell", "Wait"}
    assert drift.shifts["Sell"].high < 0 < drift.shifts["Wait"].low
    assert sum(each.estimate for each in drift.shifts.values()) == pytest.approx(0, abs=1e-9)
    assert all((each.p < 0.05) == each.leaves_zero for each in drift.shifts.values())


def test_a_text_that_was_never_recorded_is_unreadable(model: Model) -> None:
    """It is in no share, and the share of unreadable answers says so."""
    model.answer = lambda messages, chance: chance.choice(["buy", "sell", "wait"])
    record(model, 20, 5)
    model.answer = lambda messages, chance: "I think that I would rather not."
    drift = llmcall.drift(STUDY, calls=60, to=CHECK)
    assert (drift.unreadable.before, drift.unreadable.now) == (0, 1)
    assert drift.differs
    assert "'buy': no new answer has a value" in str(drift)
    told = "60 of 60 new answers have a text that was not recorded, such as 'I think that I would"
    assert told in str(drift)


def test_free_texts_need_value(model: Model) -> None:
    """The error quotes some, before anything is asked."""
    numbers = iter(range(1000))
    model.answer = lambda messages, chance: (
        f"Well, {next(numbers)} apples and {next(numbers)} pears."
    )
    record(model, 30, 1)
    with pytest.raises(ValueError, match=r"(?s)Well, 0 apples.*Give value="):
        llmcall.drift(STUDY, calls=5, to=CHECK)
    assert model.asked == 30
    drift = llmcall.drift(STUDY, calls=5, value=lambda text: len(text), to=CHECK)
    assert drift.shifts["answer"].now > 20


def test_texts_that_hardly_repeat_are_told(model: Model, caplog: pytest.LogCaptureFixture) -> None:
    """A few free texts are read as options: a new one looks unreadable, and that like drift."""
    model.answer = lambda messages, chance: f"An essay about {chance.random()} loaves."
    record(model, 4, 1)
    llmcall.drift(STUDY, share=1, to=CHECK)
    assert "hardly repeat: 4 different texts in 4 answers" in caplog.text
    assert "value=" in caplog.text


def test_numbers_that_hardly_repeat_are_not_told(
    model: Model, caplog: pytest.LogCaptureFixture
) -> None:
    """They are read as numbers, and not as options."""
    numbers = itertools.count(1)
    model.answer = lambda messages, chance: str(next(numbers))
    record(model, 4, 1)
    llmcall.drift(STUDY, share=1, to=CHECK)
    assert "hardly repeat" not in caplog.text


def test_texts_that_repeat_are_not_told(model: Model, caplog: pytest.LogCaptureFixture) -> None:
    """Two options that several actors name are read without a word."""
    model.answer = lambda messages, chance: chance.choice(["Buy", "Sell"])
    record(model, 5, 4)
    llmcall.drift(STUDY, share=1, to=CHECK)
    assert "hardly repeat" not in caplog.text


def test_a_long_text_is_shortened_where_it_names_a_share(model: Model) -> None:
    """In every output for people; the shifts have the whole text."""
    texts = [f"{word} {'word ' * 200}end" for word in ("Buy", "Sell", "Wait")]
    model.answer = lambda messages, chance: chance.choice(texts)
    record(model, 5, 5)
    drift = llmcall.drift(STUDY, share=1, to=CHECK)
    assert set(drift.shifts) <= set(texts)
    plan = llmcall.drift(STUDY, share=1, dry_run=True)
    for words in (str(drift), repr(drift), drift._repr_html_(), str(plan), plan._repr_html_()):
        assert "…" in words and "word end" not in words


@pytest.mark.parametrize("recorded", ["3", "-1e308"])
def test_a_number_too_large_to_be_squared_is_unreadable(model: Model, recorded: str) -> None:
    """Neither overflows nor makes an interval that is no number."""
    model.answer = lambda messages, chance: chance.choice(["3", recorded, "4", "2"])
    record(model, 5, 4)
    model.answer = lambda messages, chance: chance.choice(["1e308", "1e99"])
    drift = llmcall.drift(STUDY, calls=20, to=CHECK)
    assert 0 < drift.unreadable.now < 1
    assert all(map(math.isfinite, drift.shifts["answer"]))
    assert max(map(len, str(drift).splitlines())) < 250


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


def test_a_single_tool_call_is_read_by_its_arguments(model: Model) -> None:
    """An agent that acts by tools is checked like one that answers in JSON."""

    def acting(messages: list[Any], chance: random.Random) -> Any:
        arguments = json.dumps({"price": model.number(chance), "item": "bread"})
        call = {"id": "c", "type": "function", "function": {"name": "buy", "arguments": arguments}}
        return {"role": "assistant", "content": None, "tool_calls": [call]}

    model.answer = acting
    record(model, 10, 5)
    drift = llmcall.drift(STUDY, calls=20, to=CHECK)
    assert set(drift.shifts) == {"price"}
    assert drift.unreadable.now == 0


def test_a_field_may_have_the_name_of_a_share(model: Model) -> None:
    """It is another value than the share of refused answers."""
    model.answer = lambda messages, chance: {"refused": True, "cut": 3}
    record(model, 5, 2)
    drift = llmcall.drift(STUDY, share=1, to=CHECK)
    assert set(drift.shifts) == {"refused (field)", "cut (field)"}
    assert drift.refused.now == 0


def test_a_value_that_reads_nothing_is_told(model: Model) -> None:
    """Plan and result say so, and no interval is made up."""
    record(model, 5, 2)
    options: dict[str, Any] = {"share": 1, "value": lambda text: None}
    assert llmcall.drift(STUDY, dry_run=True, **options).shift is None
    drift = llmcall.drift(STUDY, to=CHECK, **options)
    assert drift.shifts == {} and drift.unreadable.now == 1
    assert "No value could be read" in str(drift)


def test_value_must_return_a_number(model: Model) -> None:
    """Anything else is a mistake, told at once."""
    record(model, 3, 1)
    with pytest.raises(TypeError, match="value returned 'high'"):
        llmcall.drift(STUDY, share=1, value=lambda text: "high", to=CHECK)


def marked(kind: str) -> Any:
    """Return an answer that is unreadable, cut or refused."""
    message = {"role": "assistant", "content": "3" if kind == "cut" else "well"}
    if kind == "refused":
        message = {"role": "assistant", "content": None, "refusal": "I cannot."}
    reason = "length" if kind == "cut" else "stop"
    return {"choices": [{"index": 0, "message": message, "finish_reason": reason}]}


@pytest.mark.parametrize("kind", ["unreadable", "cut", "refused"])
def test_answers_without_a_value_are_shares_of_their_own(model: Model, kind: str) -> None:
    """Unreadable, cut and refused answers, before and now; only a cut one may have a value."""
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
    assert found.low > 0 and drift.differs
    others = {"unreadable", "cut", "refused"} - {kind}
    assert all(getattr(drift, each).now == 0 for each in others)
    assert drift.shifts["answer"].answers == pytest.approx(100 if kind == "cut" else 40, abs=15)


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


@pytest.mark.parametrize("kind", [ContentFilterError, EmptyAnswerError])
def test_a_filtered_or_empty_answer_is_counted_and_asked_again(
    model: Model, kind: type[llmcall.APIError]
) -> None:
    """It stops no check, which replays as it was; a later one asks again for what is missing."""
    record(model, 10, 2)
    model.answer = lambda messages, chance: kind("no") if "person 3" in str(messages) else "3"
    drift = llmcall.drift(STUDY, share=1, to=CHECK)
    assert (drift.calls, drift.unanswered) == (9, 1)
    assert "1 further call got no answer" in str(drift)
    asked = model.asked
    with llmcall.configured(cassette_mode="none"):
        assert str(llmcall.drift(STUDY, share=1, to=CHECK)) == str(drift)
    assert model.asked == asked
    model.answer = lambda messages, chance: "3"
    assert llmcall.drift(STUDY, share=1, to=CHECK).unanswered == 0
    assert model.asked == asked + 1


def test_no_answer_at_all_is_an_error(model: Model) -> None:
    """There is nothing to compare."""
    record(model, 3, 2)
    model.answer = lambda messages, chance: ContentFilterError("filtered")
    with pytest.raises(ContentFilterError, match="filtered"):
        llmcall.drift(STUDY, share=1, to=CHECK)


@pytest.mark.skipif(sys.platform == "win32", reason="there is no signal to send to oneself")
def test_ctrl_c_and_again_goes_on(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was answered is kept, and the finished file is that of an undisturbed check."""
    monkeypatch.setattr("llmcall.parallel.run.GRACE", 30.0)
    model.answer = lambda messages, chance: str(len(messages[0]["content"]) % 5)
    record(model, 30, 1)
    llmcall.drift(STUDY, share=1, to="undisturbed.jsonl")
    start = model.asked

    def pressed(messages: list[Any], chance: random.Random) -> str:
        if model.asked == start + 10:
            press_ctrl_c()
        return str(len(messages[0]["content"]) % 5)

    model.answer = pressed
    one_at_a_time = llmcall.configured(limits_max_concurrent_calls=1)
    with ctrl_c_interrupts(), one_at_a_time, pytest.raises(KeyboardInterrupt):
        llmcall.drift(STUDY, share=1, to=CHECK)
    asked = model.asked - start
    assert 10 <= asked < 30
    llmcall.drift(STUDY, share=1, to=CHECK)
    assert model.asked == start + 30
    assert Path(CHECK).read_bytes() == Path("undisturbed.jsonl").read_bytes()


def test_a_budget_stops_it(model: Model) -> None:
    """And what was answered is kept."""
    record(model, 20, 1)
    with llmcall.budget(calls=7), pytest.raises(BudgetExceededError):
        llmcall.drift(STUDY, share=1, to=CHECK)
    assert model.asked == 27
    llmcall.drift(STUDY, share=1, to=CHECK)
    assert model.asked == 40


# Another model


def test_a_model_that_is_gone(httpserver: HTTPServer) -> None:
    """The API's own words, and ``model=`` as the way on."""
    server = ScriptedServer(httpserver, Answer(200, completion("3")))
    llmcall.register_client("openai", client_for(server.base_url))
    with llmcall.cassette(STUDY), llmcall.scope("ann"):
        llmcall.client("openai").send_message("Rate bread.", temperature=1)
    gone = "The model `gpt-4o-mini` has been deprecated."
    httpserver.clear()
    server = ScriptedServer(httpserver, refusal(404, gone, code="model_not_found"))
    with pytest.raises(InvalidRequestError, match=rf"{gone} If the model is gone, model="):
        llmcall.drift(STUDY, share=1, to=CHECK)
    assert "model=" in run("drift", STUDY, "--share", 1, "--to", CHECK).output


def test_another_model_is_marked_in_every_output(model: Model) -> None:
    """Plan, text, notebook, repr, JSON and table."""
    record(model, 10, 3)
    options: dict[str, Any] = {"share": 1, "model": "gpt-5"}
    drift = llmcall.drift(STUDY, to=CHECK, **options)
    assert {body_of(each)["model"] for each in model.client.requests[30:]} == {"gpt-5"}
    for words in (
        str(drift),
        drift._repr_html_(),
        str(llmcall.drift(STUDY, dry_run=True, **options)),
        llmcall.drift(STUDY, dry_run=True, **options)._repr_html_(),
    ):
        assert "ANOTHER MODEL: gpt-5 is asked in place of gpt-4o-mini" in words
    assert "under the same name" not in str(drift)
    assert "another model, gpt-5" in repr(drift)
    assert drift.model == "gpt-5"
    assert all(drift.to_frame()["another_model"])
    printed = json.loads(
        run("drift", STUDY, "--share", 1, "--model", "gpt-5", "--to", CHECK, "--json").output
    )
    assert printed["another_model"] == "gpt-5"


def test_the_recorded_model_is_not_another_one(model: Model) -> None:
    """By whatever way it is named."""
    record(model, 3, 3)
    drift = llmcall.drift(STUDY, share=1, model="gpt-4o-mini", to=CHECK)
    assert drift.model is None and "ANOTHER" not in str(drift)


def test_served_models_and_days_then_and_now(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both are in the text, by the server's names."""
    snapshot = "gpt-4o-mini-2024-07-18"
    rating = {"role": "assistant", "content": "3"}
    model.answer = lambda messages, chance: {
        "model": snapshot,
        "choices": [{"index": 0, "message": rating, "finish_reason": "stop"}],
    }
    monkeypatch.setattr("llmcall.cassettes.gained.day_of", lambda seconds: "2026-05-01")
    record(model, 3, 2)
    snapshot = "gpt-4o-mini-2026-10-01"
    monkeypatch.setattr("llmcall.cassettes.gained.day_of", lambda seconds: "2026-11-22")
    drift = llmcall.drift(STUDY, share=1, to=CHECK)
    assert "Another model answers under the same name: gpt-4o-mini-2026-10-01 now" in str(drift)
    assert "then: gpt-4o-mini-2024-07-18 (2026-05-01)" in str(drift)
    assert "now:  gpt-4o-mini-2026-10-01 (2026-11-22)" in str(drift)
    assert list(drift.served.before) == ["gpt-4o-mini-2024-07-18"]


def test_a_snapshot_that_answered_then_too_is_not_another_one(model: Model) -> None:
    """Other snapshots may have answered then as well."""
    names = itertools.cycle(["snapshot-1", "snapshot-2"])
    rating = {"role": "assistant", "content": "3"}
    model.answer = lambda messages, chance: {
        "model": next(names),
        "choices": [{"index": 0, "message": rating, "finish_reason": "stop"}],
    }
    record(model, 3, 2)
    names = itertools.repeat("snapshot-2")
    assert "Another model" not in str(llmcall.drift(STUDY, share=1, to=CHECK))
    Path(CHECK).unlink()
    names = itertools.cycle(["snapshot-2", "snapshot-3"])
    text = str(llmcall.drift(STUDY, share=1, to=CHECK))
    assert "under the same name: snapshot-3 now, snapshot-1, snapshot-2 then" in text


# The plan


def test_a_dry_run_makes_no_call(model: Model) -> None:
    """It says calls, cost, and the shift that would be found with a power of 0.8."""
    record(model, 20, 10)
    plan = llmcall.drift(STUDY, calls=100, dry_run=True)
    assert model.asked == 200
    assert plan.calls == 100
    assert plan.shift == pytest.approx(2.8 * SIGMA * math.sqrt(1 / 100 + 1 / 200), rel=0.15)
    assert "found with a power of 0.8" in str(plan)


def test_more_calls_find_a_smaller_shift(model: Model) -> None:
    """As the square root says."""
    record(model, 20, 100)
    few, many = (llmcall.drift(STUDY, calls=calls, dry_run=True).shift for calls in (40, 160))
    assert few is not None and many is not None
    assert few / many == pytest.approx(2, rel=0.1)


def test_a_plan_expects_as_many_unreadable_answers_as_were_recorded(model: Model) -> None:
    """Fewer answers with a value find a larger shift, and one comparison more is adjusted for."""
    model.answer = lambda messages, chance: str(chance.choice([2, 4]))
    record(model, 20, 40, path="readable.jsonl")
    model.answer = lambda messages, chance: str(chance.choice([2, 4, "well", "well"]))
    record(model, 20, 40, path="half.jsonl")
    whole = llmcall.drift("readable.jsonl", calls=400, dry_run=True)
    half = llmcall.drift("half.jsonl", calls=400, value=float, dry_run=True)
    assert whole.shift is not None and half.shift is not None
    assert (whole.comparisons, half.comparisons) == (1, 2)
    level = half.power(half.shift)
    assert level == pytest.approx(0.8, abs=1e-6)
    widening = (student_quantile(0.9875, 19) + student_quantile(0.8, 19)) / (
        student_quantile(0.975, 19) + student_quantile(0.8, 19)
    )
    assert half.shift / whole.shift == pytest.approx(math.sqrt(2) * widening, rel=0.1)


def test_a_plan_of_a_value_counts_only_requests_that_have_it(model: Model) -> None:
    """Requests with other values change nothing."""
    prices = {"ann": [1, 3], "ben": [2, 2], "cem": [4, 3]}

    def planned(path: str, answers: dict[str, list[dict[str, int]]]) -> float:
        left = {actor: iter(values) for actor, values in answers.items()}
        model.answer = lambda messages, chance: next(left[messages[0]["content"]])
        with llmcall.cassette(path):
            for actor, values in answers.items():
                with llmcall.scope(actor):
                    for _ in values:
                        model.client.send_message(actor, temperature=1)
        return llmcall.drift(path, calls=len(answers), dry_run=True).shifts["price"]

    both = {
        actor: [{"price": price, "mood": price} for price in values]
        for actor, values in prices.items()
    }
    apart = {actor: [{"price": price} for price in values] for actor, values in prices.items()}
    for actor in ("dora", "emil", "fay"):
        apart[actor] = [{"mood": 1}, {"mood": 2}]
    assert planned("apart.jsonl", apart) == planned("both.jsonl", both)


def test_the_power_of_a_plan_is_that_of_its_adjusted_tests(model: Model) -> None:
    """Where nothing shifts, a test at 5 % of two comparisons finds a higher value in 1.25 % of
    checks.
    """
    model.answer = lambda messages, chance: str(chance.choice([2, 4, "well", "well"]))
    record(model, 5, 8)
    plan = llmcall.drift(STUDY, calls=40, value=float, dry_run=True)
    assert plan.comparisons == 2
    assert plan.power(0.0) == pytest.approx(0.0125)


def test_a_plan_foretells_what_the_check_would_have_found(model: Model) -> None:
    """With answers that cannot be read and answers that are cut, too."""

    def answer(messages: list[Any], chance: random.Random) -> Any:
        drawn = chance.random()
        if drawn < 0.4:
            return marked("unreadable")
        return marked("cut") if drawn < 0.5 else str(model.number(chance))

    model.answer = answer
    record(model, 60, 10)
    plan = llmcall.drift(STUDY, calls=300, value=float, dry_run=True)
    found = llmcall.drift(STUDY, calls=300, value=float, to=CHECK).shifts["answer"].found
    assert plan.shift == pytest.approx(found, rel=0.25)


def test_a_tiny_cost_is_told_as_less_than_an_amount(model: Model) -> None:
    """Not as about one."""
    llmcall.configure(prices={"gpt-4o-mini": (0.001, 0.001)})
    record(model, 2, 2)
    plan = llmcall.drift(STUDY, calls=2, dry_run=True)
    assert "2 calls, for less than $0.0001" in str(plan)


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
    held = llmcall.drift(STUDY, share=1, to=CHECK, dry_run=True)
    assert (held.recorded, held.cost) == (4, 0)


def test_one_recorded_draw_has_low_power(model: Model) -> None:
    """The plan and the result say so, and give it."""
    talk(model, 20)
    words = "The power is low, because each request has only one recorded answer"
    assert words in str(llmcall.drift(STUDY, share=1, dry_run=True))
    text = str(llmcall.drift(STUDY, share=1, to=CHECK))
    assert words in text
    assert "is found with a power of 0.5" in text


def test_mostly_one_recorded_draw_has_low_power(model: Model) -> None:
    """Agents share the first request of all repeats, and no other."""
    for repeat in range(2):
        with llmcall.cassette(STUDY, mode="new"), llmcall.scope(f"rep-{repeat}"):
            messages = [{"role": "system", "content": "You are Ann."}]
            for day in range(3):
                messages.append({"role": "user", "content": f"Day {day}: your mood?"})
                messages.append(model.client.send_message(messages, temperature=1))
                model.answer = constant(repeat + day)
    words = "The power is low, because most requests have only one recorded answer"
    assert words in str(llmcall.drift(STUDY, share=1, dry_run=True))


# Tables


def test_the_table_has_a_row_for_each_new_answer(model: Model) -> None:
    """With the recorded ones, for people's own models."""
    record(model, 5, 4)
    frame = llmcall.drift(STUDY, calls=10, to=CHECK).to_frame()
    assert len(frame) == 10
    assert all(len(values) == 4 for values in frame["recorded"])
    assert list(frame["recorded_mean"]) == [statistics.mean(each) for each in frame["recorded"]]
    assert list(frame["value"]) == [float(text) for text in frame["text"]]


def test_several_choices_are_several_answers(model: Model) -> None:
    """With ``n``, each choice counts."""

    def answer(messages: list[Any], chance: random.Random) -> Any:
        texts = [str(model.number(chance)) for _ in range(3)]
        messages = [{"role": "assistant", "content": text} for text in texts]
        choices = [
            {"index": index, "message": each, "finish_reason": "stop"}
            for index, each in enumerate(messages)
        ]
        return {"choices": choices}

    model.answer = answer
    record(model, 4, 2, n=3)
    frame = llmcall.drift(STUDY, share=1, to=CHECK).to_frame()
    assert len(frame) == 12
    assert all(len(values) == 6 for values in frame["recorded"])


# Arguments and the command


@pytest.mark.parametrize(
    ("options", "kind", "words"),
    [
        ({}, ValueError, "to= "),
        ({"to": CHECK, "share": 0}, ValueError, "share is 0"),
        ({"to": CHECK, "model": ""}, ValueError, "model is empty"),
        ({"to": "."}, ValueError, "to is the folder"),
        ({"to": CHECK, "share": 2}, ValueError, "calls="),
        ({"to": CHECK, "calls": 0}, ValueError, "calls is 0"),
        ({"to": CHECK, "calls": 1.5}, TypeError, "calls is 1.5"),
        ({"to": CHECK, "seed": "a"}, TypeError, "seed is 'a'"),
        ({"to": CHECK, "value": 3}, TypeError, "value is 3"),
    ],
)
def test_a_wrong_argument_is_told_before_any_call(
    model: Model, options: dict[str, Any], kind: type[Exception], words: str
) -> None:
    """It names the argument."""
    record(model, 3, 1)
    with pytest.raises(kind, match=words):
        llmcall.drift(STUDY, **options)
    assert model.asked == 3


def test_the_command_exits_with_1_where_an_interval_leaves_0(model: Model) -> None:
    """With 0 where none does."""
    record(model, 20, 10)
    done("drift", STUDY, "--calls", 100, "--to", "same.jsonl", code=0)
    model.shift = 1
    text = done("drift", STUDY, "--calls", 100, "--to", "other.jsonl", code=1)
    assert "is higher now" in text
    # a replay says the same
    assert done("drift", STUDY, "--calls", 100, "--to", "other.jsonl", code=1) == text


@pytest.mark.parametrize(
    "arguments", [[STUDY], [STUDY, "--to", CHECK, "--share", 3], ["no.jsonl", "--to", CHECK]]
)
def test_the_command_exits_with_2_for_wrong_usage(model: Model, arguments: list[Any]) -> None:
    """Without ``--to``, with a wrong share, without the file."""
    record(model, 3, 1)
    done("drift", *arguments, code=2)
    assert model.asked == 3


def test_the_command_plans(model: Model) -> None:
    """``--dry-run`` needs no file, and ``--json`` is JSON."""
    record(model, 20, 10)
    assert "found with a power of 0.8" in done("drift", STUDY, "--share", 1, "--dry-run")
    plan = json.loads(done("drift", STUDY, "--share", 1, "--dry-run", "--json"))
    assert plan["calls"] == 20 and plan["shift"] > 0


def test_the_command_reads_by_a_function(model: Model) -> None:
    """``--value MODULE:FUNCTION`` finds a module in the working directory."""
    record(model, 3, 2)
    Path("reading_bread.py").write_text("def length(text):\n    return len(text)\n")
    options = [STUDY, "--share", 1, "--to", CHECK]
    assert "'answer'" in done("drift", *options, "--value", "reading_bread:length")
    assert "no_such" in done("drift", *options, "--value", "reading_bread:no_such", code=2)


def test_a_function_that_fails_is_named(model: Model) -> None:
    """So is the answer that it cannot read."""
    record(model, 3, 2)
    Path("reading_salt.py").write_text("def price(text):\n    return {}[text]\n")
    options = [STUDY, "--share", 1, "--to", CHECK, "--value", "reading_salt:price"]
    said = done("drift", *options, code=1)
    assert "--value reading_salt:price raised KeyError" in said
    assert "Traceback" not in said


# Known truth

TRIALS = 500
FEWER_TRIALS = 100
SHIFTS = (0.0, 0.15, 0.3, 0.6)
ACTORS, DRAWS, CALLS = 30, 5, 60
ERROR = SIGMA * math.sqrt(1 / CALLS + 1 / (ACTORS * DRAWS))  # of the estimated shift


def theoretical_power(shift: float) -> float:
    """Return how often a two-sided test at 5 % finds a shift."""
    normal = NormalDist()
    # A new answer is one point higher with a probability of the shift: that adds some variance.
    error = math.sqrt(ERROR**2 + shift * (1 - shift) / CALLS)
    edge = normal.inv_cdf(0.975)
    return normal.cdf(shift / error - edge) + normal.cdf(-shift / error - edge)


def found_shares(
    model: Model, record_study: Callable[[], Any], shifts: Sequence[float], trials: int
) -> list[float]:
    """Return for each shift in which share of the trials a check finds it, by its intervals. Each
    trial has a recording of its own.
    """
    found = Counter[float]()
    for trial in range(trials):
        Path(STUDY).unlink(missing_ok=True)
        model.seed = trial
        model.shift = 0.0
        record_study()
        for model.shift in shifts:
            Path(CHECK).unlink(missing_ok=True)
            found[model.shift] += llmcall.drift(STUDY, calls=CALLS, to=CHECK).differs
    return [found[shift] / trials for shift in shifts]


def error_of(share: float, trials: int) -> float:
    """Return by how much the share in some trials may differ from the true one."""
    return 2.6 * math.sqrt(share * (1 - share) / trials) + 0.005


@pytest.mark.slow
def test_false_alarms_and_power_are_those_of_theory(model: Model) -> None:
    """Within the error of 500 trials."""
    shares = found_shares(model, lambda: record(model, ACTORS, DRAWS), SHIFTS, TRIALS)
    for shift, share in zip(SHIFTS, shares, strict=True):
        expected = theoretical_power(shift) if shift else 0.05
        assert share == pytest.approx(expected, abs=error_of(expected, TRIALS))


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind",
    [
        "agents with memory",
        "one draw",
        "two actors",
        "one request",
        "ratings that hardly vary",
        "categories",
        "fields",
        "unreadable",
    ],
)
def test_false_alarms_are_at_most_five_percent(model: Model, kind: str) -> None:
    """Whatever the answers are: within the error of the trials, all intervals of a check together."""

    def choose(messages: list[Any], chance: random.Random) -> Any:
        return chance.choices(["buy", "sell", "wait", "leave"], [60, 30, 8, 2])[0]

    def mostly(messages: list[Any], chance: random.Random) -> Any:
        return "5" if chance.random() < 0.01 else "4"

    def several(messages: list[Any], chance: random.Random) -> Any:
        return {
            "price": model.number(chance),
            "mood": chance.random(),
            "agrees": chance.random() < 0.1,
        }

    def partly(messages: list[Any], chance: random.Random) -> Any:
        return "well" if chance.random() < 0.05 else str(model.number(chance))

    def record_study() -> None:
        if kind == "agents with memory":
            talk(model, 20)
        else:
            record(
                model, actors.get(kind, ACTORS), 1 if kind in ("one draw", "two actors") else DRAWS
            )

    actors = {"two actors": 2, "one request": 1}
    answers = {
        "ratings that hardly vary": mostly,
        "categories": choose,
        "fields": several,
        "unreadable": partly,
    }
    model.answer = answers.get(kind, model.rating)
    [share] = found_shares(model, record_study, [0.0], FEWER_TRIALS)
    assert share <= 0.05 + error_of(0.05, FEWER_TRIALS)
