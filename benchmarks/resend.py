"""How often the 95 % interval of a shift holds the truth, where ``llmcall.resend`` sent a sample of the requests again.

Each number in an answer is a study of its own, so one run simulates thousands. Nothing is asked of a model.
"""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from collections.abc import Callable
from operator import itemgetter
from typing import Any, NamedTuple

import click
import numpy

import llmcall
from llmcall.testing import ScriptedClient

from .effects import Chance, Coverage, coverage, line


class Survey(NamedTuple):
    """A recording of which a sample is sent again.

    :param name: in words.
    :param means: returns the true mean of each request's answers, then and now, in a shape.
    :param draw: returns answers with given means.
    :param actors: the number of requests of each actor.
    :param draws: the recorded answers to each request.
    :param rounds: the number of samples among which the studies are divided: as many as there are chances to draw
        the one actor or the other.
    """

    name: str
    means: Callable[[Chance, tuple[int, int]], tuple[Any, Any]]
    draw: Callable[[Chance, Any], Any]
    actors: tuple[int, ...] = (1,) * 100
    draws: int = 1
    rounds: int = 1


def shifted(shift: float, spread: float) -> Callable[[Chance, tuple[int, int]], tuple[Any, Any]]:
    """Return means that differ between requests by 1, with shifts that differ by ``spread``."""

    def means(chance: Chance, shape: tuple[int, int]) -> tuple[Any, Any]:
        then = chance.normal(0, 1, shape)
        return then, then + chance.normal(shift, spread, shape)

    return means


def long_ones_shifted(chance: Chance, shape: tuple[int, int]) -> tuple[Any, Any]:
    """Return means of which the first 200, of ten long interviews, shift by 1, and no others."""
    then = chance.normal(0, 1, shape)
    return then, then + (numpy.arange(shape[0]) < 200)[:, None]


def chances(then: float, now: float) -> Callable[[Chance, tuple[int, int]], tuple[Any, Any]]:
    """Return chances that differ between requests by up to a half of their mean."""

    def means(chance: Chance, shape: tuple[int, int]) -> tuple[Any, Any]:
        factors = chance.uniform(0.5, 1.5, shape)
        return then * factors, now * factors

    return means


def noisy(chance: Chance, means: Any) -> Any:
    """Return numbers around their means."""
    return chance.normal(means, 1).round(3)


def ratings(chance: Chance, means: Any) -> Any:
    """Return whole numbers around their means, such as those from 1 to 5."""
    return chance.normal(means, 1).round()


def nearly_constant(chance: Chance, means: Any) -> Any:
    """Return 3, or 4 by chance."""
    return 3 + (chance.random(means.shape) < means)


def with_rare_large_values(chance: Chance, means: Any) -> Any:
    """Return numbers of which few, by chance, are larger by 1, which is ten standard deviations."""
    return (chance.normal(0, 0.1, means.shape) + (chance.random(means.shape) < means)).round(4)


def yes_or_no(chance: Chance, means: Any) -> Any:
    """Return yes and no."""
    return chance.random(means.shape) < means


UNEQUAL = (20,) * 10 + (2,) * 30
SURVEYS = (
    Survey("numbers", shifted(0.3, 0.5), noisy),
    Survey("numbers, 5 draws", shifted(0.3, 0.5), noisy, draws=5),
    Survey("ratings", shifted(0.3, 0), ratings),
    Survey(
        "10 actors of 20 requests shift, 30 of 2 do not", long_ones_shifted, noisy, UNEQUAL, 2, 100
    ),
    Survey("ratings of which .3 to .4 are 4, others 3", chances(0.3, 0.4), nearly_constant),
)
YES_SURVEYS = (
    Survey("yes, .05 to .05", chances(0.05, 0.05), yes_or_no),
    Survey("yes, .05 to .15, 5 draws", chances(0.05, 0.15), yes_or_no, draws=5),
    Survey("yes, .1 to .2", chances(0.1, 0.2), yes_or_no),
    Survey("yes, .3 to .3, 5 draws", chances(0.3, 0.3), yes_or_no, draws=5),
    Survey("yes, .5 to .4", chances(0.5, 0.4), yes_or_no),
)
# Beyond what an interval of few requests can hold; docs/explanation/limits.rst has the figures.
RARE = (
    Survey("ratings of which 0 to .1 are 4, others 3", chances(0, 0.1), nearly_constant),
    Survey("ratings of which .02 to .1 are 4, others 3", chances(0.02, 0.1), nearly_constant),
    Survey("rare large values, .02 to .05", chances(0.02, 0.05), with_rare_large_values),
    Survey("rare large values, 0 to .05", chances(0, 0.05), with_rare_large_values, draws=5),
    Survey("rare large values, 0 to .1", chances(0, 0.1), with_rare_large_values, draws=5),
)


def resend_coverage(survey: Survey, calls: int, studies: int, seed: int = 1) -> Coverage:
    """Return how often ``effect``, by request, holds the true mean shift of a recording's requests, of which a
    sample was sent again.

    :param calls: the size of the sample.
    """
    chance = numpy.random.default_rng(seed)
    requests = sum(survey.actors)
    then, now = means = survey.means(chance, (requests, studies))
    of_round = [
        slice(part[0], part[-1] + 1) for part in numpy.array_split(range(studies), survey.rounds)
    ]
    is_resent, shown = 0, slice(None)
    draws: Counter[tuple[int, int, int]] = Counter()

    def answer(messages: list[dict[str, Any]]) -> str:
        """Answer for all studies of a round at once, whichever thread asks first."""
        request = int(messages[-1]["content"].split()[1])
        wave = (is_resent, shown.start or 0, request)
        draws[wave] += 1
        own_chance = numpy.random.default_rng([seed, *wave, draws[wave]])
        return json.dumps(survey.draw(own_chance, means[is_resent][request, shown]).tolist())

    client = ScriptedClient(answer)
    llmcall.register_client("coverage", client)
    intervals = []
    with tempfile.TemporaryDirectory() as folder, llmcall.configured(api_type="coverage"):
        with llmcall.cassette(f"{folder}/then.jsonl"):
            numbers = iter(range(requests))
            for actor, of_actor in enumerate(survey.actors):
                with llmcall.scope(actor):
                    for _, number in zip(range(of_actor), numbers, strict=False):
                        for _ in range(survey.draws):
                            client.send_message(f"Request {number} of {requests}?", temperature=1)
        is_resent = 1
        for number, shown in enumerate(of_round):
            to = f"{folder}/{number}.jsonl"
            again = llmcall.resend(f"{folder}/then.jsonl", calls=calls, seed=number, to=to)
            intervals += _intervals(again, shown)
    return coverage(f"{survey.name}, {calls} calls", intervals, (now - then).mean(axis=0))


def _intervals(again: Any, shown: slice) -> list[tuple[float, float]]:
    """Return the interval of each study of a round."""
    import pandas

    is_now = again["when"].eq("now")
    values = again["answer"].map(json.loads)
    values[~is_now] = values[~is_now].map(itemgetter(shown))
    numbers = pandas.DataFrame(values.tolist(), index=again.index)
    frame = pandas.concat([again[["request", "when"]], numbers], axis=1)
    columns = {"treated": "now", "control": "then", "unit": "request"}
    found = llmcall.effect(frame, [*numbers], by="when", **columns)
    return list(zip(found["low"], found["high"], strict=True))


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--studies", default=2000, show_default=True, help="Simulated studies for a figure.")
def main(studies: int) -> None:
    """Simulate studies with a known truth, and count how many intervals hold it."""
    for title, surveys in (("numbers", (*SURVEYS, *RARE)), ("yes and no", YES_SURVEYS)):
        click.echo(f"\neffect by request, {title}")
        for survey in surveys:
            for calls in (3, 5, 20, 60)[survey in YES_SURVEYS :]:
                click.echo(line(resend_coverage(survey, calls, studies)))


if __name__ == "__main__":
    main()
