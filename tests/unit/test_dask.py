"""Maps on Dask's executor, on loopback: the way past one machine."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

import pytest
from dice import ask, calls, describe, divide, nested, sample, samples
from redis_servers import RedisProcess
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
