"""Budgets: never passed, whoever calls, in whatever order.

``Reservation`` is used directly where a rule holds for every order of events.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import re
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import hypothesis.strategies as st
import pytest
from clients import Responding
from commands import LONGEST, NEEDS_POSIX
from errors import check_error, error_table
from hypothesis import given
from servers import completion

import llmcall
from llmcall.errors import BudgetExceededError
from llmcall.testing import ScriptedClient
from llmcall.traffic import budgets
from llmcall.traffic.budgets import Reservation
from llmcall.traffic.queues import Amounts

PRICE = {"m": (1.0, 2.0)}  # USD per million tokens


def metered(prompt: int, output: int, text: str = "yes", **settings: Any) -> Responding:
    """Return a client whose every answer takes so many tokens."""
    answer = completion(text, usage={"prompt_tokens": prompt, "completion_tokens": output})
    merged = {"model": "m", "prices": PRICE, "on_error": "raise", "cache_mode": "off", **settings}
    return Responding(answer, **merged)


def client() -> ScriptedClient:
    """Return a client that says yes."""
    return ScriptedClient(lambda messages: "yes", on_error="raise")


def refused(asking: Any = None, match: str | None = None, **arguments: Any) -> str:
    """Return what a refused call says."""
    with pytest.raises(BudgetExceededError, match=match) as caught:
        (asking or client()).send_message("Hello", **arguments)
    return str(caught.value)


def reserved(asking: Any, message: Any = "Hello", **arguments: Any) -> int:
    """Return how many tokens a call would reserve."""
    with llmcall.budget(tokens=0), pytest.raises(BudgetExceededError) as caught:
        asking.send_message(message, **arguments)
    found = re.search(r"use up to ([\d,]+):", str(caught.value))
    assert found is not None
    return int(found[1].replace(",", ""))


def in_threads(asking: ScriptedClient) -> list[Any]:
    """Make 150 calls from 32 threads; return what came of each."""
    with ThreadPoolExecutor(32) as executor:
        futures = [executor.submit(asking.send_message, f"Hello {n}") for n in range(150)]
        return [future.exception() or future.result() for future in futures]


def in_tasks(asking: ScriptedClient) -> list[Any]:
    """Make 150 calls in tasks; return what came of each."""

    async def main() -> list[Any]:
        calls = (asking.asend_message(f"Hello {n}") for n in range(150))
        return await asyncio.gather(*calls, return_exceptions=True)

    return asyncio.run(main())


@pytest.mark.parametrize("asked", [in_threads, in_tasks])
def test_exactly_as_many_calls_are_made_as_are_allowed(asked: Any) -> None:
    """Of 150 calls under calls=100, 50 are refused."""
    asking = client()
    with llmcall.budget(calls=100) as budget:
        found = Counter(type(outcome).__name__ for outcome in asked(asking))
    assert found == {"Reply": 100, "BudgetExceededError": 50}
    assert (len(asking.requests), budget.spent.calls) == (100, 100)


def test_a_budget_counts_what_a_call_used_and_frees_the_rest() -> None:
    """The prompt and max_tokens must fit before a call: one token more is refused."""
    prompt = int(metered(0, 0).count_tokens([{"role": "user", "content": "Hello"}]))
    asking = metered(prompt, 5)
    with llmcall.budget(tokens=prompt + 50) as budget:
        asking.send_message("Hello", max_tokens=50)
        assert budget.spent.tokens == prompt + 5
        message = r"45 tokens left; the next call may use up to 46: set"
        refused(asking, message, max_tokens=46 - prompt)
        asking.send_message("Hello", max_tokens=45 - prompt)


@pytest.mark.parametrize(
    ("arguments", "tokens"),
    [
        ({"max_tokens": 50}, 50),
        ({"max_completion_tokens": 60, "n": 3}, 180),
        ({}, 400),
        ({"n": 2}, 800),
        ({"model": "unheard-of"}, 4096),
        ({"model": "gpt-4o-mini"}, 16384),
    ],
    ids=str,
)
def test_a_call_reserves_its_prompt_and_the_most_it_may_answer(
    arguments: dict[str, Any], tokens: int
) -> None:
    """That is max_tokens, or else the model's largest output, for each answer."""
    known = {"m": {"max_output_tokens": 400, "context_window": 1000}}
    asking = metered(1, 1, models=known)
    prompt = int(asking.count_tokens([{"role": "user", "content": "Hello"}]))
    assert reserved(asking, **arguments) == prompt + tokens


def test_an_embedding_reserves_and_spends_the_tokens_of_its_texts() -> None:
    """It has no answer in tokens."""
    texts = ["one two three", "four"]
    embedding = ScriptedClient([[[1.0], [2.0]]], model="m")
    tokens = sum(int(embedding.count_tokens(text)) for text in texts)
    with llmcall.budget(tokens=tokens - 1), pytest.raises(BudgetExceededError):
        embedding.get_embedding(texts, "m")
    with llmcall.budget(tokens=tokens) as budget:
        embedding.get_embedding(texts, "m")
    assert budget.spent[1:] == (tokens, 1)


def test_an_answer_without_usage_spends_the_same_whatever_a_budget_limits() -> None:
    """A budget of calls alone does not say that it was free."""
    answer = completion("yes")
    del answer["usage"]
    asking = Responding(answer, model="m", prices=PRICE, on_error="raise", cache_mode="off")
    with llmcall.budget(tokens=10_000) as limiting, llmcall.budget(calls=1) as counting:
        asking.send_message("Hello", max_tokens=50)
    with llmcall.budget(calls=1) as alone:
        asking.send_message("Hello", max_tokens=50)
    assert alone.spent.tokens == reserved(asking, max_tokens=50)
    assert alone.spent == counting.spent == limiting.spent


def test_a_limit_of_usd_is_exact() -> None:
    """Three calls of 0.1 USD fit in 0.3 USD, though the sum of the floats is more, and a fourth
    does not.
    """
    asking = metered(1, 50_000, prices={"m": (0.0, 2.0)})
    with llmcall.budget(usd=0.3) as budget:
        for _ in range(3):
            asking.send_message("Hello", max_tokens=50_000)
        message = r"^\$0\.0000 left; the next call may cost up to \$0\.1000: set or lower max_tok"
        refused(asking, message, max_tokens=50_000)
    assert budget.spent.usd == 0.3


def test_the_usd_of_a_model_without_a_price_are_unknown() -> None:
    """A limit of calls can be kept nevertheless."""
    with llmcall.budget(calls=1) as budget:
        ScriptedClient(["yes"], model="unheard-of").send_message("Hello")
    assert (budget.spent.usd, budget.spent.calls) == (None, 1)


def test_hits_cost_a_budget_nothing() -> None:
    """A recorded answer costs nothing, even in a budget of nothing."""
    asking = ScriptedClient(["yes"], cache_mode="auto", on_error="raise")
    asking.send_message("Hello")
    with llmcall.budget(calls=0, tokens=0, usd=0) as budget:
        assert asking.send_message("Hello").cached
        refused(ScriptedClient(["no"], prices={"gpt-4o-mini": (0, 0)}))
    assert budget.spent == (0, 0, 0)


def test_a_call_counts_in_every_budget_that_is_open() -> None:
    """The tightest of them decides, and its error says so."""
    with llmcall.budget(calls=3) as outer:
        with llmcall.budget(calls=2) as inner:
            for _ in range(2):
                client().send_message("Hello")
            refused(match="the limit of 2 calls is reached")
        client().send_message("Hello")
        refused(match="the limit of 3 calls is reached")
    client().send_message("Hello")
    assert (outer.spent.calls, inner.spent.calls) == (3, 2)


def test_a_budget_that_is_entered_again_goes_on() -> None:
    """Within itself a call counts once."""
    with llmcall.budget(calls=2) as budget, budget:
        for _ in range(2):
            client().send_message("Hello")
        refused()
    with budget:
        refused()
    assert budget.spent.calls == 2


async def _send_by_a_task(asking: ScriptedClient) -> None:
    await asking.asend_message("Hello")


@pytest.mark.parametrize("on_error", ["none", "return", "raise"])
@pytest.mark.parametrize(
    "way",
    [
        lambda asking: asking.send_message("Hello"),
        lambda asking: asking.get_embedding("Hello"),
        lambda asking: list(asking.stream_message("Hello")),
        lambda asking: asyncio.run(_send_by_a_task(asking)),
    ],
    ids=["send_message", "get_embedding", "stream_message", "asend_message"],
)
def test_a_budgets_error_is_raised_whatever_on_error_says(way: Any, on_error: str) -> None:
    """A run that went on would not stop at its limit."""
    with llmcall.budget(calls=0), pytest.raises(BudgetExceededError):
        way(ScriptedClient([], on_error=on_error))


def gathered(asking: ScriptedClient) -> list[Any]:
    """Ask the same from three tasks at once."""

    async def main() -> list[Any]:
        tasks = [asyncio.create_task(asking.asend_message("Hello")) for _ in range(3)]
        return await asyncio.gather(*tasks, return_exceptions=True)

    return asyncio.run(main())


def test_identical_calls_share_the_one_that_is_allowed() -> None:
    """An earlier refusal of the same call is not shared."""
    asking = ScriptedClient(lambda messages: "yes", cache_mode="auto")
    with llmcall.budget(calls=0):
        gathered(asking)
    with llmcall.budget(calls=1):
        assert sorted(reply.cached for reply in gathered(asking)) == [False, True, True]


API: Any = llmcall  # called here as no type checker allows


def unpriced(**options: Any) -> None:
    """Ask within a limit of USD, without a price; nothing is asked."""
    asking = ScriptedClient(["yes"], on_error="none", **{"model": "unheard-of", **options})
    try:
        with llmcall.budget(usd=5):
            asking.send_message("Hello")
    finally:
        assert asking.requests == []


@error_table(
    ("ValueError: ...budget's", lambda: API.budget(usd=-1)),
    ("ValueError: ...budget's", lambda: API.budget(usd=float("nan"))),
    ("ValueError: ...budget's", lambda: API.budget(usd="5")),
    ("ValueError: ...budget's", lambda: API.budget(calls=1.5)),
    ("ValueError: ...budget's", lambda: API.budget(tokens=True)),
    ("ConfigError: ...unheard-of...[Prices]", unpriced),
    (
        "ConfigError: ...m priority = ",
        lambda: unpriced(model="m", prices=PRICE, service_tier="priority"),
    ),
    (
        "ConfigError: ...'automatic' is not a whole number of at least 1...",
        lambda: llmcall.configure(limits_max_concurrent_calls="automatic"),
    ),
)
def test_a_limit_that_cannot_be_kept_is_refused(line: str, call: Callable[[], object]) -> None:
    """Before any call; the error names the setting that helps."""
    check_error(line, call)


# the most that a call may use, what share of it it uses, whether it fails
CALLERS = st.lists(
    st.tuples(st.integers(1, 30), st.floats(0, 1), st.booleans()), min_size=1, max_size=12
)


@given(limit=st.integers(0, 60), callers=CALLERS, order=st.randoms(use_true_random=False))
def test_no_interleaving_passes_a_limit(
    limit: int, callers: list[tuple[int, float, bool]], order: Any
) -> None:
    """However callers take turns, spent and reserved never pass the limit, and nobody waits for
    ever.
    """
    used, running, waiting = 0, {}, {}
    coming = list(enumerate(callers))
    budgets._waiting.clear()  # of an example that failed
    with llmcall.budget(tokens=limit) as budget:
        while coming or running or waiting:
            ready = [("look", key) for key, (_, delay) in waiting.items() if delay.wakeup.done()]
            moves = (
                ready + [("end", key) for key in running] + [("come", key) for key, _ in coming[:1]]
            )
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
            needed = Amounts(tokens=most)
            reservation = Reservation(needed) if what == "come" else waiting.pop(key)[0]
            coming = coming[1:] if what == "come" else coming
            try:
                delay = reservation.reserve()
            except BudgetExceededError:
                assert used + most > limit
                reservation.close()
            else:
                if delay is None:
                    running[key] = reservation
                else:
                    waiting[key] = reservation, delay
            assert used + sum(callers[caller][0] for caller in running) <= limit
    assert budget.spent.tokens == used


def ask_once() -> None:
    """Ask in a process of its own."""
    client().send_message("Hello", deadline=LONGEST)
    refused()


@NEEDS_POSIX
def test_a_forked_process_has_reserved_nothing() -> None:
    """Calls under way at the fork are the parent's, which settles them; the copy counts its own."""
    answered, released = threading.Event(), threading.Event()

    def answer(messages: Any) -> str:
        answered.set()
        released.wait(LONGEST)
        return "yes"

    with llmcall.budget(calls=1) as budget, ThreadPoolExecutor(1) as threads:
        threads.submit(ScriptedClient(answer).send_message, "Hello")
        answered.wait(LONGEST)
        child = multiprocessing.get_context("fork").Process(target=ask_once)
        child.start()
        child.join(LONGEST)
        released.set()
    assert (child.exitcode, budget.spent.calls) == (0, 1)
