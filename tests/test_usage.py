"""Usage: exact from any number of threads, unknown is None, prices, and tables for people."""

from __future__ import annotations

import copy
import pickle
import re
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from servers import Responding, completion
from streaming import Streamed, chunks_of

import llmcall
from llmcall.errors import EmptyAnswerError

PRICES = {"cheap": (1.0, 2.0), "dear": (10.0, 20.0)}
COLUMNS = [
    "calls",
    "cached_calls",
    "retries",
    "errors",
    "input_tokens",
    "output_tokens",
    "cost",
    "saved",
]


def answer(*reported: Any) -> dict[str, Any]:
    """Return an answer with a usage: prompt and completion tokens, or as a server reports it."""
    names = ("prompt_tokens", "completion_tokens")
    return completion(
        "yes", usage=dict(zip(names, reported, strict=True)) if len(reported) == 2 else reported[0]
    )


def metered(*reported: Any, **settings: Any) -> Responding:
    """Return a client whose answers have such a usage."""
    return Responding(answer(*reported), **{"prices": PRICES, "model": "cheap", **settings})


def numbers(usage: Any) -> dict[str, Any]:
    """Return what of a usage is not zero, without its parts."""
    return {name: value for name in COLUMNS if (value := getattr(usage, name)) != 0}


# Counting


def test_calls_and_hits() -> None:
    """A call is billed; a hit bills nothing and saves what it cost; without a call all is known:
    nothing.
    """
    client = metered(1000, 500)
    assert client.usage == llmcall.Usage() and numbers(client.usage) == {}
    client.send_message("Hello")
    billed = {"calls": 1, "input_tokens": 1000, "output_tokens": 500, "cost": pytest.approx(0.002)}
    assert numbers(client.usage) == billed
    client.send_message("Hello")
    client.send_message("Hello")
    assert numbers(client.usage) == {**billed, "cached_calls": 2, "saved": pytest.approx(0.004)}


@pytest.mark.parametrize("streamed", [False, True])
def test_what_is_no_answer_is_billed(streamed: bool) -> None:
    """The tokens of an empty answer count, in a budget too, although the call failed."""
    settings = {"prices": PRICES, "model": "cheap", "cache_mode": "off", "on_error": "raise"}
    empty = {"finish_reason": "length", "usage": answer(1000, 500)["usage"]}
    client = (
        Streamed(*chunks_of(**empty), **settings)
        if streamed
        else Responding(completion("", **empty), **settings)
    )
    with llmcall.budget(tokens=100_000) as budget, pytest.raises(EmptyAnswerError):
        list(client.stream_message("Hello")) if streamed else client.send_message("Hello")
    billed = {"errors": 1, "input_tokens": 1000, "output_tokens": 500, "cost": pytest.approx(0.002)}
    assert numbers(client.usage) == billed and budget.spent[1:] == (1500, 0)


@pytest.mark.parametrize("reported", [None, {}, {"prompt_tokens": None}])
def test_unknown_tokens_are_none(reported: Any) -> None:
    """Where a server reports no tokens, tokens and cost are None, never 0, and stay so."""
    client = metered(reported)
    assert client.send_message("Hello", on_error="raise").cost is None
    client.send_message("Hello")
    usage = client.usage
    assert (usage.calls, usage.cached_calls) == (1, 1)
    assert (usage.input_tokens, usage.output_tokens, usage.cost, usage.saved) == (
        None,
        None,
        None,
        None,
    )
    client.responses[:] = [answer(1, 1)]
    client.send_message("another")
    assert (client.usage.calls, client.usage.input_tokens, client.usage.cost) == (2, None, None)


def test_exact_from_many_threads() -> None:
    """No count is lost, however many threads count at once; a block counts the calls of all of
    them.
    """
    client = metered(3, 2, cache_mode="off")
    with llmcall.track() as tracked, ThreadPoolExecutor(16) as executor:
        list(executor.map(client.send_message, [str(number) for number in range(400)]))
    for usage in (client.usage, tracked):
        assert (usage.calls, usage.input_tokens, usage.output_tokens) == (400, 1200, 800)
        assert usage.cost == pytest.approx(400 * (3 * 1 + 2 * 2) / 1e6)


PATHS = st.lists(st.sampled_from(["trial-1", "trial-2", "lisa", "bart", "x"]), max_size=3).map(
    tuple
)


@pytest.mark.newest_only
@given(
    st.lists(
        st.tuples(st.sampled_from(["cheap", "dear"]), PATHS, st.none() | st.integers(0, 50)),
        max_size=8,
    )
)
def test_parts_add_up(asked: list[tuple[str, tuple[str, ...], int | None]]) -> None:
    """Each amount, also of each model and scope with those inside it, is a sum, or None with an
    unknown part.
    """
    client = metered(0, 0, cache_mode="off")
    for model, path, prompt in asked:
        client.responses[:] = [answer(prompt, 1)]
        with llmcall.scope(None):
            ask_in(client, path, model)
    usage = client.usage

    def summed(parts: Any, calls: list[Any]) -> None:
        assert parts.calls == len(calls)
        assert parts.input_tokens == (None if None in calls else sum(calls))

    summed(usage, [prompt for _, _, prompt in asked])
    for name, part in usage.by_model.items():
        summed(part, [prompt for model, _, prompt in asked if model == name])
    for name, part in usage.by_scope.items():
        names = tuple(name.split("/")) if name else ()
        summed(
            part,
            [
                prompt
                for _, path, prompt in asked
                if path[: len(names)] == names and (names or not path)
            ],
        )


def ask_in(client: Any, path: tuple[str, ...], model: str) -> None:
    """Ask inside some scopes."""
    if not path:
        client.send_message("Hello", model=model)
        return
    with llmcall.scope(path[0]):
        ask_in(client, path[1:], model)


def test_scopes_of_given_samples_and_of_items() -> None:
    """A given sample, whatever letters it has, belongs to its scope; items that a map named count
    around them.
    """
    client = metered(1, 1)
    with llmcall.scope("trial"):
        client.send_message("Hello", sample="a#b")
        with llmcall.scope("0123456789abcdef"):
            client.send_message("Hello")
    client.send_message("Hello", sample="c")
    with llmcall.track() as usage:
        llmcall.map(
            client.send_message, [str(number) for number in range(12)], scope="village", repeats=2
        )
    assert list(client.usage.by_scope) == ["", "trial", "trial/0123456789abcdef", "village"]
    assert {name: part.calls for name, part in usage.by_scope.items()} == {"village": 24}
    pytest.importorskip("pandas")
    frame = client.usage.to_frame()
    assert list(zip(frame["scope"], frame["calls"], strict=True)) == [
        ("", 1),
        ("trial", 1),
        ("trial/0123456789abcdef", 1),
        ("village", 24),
    ]


def test_replayed_answers_count_apart_from_those_of_the_cache() -> None:
    """A server was asked, the cache had it, or a cassette: usage and cassette count each by itself."""
    client = Responding(completion(), cache_path="cache")
    client.send_message("from the cache")
    with llmcall.cassette("tape.jsonl") as tape, llmcall.track() as usage:
        client.send_message("from the cache")
        client.send_message("asked")
        client.send_message("asked")
    assert (usage.calls, usage.cached_calls, usage.replayed_calls) == (1, 2, 1)
    assert (tape.asked, tape.supplied, tape.replayed) == (1, 1, 1)
    with llmcall.cassette("tape.jsonl") as tape, llmcall.track() as usage:
        client.send_message("from the cache")
        client.send_message("asked")
    assert (usage.calls, usage.cached_calls, usage.replayed_calls) == (0, 2, 2)
    assert (tape.asked, tape.supplied, tape.replayed) == (0, 0, 2)
    assert "replayed_calls" in str(usage) and "replayed_calls" not in str(llmcall.Usage(1, 2))


SNAPSHOTS = "gpt-4o-mini-2024-07-18", "gpt-4o-mini-2025-02-01"


def test_usage_names_the_model_that_answered() -> None:
    """It does where a server gives another name than the one that was asked for, for recorded
    answers too.
    """
    client = Responding(completion(), model="gpt-4o-mini")
    for _ in range(2):
        client.send_message("Hello")
    usage = client.usage
    assert (usage.calls, usage.cached_calls, usage.served) == (1, 1, SNAPSHOTS[:1])
    assert f"gpt-4o-mini was answered by {SNAPSHOTS[0]}" in str(usage)
    assert f"gpt-4o-mini was answered by {SNAPSHOTS[0]}" in usage._repr_html_()
    same = Responding(completion(model="gpt-4o-mini"), model="gpt-4o-mini", cache_mode="off")
    same.send_message("Hello")
    assert "answered by" not in str(same.usage) and same.usage.served == ("gpt-4o-mini",)


def test_a_frame_of_usage_names_the_models_that_answered() -> None:
    """All that answered under a name stand in its row."""
    pytest.importorskip("pandas")
    client = Responding(*(completion(model=name) for name in SNAPSHOTS), model="gpt-4o-mini")
    client.send_message("Hello")
    client.send_message("Bye")
    assert client.usage.to_frame()["served"].tolist() == [", ".join(SNAPSHOTS)]


@pytest.mark.parametrize("is_recorded", [False, True])
def test_two_models_that_answer_under_one_name_are_told(
    is_recorded: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """A warning names both, once for a name; recorded answers count, too."""
    responses = [completion(model=name) for name in (*SNAPSHOTS, "gpt-4o-mini-2025-03-01")]
    client = Responding(*responses, model="gpt-4o-mini")
    questions = ["Hello", "Bye", "Hello again"]
    if is_recorded:
        for question in questions:
            client.send_message(question)
        llmcall.reset()
        caplog.clear()
    for question in questions:
        client.send_message(question)
    told = [text for text in caplog.messages if "two models answer under the name" in text]
    assert len(told) == 1 and "gpt-4o-mini: " in told[0]
    assert all(name in told[0] for name in SNAPSHOTS)


def test_track_counts_just_its_block() -> None:
    """A block's usage has neither what came before nor after, nested blocks count in both, and so
    up to an error.
    """
    client = metered(1, 1)
    client.send_message("before")
    with llmcall.track() as outer:
        client.send_message("one")
        with pytest.raises(ZeroDivisionError), llmcall.track() as inner:
            client.send_message("two")
            client.send_message("before")
            raise ZeroDivisionError
        client.send_message("three")
    client.send_message("after")
    assert (inner.calls, inner.cached_calls, outer.calls, outer.cached_calls) == (1, 1, 3, 1)
    assert str(inner) == repr(inner) == str(copy.copy(inner)) and "<table>" in inner._repr_html_()
    with pytest.raises(AttributeError):
        _ = inner.callz


def test_process_usage_survives_a_reset() -> None:
    """llmcall.usage() counts all clients, and reset() keeps it; a usage is a plain value that never
    changes.
    """
    before = llmcall.usage()
    metered(1, 1).send_message("one")
    metered(1, 1).send_message("two")
    llmcall.reset()
    after = llmcall.usage()
    assert (after.calls, before.calls) == (before.calls + 2, after.calls - 2)
    assert pickle.loads(pickle.dumps(after)) == after
    with pytest.raises(AttributeError):
        after.calls = 3  # type: ignore[misc]


# Prices


@pytest.mark.parametrize(
    ("price", "cost"), [((10.0, 20.0), 0.012), ((10.0, 20.0, 1.0), 0.0048), ((0.0, 0.0), 0.0)]
)
def test_cached_input_has_a_price_of_its_own(price: tuple[float, ...], cost: float) -> None:
    """The third number of [Prices] is that of cached input; reply, usage and budget keep to it."""
    details = {"prompt_tokens_details": {"cached_tokens": 800}}
    client = metered(
        {"prompt_tokens": 1000, "completion_tokens": 100, **details}, prices={"cheap": price}
    )
    with llmcall.budget(usd=1) as budget:
        reply = client.send_message("Hello", max_tokens=100, on_error="raise")
    assert reply.cost == client.usage.cost == budget.spent.usd == pytest.approx(cost)
    assert client.usage.cached_input_tokens == 800 and "cached_input_tokens" in str(client.usage)


def test_the_price_is_that_of_the_endpoint_that_answered() -> None:
    """Of a pool, a call costs what the endpoint asks that answered, not what the first one does."""
    pytest.importorskip("genai_prices")

    class Pooled(llmcall.OpenAIClient):
        """Answer without a network."""

        def make_transport(self, endpoint: Any) -> Any:
            """Return what answers for every endpoint."""
            return metered(1000, 100)

    names = {
        "groq": "https://api.groq.com/openai/v1",
        "deepinfra": "https://api.deepinfra.com/v1/openai",
    }
    model = "openai/gpt-oss-120b"
    endpoints = [
        {"name": name, "models": [model], "api_key": "k", "base_url": url}
        for name, url in names.items()
    ]
    client = Pooled(model=model, endpoints=endpoints, cache_mode="off", on_error="raise")
    replies = [client.send_message(text) for text in ("one", "two")]
    assert (
        len({(reply.endpoint, reply.cost) for reply in replies})
        == len({reply.cost for reply in replies})
        == 2
    )
    (source,) = client.usage.priced_by
    assert re.fullmatch(r"genai-prices [\d.]+ for \d{4}-\d\d-\d\d", source)
    assert str(client.usage).endswith(f"\npriced by {source}")


# Tables


def table(usage: Any) -> list[list[str]]:
    """Return the cells of the text, whose names have no double blanks."""
    return [re.split(" {2,}", line.strip()) for line in str(usage).splitlines()]


def test_the_table() -> None:
    """A row for each model and for all, and for each outermost scope; zeros have no column, unknown
    is a "?".

    The HTML has the same cells, and any letters as text.
    """
    client = metered(12_345, 5)
    client.send_message("Hello")
    answered = "cheap was answered by gpt-4o-mini-2024-07-18"
    heads = [row[0] for row in table(client.usage)]
    assert heads == ["model", "cheap", answered, "priced by [Prices]"]
    with llmcall.scope("trial-1"), llmcall.scope("lisa"):
        client.send_message("Hello", model="面包")
    client.responses[:] = [answer(1, 0)]
    with llmcall.scope("<b>"):
        client.send_message("Hello")
        client.send_message("Hello", sample=0)
    assert str(client.usage).splitlines() == [
        "model       calls  cached_calls  input_tokens  output_tokens      cost     saved",
        "cheap           2             1        12,346              5   $0.0124  <$0.0001",
        "面包            1             0        12,345              5         ?   $0.0000",
        "all             3             1        24,691             10         ?  <$0.0001",
        "scope       calls  cached_calls  input_tokens  output_tokens      cost     saved",
        "(no scope)      1             0        12,345              5   $0.0124   $0.0000",
        "<b>             1             1             1              0  <$0.0001  <$0.0001",
        "trial-1         1             0        12,345              5         ?   $0.0000",
        answered,
        answered.replace("cheap", "面包"),
        "priced by [Prices]",
    ]
    html = client.usage._repr_html_()
    rows = [re.findall("<t[hd]>(.*?)</t[hd]>", row) for row in re.findall("<tr>(.*?)</tr>", html)]
    *lines, first, second, third = table(client.usage)
    assert rows == [
        [cell.replace("<", "&lt;").replace(">", "&gt;") for cell in row] for row in lines
    ]
    notes = "".join(f"<p>{note[0]}</p>" for note in (first, second, third))
    assert html.endswith(f"</table>{notes}")
    assert table(llmcall.Usage()) == [["model", "calls"], ["all", "0"]]


def test_a_prompt_that_may_have_been_cut(caplog: pytest.LogCaptureFixture) -> None:
    """Where a server reports less than half of the prompt, one warning per model says so; the
    answers are stored.
    """
    client = metered(12, 5)
    for number in range(2):
        client.send_message(f"{number} " + "many words " * 30)
    (record,) = [
        each
        for each in caplog.records
        if "may have cut the prompt without an error" in each.getMessage()
    ]
    assert record.levelname == "WARNING" and re.search(
        r"reports 12 prompt tokens, but llmcall counts ~?\d\d+", record.getMessage()
    )
    assert len(client.cache) == 2
