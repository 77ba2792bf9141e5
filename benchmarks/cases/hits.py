"""A recorded answer asked for again: in the process that recorded it, and in one that did not."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Any

from ..bench import Bench
from ..contestants import PLAIN_DISKCACHE
from ..figures import Group
from ..stub import base_url
from .asking import WARM_UP, Unasked, check, prepared, seconds_each


def run(bench: Bench) -> list[Group]:
    """Measure both, against plain diskcache."""
    same: dict[str, Any] = {
        "reference": PLAIN_DISKCACHE.title,
        "unit": "s",
        "count": bench.sizes.hits,
    }
    bench = bench.of(entry for entry in bench.entries if entry.caches)
    return [
        bench.measure(
            "hits", "same_process", title="a hit in the process that recorded it", **same
        ),
        bench.measure(
            "hits",
            "other_process",
            before="record",
            title="a hit in a process that did not",
            **same,
        ),
    ]


def same_process(subject: Any, folder: str, address: str, count: int) -> Iterator[float | None]:
    """Record so many answers, then ask for all of them in each round."""
    numbers = range(count)
    with closing(subject.Contestant(folder, base_url(address))) as contestant:
        batch = prepared(contestant, numbers)
        check(contestant, numbers, contestant.ask_each(batch))
        contestant.settle()
        with Unasked(address):
            check(contestant, numbers[:5], contestant.ask_each(batch[:5]))
        yield None
        while True:
            with Unasked(address):
                seconds = seconds_each(contestant, batch)
            yield seconds


def record(subject: Any, folder: str, address: str, count: int) -> Iterator[float | None]:
    """Record so many answers, and one to warm up with."""
    with closing(subject.Contestant(folder, base_url(address))) as contestant:
        contestant.ask_each(prepared(contestant, [*range(count), WARM_UP]))
    yield None
    yield 0.0


def other_process(subject: Any, folder: str, address: str, count: int) -> Iterator[float | None]:
    """Ask once for each answer that another process recorded."""
    with closing(subject.Contestant(folder, base_url(address))) as contestant:
        batch = prepared(contestant, range(count))
        with Unasked(address):
            check(contestant, [WARM_UP], contestant.ask_each(prepared(contestant, [WARM_UP])))
        yield None
        with Unasked(address):
            seconds = seconds_each(contestant, batch)
        yield seconds
