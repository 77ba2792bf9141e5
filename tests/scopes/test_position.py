"""Where a call stands: the rows of the two tables of ``scopes/active.py``, each with all rows below it."""

from __future__ import annotations

import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, nullcontext
from typing import Any

import pytest
from clients import http
from files import write_cassette

import llmcall

OWN = ["default", "environment", "process", "own"]


def in_a_thread(function: Callable[[], Any]) -> Any:
    """Return the result of a function that runs in a new thread."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(function).result()


@pytest.mark.parametrize(
    ("rows", "path"),
    [(0, None), (1, "run#0"), (2, "root#0"), (3, "root/everyone#0"), (4, "root/everyone/own#0")],
)
def test_the_first_row_decides_the_scope_of_a_call(
    rows: int, path: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: set[str] = set(OWN[:rows])
    if "environment" in opened:
        monkeypatch.setenv("LLMCALL_SCOPE", "root")
        llmcall.reset()

    def sample() -> str | None:
        with llmcall.scope("own") if "own" in opened else nullcontext():
            return llmcall.client().build_request("Bread?", temperature=1).sample

    with ExitStack() as stack:
        if "default" in opened:
            recorded_by_run = write_cassette("run.jsonl", [], {}, run={})
            stack.enter_context(llmcall.cassette(recorded_by_run, mode="new"))
        if "process" in opened:
            stack.enter_context(llmcall.scope("everyone", process=True))
        assert in_a_thread(sample) == path


def post() -> int:
    """Ask as a program does, and return the status."""
    transport = http.MockTransport(lambda _: http.Response(200, json={"id": "a", "content": []}))
    with http.Client(transport=transport) as client:
        body = {"model": "m", "messages": [{"role": "user", "content": "Bread?"}]}
        return int(client.post("https://api.example/v1/messages", json=body).status_code)


@llmcall.recorded
def bakery() -> int:
    """Ask in a recorded function."""
    return post()


def in_own_scope() -> int:
    """Ask in a scope."""
    with llmcall.scope("own"):
        return post()


def opened(name: str | None) -> AbstractContextManager[object]:
    """Open a scope, if it has a name."""
    return nullcontext() if name is None else llmcall.scope(name)


@pytest.mark.parametrize(
    ("around", "inside", "asks", "path"),
    [
        ("studio", "other", in_own_scope, "own"),
        ("studio", "other", post, "studio"),
        (None, None, post, "run"),
        (None, None, bakery, r"run/.*bakery\.\w+"),
    ],
)
def test_the_first_row_decides_the_scope_of_a_programs_call(
    around: str | None, inside: str | None, asks: Callable[[], int], path: str
) -> None:
    """The cassette was opened in the scope ``around``; another thread has the scope ``inside`` open."""
    with opened(around), llmcall.cassette("run.jsonl") as tape, opened(inside):
        assert in_a_thread(asks) == 200
    (record,) = [record for record in tape.all_records() if record.kind != "function"]
    assert re.fullmatch(path, record.scope)


def test_a_programs_call_is_refused_while_another_thread_has_a_scope_open() -> None:
    with (
        pytest.raises(llmcall.ScopeError, match="another thread has one open"),
        llmcall.cassette("run.jsonl"),
        llmcall.scope("other"),
    ):
        in_a_thread(post)
