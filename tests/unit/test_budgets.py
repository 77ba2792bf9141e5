"""Budgets: never passed, whoever calls, in whatever order; kept under a name from run to run."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sqlite3
import sys
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given
from programs import ran, start

import llmcall
from llmcall.engine import budgets
from llmcall.engine.budgets import PICO, Amounts, BudgetLimits, NamedLedger, Reservation
from llmcall.errors import APIError, BudgetExceededError, ConfigError, InvalidRequestError, ServiceError
from llmcall.testing import ScriptedClient

PRICE = {"m": (1.0, 2.0)}  # USD per million tokens
INFINITE = float("inf")


class Metered(ScriptedClient):
    """Answer from a script, reporting the tokens that each answer names: ``(text, prompt, output)``."""

    def send(self, request: Any, timeout: float | None) -> dict[str, Any]:
        text, prompt, output = self._next(request)
        message = {"role": "assistant", "content": text}
        choices = [{"index": 0, "message": message, "finish_reason": "stop"}]
        return {"model": "m", "choices": choices, "usage": {"prompt_tokens": prompt, "completion_tokens": output}}


def metered(prompt: int, output: int, **settings: Any) -> Metered:
    """Return a client whose every answer takes so many tokens."""
    settings = {"model": "m", "prices": PRICE, "on_error": "raise", **settings}
    return Metered(lambda messages: ("yes", prompt, output), **settings)


def outcome(act: Callable[[], Any]) -> str:
    """Return the name of the kind of thing that a call ends with."""
    try:
        return type(act()).__name__
    except BudgetExceededError as error:
        return type(error).__name__


def test_threads_make_exactly_as_many_calls_as_are_allowed() -> None:
    """Of 150 calls from 32 threads under calls=100, exactly 100 are made, and the others say why not."""
    client = ScriptedClient(lambda messages: "yes")
    with llmcall.budget(calls=100) as budget, ThreadPoolExecutor(32) as executor:
        found = Counter(executor.map(lambda n: outcome(lambda: client.send_message(f"Hello {n}")), range(150)))
    assert found == {"Reply": 100, "BudgetExceededError": 50}
    assert len(client.requests) == 100
    assert (budget.spent.calls, budget.left.calls) == (100, 0)


def test_tasks_make_exactly_as_many_calls_as_are_allowed() -> None:
    """Of 150 tasks under calls=100, exactly 100 call."""
    client = ScriptedClient(lambda messages: "yes")

    async def main() -> list[Any]:
        asked = (client.asend_message(f"Hello {n}") for n in range(150))
        return await asyncio.gather(*asked, return_exceptions=True)

    with llmcall.budget(calls=100):
        found = Counter(type(each).__name__ for each in asyncio.run(main()))
    assert found == {"Reply": 100, "BudgetExceededError": 50}
    assert len(client.requests) == 100


def test_failed_attempts_are_given_back() -> None:
    """Attempts that fail count nothing: one call goes through after any number of them."""
    answers = [ServiceError("busy"), ServiceError("busy"), "yes", InvalidRequestError("no"), "yes"]
    client = ScriptedClient(answers, on_error="raise")
    with llmcall.budget(calls=2) as budget:
        client.send_message("Hello")
        with pytest.raises(InvalidRequestError):
            client.send_message("Hello")
        client.send_message("Hello")
        with pytest.raises(BudgetExceededError):
            client.send_message("Hello")
    assert (budget.spent.calls, len(client.requests)) == (2, 5)


def test_it_reserves_before_and_settles_after() -> None:
    """Before a call the prompt's count and max_tokens must fit; afterwards what was used counts."""
    prompt = int(metered(0, 0).count_tokens([{"role": "user", "content": "Hello"}]))
    client, used = metered(prompt, 5), prompt + 5
    with llmcall.budget(tokens=prompt + 50) as budget:
        client.send_message("Hello", max_tokens=50)
        assert (budget.spent.tokens, budget.left.tokens) == (used, 45)
        with pytest.raises(BudgetExceededError, match=r"45 tokens left; the next call may use up to 46: set"):
            client.send_message("Hello", max_tokens=46 - prompt)
        client.send_message("Hello", max_tokens=45 - prompt)


@pytest.mark.parametrize("limit", [{"tokens": 100}, {"usd": 100e-6}], ids=["tokens", "usd"])
def test_a_server_that_counts_more_tokens_than_are_counted_here(limit: dict[str, Any]) -> None:
    """What a server adds to each prompt, as chat templates do, is reserved for the calls after the first."""
    client = metered(40, 3, prices={"m": (1.0, 1.0)})
    with llmcall.budget(**limit) as budget:
        for question in ("a", "b"):
            client.send_message(question, max_tokens=3)
        with pytest.raises(BudgetExceededError, match=r"000043|43"):
            client.send_message("c", max_tokens=3)
    assert budget.spent == (pytest.approx(86e-6), 86, 2)


def test_a_smaller_budget_under_a_used_name() -> None:
    """What an earlier run spent may be more than is allowed now, and the message reads well then too."""
    with llmcall.budget(calls=3, name="survey"):
        client = metered(10, 5)
        for question in "abc":
            client.send_message(question)
    said = "no call left of 1: raise the budget$"
    with llmcall.budget(calls=1, name="survey"), pytest.raises(BudgetExceededError, match=said):
        client.send_message("d")


def test_the_model_s_largest_output_is_reserved() -> None:
    """Where the request names no max_tokens, the model's largest answer must fit, and n of them where n are asked."""
    client = metered(1, 1, model="gpt-4o-mini")
    for n, most in ((1, 16384), (2, 32768)):
        with llmcall.budget(tokens=most), pytest.raises(BudgetExceededError):
            client.send_message("Hello", n=n)
        with llmcall.budget(tokens=most + 100):
            client.send_message("Hello", n=n)


def test_usd_is_exact() -> None:
    """Three calls of 0.1 USD fit in 0.3 USD, though the sum of the floats is more, and a fourth does not."""
    client = metered(100_000, 0)
    third = Amounts(PICO // 10, 0, 1)
    with llmcall.budget(usd=0.3):
        for _ in range(3):
            reservation = Reservation()
            assert reservation.reserve(third) is None
            reservation.used = third
            reservation.close()
        refused = Reservation()
        with pytest.raises(BudgetExceededError, match=r"\$0\.0000 left; the next call may cost up to \$0\.1000: set"):
            refused.reserve(third)
        refused.close()
    with llmcall.budget(usd=0.5) as budget:
        for _ in range(3):
            client.send_message("Hello", max_tokens=10)
    assert budget.spent.usd == 0.3
    assert budget.left.usd == 0.2


def test_usd_without_a_price_refuses_to_start() -> None:
    """A model without a price is refused before any call, naming it and the setting that gives one."""
    client = ScriptedClient(["yes"], model="unheard-of", on_error="none")
    with llmcall.budget(usd=5), pytest.raises(ConfigError, match=r"unheard-of.*\[Prices\]"):
        client.send_message("Hello")
    assert client.requests == []
    with llmcall.budget(calls=1) as budget:
        client.send_message("Hello")
    assert (budget.spent.usd, budget.spent.calls) == (None, 1)


def test_hits_are_free(tmp_path: Path) -> None:
    """A recorded answer costs nothing, even in a budget of nothing."""
    client = ScriptedClient(["yes"], cache_mode="auto", on_error="raise")
    client.send_message("Hello")
    with llmcall.budget(calls=0, tokens=0, usd=0) as budget:
        assert client.send_message("Hello").cached
        with pytest.raises(BudgetExceededError):
            ScriptedClient(["no"], prices={"gpt-4o-mini": (0, 0)}).send_message("Hello")
    assert budget.spent == (0, 0, 0)


def test_all_nested_budgets_count() -> None:
    """A call counts in every budget that is open, and the tightest decides."""
    client = ScriptedClient(lambda messages: "yes")
    with llmcall.budget(calls=3) as outer:
        with llmcall.budget(calls=2) as inner:
            for _ in range(2):
                client.send_message("Hello")
            with pytest.raises(BudgetExceededError, match="no call left of 2"):
                client.send_message("Hello")
        client.send_message("Hello")
        with pytest.raises(BudgetExceededError, match="no call left of 3"):
            client.send_message("Hello")
    client.send_message("Hello")
    assert (outer.spent.calls, inner.spent.calls) == (3, 2)


def test_entered_again_it_goes_on() -> None:
    """A budget kept in a variable goes on counting when it is entered again, and counts once when nested in itself."""
    client, budget = ScriptedClient(lambda messages: "yes"), llmcall.budget(calls=2)
    for _ in range(2):
        with budget, budget:
            client.send_message("Hello")
    with budget, pytest.raises(BudgetExceededError):
        client.send_message("Hello")
    client.send_message("Hello")


@pytest.mark.parametrize("on_error", ["none", "return", "raise"])
def test_it_is_always_raised(on_error: str) -> None:
    """A budget's error is raised whatever on_error says, by every way to call."""
    client = ScriptedClient([], on_error=on_error)
    with llmcall.budget(calls=0):
        for ask in (client.send_message, client.get_embedding, lambda text: list(client.stream_message(text))):
            with pytest.raises(BudgetExceededError):
                ask("Hello")
        with pytest.raises(BudgetExceededError):
            asyncio.run(client.asend_message("Hello"))


def test_embeddings_count_their_texts() -> None:
    """A batch of texts is one call, and reserves the count of all of them."""
    client = ScriptedClient([[[1.0], [2.0]]], model="m")
    texts = ["one two three", "four"]
    tokens = sum(int(client.count_tokens(text)) for text in texts)
    with llmcall.budget(tokens=tokens - 1), pytest.raises(BudgetExceededError):
        client.get_embedding(texts, "m")
    with llmcall.budget(tokens=tokens) as budget:
        client.get_embedding(texts, "m")
    assert budget.spent[1:] == (tokens, 1)


def test_a_follower_of_a_call_that_is_refused_takes_over() -> None:
    """The leader's own budget error is not shared: an identical call is made once there is room."""
    client = ScriptedClient(lambda messages: "yes", cache_mode="auto")

    async def main() -> list[Any]:
        asked = [asyncio.create_task(client.asend_message("Hello")) for _ in range(3)]
        return await asyncio.gather(*asked, return_exceptions=True)

    with llmcall.budget(calls=0):
        assert Counter(type(each) for each in asyncio.run(main())) == {BudgetExceededError: 3}
    with llmcall.budget(calls=1):
        assert sorted(reply.cached for reply in asyncio.run(main())) == [False, True, True]


def test_a_refused_answer_is_billed() -> None:
    """An empty answer is no call that was answered, but the tokens that the server reports for it are spent."""
    client = Metered([("", 10, 90)], model="m", on_error="return", max_tokens=100)
    with llmcall.budget(tokens=500) as budget:
        assert isinstance(client.send_message("Hello"), APIError)
    assert budget.spent == (None, 100, 0)


def test_an_abandoned_stream_is_billed() -> None:
    """Of a stream whose reader leaves, the prompt and what was read of the answer are spent."""
    client = ScriptedClient(["one two three four five six"], model="m")
    with llmcall.budget(tokens=5000) as budget, client.stream_message("Hello") as stream:
        next(iter(stream))
        stream.close()
    prompt = int(client.count_tokens([{"role": "user", "content": "Hello"}]))
    assert budget.spent == (None, prompt + client.count_tokens("one"), 1)


WRONG = [{"usd": -1}, {"usd": float("nan")}, {"usd": "5"}, {"calls": 1.5}, {"tokens": True}, {"name": " "}, {"name": 5}]


@pytest.mark.parametrize("wrong", WRONG)
def test_wrong_arguments(wrong: dict[str, Any]) -> None:
    """A limit that is no number of at least 0, or an empty name, is refused at once."""
    with pytest.raises(ValueError, match=r"budget's"):
        llmcall.budget(**wrong)


# What many callers do in any order, without threads: each reserves, waits, settles or gives back when it is its turn.

CALLERS = st.lists(
    st.tuples(st.integers(1, 30), st.floats(0, 1), st.booleans()), min_size=1, max_size=12
)  # the most that a call may use, what share of it it uses, whether it fails


@given(limit=st.integers(0, 60), callers=CALLERS, order=st.randoms(use_true_random=False))
def test_no_interleaving_passes_a_limit(limit: int, callers: list[tuple[int, float, bool]], order: Any) -> None:
    """However callers take turns, spent and reserved never pass the limit, and nobody waits for ever."""
    used, running, waiting = 0, {}, {}
    coming = list(enumerate(callers))
    budgets._waiting.clear()  # of an example that failed
    with llmcall.budget(tokens=limit) as budget:
        while coming or running or waiting:
            ready = [("look", key) for key, each in waiting.items() if each.wakeup.done()]
            moves = ready + [("end", key) for key in running] + [("come", key) for key, _ in coming[:1]]
            assert moves, "everybody waits for everybody"
            what, key = order.choice(moves)
            most, share, fails = callers[key]
            if what == "end":
                reservation = running.pop(key)
                if not fails:
                    used += int(most * share)
                    reservation.used = Amounts(tokens=int(most * share))
                reservation.close()
                continue
            reservation = Reservation() if what == "come" else waiting.pop(key)
            coming = coming[1:] if what == "come" else coming
            try:
                seconds = reservation.reserve(Amounts(tokens=most))
            except BudgetExceededError:
                assert used + most > limit
                reservation.close()
            else:
                (running if seconds is None else waiting)[key] = reservation
            assert used + sum(callers[each][0] for each in running) <= limit
    assert budget.spent.tokens == used


def test_a_reservation_that_would_fit_later_waits() -> None:
    """A call waits while another holds what it needs, and goes when that one settles for less, or fails."""
    running, waiting = Reservation(), Reservation()
    with llmcall.budget(tokens=100):
        assert running.reserve(Amounts(tokens=60)) is None
        assert waiting.reserve(Amounts(tokens=60)) == INFINITE
        running.used = Amounts(tokens=40)
        running.close()
        assert waiting.wakeup.done()
        assert waiting.reserve(Amounts(tokens=60)) is None
        waiting.close()


def test_what_is_reserved_too_late_is_given_back() -> None:
    """A caller that was cancelled while its reservation was under way holds nothing, and nobody waits for it."""
    cancelled, other = Reservation(), Reservation()
    with llmcall.budget(calls=1):
        cancelled.close()
        assert cancelled.reserve(Amounts(calls=1)) is None
        assert other.reserve(Amounts(calls=1)) is None
        other.close()


# Names: what earlier runs and other processes spent counts.


def test_a_name_goes_on_counting() -> None:
    """What was spent under a name counts when it is opened again, and can be looked at and taken back."""
    client = metered(10, 5)
    for spent in (0, 1):
        with llmcall.budget(usd=1, calls=2, name="survey") as budget:
            assert budget.spent.calls == spent
            client.send_message("Hello", max_tokens=5)
    with llmcall.budget(calls=2, name="survey"), pytest.raises(BudgetExceededError, match="the budget 'survey'"):
        client.send_message("Hello")
    kept = llmcall.budget(name="survey")
    assert kept.spent == (pytest.approx(40e-6), 30, 2)
    assert kept.left == (None, None, None)
    kept.forget()
    assert kept.spent == llmcall.budget(name="another").spent == (0, 0, 0)


@pytest.mark.parametrize("limits", [(5, 2), (2, 5), (None, 2), (2, None)])
def test_one_name_opened_twice_counts_once(limits: tuple[int | None, int | None]) -> None:
    """Two budgets of one name are one account, with the tighter of both limits."""
    client = ScriptedClient(lambda messages: "yes")
    with llmcall.budget(calls=limits[0], name="survey"), llmcall.budget(calls=limits[1], name="survey") as budget:
        client.send_message("Hello")
        assert budget.spent.calls == 1
        client.send_message("Hello")
        with pytest.raises(BudgetExceededError):
            client.send_message("Hello")


def test_usd_of_a_name_with_unknown_prices() -> None:
    """Where calls without a price count under a name, their USD are unknown, and no limit of USD can be kept."""
    with llmcall.budget(name="survey"):
        ScriptedClient(["yes"], model="unheard-of").send_message("Hello")
    with llmcall.budget(usd=5, name="survey") as budget:
        assert (budget.spent.usd, budget.left.usd) == (None, None)
        with pytest.raises(BudgetExceededError, match="unknown price"):
            metered(1, 1).send_message("Hello")


CALL_UNTIL_REFUSED = """
client = ScriptedClient(lambda messages: "yes")
made = 0
with llmcall.budget(calls=300, name="survey"):
    print("open", flush=True)
    sys.stdin.readline()
    for number in range(400):
        try:
            client.send_message(f"{sys.argv[1]} {number}")
        except llmcall.BudgetExceededError:
            break
        made += 1
print(made)
"""


def test_two_processes_share_a_name() -> None:
    """Two processes at once make exactly as many calls together as the name's limit allows."""
    processes = [start(CALL_UNTIL_REFUSED, name) for name in ("one", "two")]
    for process in processes:
        assert process.stdout and process.stdin
        assert process.stdout.readline() == "open\n"
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    outputs = [process.communicate(timeout=60) for process in processes]
    assert [complaints for _, complaints in outputs] == ["", ""]
    assert sum(int(printed) for printed, _ in outputs) == 300
    assert llmcall.budget(name="survey").spent.calls == 300


KILLED_IN_A_CALL = """
def answer(messages):
    if len(client.requests) == 3:
        os._exit(0)
    return "yes"
client = ScriptedClient(answer)
with llmcall.budget(calls=40, name="survey"):
    while True:
        client.send_message("Hello")
"""


def test_what_a_killed_process_had_reserved_is_spent() -> None:
    """A process that is killed in its third call leaves three calls spent: the server may have billed it."""
    ran(KILLED_IN_A_CALL)
    client = ScriptedClient(lambda messages: "yes")
    with llmcall.budget(calls=4, name="survey") as budget:
        client.send_message("Hello")
        with pytest.raises(BudgetExceededError):
            client.send_message("Hello")
    assert budget.spent.calls == 4


def changed(directory: Path, **fields: Any) -> None:
    """Change what is kept of the reservations of a named budget: the process's number, or since when they hold."""
    with sqlite3.connect(directory / "budgets.db") as database:
        (text,) = database.execute("SELECT state FROM Budgets").fetchone()
        state = json.loads(text)
        for key, (amounts, process, since, machine, lost) in state["reserved"].items():
            made = {"process": process, "since": since, **fields}
            state["reserved"][key] = amounts, made["process"], made["since"], machine, lost
        database.execute("UPDATE Budgets SET state = ?", (json.dumps(state),))
    database.close()


def test_a_process_that_was_taken_for_dead_settles_what_it_used(tmp_path: Path) -> None:
    """Where another process counted a reservation as spent, settling it puts what was used in its place."""
    ledger, limit = NamedLedger("survey", tmp_path), BudgetLimits(tokens=100)
    need = Amounts(tokens=60)
    key = ledger.reserve(need, limit)
    changed(tmp_path, process=_gone())
    assert ledger.spent().tokens == 60
    ledger.settle(key or "", need, Amounts(tokens=10, calls=1))
    assert ledger.spent() == Amounts(tokens=10, calls=1)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells when a process began")
def test_a_process_of_the_same_number_is_another_one(tmp_path: Path) -> None:
    """What was reserved under this process's number before it began, as in a container, is spent and not waited for."""
    ledger = NamedLedger("survey", tmp_path)
    ledger.reserve(Amounts(tokens=60), BudgetLimits(tokens=100))
    changed(tmp_path, since=time.time() - 36000)
    with pytest.raises(BudgetExceededError, match="40 tokens left"):
        ledger.reserve(Amounts(tokens=60), BudgetLimits(tokens=100))


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells that a process has ended")
def test_a_process_that_nobody_waited_for_has_ended(tmp_path: Path) -> None:
    """What a killed process had reserved is spent, though its number is kept for a parent that has not asked yet."""
    ledger = NamedLedger("survey", tmp_path)
    ledger.reserve(Amounts(tokens=60), BudgetLimits(tokens=100))
    with start("print('begun', flush=True)") as process:
        assert process.stdout is not None
        while process.stdout.read():
            pass
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        changed(tmp_path, process=process.pid)
        assert ledger.spent().tokens == 60


def _gone() -> int:
    with start("") as process:
        process.communicate()
    return process.pid


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_process_spends_from_the_same_name() -> None:
    """A process that was forked while a named budget was open goes on with it on a connection of its own."""
    assert ran(
        """
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
    ) == "3 0"  # fmt: skip


def test_a_paid_answer_is_not_lost_where_the_ledger_fails(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where what was used cannot be noted, the answer is given back all the same, with a warning."""

    def answer(messages: Any) -> str:
        path = Path(llmcall.settings().cache_path) / "budgets.db"
        with sqlite3.connect(path) as database:
            database.execute("DROP TABLE Budgets")
        database.close()
        return "yes"

    with llmcall.budget(calls=3, name="survey"):
        assert ScriptedClient(answer).send_message("Hello", on_error="raise").content == "yes"
    (record,) = [each for each in caplog.records if each.levelno == logging.WARNING]
    assert "counts as spent" in record.getMessage()


def test_a_ledger_that_cannot_be_made(tmp_path: Path) -> None:
    """Where nothing can be kept no call is made, and the error names the file."""
    (tmp_path / "file").write_text("")
    llmcall.configure(cache_path=tmp_path / "file")
    client = ScriptedClient(["yes"])
    with llmcall.budget(calls=3, name="survey"), pytest.raises(llmcall.CacheError, match=r"survey.*budgets\.db"):
        client.send_message("Hello")
    assert client.requests == []


def test_a_name_needs_a_place(tmp_path: Path) -> None:
    """An address of nobody that keeps names is refused, without showing a password; a directory may be named."""
    with pytest.raises(ConfigError, match=r"s3://\*\*\*@host is neither a directory nor the address"):
        budgets.Budget(name="survey", directory="s3://:secret@host")
    with budgets.Budget(calls=1, name="survey", directory=tmp_path):
        ScriptedClient(["yes"]).send_message("Hello")
    assert (tmp_path / "budgets.db").exists()


def test_the_directory_is_private() -> None:
    """A cache's directory that a budget makes is private and out of git, like one that the cache makes."""
    with llmcall.budget(calls=1, name="survey"):
        ScriptedClient(["yes"]).send_message("Hello")
    directory = Path(llmcall.settings().cache_path)
    assert directory.stat().st_mode & 0o777 == 0o700
    assert (directory / ".gitignore").read_text() == "*\n"


def test_other_processes_need_a_name() -> None:
    """A budget without a name cannot be shared with workers in other processes; a named one travels."""
    with llmcall.budget(calls=1), pytest.raises(ValueError, match=r"calls=1.*name"):
        budgets.check_for_processes()
    with llmcall.budget(usd=2, name="survey"):
        budgets.check_for_processes()
        carried = budgets.travelling()
    with budgets.opened(carried), pytest.raises(ConfigError):
        ScriptedClient(["yes"], model="unheard-of").send_message("Hello")
    assert not budgets.any_open()
