"""Loading a cassette and answering the first call, against reading each of its lines as JSON."""

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

__all__ = ["json_lines", "load", "record", "run"]

JSON = "json.loads of every line"


def run(bench: Bench) -> list[Group]:
    """Measure both in new processes, importing aside."""
    if LLMCALL not in bench.entries:
        return []
    lines = bench.sizes.lines
    with tempfile.TemporaryDirectory() as folder:
        order = {"module": "stores.llmcall_cache", "case": "cassette"}
        parameters = {"file": f"{folder}/cassette.jsonl", "lines": lines}

        def contender(title: str, measure: str) -> Contender:
            return Contender(title, LLMCALL.environment, order | {"measure": measure, "parameters": parameters})

        bench.prepare(contender(LLMCALL.title, "record"))
        contenders = [contender(JSON, "json_lines"), contender(LLMCALL.title, "load")]
        title = f"loading a cassette of {lines:,} records and answering the first"
        return [bench.compare(contenders, title=title, unit="s", reference=JSON, fresh=True)]


def _client() -> Any:
    from llmcall.testing import ScriptedClient

    return ScriptedClient(lambda messages: workload.answer_to(messages[-1]["content"]), model=workload.MODEL)


def record(subject: Any, file: str, lines: int) -> Iterator[float | None]:
    """Record a cassette."""
    import llmcall

    yield None
    client = _client()
    with llmcall.cassette(file, mode="rewrite"):
        for number in range(lines):
            client.send_message(workload.messages(number))
    yield 0.0


def json_lines(subject: Any, file: str, lines: int) -> Iterator[float | None]:
    """Read each line as JSON, and keep none."""
    yield None
    begin = perf_counter()
    with open(file, encoding="utf-8") as text:
        count = sum(1 for line in text if json.loads(line))
    seconds = perf_counter() - begin
    if count < lines:
        raise RuntimeError(f"the cassette has {count} lines instead of {lines}")
    yield seconds


def load(subject: Any, file: str, lines: int) -> Iterator[float | None]:
    """Open the cassette and ask its first question."""
    import llmcall

    client = _client()
    yield None
    begin = perf_counter()
    with llmcall.cassette(file, mode="none") as cassette:
        client.send_message(workload.messages(0), on_error="raise")
        seconds = perf_counter() - begin
        if cassette.replayed != 1:
            raise RuntimeError("the first call was not replayed")
    yield seconds
