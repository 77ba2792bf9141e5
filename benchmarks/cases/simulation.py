"""A whole simulation replayed in a new process: personas in threads, ten rounds, typed decisions, from a cassette."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from time import perf_counter
from typing import Any

from .. import workload
from ..bench import Bench, Contender
from ..contestants import LLMCALL
from ..figures import Group
from .cassette import JSON, json_lines
from .roads import configure, memory

__all__ = ["json_lines", "json_memory", "record", "replay", "replay_memory", "run"]

ROUNDS = 10


def run(bench: Bench) -> list[Group]:
    """Record it once, then replay it, against reading the cassette's lines as JSON: the time, and the memory."""
    if LLMCALL not in bench.entries:
        return []
    personas = bench.sizes.lines // ROUNDS
    with tempfile.TemporaryDirectory() as folder:
        parameters = {"file": f"{folder}/simulation.jsonl", "lines": personas * ROUNDS}

        def contender(title: str, measure: str) -> Contender:
            """Return a contender."""
            order = {"module": "stores.llmcall_cache", "case": "simulation", "measure": measure}
            return Contender(title, LLMCALL.environment, {**order, "parameters": parameters})

        bench.prepare(contender(LLMCALL.title, "record"))
        title = f"a simulation of {personas:,} personas and {ROUNDS} rounds, replayed"
        timed = [contender(JSON, "json_lines"), contender(LLMCALL.title, "replay")]
        grown = [contender(JSON, "json_memory"), contender(LLMCALL.title, "replay_memory")]
        return [
            bench.compare(timed, title=title, unit="s", reference=JSON, fresh=True),
            bench.compare(grown, title="memory that it takes", unit="B", reference=JSON, fresh=True, rounds=1),
        ]


def _simulate(file: str, lines: int, mode: str) -> None:
    """Let each persona decide in each round, in a thread of its own, knowing what it decided before."""
    import llmcall

    @llmcall.llm(system=workload.SYSTEM, temperature=1)
    def decide(name: str, price: int, before: list[bool]) -> bool:
        """{{ name }}: Should I buy bread for {{ price }} coins? So far: {{ before }}"""
        raise NotImplementedError

    def live(number: int) -> list[bool]:
        """Return what a persona decides."""
        decisions: list[bool] = []
        for price in range(ROUNDS):
            decisions.append(decide(f"Persona {number}", price, list(decisions)))
        return decisions

    with llmcall.cassette(file, mode=mode), llmcall.scope("rep-1"):
        results = llmcall.map(live, range(lines // ROUNDS), progress=False)
    if sum(map(len, results)) != lines:
        raise RuntimeError("decisions are missing")


def record(subject: Any, file: str, lines: int) -> Iterator[float | None]:
    """Record it."""
    configure(f"{file}.cache")
    yield None
    _simulate(file, lines, "rewrite")
    yield 0.0


def replay(subject: Any, file: str, lines: int) -> Iterator[float | None]:
    """Replay it; opening the cassette counts, importing does not."""
    asked = configure(f"{file}.nothing")
    yield None
    begin = perf_counter()
    _simulate(file, lines, "none")
    seconds = perf_counter() - begin
    if asked:
        raise RuntimeError(f"{len(asked)} recorded questions were asked again")
    yield seconds


def replay_memory(subject: Any, file: str, lines: int) -> Iterator[float | None]:
    """Replay it; yield by how many bytes memory grew at most."""
    configure(f"{file}.nothing")
    yield None
    before = memory("VmRSS")
    _simulate(file, lines, "none")
    yield memory("VmHWM") - before


def json_memory(subject: Any, file: str, lines: int) -> Iterator[float | None]:
    """Read and keep each line as JSON; yield by how many bytes memory grew at most."""
    import json

    yield None
    before = memory("VmRSS")
    with open(file, encoding="utf-8") as text:
        kept = list(map(json.loads, text))
    yield float(memory("VmHWM") - before) if kept else 0.0
