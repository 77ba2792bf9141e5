"""How often llmcall's 95 % intervals hold the truth, by simulated studies whose truth is known.

Each column of a measure, or number in an answer, is a study of its own, so one run simulates
thousands. Nothing is asked of a model.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import click
import numpy

import llmcall

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
YES_AND_NO = tuple(
    shares(treated, control, is_paired=is_paired)
    for is_paired in (True, False)
    for control, treated in ((0.05, 0.05), (0.05, 0.2), (0.1, 0.5), (0.3, 0.3), (0.5, 0.4))
)


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


def world_coverage(unit: str, shock: float, repeats: int, studies: int, seed: int = 1) -> Coverage:
    """Return how often ``effect`` holds the truth where 20 persons share a simulated world.

    :param unit: ``"person"``, which none is here, or ``"repeat"``.
    :param shock: what moves all persons of one world together: its standard deviation, beside 1 of their own.
    """
    import pandas

    chance = numpy.random.default_rng(seed)
    shape = 2, repeats, 20, studies
    values = chance.normal(0, 1, shape) + chance.normal(0, shock, (2, repeats, 1, studies))
    index = pandas.MultiIndex.from_product(map(range, shape[:3]), names=["arm", "repeat", "person"])
    frame = pandas.DataFrame(values.reshape(-1, studies), index=index).reset_index()
    found = llmcall.effect(frame, [*range(studies)], by="arm", treated=1, control=0, unit=unit)
    pairs = zip(found["low"], found["high"], strict=True)
    return coverage(f"worlds with a shock of {shock:g}, {repeats} repeats, by {unit}", pairs, 0)


class Planned(NamedTuple):
    """The widths of the intervals of studies that a pilot planned.

    :param case: in words, what was simulated.
    :param reached: the share of the studies whose interval has the planned width or less.
    :param widest: of one study in ten, the width is this many times the planned one or more.
    """

    case: str
    reached: float
    widest: float


def planned_widths(outcome: Outcome, pilot: int, studies: int, seed: int = 1) -> Planned:
    """Return what ``units_needed`` reaches.

    :param pilot: the number of its units; the width is such that about 50 would be needed.
    """
    import pandas

    chance = numpy.random.default_rng(seed)
    columns: dict[str, Any] = {"by": "arm", "treated": "t", "control": "c", "unit": "unit"}

    def units(number: int) -> Any:
        treated, control = outcome.draw(chance, (number, 1))
        values = [*treated[:, 0].tolist(), *control[:, 0].tolist()]
        arms = ["t"] * number + ["c"] * number
        return pandas.DataFrame({"arm": arms, "unit": [*range(number)] * 2, "value": values})

    large = llmcall.effect(units(5000), "value", **columns)
    width = float((large["high"] - large["low"]).iloc[0]) * 10
    ratios = []
    while len(ratios) < studies:
        try:
            needed = llmcall.units_needed(units(pilot), "value", width=width, **columns).units
        except ValueError:  # a pilot without a spread plans nothing
            continue
        found = llmcall.effect(units(needed), "value", **columns)
        ratios.append(float((found["high"] - found["low"]).iloc[0]) / width)
    ordered = numpy.array(ratios)
    return Planned(
        f"{outcome.name}, a pilot of {pilot}",
        float(numpy.mean(ordered <= 1)),
        float(numpy.quantile(ordered, 0.9)),
    )


def line(found: Coverage) -> str:
    """Return a line of the table."""
    missing = f"  no interval {found.missing:.3f}" if found.missing else ""
    return (
        f"  {found.case:<58} {found.holds:.3f}  width {found.width:.2f}, "
        f"at least {found.narrowest:.2f}{missing}"
    )


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--studies", default=2000, show_default=True, help="Simulated studies for a figure.")
def main(studies: int) -> None:
    """Simulate studies with a known truth, and count how many intervals hold it."""
    import logging

    logging.getLogger("llmcall").setLevel(logging.ERROR)  # it names each study without an interval
    click.echo("effect, units in one arm each: the share of intervals that hold the truth")
    for outcome in (*NUMBERS, *(outcome for outcome in YES_AND_NO if "unpaired" in outcome.name)):
        for sizes in ((5, 5), (5, 15), (30, 10)):
            click.echo(line(table_coverage(outcome, sizes, studies)))
    click.echo("\neffect, 20 persons who share a world")
    for shock in (0.5, 2):
        for repeats in (3, 10):
            for unit in ("person", "repeat"):
                click.echo(line(world_coverage(unit, shock, repeats, studies)))
    click.echo("\nunits_needed: the share of studies with the planned width or less")
    for outcome in (NUMBERS[0], NUMBERS[1], NUMBERS[4], YES_AND_NO[2]):
        for pilot in (5, 10, 20):
            plan = planned_widths(outcome, pilot, studies)
            click.echo(
                f"  {plan.case:<58} {plan.reached:.3f}  one in ten {plan.widest:.2f} times as wide"
            )


if __name__ == "__main__":
    main()
