"""Recorded answers asked for again by several threads of a user's own, against one thread."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing
from time import perf_counter
from typing import Any

from ..bench import Bench, Contender
from ..contestants.base import AsyncContestant
from ..figures import Group
from ..stub import base_url
from .asking import Unasked, check, prepared

__all__ = ["replay", "run"]

THREADS = (1, 2, 4, 8)


def run(bench: Bench) -> list[Group]:
    """Measure each contestant with each number of threads against one thread, in twice as many
    rounds, because threads jitter. One thread against one thread shows the noise.
    """
    count = bench.sizes.replayed
    with tempfile.TemporaryDirectory() as folder:
        contenders = [
            _contender(bench.of([entry]), folder, count, threads)
            for entry in bench.entries
            if entry.caches
            for threads in THREADS
        ]
        return [
            bench.compare(
                contenders,
                title="a hit from several threads (ratios to one thread)",
                unit="s",
                rounds=2 * bench.sizes.rounds,
            )
        ]


def _contender(bench: Bench, folder: str, count: int, threads: int) -> Contender:
    """Return the only contestant of a run, with so many threads."""
    (contender,) = bench.contenders("threads", "replay", folder, count=count, threads=threads)
    plural = "s" if threads > 1 else ""
    return contender._replace(title=f"{contender.title}, {threads} thread{plural}")


def replay(
    subject: Any, folder: str, address: str, count: int, threads: int
) -> Iterator[list[float] | None]:
    """Record so many answers, unless an earlier process did, then ask for all of them in each
    round, from one thread and from several; yield the seconds of one answer from several threads
    and from one.
    """
    numbers = range(count)
    with closing(subject.Contestant(folder, base_url(address))) as contestant:
        if isinstance(contestant, AsyncContestant):
            raise RuntimeError("it has only coroutines")
        if not contestant.threads:
            raise RuntimeError("it takes one call at a time")
        batch = prepared(contestant, numbers)
        check(contestant, numbers, contestant.ask_each(batch))
        contestant.settle()
        with Unasked(address):
            check(contestant, numbers, _ask(contestant, batch, threads))
        yield None
        while True:
            with Unasked(address):
                one = _seconds_each(contestant, batch, 1)
                several = _seconds_each(contestant, batch, threads)
            yield [several, one]


def _seconds_each(contestant: Any, batch: Sequence[Any], threads: int) -> float:
    """Return the seconds of one answer; starting the threads counts, as in a user's program."""
    begin = perf_counter()
    replies = _ask(contestant, batch, threads)
    seconds = perf_counter() - begin
    if None in replies:
        raise RuntimeError("a thread failed")
    return seconds / len(batch)


def _ask(contestant: Any, batch: Sequence[Any], threads: int) -> list[Any]:
    """Ask a batch from new threads, each of which asks its share."""
    replies: list[Any] = [None] * len(batch)

    def ask_share(first: int) -> None:
        """Ask the first question of a share and every further one."""
        replies[first::threads] = contestant.ask_each(batch[first::threads])

    own_threads = [threading.Thread(target=ask_share, args=(first,)) for first in range(threads)]
    for thread in own_threads:
        thread.start()
    for thread in own_threads:
        thread.join()
    return replies
