"""Usage: exact from any number of threads, unknown is None, tables for people."""

from __future__ import annotations

import copy
import pickle
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import llmcall
from llmcall.engine.usage import COLUMNS, Meter, Usage
from llmcall.errors import EmptyAnswerError, InvalidRequestError, ServiceError
from llmcall.models.prices import Price
from llmcall.testing import ScriptedClient
from llmcall.types import TokenUsage

PRICES = {"cheap": (1.0, 2.0), "dear": (10.0, 20.0)}
AMOUNTS = st.dictionaries(st.sampled_from(COLUMNS[:6]), st.none() | st.integers(0, 1000), max_size=6)


class Metered(llmcall.LLMClient):
    """Answer with a fixed usage."""

    api_type = "metered"

    def __init__(self, usage: Any = None, **settings: Any) -> None:
        self.reported = usage
        super().__init__(**{"prices": PRICES, "model": "cheap", "retry_waiting_time": 0, **settings})

    def send(self, request: Any, timeout: float | None) -> Any:
        """Answer "yes"."""
        answer = {"choices": [{"message": {"role": "assistant", "content": "yes"}, "finish_reason": "stop"}]}
        return {**answer, "model": request.model, **({} if self.reported is None else {"usage": self.reported})}


def tokens(prompt: int, completion: int) -> dict[str, int]:
    """Return the usage that a server reports."""
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


def numbers(usage: Any) -> dict[str, Any]:
    """Return what of a usage is not zero, without its parts; the servers here say nothing of cached input."""
    names = [name for name in COLUMNS if name != "cached_input_tokens"]
    return {name: value for name in names if (value := getattr(usage, name)) != 0}


class Reasoning(Metered):
    """Use up all tokens by reasoning, and answer nothing."""

    def send(self, request: Any, timeout: float | None) -> Any:
        """Answer nothing."""
        message = {"role": "assistant", "content": ""}
        choices = [{"message": message, "finish_reason": "length"}]
        return {"model": request.model, "choices": choices, "usage": self.reported}

    def stream(self, request: Any, timeout: float | None) -> Any:
        """Stream nothing."""
        yield {"choices": [{"index": 0, "delta": {"role": "assistant"}, "finish_reason": "length"}]}
        yield {"choices": [], "usage": self.reported}


@pytest.mark.parametrize("streamed", [False, True])
def test_what_is_no_answer_is_billed(streamed: bool) -> None:
    """The tokens of an empty answer count, although the call failed."""
    client = Reasoning(tokens(1000, 500), cache_mode="off")
    with pytest.raises(EmptyAnswerError):
        if streamed:
            list(client.stream_message("Hello", on_error="raise"))
        else:
            client.send_message("Hello", on_error="raise")
    billed = {"errors": 1, "input_tokens": 1000, "output_tokens": 500, "cost": pytest.approx(0.002)}
    assert numbers(client.usage) == billed


def test_a_call_and_a_hit() -> None:
    """A call is billed; a hit bills nothing and saves what it cost."""
    client = Metered(tokens(1000, 500))
    client.send_message("Hello")
    assert numbers(client.usage) == {
        "calls": 1,
        "input_tokens": 1000,
        "output_tokens": 500,
        "cost": pytest.approx(0.002),
    }
    client.send_message("Hello")
    client.send_message("Hello")
    assert numbers(client.usage) == {
        "calls": 1, "cached_calls": 2, "input_tokens": 1000, "output_tokens": 500,
        "cost": pytest.approx(0.002), "saved": pytest.approx(0.004),
    }  # fmt: skip


@pytest.mark.parametrize("reported", [None, {}, {"prompt_tokens": None}])
def test_unknown_tokens_are_none(reported: Any) -> None:
    """Where a server reports no tokens, tokens and cost are None, never 0, and stay so."""
    client = Metered(reported)
    reply = client.send_message("Hello", on_error="raise")
    assert reply.cost is None
    client.send_message("Hello")
    usage = client.usage
    assert (usage.calls, usage.cached_calls) == (1, 1)
    assert (usage.input_tokens, usage.output_tokens, usage.cost, usage.saved) == (None, None, None, None)
    client.reported = tokens(1, 1)
    client.send_message("another")
    assert (client.usage.calls, client.usage.input_tokens, client.usage.cost) == (2, None, None)


def test_unknown_prices_are_none() -> None:
    """A model without a price has tokens and no cost; the other models' costs stay known."""
    client = Metered(tokens(1000, 0))
    client.send_message("Hello", model="unpriced")
    client.send_message("Hello")
    assert (client.usage.cost, client.usage.input_tokens) == (None, 2000)
    assert client.usage.by_model["unpriced"].cost is None
    assert client.usage.by_model["cheap"].cost == pytest.approx(0.001)


def test_nothing_used_is_zero() -> None:
    """Without a call all is known: nothing."""
    assert numbers(Metered().usage) == {}
    assert Metered().usage == Usage()


def test_by_model_and_scope() -> None:
    """Parts by model and by scope path add up to the whole."""
    client = Metered(tokens(10, 5))
    with llmcall.scope("trial"):
        client.send_message("Hello")
        with llmcall.scope("lisa"):
            client.send_message("Hello", model="dear")
            client.send_message("Hello", model="dear")
    client.send_message("Hello")
    usage = client.usage
    assert {name: part.calls for name, part in usage.by_model.items()} == {"cheap": 2, "dear": 2}
    assert {name: part.calls for name, part in usage.by_scope.items()} == {"": 1, "trial": 3, "trial/lisa": 2}
    assert usage.cost == pytest.approx(sum(part.cost or 0 for part in usage.by_model.values()))
    assert usage.input_tokens == sum(part.input_tokens or 0 for part in usage.parts.values()) == 40


def test_scopes_of_given_samples() -> None:
    """A given sample, whatever letters it has, belongs to its scope."""
    client = Metered(tokens(1, 1))
    with llmcall.scope("trial"):
        client.send_message("Hello", sample="a#b")
    client.send_message("Hello", sample="c")
    assert client.usage.by_scope.keys() == {"", "trial"}


def test_retries_and_errors() -> None:
    """Attempts after the first are retries, a call that failed for good is an error and no call."""
    script = [ServiceError("no"), ServiceError("no"), "yes", InvalidRequestError("no"), *[ServiceError("no")] * 3]
    client = ScriptedClient(script, retry_max_attempts=3)
    for number in range(3):
        client.send_message(str(number))
    usage = client.usage
    assert (usage.calls, usage.retries, usage.errors, usage.cached_calls) == (1, 4, 2, 0)


def test_exact_from_many_threads() -> None:
    """No count is lost, however many threads count at once."""
    client = Metered(tokens(3, 2), cache_mode="off")
    with llmcall.track() as tracked, ThreadPoolExecutor(16) as executor:
        list(executor.map(client.send_message, [str(number) for number in range(400)]))
    for usage in (client.usage, tracked):
        assert (usage.calls, usage.input_tokens, usage.output_tokens) == (400, 1200, 800)
        assert usage.cost == pytest.approx(400 * (3 * 1 + 2 * 2) / 1e6)


@given(st.lists(st.tuples(st.sampled_from(["m", "n"]), st.sampled_from(["", "a", "b"]), AMOUNTS), max_size=20))
def test_a_meter_adds_up(added: list[tuple[str, str, dict[str, int | None]]]) -> None:
    """Each column, also of each model and scope, is the sum of what was added, or None where a part was unknown."""

    def summed(column: str, wanted: Callable[[str, str], bool]) -> int | None:
        values = [amounts[column] for model, scope, amounts in added if column in amounts and wanted(model, scope)]
        return None if None in values else sum(value or 0 for value in values)

    meter = Meter()
    for model, scope, amounts in added:
        meter.add(model, scope, amounts)
    usage = meter.usage()
    for column in COLUMNS[:6]:
        assert getattr(usage, column) == summed(column, lambda model, scope: True)
        for name, part in usage.by_model.items():
            assert getattr(part, column) == summed(column, lambda model, scope, name=name: model == name)
        for name, part in usage.by_scope.items():
            inside = f"{name}/"
            assert getattr(part, column) == summed(
                column, lambda model, scope, name=name, inside=inside: scope == name or scope.startswith(inside)
            )


@pytest.mark.parametrize(
    ("prompt", "completion", "price", "cost"),
    [
        (1_000_000, 0, (0.15, 0.6), 0.15),
        (0, 1_000_000, (0.15, 0.6), 0.6),
        (7, 3, (0.0, 0.0), 0.0),
        (None, 3, (1.0, 1.0), None),
        (7, None, (1.0, 1.0), 7e-6),
    ],
)
def test_cost(
    prompt: int | None, completion: int | None, price: tuple[float, float], cost: float | None
) -> None:
    """Prices are USD per million tokens, in and out."""
    found = Price(*price, price[0]).cost(TokenUsage(prompt, completion))
    assert found == (None if cost is None else pytest.approx(cost))


def test_track_counts_just_its_block() -> None:
    """A block's usage has neither what came before nor after, nested blocks count in both, and hits count."""
    client = Metered(tokens(1, 1))
    client.send_message("before")
    with llmcall.track() as outer:
        client.send_message("one")
        with llmcall.track() as inner:
            client.send_message("two")
            client.send_message("before")
            assert inner.calls == 1
        client.send_message("three")
    client.send_message("after")
    assert (inner.calls, inner.cached_calls, outer.calls, outer.cached_calls) == (1, 1, 3, 1)
    assert client.usage.calls == 5


def test_track_ends_with_an_exception() -> None:
    """An exception ends the block's counting and keeps what it counted."""
    client = Metered(tokens(1, 1))
    with pytest.raises(ZeroDivisionError), llmcall.track() as usage:
        client.send_message("one")
        raise ZeroDivisionError
    client.send_message("two")
    assert usage.calls == 1


def test_track_counts_every_thread() -> None:
    """Threads of the process count in a block that another one opened."""
    client = Metered(tokens(1, 1))
    with llmcall.track() as usage:
        thread = threading.Thread(target=client.send_message, args=("Hello",))
        thread.start()
        thread.join()
    assert usage.calls == 1


def test_what_track_yields_can_be_copied_and_shown() -> None:
    """The usage of a block has a table, and unknown attributes are AttributeErrors."""
    with llmcall.track() as usage:
        Metered(tokens(1, 1)).send_message("Hello")
    assert str(usage) == repr(usage) == str(copy.copy(usage))
    assert "<table>" in usage._repr_html_()
    with pytest.raises(AttributeError):
        _ = usage.callz


def test_process_usage_survives_a_reset() -> None:
    """llmcall.usage() counts all clients, and reset() keeps it."""
    before = llmcall.usage().calls
    Metered(tokens(1, 1)).send_message("one")
    Metered(tokens(1, 1)).send_message("two")
    llmcall.reset()
    assert llmcall.usage().calls == before + 2


def test_the_table() -> None:
    """str() is a table with a row for each model and one for all; unknown is a question mark."""
    client = Metered(tokens(12_345, 5))
    client.send_message("Hello")
    assert str(client.usage).splitlines() == [
        "model  calls  cached_calls  retries  errors  input_tokens  output_tokens     cost    saved",
        "cheap      1             0        0       0        12,345              5  $0.0124  $0.0000",
        "priced by [Prices]",
    ]
    client.send_message("Hello", model="unpriced")
    *lines, note = str(client.usage).splitlines()
    assert note == "priced by [Prices]"
    assert [line.split()[0] for line in lines] == ["model", "cheap", "unpriced", "all"]
    assert lines[2].split()[-2:] == ["?", "$0.0000"]
    assert len({len(line) for line in lines}) == 1
    assert str(Usage()).splitlines()[1].split() == ["all", "0", "0", "0", "0", "0", "0", "$0.0000", "$0.0000"]


def test_the_table_of_notebooks_is_escaped() -> None:
    """A model's name is text in the HTML table, whatever letters it has."""
    client = Metered(tokens(1, 1))
    client.send_message("Hello", model="<script>alert('x')</script>")
    html = client.usage._repr_html_()
    assert "<script>" not in html
    assert "&lt;script&gt;" in html
    assert html.count("<tr>") == 2


def test_the_rows_of_scopes() -> None:
    """Calls in scopes are summed up below the models, by their outermost scope."""
    client = Metered(tokens(10, 5))
    for trial in ("trial-1", "trial-2"):
        with llmcall.scope(trial), llmcall.scope("lisa"):
            client.send_message("Hello")
            client.send_message("Hello")
    assert str(client.usage).splitlines() == [
        "model    calls  cached_calls  retries  errors  input_tokens  output_tokens     cost    saved",
        "cheap        4             0        0       0            40             20  $0.0001  $0.0000",
        "scope    calls  cached_calls  retries  errors  input_tokens  output_tokens     cost    saved",
        "trial-1      2             0        0       0            20             10  $0.0000  $0.0000",
        "trial-2      2             0        0       0            20             10  $0.0000  $0.0000",
        "priced by [Prices]",
    ]


def test_usage_is_plain_and_frozen() -> None:
    """A usage is pickled, compared, and not changed by later calls."""
    client = Metered(tokens(1, 1))
    client.send_message("one")
    usage = client.usage
    client.send_message("two")
    assert usage.calls == 1
    assert pickle.loads(pickle.dumps(usage)) == usage
    with pytest.raises(AttributeError):
        usage.calls = 3  # type: ignore[misc]
