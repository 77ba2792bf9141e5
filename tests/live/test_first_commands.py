"""The first commands of README.rst, with the small model."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from ast import literal_eval

import pytest
from commands import LONGEST, ROOT
from pages import blocks


@pytest.fixture
def output(only_loopback: None) -> list[str]:
    """What the commands print in a new copy of the examples, a text for each."""
    shutil.copytree(ROOT / "examples", "examples")
    text = (ROOT / "README.rst").read_text(encoding="utf-8")
    [block] = re.findall(r"::\n\n((?:    .*\n)*    llmcall .*\n)\n", text)[:1]
    lines = [line.partition("  #")[0] for line in block.splitlines()]
    return [
        subprocess.run(
            [sys.executable, "-m", *shlex.split(line)],
            cwd="examples/solar",
            capture_output=True,
            text=True,
            check=True,
            timeout=LONGEST,
        ).stdout
        for line in lines
        if line.strip().startswith("llmcall ")
    ]


def test_they_show_whose_prompt_changed(output: list[str]) -> None:
    """Two runs, and their differences."""
    first, second, differences = output
    assert (
        set(literal_eval(first))
        == set(literal_eval(second))
        == {"Ada", "Ben", "Cleo", "Dan", "Eve"}
    )
    assert differences.splitlines()[1] == (
        "Ben, call 1: the prompt changed: {+who lost money on solar panels+}"
    )


def test_the_python_of_the_first_screen_gives_an_answer_each(
    only_loopback: None, capsys: pytest.CaptureFixture[str]
) -> None:
    """By the model, without a recording."""
    code = blocks(ROOT / "README.rst", "python")[0]
    exec(compile(code, "README.rst", "exec"), {"__name__": "__main__"})
    lines = capsys.readouterr().out.split("\n")
    assert [line.split()[0] for line in lines if line] == ["Ada", "Ben"]
    assert {line.split()[1] for line in lines if line} <= {"bread", "fish"}
