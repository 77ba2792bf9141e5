"""Many calls at once: by 32 workers, alone and beside a thread that computes, and by tasks of one
event loop.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext
from time import perf_counter
from typing import Any

from ..bench import Bench
from ..contestants import PLAIN_OPENAI
from ..figures import Group
from ..stub import base_url
from .asking import WARM_UP, check, prepared

MILLISECONDS = 50
LONG_MILLISECONDS = 1000
WORKERS = 32
LONG_ROUNDS = 3  # each takes many seconds


def run(bench: Bench) -> list[Group]:
    """Measure both against the plain SDK."""
    sizes = bench.sizes
    same: dict[str, Any] = {"unit": "/s", "reference": PLAIN_OPENAI.title}
    threaded = f"{sizes.threaded} calls of {{}} by {WORKERS} workers"
    concurrent = f"{sizes.concurrent} asynchronous calls of {MILLISECONDS} ms at once"
    return [
        bench.measure(
            "many_calls",
            "by_workers",
            title=threaded.format(f"{MILLISECONDS} ms"),
            count=sizes.threaded,
            **same,
        ),
        bench.measure(
            "many_calls",
            "by_workers",
            title=threaded.format("1 s"),
            count=sizes.threaded,
            milliseconds=LONG_MILLISECONDS,
            rounds=LONG_ROUNDS,
            **same,
        ),
        bench.measure(
            "many_calls",
            "by_workers",
            title=threaded.format(f"{MILLISECONDS} ms") + ", beside a thread that computes",
            count=sizes.threaded,
            computes=True,
            rounds=LONG_ROUNDS,
            **same,
        ),
        bench.measure("many_calls", "at_once", title=concurrent, count=sizes.concurrent, **same),
    ]


def by_workers(
    subject: Any,
    folder: str,
    address: str,
    count: int,
    milliseconds: int = MILLISECONDS,
    computes: bool = False,
) -> Iterator[float | None]:
    """Ask new questions by 32 workers in each round; yield calls a second.

    :param milliseconds: how long a call takes.
    :param computes: whether another thread of the process computes meanwhile.
    """
    with closing(subject.Contestant(folder, base_url(address, milliseconds))) as contestant:
        if not contestant.threads:
            raise RuntimeError("it takes one call at a time")

        def ask(batch: Any) -> Any:
            """Ask a round's questions."""
            with _computing() if computes else nullcontext():
                return contestant.ask_many(batch, WORKERS)

        yield from _rounds(contestant, count, ask)


@contextmanager
def _computing() -> Iterator[None]:
    """Keep a thread computing."""
    ended = threading.Event()

    def compute() -> None:
        """Compute until the calls have ended."""
        while not ended.is_set():
            sum(range(1000))

    thread = threading.Thread(target=compute)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


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
