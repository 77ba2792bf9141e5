"""How often llmcall's 95 % intervals hold the truth, by simulated studies whose truth is known.

Each column of a measure, or field of an answer, is a study of its own, so one run simulates
thousands. Nothing is asked of a model.
"""

from __future__ import annotations

import json
import math
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from itertools import count
from typing import Any, NamedTuple

import click
import numpy

import llmcall
from llmcall.testing import ScriptedClient

Chance = numpy.random.Generator


class Coverage(NamedTuple):
    """The intervals of many studies beside the truth.

    :param case: in words, what was simulated.
    :param holds: the share of the intervals that hold the truth.
    :param missing: the share of the studies without an interval.
    :param narrowest: the smallest width.
    :param width: the mean width.
    """

    case: str
    holds: float
    missing: float
    narrowest: float
    width: float


class Outcome(NamedTuple):
    """An outcome of an experiment in two arms.

    :param name: in words.
    :param draw: returns the outcomes of the treated and of the control arm, in a shape.
    :param effect: the true mean of their difference.
    """

    name: str
    draw: Callable[[Chance, tuple[int, int]], tuple[Any, Any]]
    effect: float


def normal(chance: Chance, shape: tuple[int, int]) -> tuple[Any, Any]:
    """Return outcomes that share a repeat's world and have noise of their own."""
    world = chance.normal(0, 2, shape)
    return world + chance.normal(0.5, 1, shape), world + chance.normal(0, 1, shape)


def shares(treated: float, control: float, *, is_paired: bool) -> Outcome:
    """Return an outcome of yes and no, whose arms share a repeat's chance or not."""

    def draw(chance: Chance, shape: tuple[int, int]) -> tuple[Any, Any]:
        first = chance.random(shape)
        second = first if is_paired else chance.random(shape)
        return first < treated, second < control

    how = "paired" if is_paired else "unpaired"
    return Outcome(f"yes, {control:g} to {treated:g}, {how}", draw, treated - control)


NUMBERS = (
    Outcome("normal", normal, 0.5),
    Outcome(
        "counts", lambda chance, shape: (chance.poisson(4, shape), chance.poisson(3, shape)), 1
    ),
    Outcome(
        "households of 20",
        lambda chance, shape: (chance.binomial(20, 0.4, shape), chance.binomial(20, 0.3, shape)),
        2,
    ),
    Outcome(
        "skewed (log-normal)",
        lambda chance, shape: (
            1.5 * chance.lognormal(0, 0.5, shape),
            chance.lognormal(0, 0.5, shape),
        ),
        0.5 * math.exp(0.125),
    ),
    Outcome(
        "skewed (exponential)",
        lambda chance, shape: (chance.exponential(1.5, shape), chance.exponential(1, shape)),
        0.5,
    ),
)
# Beyond what an interval of few repeats can hold; shown, since the documentation says so.
ONE_SIDED = Outcome(
    "one arm skewed only",
    lambda chance, shape: (chance.exponential(1, shape), numpy.zeros(shape)),
    1,
)
YES_AND_NO = tuple(
    shares(treated, control, is_paired=is_paired)
    for is_paired in (True, False)
    for control, treated in ((0.05, 0.05), (0.05, 0.2), (0.1, 0.5), (0.3, 0.3), (0.5, 0.4))
)


def effect_coverage(outcome: Outcome, repeats: int, studies: int, seed: int = 1) -> Coverage:
    """Return how often ``Arms.effect`` holds the true effect.

    :param repeats: of each study.
    """
    drawn = outcome.draw(numpy.random.default_rng(seed), (repeats, studies))
    columns = {name: iter(values.tolist()) for name, values in zip("tc", drawn, strict=True)}
    with (
        tempfile.TemporaryDirectory() as folder,
        llmcall.configured(cache_mode="auto", cache_path=folder),
    ):
        runs = llmcall.arms(
            lambda name: next(columns[name]),
            {name: {"name": name} for name in columns},
            scope="coverage",
            repeats=repeats,
            workers=1,
            progress=False,
        )
    frame = runs.effect(lambda row: dict(enumerate(row)), "t", "c")
    pairs = zip(frame["low"], frame["high"], strict=True)
    return coverage(f"{outcome.name}, {repeats} repeats", pairs, outcome.effect)


def table_coverage(
    outcome: Outcome, sizes: tuple[int, int], studies: int, seed: int = 1
) -> Coverage:
    """Return how often ``llmcall.effect`` holds the true effect on units that are in one arm each.

    :param sizes: the number of treated and of other units.
    """
    import pandas

    chance = numpy.random.default_rng(seed)
    treated, _ = outcome.draw(chance, (sizes[0], studies))
    _, control = outcome.draw(chance, (sizes[1], studies))  # other units, in worlds of their own
    values = pandas.DataFrame([*treated.tolist(), *control.tolist()])
    arms = ["treated"] * sizes[0] + ["control"] * sizes[1]
    frame = values.assign(arm=arms, unit=range(sum(sizes)))
    found = llmcall.effect(
        frame, [*values], by="arm", treated="treated", control="control", unit="unit"
    )
    pairs = zip(found["low"], found["high"], strict=True)
    return coverage(f"{outcome.name}, {sizes[0]} and {sizes[1]} units", pairs, outcome.effect)


def coverage(case: str, intervals: Iterable[tuple[float, float]], truth: Any) -> Coverage:
    """Count how many intervals hold the truth.

    :param truth: one for all studies, or one for each.
    """
    ends = numpy.array(list(intervals), dtype=float)
    is_there = ~numpy.isnan(ends[:, 0])
    there, truth = ends[is_there], numpy.broadcast_to(truth, len(ends))[is_there]
    low, high = there[:, 0], there[:, 1]
    widths = high - low
    return Coverage(
        case,
        float(numpy.mean((low <= truth) & (truth <= high))),
        1 - len(there) / len(ends),
        float(widths.min()),
        float(widths.mean()),
    )


class Study(NamedTuple):
    """A recorded survey that is checked for drift.

    :param name: in words.
    :param persons: each is asked one question, in a scope of its own.
    :param draws: the recorded answers of each.
    :param calls: of the check; ``None`` for the default.
    :param is_yes_or_no: whether answers are yes or no, or numbers.
    :param mean: the mean of the answers then, over persons.
    :param shift: what is added to it now.
    :param spread: the standard deviation of the persons' own means; answers to one person's question
        have a standard deviation of 1, or that of their share of yes.
    :param shift_spread: the standard deviation of the persons' own shifts.
    :param step: numbers are rounded to its multiples; by 1, as ratings are, two are equal in 28 of 100 pairs.
    :param has_scopes: whether each person has a scope, as imported answers may not.
    :param is_compared: whether the answers now are another recording of the same calls.
    :param noises: the standard deviation of each person's answers in turn, instead of 1.
    :param draws_in_turn: the recorded answers of each person in turn, instead of ``draws``.
    """

    name: str
    persons: int
    draws: int
    calls: int | None = None
    is_yes_or_no: bool = False
    mean: float = 0.0
    shift: float = 0.3
    spread: float = 1.0
    shift_spread: float = 0.0
    step: float = 0.0001
    has_scopes: bool = True
    is_compared: bool = False
    noises: tuple[float, ...] = (1,)
    draws_in_turn: tuple[int, ...] = ()


def yes(name: str, persons: int, draws: int, mean: float, shift: float, **options: Any) -> Study:
    """Return a survey of yes and no."""
    options = {"spread": min(mean, 1 - mean) / 2, **options}
    return Study(name, persons, draws, is_yes_or_no=True, mean=mean, shift=shift, **options)


DRIFTS = (
    Study("40 persons, 5 draws, default", 40, 5),
    Study("40 persons, 5 draws, 40 calls", 40, 5, 40),
    Study("40 persons, 5 draws, 120 calls", 40, 5, 120, shift_spread=0.5),
    Study("2 persons, 50 draws, default", 2, 50),
    Study("2 persons, 50 draws, 60 calls", 2, 50, 60, shift_spread=1),
    Study("100 without scopes, 1 draw, default", 100, 1, has_scopes=False),
    Study("100 without scopes, 1 draw, 50 calls", 100, 1, 50, has_scopes=False, spread=2),
    Study("40 persons, 5 draws, 60 calls", 40, 5, 60, shift_spread=1),
    Study("2 persons, 9 draws, 3 calls", 2, 9, 3),
    Study("2 persons, 9 draws, 3 calls, ratings", 2, 9, 3, step=1),
    Study("one request, 50 draws, 2 calls, ratings", 1, 50, 2, step=1),
    Study("one request, 3 draws, 20 calls, ratings", 1, 3, 20, step=1),
    Study("one request, 100 draws, default", 1, 100, has_scopes=False),
    Study("30 persons, 4 draws, against another", 30, 4, shift_spread=1, is_compared=True),
    Study("60 persons, 1 draw, against another", 60, 1, is_compared=True),
    Study("a loud one of 51, 4 draws, 102 calls", 51, 4, 102, noises=(2, *[0.3] * 50)),
    Study("2 persons, .3 and 2, 10 draws, 20 calls", 2, 10, 20, noises=(0.3, 2)),
    Study("a moderator and 5 actors, 5 draws, 18 calls", 6, 5, 18, noises=(2, *[0.3] * 5)),
    Study(
        "3 persons, 2, 3 and 20 draws, against", 3, 0, is_compared=True, draws_in_turn=(2, 3, 20)
    ),
    Study("20 persons, constant ratings, 40 calls", 20, 5, 40, noises=(0.35,), step=1, spread=0.3),
)
# Two draws say too little of a spread for any number of the other side's; docs/explanation/surprises.rst says so.
TWO_DRAWS = Study("one request, 50 draws, 2 calls", 1, 50, 2)
YES_DRIFTS = (
    yes("yes .3, 40 persons, 5 draws, default", 40, 5, 0.3, 0.15),
    yes("yes .05, 40 persons, 5 draws, default", 40, 5, 0.05, 0),
    yes("yes .05, 40 persons, 5 draws, 40 calls", 40, 5, 0.05, 0.1)._replace(calls=40),
    yes("yes .5, 2 persons, 50 draws, default", 2, 50, 0.5, 0.1),
    yes("yes .05, 2 persons, 50 draws, default", 2, 50, 0.05, 0.0),
    yes("yes .1, 100 without scopes, 1 draw, default", 100, 1, 0.1, 0.1, has_scopes=False),
    yes("yes .2, one request, 50 draws, default", 1, 50, 0.2, 0.1, has_scopes=False, spread=0),
    yes("yes .05, 30 persons, 4 draws, against", 30, 4, 0.05, 0.05, is_compared=True),
    yes("yes .4, 30 persons, 4 draws, against", 30, 4, 0.4, 0.1, is_compared=True),
    yes("yes .05, one request, 30 draws, against", 1, 30, 0.05, 0, spread=0, is_compared=True),
)


class Respondents:
    """A model whose answer has a field for each study: a number, or yes or no, of known distribution.

    :param study: what is simulated.
    :param studies: how often.
    :ivar truth: for each study, the mean shift of its persons.
    :ivar has_shifted: whether answers are those of now.
    """

    def __init__(self, study: Study, studies: int, seed: int) -> None:
        self.study = study
        self.has_shifted = False
        self._seed = seed
        self._draws: defaultdict[tuple[int, bool], Iterator[int]] = defaultdict(count)
        chance = numpy.random.default_rng(seed)
        shape = study.persons, studies
        spread = study.spread * chance.uniform(-(3**0.5), 3**0.5, shape)
        self._then = study.mean + spread
        self._now = self._then + study.shift
        self._now += study.shift_spread * chance.normal(size=shape)
        if study.is_yes_or_no:
            self._then, self._now = self._then.clip(0, 1), self._now.clip(0, 1)
        self.truth = (self._now - self._then).mean(axis=0)

    def answer(self, messages: list[dict[str, Any]]) -> str:
        """Answer all studies at once, whichever thread asks first."""
        person = int(str(messages[-1]["content"]).split()[1])
        draw = next(self._draws[person, self.has_shifted])
        chance = numpy.random.default_rng([self._seed, person, self.has_shifted, draw])
        means = (self._now if self.has_shifted else self._then)[person]
        if self.study.is_yes_or_no:
            drawn = chance.random(means.shape) < means
        else:
            step = self.study.step
            noise = self.study.noises[person % len(self.study.noises)]
            drawn = numpy.round(numpy.round(chance.normal(means, noise) / step) * step, 4)
        return json.dumps(dict(enumerate(drawn.tolist())))


def drift_coverage(study: Study, studies: int, seed: int = 1) -> Coverage:
    """Return how often ``drift`` holds the true shift of a recording."""
    model = Respondents(study, studies, seed)
    client = ScriptedClient(model.answer)

    def record(path: str) -> None:
        with llmcall.cassette(path):
            for person in range(study.persons):
                with llmcall.scope(person if study.has_scopes else "survey"):
                    draws = study.draws_in_turn[person] if study.draws_in_turn else study.draws
                    for _ in range(draws):
                        client.send_message(f"Person {person} of {study.persons}?", temperature=1)

    llmcall.register_client("coverage", client)
    with tempfile.TemporaryDirectory() as folder, llmcall.configured(api_type="coverage"):
        record(f"{folder}/then.jsonl")
        model.has_shifted = True
        if study.is_compared:
            with llmcall.scope("now"):
                record(f"{folder}/now.jsonl")
            drift = llmcall.drift(f"{folder}/then.jsonl", against=f"{folder}/now.jsonl")
        else:
            # A study has no values but its own to decide how many calls there are.
            first = llmcall.drift(
                f"{folder}/then.jsonl", value=lambda text: json.loads(text)["0"], dry_run=True
            )
            drift = llmcall.drift(
                f"{folder}/then.jsonl",
                calls=study.calls or first.calls,
                to=f"{folder}/check.jsonl",
                value=json.loads,
            )
    shifts = [drift.shifts[str(number)] for number in range(studies)]
    name = f"{study.name} ({drift.calls} answers)"
    return coverage(name, [(shift.low, shift.high) for shift in shifts], model.truth)


def line(found: Coverage) -> str:
    """Return a line of the table."""
    missing = f"  no interval {found.missing:.3f}" if found.missing else ""
    return (
        f"  {found.case:<45} {found.holds:.3f}  width {found.width:.2f}, "
        f"at least {found.narrowest:.2f}{missing}"
    )


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--studies", default=2000, show_default=True, help="Simulated studies for a figure.")
def main(studies: int) -> None:
    """Simulate studies with a known truth, and count how many intervals hold it."""
    import logging

    logging.getLogger("llmcall").setLevel(logging.ERROR)  # it names each study without an interval
    click.echo("Arms.effect, numbers: the share of intervals that hold the truth")
    for outcome in (*NUMBERS, ONE_SIDED):
        for repeats in (3, 4, 5, 10, 20):
            click.echo(line(effect_coverage(outcome, repeats, studies)))
    click.echo("\nArms.effect, yes and no")
    for outcome in YES_AND_NO:
        for repeats in (5, 10, 20):
            click.echo(line(effect_coverage(outcome, repeats, studies)))
    click.echo("\neffect, units in one arm each")
    for outcome in (*NUMBERS, *(outcome for outcome in YES_AND_NO if "unpaired" in outcome.name)):
        for sizes in ((5, 5), (5, 15), (30, 10)):
            click.echo(line(table_coverage(outcome, sizes, studies)))
    click.echo("\ndrift, numbers")
    for study in (*DRIFTS, TWO_DRAWS):
        click.echo(line(drift_coverage(study, studies)))
    click.echo("\ndrift, yes and no")
    for study in YES_DRIFTS:
        click.echo(line(drift_coverage(study, studies)))


if __name__ == "__main__":
    main()
