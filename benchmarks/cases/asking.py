"""Asking, timing and checking, as workers do it."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from time import perf_counter
from typing import Any

from .. import stub, workload

WARM_UP = 10_000_000  # a question that no round asks
ROUND_SECONDS = 0.5  # a slow contestant asks less in a round
SLICE_SECONDS = 0.002  # about; with at least and at most so many questions
FEWEST, MOST = 3, 50


def prepared(contestant: Any, numbers: Sequence[int]) -> list[Any]:
    """Return the questions of the numbers in the contestant's form."""
    return [contestant.prepared(workload.messages(number)) for number in numbers]


def check(contestant: Any, numbers: Sequence[int], replies: Sequence[Any]) -> None:
    """Refuse replies that are not the server's answers."""
    for number, reply in zip(numbers, replies, strict=True):
        text, expected = contestant.text(reply), workload.answer_to(workload.question(number))
        if text != expected:
            raise RuntimeError(f"question {number} was answered {text!r} instead of {expected!r}")


def seconds_each(contestant: Any, batch: Sequence[Any]) -> float:
    """Ask a batch one after the other, as much of it as a round has time for; return the seconds of
    one.

    It is the median of small slices: on a machine with other work, a whole batch is interrupted,
    most slices are not.
    """
    begin = perf_counter()
    contestant.ask_each(batch[:FEWEST])
    size = min(max(FEWEST, int(SLICE_SECONDS * FEWEST / (perf_counter() - begin))), MOST)
    slices = [batch[start : start + size] for start in range(FEWEST, len(batch), size)]
    each = []
    for piece in slices:
        before = perf_counter()
        contestant.ask_each(piece)
        each.append((perf_counter() - before) / len(piece))
        if perf_counter() - begin > ROUND_SECONDS:
            break
    return median(each)


class Unasked:
    """Refuse a block that asked the server: its answers were no replay."""

    def __init__(self, address: str) -> None:
        self._address = address

    def __enter__(self) -> None:
        self._calls = stub.calls_received(self._address)

    def __exit__(self, kind: object, *_: object) -> None:
        new_calls = stub.calls_received(self._address) - self._calls
        if new_calls and kind is None:
            raise RuntimeError(f"{new_calls} recorded questions were asked again")
