"""Wrong arguments of public functions: the error names the argument, its value and what it must be."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import pytest

import llmcall
from llmcall.testing import ScriptedClient

RUN = "run.jsonl"
A_RECORD = "must be a function of a record"


def recorded_cache() -> llmcall.ResponseCache:
    """Return a cache with a record, which stands on a cassette, too."""
    client = ScriptedClient(lambda messages: "Yes.", cache_mode="auto")
    with llmcall.cassette(RUN):
        client.send_message("Hello")
    return client.cache


def two_arms() -> Any:
    """Return the runs of two arms."""

    def play(price: int) -> object:
        return ScriptedClient(lambda messages: "Yes.").send_message(f"Bread for {price}?")

    arms: Mapping[str, Mapping[str, object]] = {"low": {"price": 1}, "high": {"price": 2}}
    return llmcall.arms(play, arms, scope="app", progress=False)


WRONG: dict[str, tuple[Callable[[llmcall.ResponseCache], object], str, str]] = {
    "compare align": (
        lambda cache: llmcall.compare(RUN, RUN, align=3),  # type: ignore[arg-type]
        "align is 3",
        "must be a function of an actor's scope path, or a dict",
    ),
    "records where": (
        lambda cache: list(cache.records(where="Ann")),  # type: ignore[arg-type]
        "where is 'Ann'",
        A_RECORD,
    ),
    "export where": (
        lambda cache: cache.export("e.jsonl", where="Ann"),  # type: ignore[arg-type]
        "where is 'Ann'",
        A_RECORD,
    ),
    "delete where": (
        lambda cache: cache.delete(where="Ann"),  # type: ignore[arg-type]
        "where is 'Ann'",
        A_RECORD,
    ),
    "put request": (
        lambda cache: cache.put("Hello", {}),  # type: ignore[arg-type]
        "request is 'Hello'",
        "build_request",
    ),
    "put response": (
        lambda cache: cache.put(ScriptedClient(["Yes."]).build_request("Hi"), "Yes."),  # type: ignore[arg-type]
        "response is 'Yes.'",
        "as the API gave it",
    ),
    "explain request": (
        lambda cache: cache.explain("Hello"),  # type: ignore[arg-type]
        "request is 'Hello'",
        "build_request",
    ),
    "table measure": (
        lambda cache: two_arms().table("adoption"),
        "measure is 'adoption'",
        "must be a function of what a run returned",
    ),
    "effect measure": (
        lambda cache: two_arms().effect("adoption", "low", "high"),
        "measure is 'adoption'",
        "must be a function of what a run returned",
    ),
    "client api_type": (
        lambda cache: llmcall.client(["openai"]),  # type: ignore[arg-type]
        "api_type is ['openai']",
        "must be a text",
    ),
    "count_tokens model": (
        lambda cache: llmcall.count_tokens("Hello", 3),  # type: ignore[arg-type]
        "model is 3",
        "must be a text",
    ),
    "LLMCall user": (
        lambda cache: llmcall.LLMCall(user=3).call(),  # type: ignore[arg-type]
        "user is 3",
        "must be a text",
    ),
    "choice system": (
        lambda cache: llmcall.choice("Which?", ["a", "b"], system=3).call(),  # type: ignore[arg-type]
        "system is 3",
        "must be a text",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_argument_is_named_with_what_it_must_be(name: str) -> None:
    """The error comes from llmcall, not from what was called with the argument."""
    call, thing, remedy = WRONG[name]
    with pytest.raises(TypeError, match=f"^{re.escape(thing)}; it .*{re.escape(remedy)}"):
        call(recorded_cache())
