"""A store of many records against a small one: it should take no longer to do anything."""

from __future__ import annotations

import itertools
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from statistics import median
from time import perf_counter
from typing import Any

from ..bench import Bench, Contender
from ..contestants import LLMCALL
from ..figures import Group
from ..stores import STORES

FEW = 1_000
NEW = 1_000_000  # questions for each process from its number on: no filling recorded them
BLOCKS = 5  # of a round: small, large, small, large, …; the median of each counts

Deed = Callable[[Any, int], float]

# What is done, and how often in a block.
OPERATIONS = {"open_and_hit": 5, "hit": 50, "record": 10, "delete": 1, "stats": 20, "ls": 1}
EMPTY = "record, against an empty store"


def run(bench: Bench) -> list[Group]:
    """Measure every operation of each store at its two sizes, and llmcall's search for the nearest
    record.
    """
    groups = []
    records = bench.sizes.records
    for entry, module in STORES.items():
        if entry not in bench.entries:
            continue
        with tempfile.TemporaryDirectory() as folder:
            order = {"module": f"stores.{module}", "case": "large_store"}
            parameters = {"folder": folder, "records": records}
            filling = order | {"measure": "fill", "parameters": parameters}
            contenders = [
                Contender(
                    title,
                    entry.environment,
                    order
                    | {"measure": "operation", "parameters": parameters | operation_parameters},
                )
                for title, operation_parameters in _operations().items()
            ]
            bench.say(f"{entry.title}: filling a store with {records:,} records")
            bench.prepare(Contender(entry.title, entry.environment, filling))
            title = f"{entry.title}: with {records:,} records (ratios to {FEW:,})"
            groups.append(bench.compare(contenders, title=title, unit="s"))
            if entry == LLMCALL:
                miss = order | {"measure": "explain", "parameters": parameters}
                title = f"the nearest record among {records:,} for a miss"
                groups.append(
                    bench.compare(
                        [Contender(entry.title, entry.environment, miss)], title=title, unit="s"
                    )
                )
    return groups


def _operations() -> dict[str, dict[str, Any]]:
    named = {
        name.replace("_", " "): {"name": name, "times": times} for name, times in OPERATIONS.items()
    }
    return {**named, EMPTY: {"name": "record", "times": OPERATIONS["record"], "empty": True}}


def fill(subject: Any, folder: str, records: int) -> Iterator[float | None]:
    """Fill a small and a large store."""
    yield None
    begin = perf_counter()
    for size in (FEW, records):
        store = subject.Store(f"{folder}/{size}")
        for number in range(size):
            store.record(number)
        store.close()
    yield perf_counter() - begin


def operation(
    subject: Any, folder: str, records: int, name: str, times: int, empty: bool = False
) -> Iterator[list[float] | None]:
    """Do one thing in both stores by turns; yield the seconds of one in the large store and in the
    other.
    """
    do = _deed(name, itertools.count(NEW * os.getpid()))
    with closing(subject.Store(f"{folder}/{records}")) as large:
        yield None
        while True:
            with tempfile.TemporaryDirectory() as new:
                other = new if empty else f"{folder}/{FEW}"
                with closing(subject.Store(other)) as small:
                    seconds = _by_turns(do, large, small, times)
            yield seconds


def _by_turns(do: Deed, large: Any, small: Any, times: int) -> list[float]:
    do(large, 1), do(small, 1)
    pairs = [(do(small, times), do(large, times)) for _ in range(BLOCKS)]
    in_small, in_large = (median(seconds) / times for seconds in zip(*pairs, strict=True))
    return [in_large, in_small]


def _deed(name: str, numbers: Iterator[int]) -> Deed:
    """Return a function that does a thing in a store so many times, and returns the seconds that it
    took.
    """

    def do(store: Any, times: int) -> float:
        if name in ("stats", "ls"):
            arguments: list[tuple[int, ...]] = [()] * times
        elif name in ("record", "delete"):
            arguments = [(next(numbers),) for _ in range(times)]
        else:
            arguments = [(number % FEW,) for number in range(times)]
        if name == "delete":
            for (number,) in arguments:
                store.record(number)
        method = getattr(store, name)
        begin = perf_counter()
        for argument in arguments:
            method(*argument)
        return perf_counter() - begin

    return do


def explain(subject: Any, folder: str, records: int) -> Iterator[float | None]:
    """Explain why a question is not recorded, of which many much like it are."""
    with closing(subject.Store(f"{folder}/{records}")) as store:
        yield None
        for number in itertools.count(NEW * os.getpid()):
            begin = perf_counter()
            store.explain(number)
            yield perf_counter() - begin
