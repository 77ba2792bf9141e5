"""Usage: exact from any number of threads, unknown is None, prices, and tables for people."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from clients import Responding, Streamed
from hypothesis import given
from hypothesis import strategies as st
from servers import chunks_of, completion

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


BILLED = {"calls": 1, "input_tokens": 1000, "output_tokens": 500, "cost": pytest.approx(0.002)}


def test_a_hit_bills_nothing_and_saves_what_the_call_cost() -> None:
    client = metered(1000, 500)
    client.send_message("Hello")
    assert numbers(client.usage) == BILLED
    for _ in range(2):
        client.send_message("Hello")
    assert numbers(client.usage) == {**BILLED, "cached_calls": 2, "saved": pytest.approx(0.004)}


@pytest.mark.parametrize("streamed", [False, True])
def test_an_empty_answer_is_billed(streamed: bool) -> None:
    """Its tokens count, in a budget too, although the call failed."""
    settings = {"prices": PRICES, "model": "cheap", "cache_mode": "off", "on_error": "raise"}
    empty = {"finish_reason": "length", "usage": answer(1000, 500)["usage"]}
    client = (
        Streamed(*chunks_of(**empty), **settings)
        if streamed
        else Responding(completion("", **empty), **settings)
    )
    with llmcall.budget(tokens=100_000) as budget, pytest.raises(EmptyAnswerError):
        list(client.stream_message("Hello")) if streamed else client.send_message("Hello")
    billed = {name: value for name, value in BILLED.items() if name != "calls"}
    assert numbers(client.usage) == {**billed, "errors": 1}
    assert budget.spent[1:] == (1500, 0)


@pytest.mark.parametrize("reported", [None, {}, {"prompt_tokens": None}], ids=str)
def test_unknown_tokens_and_costs_are_none(reported: Any) -> None:
    """Never 0: of a reply, and of the usage of calls and hits."""
    unmetered = metered(reported)
    assert unmetered.send_message("Hello", on_error="raise").cost is None
    unmetered.send_message("Hello")
    usage = unmetered.usage
    assert (usage.calls, usage.cached_calls) == (1, 1)
    for name in ("input_tokens", "output_tokens", "cost", "saved"):
        assert getattr(usage, name) is None


def test_no_count_is_lost_among_many_threads() -> None:
    """However many count at once; a block counts the calls of all of them."""
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
def test_usage_is_the_sum_of_its_models_and_scopes(
    asked: list[tuple[str, tuple[str, ...], int | None]],
) -> None:
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


def test_a_frame_of_usage_has_a_row_for_each_scope() -> None:
    client = metered(1, 1)
    client.send_message("Hello")
    questions = [str(number) for number in range(12)]
    llmcall.map(client.send_message, questions, scope="village", repeats=2)
    frame = client.usage.to_frame()
    assert list(zip(frame["scope"], frame["calls"], strict=True)) == [("", 1), ("village", 24)]


def test_usage_and_a_cassette_count_replayed_answers_apart_from_those_of_the_cache() -> None:
    """Replayed ones are among those that were not asked for."""
    client = Responding(completion(), cache_path="cache")
    client.send_message("from the cache")
    counts, taped = [], []
    for questions in (["from the cache", "asked", "asked"], ["from the cache", "asked"]):
        with llmcall.cassette("tape.jsonl") as tape, llmcall.track() as usage:
            for question in questions:
                client.send_message(question)
        counts.append((usage.calls, usage.cached_calls, usage.replayed_calls))
        taped.append((tape.asked, tape.supplied, tape.replayed))
    assert counts == [(1, 2, 1), (0, 2, 2)]
    assert taped == [(1, 1, 1), (0, 0, 2)]


SNAPSHOTS = "gpt-4o-mini-2024-07-18", "gpt-4o-mini-2025-02-01"


def test_each_hit_counts_in_its_scope() -> None:
    """Also if somebody reads the usage meanwhile."""
    client = metered(100, 50)
    with llmcall.track() as tracked:
        for number in range(4):
            for scope in "abcde":
                with llmcall.scope(scope):
                    client.send_message("Hello", sample=1)
            assert client.usage.cached_calls == number * 5
    for usage in (client.usage, tracked):
        for part in usage.by_scope.values():
            assert (part.calls, part.cached_calls) == (1, 3)
            assert part.saved == pytest.approx(3 * (100 * 1 + 50 * 2) / 1e6)
        assert (usage.calls, usage.cached_calls) == (5, 15)


def test_usage_names_the_model_that_answered() -> None:
    """If a server gives another name than the one that was asked for, for recorded answers too."""
    client = Responding(completion(), model="gpt-4o-mini")
    for _ in range(2):
        client.send_message("Hello")
    usage = client.usage
    assert (usage.calls, usage.cached_calls, usage.served) == (1, 1, SNAPSHOTS[:1])
    assert f"gpt-4o-mini was answered by {SNAPSHOTS[0]}" in str(usage)
    assert f"gpt-4o-mini was answered by {SNAPSHOTS[0]}" in usage._repr_html_()


@pytest.mark.parametrize("is_recorded", [False, True])
def test_two_models_that_answer_under_one_name_are_warned_of(
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
    (warning,) = [text for text in caplog.messages if "two models answered requests to" in text]
    assert "gpt-4o-mini: " in warning
    assert all(name in warning for name in SNAPSHOTS)


def test_track_counts_just_its_block() -> None:
    """Neither what came before nor after; nested blocks count in both, and up to an error."""
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
    assert (inner.calls, inner.cached_calls) == (1, 1)
    assert (outer.calls, outer.cached_calls) == (3, 1)


def test_the_usage_of_the_process_counts_all_clients() -> None:
    """``reset()`` keeps it."""
    before = llmcall.usage()
    metered(1, 1).send_message("one")
    metered(1, 1).send_message("two")
    llmcall.reset()
    assert llmcall.usage().calls == before.calls + 2


# Prices


@pytest.mark.parametrize(
    ("price", "cost"), [((10.0, 20.0), 0.012), ((10.0, 20.0, 1.0), 0.0048), ((0.0, 0.0), 0.0)]
)
def test_cached_input_has_a_price_of_its_own(price: tuple[float, ...], cost: float) -> None:
    """It is the third number of [Prices]; reply, usage and budget keep to it."""
    details = {"prompt_tokens_details": {"cached_tokens": 800}}
    client = metered(
        {"prompt_tokens": 1000, "completion_tokens": 100, **details}, prices={"cheap": price}
    )
    with llmcall.budget(usd=1) as budget:
        reply = client.send_message("Hello", max_tokens=100, on_error="raise")
    assert reply.cost == client.usage.cost == budget.spent.usd == pytest.approx(cost)
    assert client.usage.cached_input_tokens == 800
    assert "cached_input_tokens" in str(client.usage)


class Pooled(llmcall.OpenAIClient):
    """A client of several endpoints, without a network."""

    def make_transport(self, endpoint: Any) -> Any:
        """Return what answers for every endpoint."""
        return metered(1000, 100)


def test_the_price_is_that_of_the_endpoint_that_answered() -> None:
    """Not what the first endpoint of a pool asks."""
    names = {
        "groq": "https://api.groq.com/openai/v1",
        "deepinfra": "https://api.deepinfra.com/v1/openai",
    }
    model = "openai/gpt-oss-120b"
    endpoints = [
        {"name": name, "models": [model], "api_key": "k", "base_url": url}
        for name, url in names.items()
    ]
    pooled = Pooled(model=model, endpoints=endpoints, cache_mode="off", on_error="raise")
    replies: list[Any] = [pooled.send_message(text) for text in ("one", "two")]
    assert len({reply.endpoint for reply in replies}) == 2
    assert len({reply.cost for reply in replies}) == 2


# Tables


def table(usage: Any) -> list[list[str]]:
    """Return the cells of the text, whose names have no double blanks."""
    return [re.split(" {2,}", line.strip()) for line in str(usage).splitlines()]


ANSWERED = "cheap was answered by gpt-4o-mini-2024-07-18"


@pytest.fixture
def varied() -> Any:
    """The usage of calls of two models, in several scopes, with a hit and an unknown price."""
    client = metered(12_345, 5)
    client.send_message("Hello")
    with llmcall.scope("trial-1"), llmcall.scope("lisa"):
        client.send_message("Hello", model="面包")
    client.responses[:] = [answer(1, 0)]
    with llmcall.scope("<b>"):
        client.send_message("Hello")
        client.send_message("Hello", sample=0)
    return client.usage


def test_the_table_of_usage_has_a_row_for_each_model_and_one_for_all_scopes(varied: Any) -> None:
    """Unknown values are a "?", and values too small to show differ from nothing."""
    assert str(varied).splitlines() == [
        "model        calls  cached_calls  input_tokens  output_tokens     cost     saved",
        "cheap            2             1        12,346              5  $0.0124  <$0.0001",
        "面包             1             0        12,345              5        ?   $0.0000",
        "all              3             1        24,691             10        ?  <$0.0001",
        "in 2 scopes      2             1        12,346              5        ?  <$0.0001",
        ANSWERED,
        ANSWERED.replace("cheap", "面包"),
        "priced by [Prices]",
        "to_frame() and by_scope list each scope",
    ]


def test_the_only_scope_of_a_usage_table_is_named() -> None:
    """It has the same columns."""
    client = metered(1, 1)
    with llmcall.scope("trial-1"):
        client.send_message("Hello")
    assert [row[:2] for row in table(client.usage)[1:3]] == [["cheap", "1"], ["in trial-1", "1"]]


@pytest.mark.parametrize(
    "names", [["rep-2", "rep-10"], ["\u0662", "\u0661\u0660", "\u0627"]], ids=["Latin", "Arabic"]
)
def test_usage_sorts_the_numbers_of_scopes(names: list[str]) -> None:
    """The second repeat comes before the tenth, in digits of any script."""
    client = metered(1, 1)
    for name in reversed(names):
        with llmcall.scope(name):
            client.send_message("Hello")
    assert list(client.usage.by_scope) == names


def test_the_html_of_usage_has_the_cells_of_the_text(varied: Any) -> None:
    """Any letters are text, and the notes stand below the table."""
    html = varied._repr_html_()
    rows = [re.findall("<t[hd]>(.*?)</t[hd]>", row) for row in re.findall("<tr>(.*?)</tr>", html)]
    *lines, first, second, third, fourth = table(varied)
    assert rows == [
        [cell.replace("<", "&lt;").replace(">", "&gt;") for cell in row] for row in lines
    ]
    notes = "".join(f"<p>{note[0]}</p>" for note in (first, second, third, fourth))
    assert html.endswith(f"</table>{notes}")


def test_a_prompt_that_may_have_been_cut_is_warned_of_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The server reports less than half of it; the answers are stored."""
    client = metered(12, 5)
    for number in range(2):
        client.send_message(f"{number} " + "many words " * 30)
    (record,) = [
        entry
        for entry in caplog.records
        if "may have cut the prompt without an error" in entry.getMessage()
    ]
    assert record.levelname == "WARNING"
    reported = r"reports 12 prompt tokens, but llmcall counts ~?\d\d+"
    assert re.search(reported, record.getMessage())
    assert len(client.cache) == 2
