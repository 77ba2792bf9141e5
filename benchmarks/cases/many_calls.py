"""Many calls of 50 ms at once: by 32 workers, and by tasks of one event loop."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import closing
from time import perf_counter
from typing import Any

from ..bench import Bench
from ..contestants import PLAIN_OPENAI
from ..figures import Group
from ..stub import base_url
from .asking import WARM_UP, check, prepared

__all__ = ["at_once", "by_workers", "run"]

MILLISECONDS = 50
WORKERS = 32


def run(bench: Bench) -> list[Group]:
    """Measure both against the plain SDK."""
    sizes = bench.sizes
    same: dict[str, Any] = {"unit": "/s", "reference": PLAIN_OPENAI.title}
    threaded = f"{sizes.threaded} calls of {MILLISECONDS} ms by {WORKERS} workers"
    concurrent = f"{sizes.concurrent} asynchronous calls of {MILLISECONDS} ms at once"
    return [
        bench.measure("many_calls", "by_workers", title=threaded, count=sizes.threaded, **same),
        bench.measure("many_calls", "at_once", title=concurrent, count=sizes.concurrent, **same),
    ]


def by_workers(subject: Any, folder: str, address: str, count: int) -> Iterator[float | None]:
    """Ask new questions by 32 workers in each round; yield calls a second."""
    with closing(subject.Contestant(folder, base_url(address, MILLISECONDS))) as contestant:
        if not contestant.threads:
            raise RuntimeError("it takes one call at a time")
        yield from _rounds(contestant, count, lambda batch: contestant.ask_many(batch, WORKERS))


def at_once(subject: Any, folder: str, address: str, count: int) -> Iterator[float | None]:
    """Ask new questions as tasks in each round; yield calls a second."""
    with closing(subject.Contestant(folder, base_url(address, MILLISECONDS))) as contestant:
        if not contestant.tasks:
            raise RuntimeError("it has no asynchronous calls")
        yield from _rounds(contestant, count, contestant.ask_at_once)


def _rounds(contestant: Any, count: int, ask: Any) -> Iterator[float | None]:
    ask(prepared(contestant, range(WARM_UP, WARM_UP + min(count, WORKERS))))
    yield None
    for first in itertools.count(step=count):
        numbers = range(first, first + count)
        batch = prepared(contestant, numbers)
        begin = perf_counter()
        replies = ask(batch)
        seconds = perf_counter() - begin
        check(contestant, numbers, replies)
        yield count / seconds
