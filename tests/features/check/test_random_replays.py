"""Random programs, recorded from a server that gives each request another answer, and replayed with answers held back:
a replay says that answers moved where they did, and nothing where each caller got its own again.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import queue
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import openai
import pytest
from commands import ASK, LONGEST
from pytest_httpserver import HTTPServer
from servers import completion
from werkzeug import Request, Response

import llmcall
from llmcall.features.check.held_back import Plan, held_back

MOVED = "may have another caller's answer"
TEXTS = "abc"
WAYS = ("sdk", "own", "function")
CROWDS = ("threads", "tasks", "pool", "loops", "in turn")
QUEUES = ("queue", "task queue")
CHILD = f"{ASK}\nprint(*(ask(text) for text in sys.argv[1]))\n"


class Part(NamedTuple):
    """A part of a program, which runs after the one before it.

    :param kind: how its members run.
    :param members: the texts that each member asks, in order; of a queue, its jobs, with one text each.
    :param way: how they ask.
    """

    kind: str
    members: list[str]
    way: str


class Ran(NamedTuple):
    """What a program did.

    :ivar answers: by the place in the program: a part, a member or job of it, and which of its texts.
    :ivar workers: the texts that each worker of a queue asked, in order.
    """

    answers: dict[tuple[int, int, int], Any]
    workers: dict[tuple[int, int], list[str]]


def random_part(chance: random.Random, *, has_scope: bool, has_children: bool) -> Part:
    """Return a part: some members, which ask texts of few."""
    kinds = [*CROWDS, *QUEUES, *(["children"] if has_children else [])]
    kind = chance.choice(kinds)
    texts = chance.choice((TEXTS[:1], TEXTS[:2], TEXTS))
    longest = 1 if kind in QUEUES else 3
    count = chance.randint(2, 8 if kind in QUEUES else 4)
    members = ["".join(chance.choices(texts, k=chance.randint(1, longest))) for _ in range(count)]
    return Part(kind, members, chance.choice(WAYS) if has_scope else "sdk")


class Program:
    """A program in a cassette.

    :param address: the model's.
    :param pauses: the chance of its own pauses, which differ from run to run.
    """

    def __init__(self, address: str, parts: Sequence[Part], pauses: random.Random) -> None:
        self._parts = parts
        self._pauses = pauses
        self._lock = threading.Lock()
        self._address = address
        self._sdk = openai.OpenAI(base_url=address, api_key="k", max_retries=0)
        self._own = llmcall.OpenAIClient(base_url=address, api_key="k", on_error="raise")
        self._number = itertools.count(time.monotonic_ns())
        self._function = llmcall.recorded(name="look")(lambda text: next(self._number))
        self.ran = Ran({}, {})

    def run(self) -> Ran:
        """Run it."""
        for number, part in enumerate(self._parts):
            getattr(self, f"_{part.kind.replace(' ', '_')}")(number, part)
        self._sdk.close()
        return self.ran

    def _pause(self) -> float:
        with self._lock:
            return self._pauses.choice((0, 0, 0.001, 0.004))

    def _ask(self, text: str, way: str) -> Any:
        time.sleep(self._pause())
        if way == "function":
            return self._function(text)
        if way == "own":
            return self._own.send_message(text, model="gpt-4o-mini").content
        made = self._sdk.chat.completions.create(model="gpt-4o-mini", messages=[_user(text)])
        return made.choices[0].message.content

    async def _aask(self, sdk: openai.AsyncOpenAI, text: str, way: str) -> Any:
        await asyncio.sleep(self._pause())
        if way == "function":
            return self._function(text)
        if way == "own":
            return (await self._own.asend_message(text, model="gpt-4o-mini")).content
        made = await sdk.chat.completions.create(model="gpt-4o-mini", messages=[_user(text)])
        return made.choices[0].message.content

    def _member(self, number: int, member: int, part: Part) -> None:
        for index, text in enumerate(part.members[member]):
            self.ran.answers[number, member, index] = self._ask(text, part.way)

    def _threads(self, number: int, part: Part) -> None:
        _at_once(lambda member: self._member(number, member, part), len(part.members))

    def _in_turn(self, number: int, part: Part) -> None:
        for member in range(len(part.members)):
            self._member(number, member, part)

    def _pool(self, number: int, part: Part) -> None:
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda it: self._member(number, it, part), range(len(part.members))))

    async def _amembers(self, number: int, part: Part, members: Sequence[int]) -> None:
        async def amember(member: int) -> None:
            for index, text in enumerate(part.members[member]):
                self.ran.answers[number, member, index] = await self._aask(sdk, text, part.way)

        async with openai.AsyncOpenAI(base_url=self._address, api_key="k", max_retries=0) as sdk:
            await asyncio.gather(*map(amember, members))

    def _tasks(self, number: int, part: Part) -> None:
        asyncio.run(self._amembers(number, part, range(len(part.members))))

    def _loops(self, number: int, part: Part) -> None:
        members = range(len(part.members))
        _at_once(lambda loop: asyncio.run(self._amembers(number, part, members[loop::2])), 2)

    def _queue(self, number: int, part: Part) -> None:
        jobs: queue.Queue[tuple[int, str]] = queue.Queue()
        for job in enumerate(part.members):
            jobs.put(job)

        def work(worker: int) -> None:
            asked = self.ran.workers.setdefault((number, worker), [])
            while True:
                time.sleep(self._pause())
                try:
                    job, text = jobs.get_nowait()
                except queue.Empty:
                    return
                asked.append(text)
                self.ran.answers[number, job, 0] = self._ask(text, part.way)

        _at_once(work, 3)

    def _task_queue(self, number: int, part: Part) -> None:
        async def work(worker: int, jobs: list[tuple[int, str]], sdk: openai.AsyncOpenAI) -> None:
            asked = self.ran.workers.setdefault((number, worker), [])
            while jobs:
                job, text = jobs.pop(0)
                asked.append(text)
                self.ran.answers[number, job, 0] = await self._aask(sdk, text, part.way)

        async def work_all() -> None:
            jobs = [*enumerate(part.members)]
            async with openai.AsyncOpenAI(
                base_url=self._address, api_key="k", max_retries=0
            ) as sdk:
                await asyncio.gather(*(work(worker, jobs, sdk) for worker in range(3)))

        asyncio.run(work_all())

    def _children(self, number: int, part: Part) -> None:
        started = []
        for texts in part.members:
            command = [sys.executable, "child.py", texts]
            started.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
        for member, child in enumerate(started):
            output, _ = child.communicate(timeout=LONGEST)
            self.ran.answers[number, member, 0] = output


def _compared(texts: list[str], part: Part, asked: Counter[tuple[str, str]]) -> list[str]:
    """Return what a worker asked until the last text that another one may have asked, too: what it asked alone after
    that concerns no other.
    """
    end = len(texts)
    while end and asked[part.way, texts[end - 1]] == 1:
        end -= 1
    return texts[:end]


def _user(text: str) -> Any:
    return {"role": "user", "content": text}


def _at_once(run: Callable[[int], None], count: int) -> None:
    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


@pytest.fixture
def address(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Serve a model whose answers all differ, some of them later than others."""
    numbers, chance = itertools.count(), random.Random(0)

    def answer(request: Request) -> Response:
        text = str(next(numbers))
        time.sleep(chance.choice((0, 0.002, 0.006)))
        return Response(json.dumps(completion(text)), content_type="application/json")

    with HTTPServer(host="127.0.0.1", port=0, threaded=True) as server:
        server.expect_request("/v1/chat/completions").respond_with_handler(answer)
        monkeypatch.setenv("MODEL_AT", server.url_for("/v1"))
        yield server.url_for("/v1")


def check(address: str, seed: int, caplog: pytest.LogCaptureFixture, *, children: bool) -> str:
    """Record a random program and replay it; return what became of it."""
    chance = random.Random(seed)
    has_scope = chance.random() < 0.5
    parts = [
        random_part(chance, has_scope=has_scope, has_children=children)
        for _ in range(chance.randint(1, 3))
    ]
    path = Path(f"{seed}.jsonl")
    llmcall.configure(cache_path=f"cache-{seed}")

    def ran(mode: str, pauses: int) -> Ran:
        scope = llmcall.scope("s", process=True) if has_scope else llmcall.scope(None)
        with llmcall.cassette(path, mode=mode):
            program = Program(address, parts, random.Random(pauses))
            if not has_scope:
                return program.run()
            with scope:
                return program.run()

    live = ran("once", seed)
    assert MOVED not in caplog.text
    with held_back(Plan(seed, Path("note.json"))):
        replayed = ran("none", seed + 1)
    says_so = MOVED in caplog.text
    caplog.clear()
    case = (seed, parts, live, replayed)
    moved = {place[0] for place, it in live.answers.items() if it != replayed.answers[place]}
    asked = Counter((part.way, text) for part in parts for text in "".join(part.members))
    exchanged = {
        worker[0]
        for worker, texts in live.workers.items()
        if _compared(texts, parts[worker[0]], asked)
        != _compared(replayed.workers[worker], parts[worker[0]], asked)
    }
    if not exchanged:
        assert not says_so, case
    if not says_so:  # workers of identical jobs may have exchanged these, which nothing shows
        queues = {number for number, part in enumerate(parts) if part.kind in QUEUES}
        assert moved <= queues - exchanged, case
    return "moved" if says_so else "identical jobs" if moved else "exact"


@pytest.mark.parametrize(
    "seeds",
    [
        pytest.param(range(8), id="8"),
        pytest.param(range(8, 508), id="500", marks=pytest.mark.slow),
    ],
)
def test_a_replay_says_so_where_answers_moved(
    seeds: range, address: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Threads, tasks, pools, loops in threads, and workers of queues, which ask by an SDK, by llmcall and by recorded
    functions.
    """
    found = {check(address, seed, caplog, children=False) for seed in seeds}
    assert "exact" in found


@pytest.mark.slow
def test_a_replay_of_children_says_so_where_answers_moved(
    address: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Child processes are callers, too."""
    Path("child.py").write_text(CHILD, encoding="utf-8")
    for seed in range(1_000, 1_040):
        check(address, seed, caplog, children=True)
