"""Identical requests at once, of which one needs to be sent."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import closing
from typing import Any

from ..bench import Bench
from ..figures import Group
from ..stub import base_url, calls_received
from .asking import WARM_UP, check, prepared
from .many_calls import MILLISECONDS


def run(bench: Bench) -> list[Group]:
    """Count the calls that reach the server."""
    title = f"calls sent for {bench.sizes.identical} identical requests at once"
    bench = bench.of(entry for entry in bench.entries if entry.caches)
    count = bench.sizes.identical
    return [
        bench.measure(
            "identical",
            "calls_sent",
            title=title,
            unit="calls",
            reference="",
            rounds=3,
            count=count,
        )
    ]


def calls_sent(subject: Any, folder: str, address: str, count: int) -> Iterator[float | None]:
    """Ask one new question so many times at once in each round; yield how many calls reached the
    server.
    """
    with closing(subject.Contestant(folder, base_url(address, MILLISECONDS))) as contestant:
        if not contestant.threads:
            raise RuntimeError("it takes one call at a time")
        contestant.ask_many(prepared(contestant, range(WARM_UP, WARM_UP + count)), count)
        yield None
        for number in itertools.count():
            before = calls_received(address)
            replies = contestant.ask_many(prepared(contestant, [number] * count), count)
            check(contestant, [number] * count, replies)
            yield float(calls_received(address) - before)
