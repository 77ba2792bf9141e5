"""Named budgets in Redis: no process on any machine passes a limit, and what is spent stays spent."""

from __future__ import annotations

import logging
import multiprocessing
import os
import select
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest
from dice import ask, calls
from programs import ran, start
from redis_servers import RedisProcess

import llmcall
from llmcall.engine import budgets
from llmcall.engine.budgets import Amounts, BudgetLimits, NamedLedger
from llmcall.errors import BudgetExceededError, CacheError
from llmcall.testing import ScriptedClient

NEED = Amounts(tokens=60, calls=1)
LIMIT = BudgetLimits(tokens=100)


@pytest.fixture(scope="module")
def shared() -> Iterator[RedisProcess]:
    """A server for the tests of this file."""
    with RedisProcess() as made:
        yield made


@pytest.fixture
def mortal() -> Iterator[RedisProcess]:
    """A server that a test stops and starts again, at a socket; it saves all."""
    with RedisProcess(port="0", appendonly="yes", appendfsync="always") as made:
        yield made


@pytest.fixture
def server(shared: RedisProcess) -> RedisProcess:
    """The server, empty, where the cache is to be."""
    with shared.client() as client:
        client.flushall()
    llmcall.configure(cache_path=shared.url, cache_mode="off")
    return shared


@pytest.fixture
def ledger(server: RedisProcess) -> Iterator[NamedLedger]:
    """A ledger, open."""
    made = NamedLedger("survey", server.url)
    yield made
    made.close()


def of_another_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let all that is reserved from now on look as if other processes had done so, on another machine."""
    monkeypatch.setattr(budgets, "machine", lambda: "elsewhere")


def test_reserve_and_settle(ledger: NamedLedger) -> None:
    """What is reserved is held, what was used is spent, and the rest is given back."""
    key = ledger.reserve(NEED, LIMIT)
    assert key is not None
    assert ledger.reserve(NEED, LIMIT) is None
    assert ledger.spent() == Amounts()
    ledger.settle(key, NEED, Amounts(usd=5, tokens=30, calls=1, unknown=1))
    assert ledger.spent() == Amounts(5, 30, 1, 1)
    again = ledger.reserve(NEED, LIMIT)
    ledger.settle(again or "", NEED, Amounts(tokens=50, calls=1))
    with pytest.raises(BudgetExceededError, match=r"'survey': 20 tokens left; the next call may use up to 60"):
        ledger.reserve(NEED, LIMIT)
    ledger.forget()
    assert ledger.spent() == Amounts()


def test_amounts_are_exact(ledger: NamedLedger) -> None:
    """Sums past what a float holds are counted to the last 10^-12 USD."""
    for _ in range(3):
        key = ledger.reserve(NEED, BudgetLimits())
        ledger.settle(key or "", NEED, Amounts(usd=2**53 + 1))
    assert ledger.spent().usd == 3 * (2**53 + 1)


def test_settling_twice_counts_once(ledger: NamedLedger) -> None:
    """Where the server's answer was lost, settling again changes nothing."""
    key = ledger.reserve(NEED, LIMIT) or ""
    for _ in range(2):
        ledger.settle(key, NEED, Amounts(tokens=30, calls=1))
    assert ledger.spent() == Amounts(tokens=30, calls=1)


def test_a_killed_process(server: RedisProcess) -> None:
    """What a killed process of this machine had reserved is spent: the model's server may have billed it."""
    program = """
        llmcall.configure(cache_path=sys.argv[1], cache_mode="off")
        def answer(messages):
            if len(client.requests) == 3:
                os._exit(0)
            return "yes"
        client = ScriptedClient(answer)
        with llmcall.budget(calls=40, name="survey"):
            while True:
                client.send_message("Hello")
    """
    ran(program, server.url)
    client = ScriptedClient(lambda messages: "yes")
    with llmcall.budget(calls=4, name="survey") as budget:
        client.send_message("Hello")
        with pytest.raises(BudgetExceededError):
            client.send_message("Hello")
    assert (budget.spent.calls, budget.left.calls) == (4, 0)


def test_another_machine(ledger: NamedLedger, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reservation of another machine is waited for as long as a call may take, and then counts as spent."""
    with monkeypatch.context() as elsewhere:
        of_another_machine(elsewhere)
        key = ledger.reserve(NEED, LIMIT) or ""
    assert (ledger.reserve(NEED, LIMIT), ledger.spent().tokens) == (None, 0)
    monkeypatch.setattr(budgets, "AWAY", -1.0)
    assert ledger.spent().tokens == 60
    with pytest.raises(BudgetExceededError):
        ledger.reserve(NEED, LIMIT)
    with monkeypatch.context() as elsewhere:
        of_another_machine(elsewhere)
        ledger.settle(key, NEED, Amounts(tokens=10, calls=1))
        ledger.settle(key, NEED, Amounts(tokens=10, calls=1))
    assert ledger.spent() == Amounts(tokens=10, calls=1)


def test_processes_never_pass_a_limit_together(server: RedisProcess) -> None:
    """Of many processes that begin at once, no more calls are made than allowed, and exactly as many."""
    program = """
        llmcall.configure(cache_path=sys.argv[1], cache_mode="off")
        client = ScriptedClient(lambda messages: "yes")
        sys.stdin.readline()
        def work():
            while True:
                try:
                    client.send_message("Hello")
                except llmcall.BudgetExceededError:
                    return
        with llmcall.budget(calls=20, name="survey"):
            threads = [threading.Thread(target=work) for _ in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        print(len(client.requests))
    """
    processes = [start(program, server.url) for _ in range(2)]
    results = [process.communicate("go\n", timeout=300) for process in processes]
    assert [complaints for _, complaints in results] == [""] * 2
    assert sum(int(printed) for printed, _ in results) == 20
    assert llmcall.budget(name="survey").spent.calls == 20


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded, use of fork:DeprecationWarning")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_budget_travels_to_workers(server: RedisProcess) -> None:
    """Workers of other processes share cache and budget of the server."""
    llmcall.configure(cache_mode="auto")
    with (
        ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("fork")) as pool,
        llmcall.budget(calls=3, name="survey") as budget,
    ):
        found = llmcall.map(ask, "abc", executor=pool)
        with pytest.raises(BudgetExceededError):
            llmcall.map(ask, "abcde", executor=pool)
        assert llmcall.map(ask, "abc") == found
    assert (calls(), budget.spent.calls) == (3, 3)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_forked_process_spends_from_the_same_name(server: RedisProcess) -> None:
    """A process that was forked while a named budget was open goes on with it on a connection of its own."""
    program = """
        llmcall.configure(cache_path=sys.argv[1], cache_mode="off")
        client = ScriptedClient(lambda messages: "yes")
        with llmcall.budget(calls=3, name="survey") as budget:
            client.send_message("Hello")
            child = os.fork()
            if not child:
                client.send_message("Hello")
                os._exit(0)
            os.waitpid(child, 0)
            client.send_message("Hello")
            print(budget.spent.calls, budget.left.calls)
    """
    assert ran(program, server.url) == "3 0"


def test_names_are_apart(server: RedisProcess) -> None:
    """Each name counts for itself, whatever it looks like; two objects of one name are one budget."""
    for name in ("a", "a:b", "spent:a", "ключ 🧀"):
        with llmcall.budget(calls=2, name=name) as first, llmcall.budget(calls=9, name=name) as second:
            ScriptedClient(["yes"]).send_message("Hello")
            assert first.spent[1:] == second.spent[1:] == (first.spent.tokens, 1)


def test_clearing_the_cache_leaves_budgets(server: RedisProcess) -> None:
    """What was spent stays spent where the answers are deleted."""
    llmcall.configure(cache_mode="auto")
    client = ScriptedClient(["yes"], cache_mode="auto")
    with llmcall.budget(calls=2, name="survey") as budget:
        client.send_message("Hello")
    assert client.cache.clear() == 1
    assert budget.spent.calls == 1


def test_a_server_that_is_down(server: RedisProcess) -> None:
    """Where nothing can be kept no call is made, and the error names the budget and the server, not its password."""
    llmcall.configure(cache_path=f"unix://:sesame@{server.folder}/nobody")
    client = ScriptedClient(["yes"])
    with (
        llmcall.budget(calls=3, name="survey"),
        pytest.raises(CacheError, match=r"budget 'survey' cannot be kept: .*unix://\*\*\*@.*nobody cannot be reached"),
    ):
        client.send_message("Hello")
    assert client.requests == []


def test_a_paid_answer_is_not_lost(mortal: RedisProcess, caplog: pytest.LogCaptureFixture) -> None:
    """Where the server stops during a call, the answer is given back all the same, with a warning, and all goes on."""
    llmcall.configure(cache_path=f"unix://{mortal.socket}", cache_mode="off")

    def answer(messages: Any) -> str:
        mortal.stop()
        return "yes"

    with llmcall.budget(calls=3, name="survey") as budget:
        assert ScriptedClient(answer).send_message("Hello", on_error="raise").content == "yes"
        (record,) = [each for each in caplog.records if each.levelno == logging.WARNING]
        assert "counts as spent" in record.getMessage()
        mortal.start()
        assert ScriptedClient(["yes"]).send_message("Hello", on_error="raise").content == "yes"
        assert (budget.spent.calls, budget.left.calls) == (1, 2)


def test_luggage_is_plain(server: RedisProcess) -> None:
    """A budget travels with the address that it needs, and opens where it arrives."""
    with llmcall.budget(calls=1, name="survey"):
        carried = budgets.travelling()
    assert carried == ({"usd": None, "tokens": None, "calls": 1, "name": "survey", "directory": server.url},)
    llmcall.configure(cache_path="elsewhere")
    with budgets.opened(carried):
        ScriptedClient(["yes"]).send_message("Hello")
    assert budgets.Budget(name="survey", directory=server.url).spent.calls == 1


def wait_for_all(connection: socket.socket) -> None:
    """Return when a server has carried out all that it was sent."""
    connection.sendall(b"PING\r\n")
    said = b""
    while b"+PONG" not in said:
        said += connection.recv(65536)


@contextmanager
def losing_answers(server: RedisProcess, count: int) -> Iterator[str]:
    """Stand before a server, and break the connection where it answers an EXEC, so many times; gives the address."""
    listening = socket.create_server(("127.0.0.1", 0))
    left = [count]
    threads: list[threading.Thread] = []

    def talk(client: socket.socket) -> None:
        with client, socket.create_connection(("127.0.0.1", server.port)) as behind:
            asked = b""
            while True:
                for ready in select.select([client, behind], [], [])[0]:
                    data = ready.recv(65536)
                    if not data:
                        return
                    if ready is behind:
                        client.sendall(data)
                        continue
                    behind.sendall(data)
                    asked += data
                    if asked.endswith(b"EXEC\r\n") and left[0]:
                        left[0] -= 1
                        wait_for_all(behind)
                        return

    def accept() -> None:
        while True:
            try:
                client, _ = listening.accept()
            except OSError:
                return
            threads.append(threading.Thread(target=talk, args=(client,)))
            threads[-1].start()

    accepting = threading.Thread(target=accept)
    accepting.start()
    yield f"redis://127.0.0.1:{listening.getsockname()[1]}/0"
    listening.shutdown(socket.SHUT_RDWR)
    listening.close()
    accepting.join()
    for thread in threads:
        thread.join()
    assert left == [0]


def test_lost_answers_of_the_server(server: RedisProcess) -> None:
    """A change that was made, though its answer was lost, is not made again: it is reserved and settled once."""
    with losing_answers(server, 2) as address:
        ledger = NamedLedger("survey", address)
        key = ledger.reserve(NEED, LIMIT)
        assert key is not None
        ledger.settle(key, NEED, Amounts(tokens=30, calls=1))
        assert ledger.spent() == Amounts(tokens=30, calls=1)
        ledger.close()
    with server.client() as client:
        assert client.hlen("llmcall:budget:reserved:survey") == 0
