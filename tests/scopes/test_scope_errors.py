"""Errors of scopes, arms and draws, by their words."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from contextvars import Context
from typing import Any

from errors import check_error, error_table

import llmcall
from llmcall import arm, scope
from llmcall.testing import ScriptedClient


class Agent:
    """No plain data."""


def opened(*contexts: Any) -> None:
    """Open one inside the other."""
    with ExitStack() as stack:
        for context in contexts:
            stack.enter_context(context)


def in_a_thread() -> object:
    """Call in a thread without a scope, while one is open."""
    client = ScriptedClient(lambda messages: "yes")
    with scope("a"), ThreadPoolExecutor(1) as executor:
        return executor.submit(Context().run, client.send_message, "Hello").result()


def mapped(item: Any) -> object:
    """Map over an item in a scope."""
    with scope("s"):
        return llmcall.map(str, [item])


NAME = "must not be empty or contain"


@error_table(
    *((f"ValueError: ...{NAME}", lambda name=name: scope(name)) for name in ("", "a/b", "a#1")),
    *(("ValueError: the arm's name", lambda name=name: arm(name)) for name in ("", "a/b", "a#1")),
    (
        "ValueError: ...is reserved for the items and repeats of llmcall.map",
        lambda: scope("~010de3fa8c734349"),
    ),
    (
        "ScopeError: ...llmcall.bind(function)...llmcall.scope(name)...llmcall.scope(None)"
        "...process=True",
        in_a_thread,
    ),
    (
        "ScopeError: ...'run'...Leave it first...without process=True...llmcall.bind",
        lambda: opened(scope("run", process=True), scope("second", process=True)),
    ),
    ("TypeError: ...not plain data", lambda: mapped(Agent())),
    (
        "TypeError: ...sample",
        lambda: ScriptedClient([[1.0]]).get_embedding("text", sample=1),
    ),
    ("ScopeError: the arm 'a' needs a scope", lambda: opened(arm("a"))),
    (
        "ScopeError: ...inside the arm 'a'",
        lambda: opened(scope("r"), arm("a"), scope("lisa"), arm("b")),
    ),
    ("ScopeError: ...needs a scope", llmcall.seed),
)
def test_an_error_says_what_is_wrong_and_what_to_do(line: str, call: Callable[[], object]) -> None:
    """It is raised whatever ``on_error`` says."""
    check_error(line, call)
