"""The first commands of README.rst, with the small model."""

from __future__ import annotations

import doctest
import shlex
import shutil
import subprocess
import sys
from ast import literal_eval

import pytest
from commands import LONGEST, ROOT
from pages import blocks

README = ROOT / "README.rst"
COMMANDS = [line for line in blocks(README, "bash")[0].splitlines() if line.startswith("llmcall ")]


@pytest.fixture
def output(only_loopback: None) -> list[str]:
    """What the commands print in a new copy of the examples, a text for each."""
    shutil.copytree(ROOT / "examples", "examples")
    return [
        subprocess.run(
            [sys.executable, "-m", *shlex.split(command)],
            cwd="examples/solar",
            capture_output=True,
            text=True,
            check=True,
            timeout=LONGEST,
        ).stdout
        for command in COMMANDS
    ]


def test_they_show_whose_prompt_changed(output: list[str]) -> None:
    """A run, its replay, a changed run, and their differences."""
    first, again, changed, differences = output
    assert again == first
    assert (
        set(literal_eval(first))
        == set(literal_eval(changed))
        == {"Ada", "Ben", "Cleo", "Dan", "Eve"}
    )
    assert differences.splitlines()[1] == (
        "Ben, call 1: the prompt changed: [-fisherman-] {+solar engineer+}"
    )


def test_the_python_of_the_first_screen_gives_an_answer_each(
    only_loopback: None, capsys: pytest.CaptureFixture[str]
) -> None:
    """By the model, without a recording."""
    session, *_ = doctest.DocTestParser().get_examples(README.read_text(encoding="utf-8"))
    code = f"{blocks(README, 'python')[0]}\n{session.source}"
    exec(compile(code, "README.rst", "exec"), {"__name__": "__main__"})
    lines = capsys.readouterr().out.split("\n")
    assert [line.split()[0] for line in lines if line] == ["Ada", "Ben", "Cleo"]
    assert {line.split()[1] for line in lines if line} <= {"town", "country"}
