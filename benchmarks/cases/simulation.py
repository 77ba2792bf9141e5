"""A whole simulation replayed in a new process: personas in threads, ten rounds, typed decisions,
from a cassette.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from time import perf_counter
from typing import Any

from .. import workload
from ..bench import Bench, Contender
from ..contestants import LLMCALL
from ..figures import Group
from .cassette import JSON
from .cassette import json_lines as json_lines  # measured here, too
from .routes import configure, memory

ROUNDS = 10
PEERS = ("dspy_model", "inspect_model")  # the modules of others who can do the same


def run(bench: Bench) -> list[Group]:
    """Record it once, then replay it, and let others do so, against reading its lines as JSON:
    time, and memory.
    """
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

        def peers(measure: str) -> list[Contender]:
            """Return the others."""
            contenders = []
            for entry in bench.entries:
                if entry.module in PEERS:
                    order = {
                        "module": f"contestants.{entry.module}",
                        "case": "simulation",
                        "measure": measure,
                    }
                    order["parameters"] = {
                        "folder": f"{folder}/{entry.module}",
                        "personas": personas,
                    }
                    contenders.append(Contender(entry.title, entry.environment, order))
            return contenders

        timed = [
            contender(JSON, "json_lines"),
            contender(LLMCALL.title, "replay"),
            *peers("replay_by_peer"),
        ]
        grown = [contender(JSON, "json_memory"), contender(LLMCALL.title, "replay_memory")]
        grown += peers("replay_memory_by_peer")
        recording = peers("record_by_peer")
        return [
            bench.compare(
                timed, title=title, unit="s", reference=JSON, fresh=True, preparing=recording
            ),
            bench.compare(
                grown, title="memory that it takes", unit="B", reference=JSON, fresh=True, rounds=1
            ),
        ]


def _simulate(file: str, lines: int, mode: str) -> None:
    """Run the simulation: in each round each persona decides, in a thread of its own, and knows
    what it decided before.
    """
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
    live_questions = configure(f"{file}.nothing")
    yield None
    begin = perf_counter()
    _simulate(file, lines, "none")
    seconds = perf_counter() - begin
    if live_questions:
        raise RuntimeError(f"{len(live_questions)} recorded questions were asked again")
    yield seconds


def replay_memory(subject: Any, file: str, lines: int) -> Iterator[float | None]:
    """Replay it; yield by how many bytes memory grew at most."""
    configure(f"{file}.nothing")
    yield None
    before = memory("VmRSS")
    _simulate(file, lines, "none")
    yield memory("VmHWM") - before


def record_by_peer(subject: Any, folder: str, personas: int) -> Iterator[float | None]:
    """Record the same simulation by somebody else's cache."""
    yield None
    lives, _ = subject.simulate(folder, personas, ROUNDS)
    if lives != [[True] * ROUNDS] * personas:
        raise RuntimeError("decisions are missing")
    yield 0.0


def replay_by_peer(subject: Any, folder: str, personas: int) -> Iterator[float | None]:
    """Replay what somebody else recorded; importing does not count."""
    yield None
    begin = perf_counter()
    lives, live_calls = subject.simulate(folder, personas, ROUNDS)
    seconds = perf_counter() - begin
    if live_calls or sum(map(len, lives)) != personas * ROUNDS:
        raise RuntimeError(f"{live_calls} recorded questions were asked again")
    yield seconds


def replay_memory_by_peer(subject: Any, folder: str, personas: int) -> Iterator[float | None]:
    """Replay what somebody else recorded; yield by how many bytes memory grew at most."""
    yield None
    before = memory("VmRSS")
    subject.simulate(folder, personas, ROUNDS)
    yield memory("VmHWM") - before


def json_memory(subject: Any, file: str, lines: int) -> Iterator[float | None]:
    """Read and keep each line as JSON; yield by how many bytes memory grew at most."""
    import json

    yield None
    before = memory("VmRSS")
    with open(file, encoding="utf-8") as text:
        entries = list(map(json.loads, text))
    yield float(memory("VmHWM") - before) if entries else 0.0
