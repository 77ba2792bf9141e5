"""A long run that is killed and started again, over and over: every item is answered once, and paid for once.

Two processes go over the same items, one from either end, with one cache. They reach the model through a till that
keeps an account of what is asked, and that kills the process that asks, at random: before the model is asked, before
the answer is sent, or after that. ``LLMCALL_TEST_SOAK_CALLS=2000 pytest tests/live/test_soak.py`` is the long run.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, NamedTuple

import httpx
import pytest

import llmcall

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from conftest import ModelServer

CALLS = int(os.environ.get("LLMCALL_TEST_SOAK_CALLS", "120"))
KILLS = CALLS // 20
THREADS = 3  # of each process
MOMENTS = ("before asking", "before answering", "after answering")
PRICE = (1.0, 3.0)  # USD per million tokens, in and out
TOO_LONG = 60 + 5 * CALLS  # seconds: a process that still runs then hangs
# A choice in JSON: a few tokens, and never nothing.
COLOUR = {"type": "json_schema", "json_schema": {"name": "colour", "schema": {"enum": ["red", "green", "blue"]}}}
ASKED = {"temperature": 1, "max_tokens": 8, "response_format": COLOUR, "on_error": "raise"}
QUESTION = "Name a colour for house {}."
ITEMS = [QUESTION.format(number) for number in range(CALLS)]

PROGRAM = f"""
import json, os, sys
import llmcall

address, model, journal, direction = sys.argv[1:]
lines = os.open(journal, os.O_WRONLY | os.O_APPEND)
client = llmcall.OpenAIClient(
    base_url=address, api_key=f"process-{{os.getpid()}}", model=model, timeout={TOO_LONG}, prices={{model: {PRICE}}}
)

def note(what, item, **more):
    line = {{"what": what, "item": item, "process": os.getpid(), **more}}
    os.write(lines, json.dumps(line).encode() + b"\\n")

def ask(item):
    note("begun", item)
    reply = client.send_message(item, **{ASKED})
    note("done", item, cached=reply.cached, text=reply.content)
    return reply.content

items = [{QUESTION!r}.format(number) for number in range({CALLS})][:: int(direction)]
with llmcall.budget(calls={2 * CALLS + THREADS * KILLS}, name="soak"):
    answers = llmcall.map(ask, items, scope="soak", workers={THREADS})
used = llmcall.usage()
counts = [used.calls, used.cached_calls, used.retries, used.errors, used.input_tokens, used.output_tokens]
print(json.dumps([dict(zip(items, answers)), counts, used.cost]))
"""


class Line(NamedTuple):
    """Hold a line of the journal, which all processes append to: what happened, in its order."""

    what: str  # "begun" or "done" by a process, "asked" or "billed" by the till, "stored": in the cache after a kill
    item: str
    process: int = 0
    cached: bool = False
    tokens: list[int] = []  # noqa: RUF012 - never changed
    text: str = ""


class Journal:
    """Be the file in which all processes note what happened; each line is written at once, so they are in order."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def note(self, *lines: Line) -> None:
        """Append lines."""
        for line in lines:
            os.write(self._file, json.dumps(line._asdict()).encode() + b"\n")

    def lines(self) -> list[Line]:
        """Return what was noted."""
        return [Line(**json.loads(line)) for line in self.path.read_text().splitlines()]

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)


class Till(ThreadingHTTPServer):
    """Hand requests on to the model's server, note what is asked, and kill who asks, at random.

    :param model_server: the model's server.
    :param journal: where to note it.
    :ivar kills: how many processes were killed.
    """

    daemon_threads = False  # closing waits for the requests of the dead

    def __init__(self, model_server: ModelServer, journal: Journal) -> None:
        super().__init__(("127.0.0.1", 0), Customer)
        self.journal, self.kills = journal, 0
        self.base_url = f"http://127.0.0.1:{self.server_port}/v1"
        headers = {"Authorization": f"Bearer {model_server.api_key}", "Content-Type": "application/json"}
        self.model = httpx.Client(base_url=model_server.base_url, headers=headers, timeout=TOO_LONG)
        self._lock, self._random = threading.Lock(), random.Random(CALLS)
        self._left: dict[int, int] = {}  # how many requests a process still has

    def moment(self, process: int) -> str:
        """Return when to kill a process during its request; an empty text for not now."""
        with self._lock:
            left = self._left.setdefault(process, self._random.randint(1, 8))
            self._left[process] = left - 1
            if left != 1 or self.kills == KILLS:
                return ""
            self.kills += 1
            return self._random.choice(MOMENTS)


class Customer(BaseHTTPRequestHandler):
    """Serve one request at the till."""

    server: Till

    def do_POST(self) -> None:
        """Hand a chat completion on."""
        process = int(self.headers["Authorization"].rpartition("-")[2])
        length = int(self.headers["Content-Length"])
        body = self.rfile.read(length)
        if len(body) < length:  # it died while it wrote
            return
        moment = self.server.moment(process)
        self._reach(moment, "before asking", process)
        asked = Line("asked", json.loads(body)["messages"][-1]["content"], process)
        self.server.journal.note(asked)
        answer = self.server.model.post("/chat/completions", content=body)
        self.server.journal.note(asked._replace(what="billed", tokens=tokens_of(answer.json())))
        self._reach(moment, "before answering", process)
        with suppress(ConnectionError):  # it died while it waited
            self.send_response(answer.status_code)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(answer.content)))
            self.end_headers()
            self.wfile.write(answer.content)
        self._reach(moment, "after answering", process)

    def _reach(self, moment: str, reached: str, process: int) -> None:
        if moment == reached:
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)

    def log_message(self, *_: object) -> None:
        """Say nothing on standard error."""


@contextmanager
def open_till(model_server: ModelServer, journal: Journal) -> Iterator[Till]:
    """Keep a till open; when it is closed, all that was asked is noted, by the dead too."""
    with Till(model_server, journal) as till:
        thread = threading.Thread(target=till.serve_forever)
        thread.start()
        try:
            yield till
        finally:
            till.shutdown()
            thread.join()
    till.model.close()
    journal.close()


def worked(till: Till, model: str, cache: Path, direction: int) -> tuple[int, list[Any]]:
    """Run a process again and again until one is not killed; return its number and what it printed."""
    arguments = (till.base_url, model, str(till.journal.path), str(direction))
    command = [sys.executable, "-W", "error", "-c", PROGRAM, *arguments]
    environment = {**os.environ, "LLMCALL_CACHE_PATH": str(cache)}
    while True:
        with subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process:
            try:
                printed, complaints = process.communicate(timeout=TOO_LONG)
            finally:
                process.kill()
        if process.returncode != -signal.SIGKILL:
            assert process.returncode == 0, complaints
            return process.pid, json.loads(printed)
        with llmcall.ResponseCache(cache) as found:
            till.journal.note(*(Line("stored", item_of(record)) for record in found.records()))


def item_of(record: llmcall.Record) -> str:
    """Return what a record's request asked."""
    return str(record.request["messages"][-1]["content"])


def paid_again(lines: list[Line]) -> list[Line]:
    """List what was asked by somebody who had begun when it was stored already."""
    stored: set[str] = set()
    too_late: set[tuple[str, int]] = set()
    found = []
    for line in lines:
        if line.what in ("done", "stored"):
            stored.add(line.item)
        elif line.what == "begun" and line.item in stored:
            too_late.add((line.item, line.process))
        elif line.what == "asked" and (line.item, line.process) in too_late:
            found.append(line)
    return found


def test_killed_and_started_again(model_server: ModelServer, tmp_path: Path) -> None:
    """Whatever is killed when: one answer for each item, none paid for after it was stored, and the usage adds up."""
    cache, journal = tmp_path / "cache", Journal(tmp_path / "journal.jsonl")
    with open_till(model_server, journal) as till, ThreadPoolExecutor(2) as pool:
        ends = [pool.submit(worked, till, model_server.model, cache, direction) for direction in (1, -1)]
        survivors = dict(end.result() for end in ends)
    assert till.kills == KILLS
    lines = journal.lines()
    bills = [line for line in lines if line.what == "billed"]
    paid = [line for line in lines if line.what == "done" and not line.cached]

    # One answer for each item, and everybody got that one.
    with llmcall.ResponseCache(cache) as found:
        records = {item_of(record): record for record in found.records()}
        assert (set(records), len(found), found.verify()) == (set(ITEMS), CALLS, [])
    answers = {item: record.response["choices"][0]["message"]["content"] for item, record in records.items()}
    assert {(line.item, line.text) for line in lines if line.what == "done"} == set(answers.items())
    assert all(printed[0] == answers for printed in survivors.values())

    # None was paid for once it was stored, and none came from nowhere.
    assert paid_again(lines) == []
    assert {line.item for line in bills} == set(ITEMS)

    # The usage of those that lived is their bill; of the others' bills, only what a kill cut did not arrive.
    for process, (_, used, cost) in survivors.items():
        mine = [line.tokens for line in bills if line.process == process]
        tokens = [sum(column) for column in zip((0, 0), *mine, strict=True)]
        assert used == [len(mine), CALLS - len(mine), 0, 0, *tokens]
        assert cost == pytest.approx(price_of(tokens))
        assert len(mine) == sum(line.process == process for line in paid)
    assert len(paid) <= len(bills) <= len(paid) + THREADS * KILLS

    # The budget counted on through all of it: every bill, and at most what the dead had reserved beside them.
    with llmcall.configured(cache_path=cache):
        spent = llmcall.budget(name="soak").spent
    assert len(bills) <= (spent.calls or 0) <= len(bills) + THREADS * KILLS

    # Without a server or a key it is all there, and saves what it cost.
    with llmcall.OpenAIClient(model=model_server.model, cache_path=cache, cache_mode="replay") as client:
        replayed = llmcall.map(lambda item: client.send_message(item, **ASKED).content, ITEMS, scope="soak")
        assert dict(zip(ITEMS, replayed, strict=True)) == answers
        assert (client.usage.calls, client.usage.cached_calls, client.usage.errors) == (0, CALLS, 0)
        assert client.usage.saved == pytest.approx(
            sum(price_of(tokens_of(record.response)) for record in records.values())
        )


def tokens_of(response: dict[str, Any]) -> list[int]:
    """Return the tokens of an answer, in and out."""
    return [response["usage"][name] for name in ("prompt_tokens", "completion_tokens")]


def price_of(tokens: list[int]) -> float:
    """Return the USD of tokens, in and out."""
    return sum(count * price for count, price in zip(tokens, PRICE, strict=True)) / 1e6
