"""The bar of a map: where it is shown, and what it says."""

from __future__ import annotations

import io
import logging
import os
import sys
import threading
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from dice import Dice, ask, divide, sample
from servers import RawServer, answers, client_for, refusal

import llmcall
from llmcall import imap, map
from llmcall.testing import ScriptedClient


class Terminal(io.StringIO):
    """Be a terminal that keeps what it shows."""

    def isatty(self) -> bool:
        return True

    def last(self) -> str:
        """Return the last state of the line."""
        return self.getvalue().rstrip("\n").rpartition("\r")[2]


def on_terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """Let standard error be a terminal; pytest puts its own there before each test."""
    made = Terminal()
    monkeypatch.setattr(sys, "stderr", made)
    return made


def test_none_in_a_log_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """Standard error that is no terminal stays as it is, and tqdm is not even imported."""
    log = io.StringIO()
    monkeypatch.setattr(sys, "stderr", log)
    monkeypatch.setitem(sys.modules, "tqdm", None)
    map(ask, "ab")
    list(imap(ask, "ab"))
    assert log.getvalue() == ""


class Writer:
    """Be what some programs put in the place of standard error: it can be written to, and no more."""

    def write(self, text: str) -> int:
        return len(text)

    def flush(self) -> None:
        """Do nothing."""


def closed() -> io.StringIO:
    """Return a stream that is closed."""
    made = io.StringIO()
    made.close()
    return made


@pytest.mark.parametrize("stream", [None, Writer(), closed()], ids=["none", "writer", "closed"])
def test_standard_error_that_is_no_file(monkeypatch: pytest.MonkeyPatch, stream: Any) -> None:
    """A program without a console, with a stream of its own or a closed one has no bar, and its maps run."""
    monkeypatch.setattr(sys, "stderr", stream)
    assert map(str, [1, 2]) == ["1", "2"]


def test_a_bar_where_there_is_no_standard_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bar that is asked for has no place to be shown in a program without a console."""
    monkeypatch.setattr(sys, "stderr", None)
    assert map(str, [1, 2], progress=True) == ["1", "2"]


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
@pytest.mark.parametrize("lines, columns", [(0, 0), (0, 120), (40, 0), (40, 120)])
def test_a_terminal_of_any_size(monkeypatch: pytest.MonkeyPatch, lines: int, columns: int) -> None:
    """The bar is shown on a terminal that says it has no lines or columns, as a container's may."""
    import fcntl
    import struct
    import termios

    reader, writer = os.openpty()
    fcntl.ioctl(writer, termios.TIOCSWINSZ, struct.pack("4H", lines, columns, 0, 0))
    with os.fdopen(reader, "rb", buffering=0) as screen, os.fdopen(writer, "w") as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        map(str, [1, 2])
        print("end", file=terminal, flush=True)
        shown = b""
        while b"end" not in shown:
            shown += screen.read(4096)
    assert b" 2/2 " in shown


def test_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal the bar shows what is done of how much, how fast, hits, tokens and cost."""
    terminal = on_terminal(monkeypatch)
    with llmcall.configured(prices={"gpt-4o-mini": (1_000, 100_000)}):
        map(ask, "abca", workers=1)
    line = terminal.last()
    assert line.startswith("100%|")
    assert " 4/4 " in line
    assert "it/s" in line or "s/it" in line
    assert "cached=1, tokens=24, cost=$0.9150" in line


def test_progress_says_where(monkeypatch: pytest.MonkeyPatch) -> None:
    """False shows none on a terminal, True shows one in a file."""
    terminal = on_terminal(monkeypatch)
    map(ask, "a", progress=False)
    assert terminal.getvalue() == ""
    log = io.StringIO()
    monkeypatch.setattr(sys, "stderr", log)
    map(ask, "a", progress=True)
    assert " 1/1 " in log.getvalue()


def test_an_unknown_cost(monkeypatch: pytest.MonkeyPatch) -> None:
    """A price that nobody knows makes the cost a question mark."""
    terminal = on_terminal(monkeypatch)
    client = Dice(model="my-model")
    map(lambda item: client.send_message(item), ["a"])
    assert "cached=0, tokens=8, cost=?" in terminal.last()


def test_repeats_and_failures_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each repeat is a step, and so is an item that failed."""
    terminal = on_terminal(monkeypatch)
    map(sample, ["a", "fail"], repeats=2, on_error="return")
    assert " 4/4 " in terminal.last()


def test_a_generator_has_no_total(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nobody knows how many items there are, only what is done is shown."""
    terminal = on_terminal(monkeypatch)
    assert len(list(imap(str, iter(range(5))))) == 5
    assert terminal.last().startswith("5it [")


def test_the_bar_of_a_map_that_fails_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """An exception leaves the bar where it was, on a line of its own."""
    terminal = on_terminal(monkeypatch)
    with pytest.raises(llmcall.InvalidRequestError):
        map(ask, ["a", "fail"], workers=1)
    assert " 1/2 " in terminal.last()
    assert terminal.getvalue().endswith("\n")


def test_it_counts_every_call_of_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bar takes in what calls use from its beginning to its end, from every thread."""
    client = ScriptedClient(lambda messages: "yes", cache_mode="auto", cache_path="bar")
    client.send_message("Hello")

    def work(item: int) -> None:
        thread = threading.Thread(target=client.send_message, args=("Hello",))
        thread.start()
        thread.join()

    terminal = on_terminal(monkeypatch)
    map(work, [1])
    client.send_message("Hello")
    assert "cached=1, tokens=0" in terminal.last()


def test_a_narrow_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """At sixty columns the figures have the room of the bar."""
    terminal = on_terminal(monkeypatch)
    monkeypatch.setenv("COLUMNS", "60")
    map(ask, [f"{number}" for number in range(20)], workers=1)
    assert terminal.last().startswith("20/20 [")
    assert "tokens=160, cost=" in terminal.last()
    assert max(len(line) for line in terminal.getvalue().replace("\n", "\r").split("\r")) <= 60


def test_failures_and_retries_are_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """Items that failed and attempts that were repeated stand in the bar."""
    terminal = on_terminal(monkeypatch)
    with RawServer(answers(refusal(503)), answers()) as server:
        client = client_for(server.base_url, retry_waiting_time=0)
        map(lambda item: 1 / 0 if item else client.send_message("Hello", on_error="raise"), [0, 1], on_error="return")
    assert "failed=1, retries=1, " in terminal.last()


@pytest.mark.parametrize("configured", [True, False])
def test_log_lines_stand_above_the_bar(monkeypatch: pytest.MonkeyPatch, configured: bool) -> None:
    """What is logged to the console meanwhile has lines of its own, and the bar is drawn again below."""
    terminal = on_terminal(monkeypatch)
    logger = logging.getLogger("llmcall")
    handler = logging.StreamHandler(terminal)
    root_handlers = logging.getLogger().handlers[:]
    logging.getLogger().handlers[:] = []  # pytest's own
    if configured:
        logger.addHandler(handler)
    try:
        map(divide, [1, 0, 2], on_error="none", workers=1)
    finally:
        logger.removeHandler(handler)
        logging.getLogger().handlers[:] = root_handlers
    lines = [line.rpartition("\r")[2] for line in terminal.getvalue().splitlines()]
    assert "item 1 of 3 (0) failed: ZeroDivisionError: division by zero" in lines
    assert handler.stream is terminal


def test_in_a_notebook(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel's shell is a notebook's, where the bar is shown although there is no terminal; IPython alone is none."""
    shown = []
    for shell in (None, SimpleNamespace(), SimpleNamespace(kernel=1)):
        log = io.StringIO()
        monkeypatch.setattr(sys, "stderr", log)
        monkeypatch.setattr(sys, "stdout", log)
        monkeypatch.setitem(sys.modules, "IPython", ipython(shell))
        map(str, [1])
        shown.append("1/1" in log.getvalue())
    assert shown == [False, False, True]


def ipython(shell: Any) -> ModuleType:
    """Return a module that says in which shell the code runs."""
    module = ModuleType("IPython")
    module.get_ipython = lambda: shell  # type: ignore[attr-defined]
    module.version_info = (8, 0)  # type: ignore[attr-defined]
    return module
