"""How much a call does: functions of llmcall that it enters, the files they stand in, and the statements it runs."""

from __future__ import annotations

import gc
import os
import sqlite3
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import llmcall
from llmcall.testing import ScriptedClient

PACKAGE = os.path.dirname(llmcall.__file__)

# Loosely above what a call does, so that the next change does not meet them by accident.
MOST_OF_A_HIT, FILES_OF_A_HIT = 18, 7
MOST_OF_A_MISS, FILES_OF_A_MISS = 87, 16


@pytest.fixture(autouse=True)
def nothing_else_is_freed() -> Iterator[None]:
    """Let what other tests left be freed before, and not in the middle of what is counted."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def entered(act: Callable[[], object]) -> list[tuple[str, str]]:
    """Run something and list the functions of the package that it enters, with their files."""
    found: list[tuple[str, str]] = []

    def watch(frame: FrameType, event: str, _: Any) -> None:
        code = frame.f_code
        if event == "call" and code.co_filename.startswith(PACKAGE):
            found.append((code.co_filename, code.co_name))

    sys.setprofile(watch)
    try:
        act()
    finally:
        sys.setprofile(None)
    return found


class Parrot(llmcall.LLMClient):
    """Answer as a client of a user's own does."""

    def send(self, request: llmcall.Request, timeout: float | None) -> dict[str, Any]:
        """Return what was asked."""
        message = {"role": "assistant", "content": request.messages[-1]["content"]}
        usage = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
        return {"choices": [{"message": message, "finish_reason": "stop"}], "usage": usage}


def client_of(folder: Path) -> Parrot:
    """Return a client that is warm: it has asked, stored, found something, and said what it says once."""
    client = Parrot(model="parrot", cache_mode="auto", cache_path=folder)
    for _ in range(3):
        client.send_message("warm up")
    return client


def test_a_hit_is_short(tmp_path: Path) -> None:
    """A recorded answer outside any scope takes few functions in few files."""
    client = client_of(tmp_path)
    found = entered(lambda: client.send_message("warm up"))
    assert len(found) <= MOST_OF_A_HIT, [name for _, name in found]
    assert len({file for file, _ in found}) <= FILES_OF_A_HIT


def test_a_loop_of_hits_looks_at_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings are read once: recorded answers, typed ones in scopes too, ask neither for files nor for folders."""
    monkeypatch.setattr("llmcall.config.resolve.INTERVAL", float("inf"))  # else a second look comes after a second
    llmcall.register_client("scripted", ScriptedClient(lambda messages: "yes", cache_mode="auto", cache_path=tmp_path))
    llmcall.configure(api_type="scripted")
    buys = llmcall.LLMCall(user="Would {{ name }} buy it?", output_type=bool)

    def ask_all() -> None:
        for name in ("Lisa", "Oscar"):
            with llmcall.scope(name):
                assert buys(name=name) is True
            assert buys(name=name) is True

    ask_all()
    looked: list[object] = []

    def told(function: Callable[..., Any]) -> Callable[..., Any]:
        def tell(*args: Any, **kwargs: Any) -> Any:
            looked.append(args)
            return function(*args, **kwargs)

        return tell

    for name in ("stat", "lstat", "getcwd", "listdir", "open"):
        monkeypatch.setattr(os, name, told(getattr(os, name)))
    for _ in range(10):
        ask_all()
    assert looked == []


def test_a_miss_is_no_maze(tmp_path: Path) -> None:
    """A call that is not recorded walks one road."""
    client = client_of(tmp_path)
    found = set(entered(lambda: client.send_message("something new")))
    assert len(found) <= MOST_OF_A_MISS, sorted(found)
    assert len({file for file, _ in found}) <= FILES_OF_A_MISS


def test_the_statements_of_a_miss(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A call that is not recorded looks twice into the cache, and writes once."""
    run: list[str] = []
    connect = sqlite3.connect

    def connect_and_trace(*args: Any, **kwargs: Any) -> sqlite3.Connection:
        connection = connect(*args, **kwargs)
        connection.set_trace_callback(run.append)
        return connection

    monkeypatch.setattr(sqlite3, "connect", connect_and_trace)
    client = client_of(tmp_path)
    run.clear()
    client.send_message("something new")
    kinds = [text.split()[0].upper() for text in dict.fromkeys(run)]  # a trigger tells its statement once more
    assert kinds.count("INSERT") == 1, run
    assert [text.split()[0].upper() for text in run].count("SELECT") <= 2, run
