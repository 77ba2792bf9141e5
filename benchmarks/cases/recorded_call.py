"""A call that nobody has asked yet, to a server that answers at once: the SDK's work, and what
recording adds to it.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import closing
from typing import Any

from ..bench import Bench
from ..contestants import PLAIN_OPENAI
from ..figures import Group
from ..stub import base_url, calls_received
from .asking import WARM_UP, check, prepared, seconds_each


def run(bench: Bench) -> list[Group]:
    """Measure it against the plain SDK, in twice as many rounds: two processes take part, and
    jitter.
    """
    return [
        bench.measure(
            "recorded_call",
            "calls",
            title="a recorded call",
            unit="s",
            reference=PLAIN_OPENAI.title,
            rounds=2 * bench.sizes.rounds,
            count=bench.sizes.calls,
        )
    ]


def calls(subject: Any, folder: str, address: str, count: int) -> Iterator[float | None]:
    """Ask new questions in each round."""
    with closing(subject.Contestant(folder, base_url(address))) as contestant:
        for warm_up in range(WARM_UP, WARM_UP + 10):
            check(contestant, [warm_up], contestant.ask_each(prepared(contestant, [warm_up])))
        yield None
        for first in itertools.count(step=count):
            batch = prepared(contestant, range(first, first + count))
            before = calls_received(address)
            seconds = seconds_each(contestant, batch)
            if calls_received(address) == before:
                raise RuntimeError("new questions were not asked")
            yield seconds
