"""Five actors who ask the same: how many answers there are, and who gets which when they ask again
in another order.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from .. import workload
from ..bench import Bench
from ..figures import Group
from ..stub import base_url

ACTORS = 5


def run(bench: Bench) -> list[Group]:
    """Count the answers. The server gives each call another one, as a model does at temperature 1."""
    bench = bench.of(entry for entry in bench.entries if entry.caches)
    titles = {
        "different_answers": f"different answers that {ACTORS} actors get who ask the same",
        "own_answers": f"of {ACTORS} actors, those who get an answer of their own again, asking in the opposite order",
    }
    return [
        bench.measure("actors", measure, title=title, unit="", reference="", rounds=2)
        for measure, title in titles.items()
    ]


def different_answers(subject: Any, folder: str, address: str) -> Iterator[float | None]:
    """Ask a new question as every actor in each round; yield how many different answers they get."""
    yield None
    for number in itertools.count():
        with _contestant(subject, folder, address, number) as contestant:
            yield float(len(set(_answers(contestant, number, range(ACTORS)).values())))


def own_answers(subject: Any, folder: str, address: str) -> Iterator[float | None]:
    """Ask twice as every actor, the second time from the last to the first; yield how many actors
    get an answer that no other actor has, and get it again.
    """
    yield None
    for number in itertools.count():
        with _contestant(subject, folder, address, number) as contestant:
            recorded = _answers(contestant, number, range(ACTORS))
            contestant.settle()
            replayed = _answers(contestant, number, reversed(range(ACTORS)))
            times = Counter(recorded.values())
            yield float(
                sum(
                    times[answer] == 1 and replayed[actor] == answer
                    for actor, answer in recorded.items()
                )
            )


def _contestant(subject: Any, folder: str, address: str, number: int) -> closing[Any]:
    """Return a contestant that has recorded nothing yet."""
    fresh = Path(folder, str(number))
    fresh.mkdir(parents=True)
    contestant = subject.Contestant(str(fresh), base_url(address))
    contestant.tell_draws_apart()
    return closing(contestant)


def _answers(contestant: Any, number: int, actors: Iterable[int]) -> dict[int, str]:
    """Ask the same question as one actor after the other; return each one's answer."""
    question = contestant.prepared(workload.messages(number, draws=True))
    return {
        actor: contestant.text(contestant.ask_as(f"actor-{actor}", question)) for actor in actors
    }
