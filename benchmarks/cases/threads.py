"""Recorded answers asked for again by several threads of a user's own, against one thread; and
threads that only compute.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from time import perf_counter
from typing import Any

from .. import workload
from ..bench import Bench, Contender
from ..contestants import LLMCALL
from ..contestants.base import AsyncContestant
from ..figures import Group
from ..stub import base_url
from .asking import Unasked, check, prepared

THREADS = (1, 2, 4, 8, 32)
ROUND_TRIPS = 8  # of each request through JSON and SHA-256; together they take as long as a hit


def run(bench: Bench) -> list[Group]:
    """Measure each contestant with each number of threads against one thread, in twice as many
    rounds, because threads jitter; then threads that only compute. One thread against one thread
    shows the noise.
    """
    count = bench.sizes.replayed
    rounds = 2 * bench.sizes.rounds
    with tempfile.TemporaryDirectory() as folder:
        contenders = [
            _contender(bench.of([entry]), folder, count, threads)
            for entry in bench.entries
            if entry.caches
            for threads in THREADS
        ]
        title = "a hit from several threads (ratios to one thread)"
        groups = [bench.compare(contenders, title=title, unit="s", rounds=rounds)]
    if LLMCALL in bench.entries:
        computing = [_computing(count, threads) for threads in THREADS]
        title = "computing in several threads (ratios to one thread)"
        groups.append(bench.compare(computing, title=title, unit="s", rounds=rounds))
    return groups


def _contender(bench: Bench, folder: str, count: int, threads: int) -> Contender:
    """Return the only contestant of a run, with so many threads."""
    (contender,) = bench.contenders("threads", "replay", folder, count=count, threads=threads)
    return contender._replace(title=_title(contender.title, threads))


def _computing(count: int, threads: int) -> Contender:
    """Return what only computes, with so many threads; it uses nothing of the module that it names."""
    order = {"module": "stores.llmcall_cache", "case": "threads", "measure": "compute"}
    parameters = {"count": count, "threads": threads}
    title = _title("json and SHA-256", threads)
    return Contender(title, LLMCALL.environment, {**order, "parameters": parameters})


def _title(name: str, threads: int) -> str:
    plural = "s" if threads > 1 else ""
    return f"{name}, {threads} thread{plural}"


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
            check(contestant, numbers, _in_threads(contestant.ask_each, batch, threads))
        yield None
        while True:
            with Unasked(address):
                one = _seconds_each(contestant.ask_each, batch, 1)
                several = _seconds_each(contestant.ask_each, batch, threads)
            yield [several, one]


def compute(subject: Any, count: int, threads: int) -> Iterator[list[float] | None]:
    """Compute as many digests in each round, from one thread and from several; yield the seconds of
    one from several threads and from one.

    No thread gives up the interpreter's lock: none reads, and hashlib does so only for longer texts.
    """
    batch = [workload.messages(number) for number in range(count)]
    yield None
    while True:
        one = _seconds_each(_digests, batch, 1)
        several = _seconds_each(_digests, batch, threads)
        yield [several, one]


def _digests(batch: Sequence[Any]) -> list[str]:
    """Return a digest of each request, which goes through JSON several times."""
    digests = []
    for messages in batch:
        digest = ""
        for _ in range(ROUND_TRIPS):
            text = json.dumps({"messages": messages, "digest": digest}, sort_keys=True)
            digest = hashlib.sha256(json.dumps(json.loads(text)).encode()).hexdigest()
        digests.append(digest)
    return digests


def _seconds_each(work: Callable[[Sequence[Any]], list[Any]], batch: Any, threads: int) -> float:
    """Return the seconds of one piece of work; starting the threads counts, as in a user's program."""
    begin = perf_counter()
    results = _in_threads(work, batch, threads)
    seconds = perf_counter() - begin
    if None in results:
        raise RuntimeError("a thread failed")
    return seconds / len(batch)


def _in_threads(
    work: Callable[[Sequence[Any]], list[Any]], batch: Sequence[Any], threads: int
) -> list[Any]:
    """Do a batch of work in new threads, each of which does its share."""
    results: list[Any] = [None] * len(batch)

    def do_share(first: int) -> None:
        """Do the first piece of a share and every further one."""
        results[first::threads] = work(batch[first::threads])

    own_threads = [threading.Thread(target=do_share, args=(first,)) for first in range(threads)]
    for thread in own_threads:
        thread.start()
    for thread in own_threads:
        thread.join()
    return results
