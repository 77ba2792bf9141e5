"""Wrong arguments of public functions: the error names the argument, its value and what it must be."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import pytest

import llmcall
from llmcall.testing import ScriptedClient

RUN = "run.jsonl"
A_FUNCTION = "must be a function"


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
        "must be a function or a dict or None",
    ),
    "records where": (
        lambda cache: list(cache.records(where="Ann")),  # type: ignore[arg-type]
        "where is 'Ann'",
        A_FUNCTION,
    ),
    "export where": (
        lambda cache: cache.export("e.jsonl", where="Ann"),  # type: ignore[arg-type]
        "where is 'Ann'",
        A_FUNCTION,
    ),
    "delete where": (
        lambda cache: cache.delete(where="Ann"),  # type: ignore[arg-type]
        "where is 'Ann'",
        A_FUNCTION,
    ),
    "put request": (
        lambda cache: cache.put("Hello", {}),  # type: ignore[arg-type]
        "request is 'Hello'",
        "build_request",
    ),
    "put response": (
        lambda cache: cache.put(ScriptedClient(["Yes."]).build_request("Hi"), "Yes."),  # type: ignore[arg-type]
        "response is 'Yes.'",
        "must be a dict",
    ),
    "explain request": (
        lambda cache: cache.explain("Hello"),  # type: ignore[arg-type]
        "request is 'Hello'",
        "build_request",
    ),
    "table measure": (
        lambda cache: two_arms().table("adoption"),
        "measure is 'adoption'",
        A_FUNCTION,
    ),
    "effect measure": (
        lambda cache: two_arms().effect("adoption", "low", "high"),
        "measure is 'adoption'",
        A_FUNCTION,
    ),
    "client api_type": (
        lambda cache: llmcall.client(["openai"]),  # type: ignore[arg-type]
        "api_type is ['openai']",
        "must be a string or None",
    ),
    "count_tokens model": (
        lambda cache: llmcall.count_tokens("Hello", 3),  # type: ignore[arg-type]
        "model is 3",
        "must be a string or None",
    ),
    "LLMCall user": (
        lambda cache: llmcall.LLMCall(user=3).call(),  # type: ignore[arg-type]
        "user is 3",
        "must be a string or None",
    ),
    "drift share": (
        lambda cache: llmcall.drift(RUN, share="half"),  # type: ignore[call-overload]
        "share is 'half'",
        "must be a number or None",
    ),
    "map repeats": (
        lambda cache: llmcall.map(str, [1], repeats=True),
        "repeats is True",
        "must be a whole number",
    ),
    "effect level": (
        lambda cache: llmcall.effect(  # type: ignore[call-arg]
            None, "x", by="a", treated=1, control=2, unit="u", levle=0.9
        ),
        "effect() has no argument 'levle'",
        "did you mean 'level'?",
    ),
    "choice system": (
        lambda cache: llmcall.choice("Which?", ["a", "b"], system=3).call(),  # type: ignore[arg-type]
        "system is 3",
        "must be a string or None",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_argument_is_named_with_what_it_must_be(name: str) -> None:
    """The error comes from llmcall, not from what was called with the argument."""
    call, thing, remedy = WRONG[name]
    with pytest.raises(TypeError, match=f"^{re.escape(thing)}; .*{re.escape(remedy)}"):
        call(recorded_cache())
