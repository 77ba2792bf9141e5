"""How often ``Arms.effect`` holds the truth, by simulated studies whose truth is known.

Each column of a measure is a study of its own. Nothing is asked of a model.
"""

from __future__ import annotations

import logging
import tempfile

import click
import numpy

import llmcall

from .effects import NUMBERS, YES_AND_NO, Coverage, Outcome, coverage, line

# Beyond what an interval of few repeats can hold; shown, since the documentation says so.
ONE_SIDED = Outcome(
    "one arm skewed only",
    lambda chance, shape: (chance.exponential(1, shape), numpy.zeros(shape)),
    1,
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


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--studies", default=2000, show_default=True, help="Simulated studies for a figure.")
def main(studies: int) -> None:
    """Simulate studies with a known truth, and count how many intervals hold it."""
    logging.getLogger("llmcall").setLevel(logging.ERROR)  # it names each study without an interval
    click.echo("Arms.effect, numbers: the share of intervals that hold the truth")
    for outcome in (*NUMBERS, ONE_SIDED):
        for repeats in (3, 4, 5, 10, 20):
            click.echo(line(effect_coverage(outcome, repeats, studies)))
    click.echo("\nArms.effect, yes and no")
    for outcome in YES_AND_NO:
        for repeats in (5, 10, 20):
            click.echo(line(effect_coverage(outcome, repeats, studies)))


if __name__ == "__main__":
    main()
