"""Colours of the commands: on a terminal alone."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import re
import subprocess
import sys
from importlib.metadata import entry_points

import click
import pytest
from commands import NEEDS_POSIX
from files import chat, write_cassette, written

import llmcall
from llmcall.testing import ScriptedClient

pytestmark = pytest.mark.newest_only
(COMMAND,) = entry_points(group="console_scripts", name="llmcall")
RED, GREEN, YELLOW, CYAN, RESET = "\x1b[31m", "\x1b[32m", "\x1b[33m", "\x1b[36m", "\x1b[0m"


@pytest.fixture(autouse=True)
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """The terminal that tests print to has colours, and is wide."""
    monkeypatch.setenv("COLUMNS", "1000")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")


class Output(io.TextIOWrapper):
    """An output that may be a terminal."""

    def __init__(self, *, is_terminal: bool) -> None:
        super().__init__(io.BytesIO(), encoding="utf-8", write_through=True)
        self._is_terminal = is_terminal

    def isatty(self) -> bool:
        """Return whether it is a terminal."""
        return self._is_terminal


def printed(*arguments: str, is_terminal: bool = True) -> str:
    """Return what a command prints, on both outputs."""
    output = Output(is_terminal=is_terminal)
    with (
        contextlib.redirect_stdout(output),
        contextlib.redirect_stderr(output),
        contextlib.suppress(SystemExit),
    ):
        COMMAND.load()(arguments)
    output.seek(0)
    return output.read()


@pytest.fixture
def diff() -> tuple[str, str, str]:
    """The command that compares two runs of one call in other words."""
    for path, word in (("a.jsonl", "White"), ("b.jsonl", "Brown")):
        write_cassette(path, [chat(f"{word} bread for Ann and Ben?", "Yes.", "lisa#0")])
    return "diff", "a.jsonl", "b.jsonl"


@pytest.mark.parametrize(
    ("command", "shown"),
    [
        pytest.param("diff", rf"{RED}[-White-]{RESET} {GREEN}{{+Brown+}}{RESET}", id="words"),
        pytest.param("miss", f"{CYAN}  asked{RESET}      user: Bread?", id="labels"),
        pytest.param("doctor", f"{GREEN}ok{RESET}", id="a passed check"),
        pytest.param("doctor", "\x1b[31m\x1b[1mFAIL", id="a failed check"),
        pytest.param("config", f"{YELLOW}unknown setting LLMCALL_MODLE", id="a warning"),
    ],
)
def test_what_a_terminal_shows_has_colours(
    diff: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, command: str, shown: str
) -> None:
    """A setting that does not exist is a warning; a file where the cache should be, a failed check."""
    monkeypatch.setattr(logging.getLogger(), "handlers", [])  # pytest's
    monkeypatch.setenv("LLMCALL_CACHE_MODE", "replay")
    monkeypatch.setenv("LLMCALL_MODLE", "m")
    if command == "doctor":
        monkeypatch.setenv("LLMCALL_CACHE_PATH", "a.jsonl/cache")
    llmcall.reset()
    assert shown in printed(*arguments_of(command, diff))


def test_names_on_two_lines_are_no_changed_words() -> None:
    """Though one begins and the other ends as their marks do."""
    for path, name in (("a.jsonl", "[-lisa"), ("b.jsonl", "tom-]")):
        calls = [chat("Bread?", "Yes.", f"{actor}#0") for actor in ("bart", name)]
        write_cassette(path, calls)
    shown = printed("diff", "a.jsonl", "b.jsonl")
    assert shown.index("[-lisa") < shown.index("tom-]")
    assert RED not in shown


def arguments_of(command: str, diff: tuple[str, ...]) -> tuple[str, ...]:
    """Return the words of a command that prints long lines."""
    return {
        "diff": diff,
        "show": ("show", "a.jsonl"),
        "doctor": ("doctor",),
        "miss": ("ask", "Bread?"),
        "config": ("config",),
    }[command]


@pytest.mark.parametrize("variable", ["NO_COLOR", "TERM", None])
@pytest.mark.parametrize("command", ["diff", "show", "doctor", "miss"])
def test_no_colour_is_shown_elsewhere_or_where_nobody_wants_it(
    diff: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, command: str, variable: str | None
) -> None:
    """Nor on a terminal that has none; the text is the same."""
    arguments = arguments_of(command, diff)
    monkeypatch.setenv("LLMCALL_CACHE_MODE", "replay")
    coloured = printed(*arguments)
    assert "\x1b[" in coloured
    if variable:
        monkeypatch.setenv(variable, "dumb")
    plain = printed(*arguments, is_terminal=variable is not None)
    assert "\x1b[" not in plain
    assert [line.split() for line in plain.splitlines()] == [
        line.split() for line in click.unstyle(coloured).splitlines()
    ]


@pytest.mark.parametrize("command", ["diff", "show", "doctor", "miss"])
def test_lines_are_wrapped_at_blanks_with_a_hanging_indent(
    diff: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    """On a terminal alone, whatever their colours; a word longer than the line is left whole."""
    monkeypatch.setenv("LLMCALL_CACHE_MODE", "replay")
    arguments = arguments_of(command, diff)
    plain = printed(*arguments, is_terminal=False)
    monkeypatch.setenv("COLUMNS", "32")
    shown = click.unstyle(printed(*arguments))
    assert shown.split() == plain.split() and shown != plain
    for line in shown.splitlines():
        text = re.sub(r"^( *|.{0,10}  )(?=\S)", "", line)
        is_copied = text.startswith("llmcall ") or "  llmcall " in line
        assert len(line) <= 32 or " " not in text.strip() or is_copied, line
    added = set(shown.splitlines()) - set(plain.splitlines())
    assert any(line.startswith("  ") for line in added)


def test_changed_words_of_a_miss_have_their_colour_on_each_of_its_lines(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A line of 80 columns ends within them."""
    ScriptedClient(["Yes."], cache_mode="auto").send_message("Shall the town buy boats?")
    monkeypatch.setenv("LLMCALL_CACHE_MODE", "replay")
    words = "solar panels for the roof of the school"
    added = re.search(
        r"\x1b\[32m(\{\+[^\x1b]*\+\})\x1b", printed("ask", f"Shall the town buy {words}?")
    )
    assert added and "\n" in added[1], added


@NEEDS_POSIX
@pytest.mark.ci
def test_run_shows_a_miss_and_warnings_with_colours() -> None:
    """On the terminal that standard error is; the program's own output stays as it is."""
    for path in ("run.jsonl", "unused.jsonl"):
        with llmcall.cassette(path), llmcall.scope("run"):
            ScriptedClient(["Yes."]).send_message("Bread for Ann?")
    code = """import llmcall
with llmcall.cassette("unused.jsonl"): pass
llmcall.client().send_message("Bread for Ben?", on_error="raise")"""
    written("program.py", code)
    parent, child = os.openpty()
    run = "run", "--cassette", "run.jsonl", "--mode", "none", "program.py"
    subprocess.run([sys.executable, "-m", "llmcall", *run], stderr=child, check=False)
    os.close(child)
    shown = os.read(parent, 65536).decode()
    os.close(parent)
    assert f"{CYAN}  asked{RESET}" in shown and f"{RED}[-Ann-]{RESET}" in shown
    assert f"{YELLOW}unused.jsonl: 1 record was not used" in shown
