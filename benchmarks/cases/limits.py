"""The number of calls at a time that a server takes: found by llmcall, against fixed numbers."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Iterator
from contextlib import closing
from time import perf_counter
from typing import Any

from ..bench import Bench, Contender
from ..contestants import LLMCALL
from ..figures import Group
from ..stub import base_url, calls_refused
from .asking import WARM_UP, check, prepared

TAKEN = 40  # the server refuses more calls at once
MILLISECONDS = 200
NUMBERS = (20, 30, TAKEN, 50)
ROUNDS = 3  # each takes a minute or two


def run(bench: Bench) -> list[Group]:
    """Measure what is found against each number, and the number of refused calls."""
    if LLMCALL not in bench.entries:
        return []
    count = bench.sizes.limited
    calls = f"{count:,} calls of {MILLISECONDS} ms to a server that takes {TAKEN} at once"
    with tempfile.TemporaryDirectory() as folder:
        contenders = [_contender(bench, "speed", folder, number) for number in (*NUMBERS, None)]
        speeds = bench.compare(
            contenders, title=calls, unit="/s", reference=_title(TAKEN), rounds=ROUNDS
        )
    with tempfile.TemporaryDirectory() as folder:
        contenders = [_contender(bench, "refused", folder, number) for number in (TAKEN, None)]
        counts = bench.compare(
            contenders, title=f"refused of {calls}", unit="calls", rounds=ROUNDS, fresh=True
        )
    return [speeds, counts]


def _title(number: int | None) -> str:
    return "llmcall, auto" if number is None else f"llmcall, {number} at a time"


def _contender(bench: Bench, measure: str, folder: str, number: int | None) -> Contender:
    parameters = {"count": bench.sizes.limited, "number": number}
    (contender,) = bench.of([LLMCALL]).contenders(
        "limits", measure, f"{folder}/{number}", **parameters
    )
    return contender._replace(title=_title(number))


def speed(
    subject: Any, folder: str, address: str, count: int, number: int | None
) -> Iterator[float | None]:
    """Ask new questions in each round; yield calls a second. What is found stays found.

    :param number: how many calls run at a time; ``None``: ``MAX_CONCURRENT_CALLS = auto``.
    """
    import llmcall

    llmcall.configure(limits_max_concurrent_calls=number or "auto")
    with closing(subject.Contestant(folder, base_url(address, MILLISECONDS, TAKEN))) as contestant:
        contestant.ask_many(prepared(contestant, range(WARM_UP, WARM_UP + 10)), 10)
        yield None
        for first in itertools.count(step=count):
            numbers = range(first, first + count)
            batch = prepared(contestant, numbers)
            begin = perf_counter()
            replies = contestant.ask_many(batch, number)
            seconds = perf_counter() - begin
            check(contestant, numbers, replies)
            yield count / seconds


def refused(
    subject: Any, folder: str, address: str, count: int, number: int | None
) -> Iterator[float | None]:
    """Ask new questions; yield how many calls the server refused."""
    asking = speed(subject, folder, address, count, number)
    yield next(asking)
    while True:
        before = calls_refused(address)
        next(asking)
        yield float(calls_refused(address) - before)
