"""Loading a cassette, and comparing two of them, against reading each of their lines as JSON."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from time import perf_counter
from typing import Any

from .. import workload
from ..bench import Bench, Contender
from ..contestants import LLMCALL
from ..figures import Group

JSON = "json.loads of every line"
CALLS = 10  # of an actor
KINDS = ("equal", "different everywhere")


def run(bench: Bench) -> list[Group]:
    """Measure each in new processes, importing aside."""
    if LLMCALL not in bench.entries:
        return []
    lines = bench.sizes.lines
    with tempfile.TemporaryDirectory() as folder:
        order = {"module": "stores.llmcall_cache", "case": "cassette"}
        file = f"{folder}/cassette.jsonl"

        def contender(title: str, measure: str, **parameters: Any) -> Contender:
            parameters = {"file": file, "lines": lines, **parameters}
            return Contender(
                title, LLMCALL.environment, order | {"measure": measure, "parameters": parameters}
            )

        bench.prepare(contender(LLMCALL.title, "record"))
        contenders = [contender(JSON, "json_lines"), contender(LLMCALL.title, "load")]
        title = f"loading a cassette of {lines:,} records and answering the first"
        groups = [bench.compare(contenders, title=title, unit="s", reference=JSON, fresh=True)]
        for kind in KINDS:
            other = f"{folder}/{kind}.jsonl"
            bench.prepare(contender(LLMCALL.title, "record", file=other, changed=kind != "equal"))
            contenders = [
                contender(JSON, "json_lines", other=other),
                contender(LLMCALL.title, "compare", other=other),
            ]
            title = f"comparing two runs of {lines:,} calls, {kind}"
            groups.append(
                bench.compare(contenders, title=title, unit="s", reference=JSON, fresh=True)
            )
        return groups


def _client() -> Any:
    from llmcall.testing import ScriptedClient

    return ScriptedClient(
        lambda messages: workload.answer_to(messages[-1]["content"]), model=workload.MODEL
    )


def record(subject: Any, file: str, lines: int, changed: bool = False) -> Iterator[float | None]:
    """Record a cassette of actors who make ten calls each."""
    import llmcall

    yield None
    client = _client()
    with llmcall.cassette(file, mode="rewrite"):
        for number in range(lines):
            messages = workload.messages(number)
            if changed:
                messages[0]["content"] = messages[0]["content"].replace("thrifty", "generous")
                messages[1]["content"] += " Please."
            with llmcall.scope(f"actor-{number // CALLS}"):
                client.send_message(messages)
    yield 0.0


def json_lines(subject: Any, file: str, lines: int, other: str = "") -> Iterator[float | None]:
    """Read each line as JSON, and keep none."""
    yield None
    begin, count = perf_counter(), 0
    for path in filter(None, (file, other)):
        with open(path, encoding="utf-8") as text:
            count += sum(1 for line in text if json.loads(line))
    seconds = perf_counter() - begin
    if count < lines:
        raise RuntimeError(f"the cassette has {count} lines instead of {lines}")
    yield seconds


def compare(subject: Any, file: str, lines: int, other: str) -> Iterator[float | None]:
    """Compare two runs, and say in words where they part."""
    from llmcall import compare

    yield None
    begin = perf_counter()
    comparison = compare(file, other)
    seconds = perf_counter() - begin if str(comparison) else 0.0
    if len(comparison.pairs) != lines:
        raise RuntimeError(f"{len(comparison.pairs)} calls were compared instead of {lines}")
    yield seconds


def load(subject: Any, file: str, lines: int) -> Iterator[float | None]:
    """Open the cassette and ask its first question."""
    import llmcall

    client = _client()
    yield None
    begin = perf_counter()
    with llmcall.cassette(file, mode="none") as cassette, llmcall.scope("actor-0"):
        client.send_message(workload.messages(0), on_error="raise")
        seconds = perf_counter() - begin
        if cassette.replayed != 1:
            raise RuntimeError("the first call was not replayed")
    yield seconds
