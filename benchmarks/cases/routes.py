"""Replay on the routes that users travel: scopes, typed answers, ``map``, tasks, cassettes; and the
memory it takes.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stderr
from pathlib import Path
from time import perf_counter
from typing import Any

from .. import workload
from ..bench import Bench, Contender
from ..contestants import LLMCALL
from ..figures import Group

BARE = "bare diskcache look-ups"
API_TYPE = "benchmark"  # the client of this name answers in the process
ACTORS = 100
ANSWER_CHARACTERS = 560  # of an answer whose line in a cassette has about 1,000 bytes

ROUTES = (
    "send_message outside a scope",
    "inside one scope",
    "an actor's scope for each call",
    "@llm, typed, outside",
    "@llm, typed, in a scope",
    "a ThreadPoolExecutor of 32 threads, outside",
    "map, outside a scope",
    "map with its bar, outside",
    "map with workers=1, outside",
    "map of a plain function in a scope",
    ".map of an @llm function in a scope",
    "@recorded in a scope",
    "tasks with a scope each, gather",
    "a cassette, opening included",
)
# What of the same program others can do, by the module of each: a typed answer, and many at once.
PEERS = {
    "dspy_model": ("dspy.Predict, typed", "dspy.Parallel, typed"),
    "inspect_model": ("inspect_ai, typed", "inspect_ai, typed, gather"),
}
# What memory grows by: bytes an item beyond the results, and a multiple of the file's size.
MEMORY = {
    "map_memory": (
        "record_map",
        "B",
        "growth by a map over {:,} replayed items, an item beyond the results",
    ),
    "opening_memory": (
        "record_cassette",
        "x",
        "growth by opening a cassette of {:,} records of 1 kB, by size",
    ),
}


def run(bench: Bench) -> list[Group]:
    """Measure each route in the process that recorded, in turns with the bare look-ups; then the
    memory.
    """
    if LLMCALL not in bench.entries:
        return []
    groups = []
    with tempfile.TemporaryDirectory() as folder:

        def contender(title: str, measure: str, **parameters: Any) -> Contender:
            """Return a contender with these parameters."""
            order = {
                "module": "stores.llmcall_cache",
                "case": "routes",
                "measure": measure,
                "parameters": parameters,
            }
            return Contender(title, LLMCALL.environment, order)

        count, records = bench.sizes.replayed, bench.sizes.records
        contenders = [contender(BARE, "bare", folder=f"{folder}/bare", count=count)]
        contenders += [
            contender(title, "replay", folder=f"{folder}/{number}", count=count, route=number)
            for number, title in enumerate(ROUTES)
        ]
        for entry in bench.entries:
            for number, title in enumerate(PEERS.get(entry.module, ())):
                parameters = {
                    "folder": f"{folder}/{entry.module}-{number}",
                    "count": count,
                    "route": number,
                }
                order = {
                    "module": f"contestants.{entry.module}",
                    "case": "routes",
                    "measure": "replay_by_peer",
                }
                contenders.append(
                    Contender(title, entry.environment, {**order, "parameters": parameters})
                )
        title = f"one of {count:,} replayed calls"
        rounds = 2 * bench.sizes.rounds
        groups.append(
            bench.compare(contenders, title=title, unit="s", reference=BARE, rounds=rounds)
        )
        for measure, (before, unit, title) in MEMORY.items():
            parameters: dict[str, Any] = {"folder": f"{folder}/{measure}", "count": records}
            preparing = [contender(LLMCALL.title, before, **parameters)]
            contenders = [contender(LLMCALL.title, measure, **parameters)]
            groups.append(
                bench.compare(
                    contenders,
                    title=title.format(records),
                    unit=unit,
                    preparing=preparing,
                    rounds=1,
                )
            )
    return groups


def bare(subject: Any, folder: str, count: int) -> Iterator[float | None]:
    """Look answers up in diskcache by the SHA-256 of their requests."""
    import diskcache

    def key(messages: list[dict[str, str]]) -> str:
        """Return the key of a request."""
        request = {"model": workload.MODEL, "messages": messages}
        return hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()

    batch = [workload.messages(number) for number in range(count)]
    with diskcache.Cache(folder) as cache:
        for messages in batch:
            cache.set(
                key(messages),
                {"role": "assistant", "content": workload.answer_to(messages[-1]["content"])},
            )
        yield None
        while True:
            begin = perf_counter()
            if None in [cache.get(key(messages)) for messages in batch]:
                raise RuntimeError("an answer is missing")
            yield (perf_counter() - begin) / count


def replay(subject: Any, folder: str, count: int, route: int) -> Iterator[float | None]:
    """Record on one of the routes, then travel it again in each round."""
    live_questions = configure(folder)
    travel = _routes(folder, count, live_questions)[route]
    first = travel()
    recorded_count = len(live_questions)
    if travel() != first or len(live_questions) != recorded_count:
        raise RuntimeError("the replay is not what was recorded")
    yield None
    while True:
        begin = perf_counter()
        travel()
        seconds = perf_counter() - begin
        if len(live_questions) != recorded_count:
            raise RuntimeError(
                f"{len(live_questions) - recorded_count} recorded questions were asked again"
            )
        yield seconds / count


def replay_by_peer(subject: Any, folder: str, count: int, route: int) -> Iterator[float | None]:
    """Record on a route of somebody else's, then travel it again in each round."""
    rows = [
        {"name": f"actor {number % ACTORS}", "question": workload.question(number)}
        for number in range(count)
    ]
    travel = subject.typed_routes(folder, rows)[route]
    if travel() != [True] * count:
        raise RuntimeError("an answer is missing")
    yield None
    while True:
        begin = perf_counter()
        travel()
        yield (perf_counter() - begin) / count


def configure(folder: str, answer: Callable[[str], str] = workload.answer_to) -> list[str]:
    """Configure a client that answers in this process; return the list of what it is asked."""
    import llmcall
    from llmcall.testing import ScriptedClient

    live_questions: list[str] = []

    def answer_live(messages: list[dict[str, Any]]) -> str:
        """Answer, and keep what was asked."""
        live_questions.append(messages[-1]["content"])
        return '{"value": true}' if "Should I" in live_questions[-1] else answer(live_questions[-1])

    def make(settings: Any) -> Any:
        """Make the client."""
        return ScriptedClient(
            answer_live, cache_mode="auto", cache_path=folder, model=workload.MODEL
        )

    llmcall.register_client(API_TYPE, make)
    llmcall.configure(api_type=API_TYPE, cache_path=folder)
    return live_questions


def _routes(folder: str, count: int, live_questions: list[str]) -> list[Callable[[], list[Any]]]:
    """Return what travels each route once, in their order; ``live_questions`` gains what is not
    replayed.
    """
    import llmcall

    batch = [workload.messages(number) for number in range(count)]
    rows = [{"name": f"actor {number % ACTORS}", "number": number} for number in range(count)]
    client = llmcall.client()

    def ask(messages: list[dict[str, str]]) -> Any:
        """Ask one question."""
        return client.send_message(messages)

    @llmcall.llm(system=workload.SYSTEM)
    def should_buy(name: str, number: int) -> bool:
        """{{ name }}, question {{ number }}: Should I buy a loaf of bread?"""
        raise NotImplementedError

    @llmcall.recorded
    def price_of(item: int) -> float:
        """Return a price."""
        live_questions.append(str(item))
        return item / 10

    def outside() -> list[Any]:
        return [ask(messages) for messages in batch]

    def in_scope() -> list[Any]:
        with llmcall.scope("trial"):
            return outside()

    def by_actors() -> list[Any]:
        replies = []
        with llmcall.scope("trial"):
            for row, messages in zip(rows, batch, strict=True):
                with llmcall.scope(row["name"]):
                    replies.append(ask(messages))
        return replies

    def typed() -> list[Any]:
        return [should_buy(**row) for row in rows]

    def typed_in_scope() -> list[Any]:
        with llmcall.scope("trial"):
            return typed()

    def pooled() -> list[Any]:
        with ThreadPoolExecutor(32) as pool:
            return list(pool.map(ask, batch))

    def mapped_outside() -> list[Any]:
        return llmcall.map(ask, batch, progress=False)

    def mapped_with_bar() -> list[Any]:
        with open(os.devnull, "w") as nowhere, redirect_stderr(nowhere):
            return llmcall.map(ask, batch, progress=True)

    def mapped_by_one() -> list[Any]:
        return llmcall.map(ask, batch, progress=False, workers=1)

    def mapped() -> list[Any]:
        with llmcall.scope("trial"):
            return llmcall.map(ask, batch, progress=False)

    def typed_map() -> list[Any]:
        with llmcall.scope("trial"):
            return should_buy.map(rows, progress=False)

    def recorded() -> list[Any]:
        with llmcall.scope("trial"):
            return [price_of(number) for number in range(count)]

    async def one_task(number: int) -> Any:
        with llmcall.scope(f"task {number}"):
            return await client.asend_message(batch[number])

    async def gathered() -> list[Any]:
        with llmcall.scope("trial"):
            return await asyncio.gather(*map(one_task, range(count)))

    def cassette() -> list[Any]:
        with llmcall.cassette(Path(folder, "cassette.jsonl")):
            return outside()

    return [
        outside,
        in_scope,
        by_actors,
        typed,
        typed_in_scope,
        pooled,
        mapped_outside,
        mapped_with_bar,
        mapped_by_one,
        mapped,
        typed_map,
        recorded,
        lambda: asyncio.run(gathered()),
        cassette,
    ]


def record_map(subject: Any, folder: str, count: int) -> Iterator[float | None]:
    """Record what a map asks for."""
    yield None
    _map(folder, count)
    yield 0.0


def map_memory(subject: Any, folder: str, count: int) -> Iterator[float | None]:
    """Replay a map of so many items; yield the bytes by which memory grew at most, for each, beyond
    the results.
    """
    _map(folder, 10)
    yield None
    before = memory("VmRSS")
    results = _map(folder, count)
    size = sys.getsizeof(results) + sum(map(sys.getsizeof, results))
    yield (memory("VmHWM") - before - size) / count


def _map(folder: str, count: int) -> list[str]:
    import llmcall

    live_questions = configure(folder)
    client = llmcall.client()

    def ask(number: int) -> str:
        """Return the answer to a question."""
        return str(client.send_message(workload.messages(number)).content)

    with llmcall.scope("trial"):
        results = llmcall.map(ask, range(count), progress=False)
    if len(live_questions) not in (0, count):
        raise RuntimeError(f"{len(live_questions)} recorded questions were asked again")
    return results


def record_cassette(subject: Any, folder: str, count: int) -> Iterator[float | None]:
    """Record a cassette whose lines have about 1,000 bytes."""
    import llmcall

    yield None
    configure(f"{folder}/cache", lambda text: f"{text} ".ljust(ANSWER_CHARACTERS, "x"))
    client = llmcall.client()
    with llmcall.cassette(Path(folder, "cassette.jsonl"), mode="rewrite"):
        for number in range(count):
            client.send_message([{"role": "user", "content": workload.question(number)}])
    yield 0.0


def opening_memory(subject: Any, folder: str, count: int) -> Iterator[float | None]:
    """Open the cassette; yield by what multiple of its size memory grew at most."""
    import llmcall

    configure(f"{folder}/cache")
    client, file = llmcall.client(), Path(folder, "cassette.jsonl")
    yield None
    before = memory("VmRSS")
    with llmcall.cassette(file, mode="none"):
        client.send_message([{"role": "user", "content": workload.question(0)}], on_error="raise")
    yield (memory("VmHWM") - before) / file.stat().st_size


def memory(name: str) -> int:
    """Return a size of this process in bytes, as Linux tells it."""
    with open("/proc/self/status", encoding="ascii") as lines:
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))
