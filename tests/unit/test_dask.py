"""Maps on Dask's executor, on loopback: the way past one machine."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from dice import ask, calls, describe, divide, nested, sample, samples, wait_for_ever
from redis_servers import RedisProcess
from servers import RawServer, answers, stays_silent
from test_executors import check_waiting

import llmcall
from llmcall import map
from llmcall.errors import BudgetExceededError, CacheMissError

pytestmark = pytest.mark.slow


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Give a client of a cluster of two workers, each a process with two threads."""
    distributed = pytest.importorskip("distributed")
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    with (
        distributed.LocalCluster(n_workers=2, threads_per_worker=2, dashboard_address="127.0.0.1:0") as cluster,
        cluster.get_client() as made,
    ):
        yield made


@pytest.fixture
def pool(client: Any) -> Executor:
    """Give the client's executor."""
    made: Executor = client.get_executor()
    return made


@pytest.fixture
def server() -> Iterator[RedisProcess]:
    """Give a Redis server."""
    with RedisProcess() as made:
        yield made


def test_answers_are_those_of_threads(pool: Executor, client: Any) -> None:
    """Answers, samples, errors, usage and interruptions are those of threads; what is not an executor is refused."""
    with llmcall.track() as used:
        found = map(samples, "abcd", scope="survey", executor=pool)
        assert (used.calls, used.cached_calls) == (12, 0)
        assert map(samples, "abcd", scope="survey") == found
        assert (used.calls, used.cached_calls) == (12, 12)
        assert map(nested, [1, 2], executor=pool, scope="outer", key=str) == map(nested, [1, 2], scope="outer", key=str)
    with llmcall.scope("trial"):
        assert map(sample, "ab", key=str, executor=pool) == ["trial/a#0", "trial/b#0"]
        assert map(sample, "ab", key=str) == ["trial/a#1", "trial/b#1"]
    with pytest.raises(ZeroDivisionError):
        map(divide, [1, 0, 2], executor=pool)
    check_waiting(pool)
    with pytest.raises(TypeError, match=r"pass client.get_executor\(\)"):
        map(divide, [1], executor=client)


def test_what_holds_here_holds_in_the_workers(pool: Executor) -> None:
    """Settings, modes, cassettes and named budgets travel, and what was recorded comes home."""
    with llmcall.configured(model="gpt-4o", temperature=0.5):
        assert {found[1:3] for found in map(describe, range(4), executor=pool)} == {("gpt-4o", 0.5)}
    with llmcall.cassette("threads.jsonl"):
        found = map(samples, "abc", scope="survey")
    with llmcall.cassette("pool.jsonl"):
        assert map(samples, "abc", scope="survey", executor=pool) == found
    assert Path("pool.jsonl").read_bytes() == Path("threads.jsonl").read_bytes()
    with llmcall.configured(cache_mode="replay"), pytest.raises(CacheMissError):
        map(ask, "new", executor=pool)
    made = calls()
    with llmcall.budget(calls=3, name="survey") as budget, pytest.raises(BudgetExceededError):
        map(ask, "abcdefgh", executor=pool)
    assert (calls() - made, budget.spent.calls) == (3, 3)
    with llmcall.budget(calls=3), pytest.raises(ValueError, match="has no name"):
        map(ask, "ij", executor=pool)


def test_cache_and_budget_on_a_server(pool: Executor, server: RedisProcess) -> None:
    """Workers need no common disk: with [Cache] PATH in Redis they share answers and named budgets."""
    llmcall.configure(cache_path=server.url)
    with llmcall.budget(calls=8, name="survey") as budget:
        found = map(ask, "abcdefgh", executor=pool)
        assert map(ask, "abcdefgh") == found
        with pytest.raises(BudgetExceededError):
            map(ask, "i", executor=pool)
    assert (calls(), budget.spent.calls, len(llmcall.client("openai").cache)) == (8, 8, 8)


# Other machines

SCHEDULER = """
import asyncio, distributed

async def main():
    async with distributed.Scheduler(host="127.0.0.1", port=0, dashboard=False) as scheduler:
        print(scheduler.address, flush=True)
        await scheduler.finished()

asyncio.run(main())
"""
WORKER = """
import asyncio, sys, distributed

async def main():
    async with distributed.Worker(sys.argv[1], nthreads=1, dashboard=False) as worker:
        print(worker.address, flush=True)
        await worker.finished()

asyncio.run(main())
"""


class Machine:
    """Be another machine as far as can be: its programs share no folder, no session and no signal with the tests."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._running = ExitStack()

    def start(self, program: str, *arguments: str) -> str:
        """Start a program and return the first line that it prints."""
        folders = {name: str(self.folder / name.lower()) for name in ("HOME", "TMPDIR")}
        for each in folders.values():
            Path(each).mkdir(parents=True, exist_ok=True)
        path = os.pathsep.join([str(Path(__file__).parent), os.environ["PYTHONPATH"]])
        process = subprocess.Popen(
            [sys.executable, "-c", program, *arguments],
            env={**os.environ, **folders, "PYTHONPATH": path}, cwd=self.folder, start_new_session=True,
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )  # fmt: skip
        self._running.enter_context(process)
        self._running.callback(process.kill)
        assert process.stdout is not None
        return process.stdout.readline().strip()

    def __enter__(self) -> Machine:
        return self

    def __exit__(self, *_: object) -> None:
        self._running.close()


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Executor]:
    """Give an executor whose one worker is on another machine."""
    distributed = pytest.importorskip("distributed")
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    with Machine(tmp_path / "elsewhere") as machine:
        scheduler = machine.start(SCHEDULER)
        machine.start(WORKER, scheduler)
        with distributed.Client(scheduler) as client:
            client.wait_for_workers(1)
            yield client.get_executor()


@pytest.fixture(params=["folder", "redis"])
def shared(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Let the cache be all that the machines have in common: a folder, or a database; give where it is."""
    if request.param == "redis":
        found: RedisProcess = request.getfixturevalue("server")
        place = found.url
    else:
        place = str(tmp_path / "shared")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "none"))  # another machine would not see what is there
    with llmcall.configured(cache_path=place):
        yield place


@pytest.mark.skipif(sys.platform == "win32", reason="there is no signal to send to oneself")
def test_ctrl_c_reaches_another_machine(elsewhere: Executor, shared: str) -> None:
    """What waits for a server there is cut, nothing begins any more, and map returns when no code runs there."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)

    def interrupts(connection: socket.socket, stopped: threading.Event) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        stays_silent(connection, stopped)

    try:
        with RawServer(answers(), answers(), interrupts, answers()) as web:
            with pytest.raises(KeyboardInterrupt) as caught:
                map(wait_for_ever, [web.base_url] * 6, executor=elsewhere, workers=2)
            paths = [seen.path for seen in web.requests]
    finally:
        signal.signal(signal.SIGINT, before)
    assert paths == ["/v1/chat/completions", "/ended"] * 2
    assert sorted(map(str, caught.value.results), reverse=True) == ["Two coins."] + ["None"] * 5  # type: ignore[attr-defined]


def test_what_a_cassette_gained_is_known_on_another_machine(elsewhere: Executor, shared: str) -> None:
    """A cassette that reads no cache gives a worker what was recorded here a moment ago; nothing of a map is left."""
    with llmcall.cassette("market.jsonl", mode="rewrite"):
        found = map(ask, "ab")
        made = calls()
        assert map(ask, "ab", executor=elsewhere) == found
    assert calls() == made == 2
    if "://" not in shared:
        assert not list(Path(shared).glob("maps-*/*"))
