"""Run what README.rst and the documentation show: sessions at the prompt, code blocks, commands
with their output.
"""

from __future__ import annotations

import contextlib
import doctest
import inspect
import io
import os
import re
import shlex
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any
from unittest.mock import patch

from click.testing import CliRunner
from commands import LONGEST

import llmcall
import llmcall.aio
import llmcall.testing

ROOT = Path(__file__).resolve().parent.parent
ANSWERS, TUTORIAL = ROOT / "examples" / "answers.jsonl", ROOT / "docs" / "tutorial.rst"
DOCS = ROOT / "docs"
PAGES = [
    ROOT / "README.rst",
    ROOT / "ARCHITECTURE.rst",
    ROOT / "CONTRIBUTING.rst",
    *sorted(DOCS.glob("*.rst")),
    *sorted(DOCS.glob("[a-z]*/*.rst")),
]
BLOCK = re.compile(
    r"^\.\. code-block:: (\w+)\n((?:   +:.*\n)*)\n((?:   +.*\n|\n(?=\n*   ))+)", re.MULTILINE
)
# The first line of a block that is a file, or goes on with one.
FILE = re.compile(r"# (\S+\.(?:py|ini))\n")
# other commands of a console block, such as pip, are only shown
RUN = (
    "llmcall",
    "python",
    "pytest",
)


def answers_of(page: Path) -> Path:
    """Return the file with the answers that a page replays: the tutorial has one of its own."""
    return page.with_suffix(".jsonl") if page == TUTORIAL else ANSWERS


def blocks(page: Path, language: str) -> list[str]:
    """Return a page's code blocks in a language, without their indentation."""
    text = page.read_text(encoding="utf-8")
    return [textwrap.dedent(block[3]) for block in BLOCK.finditer(text) if block[1] == language]


def run_page(page: Path) -> doctest.TestResults:
    """Run a page in the working directory, from top to bottom, with one set of names.

    A session at the prompt and a command of a console block (after ``$``) must give the output
    beneath them. So must a code block that has a comment right below a ``print``; what other code
    blocks print is not looked at.
    """
    text = BLOCK.sub(_as_session, page.read_text(encoding="utf-8"))
    test = doctest.DocTestParser().get_doctest(text, {}, page.name, str(page), 0)
    # set here, since a DocTest copies what it is given
    test.globs = {
        "__name__": "__main__",
        "_command": command,
    }
    test.globs["_block"] = lambda line: _run_block(page, line, test.globs)
    # as at a prompt, which imports modules of the working directory
    with patch.object(sys, "path", ["", *sys.path]):
        return doctest.DocTestRunner(optionflags=doctest.REPORT_NDIFF | doctest.ELLIPSIS).run(test)


def public_names() -> dict[str, Any]:
    """Return the public functions and classes, by their full names."""
    modules = llmcall, llmcall.testing, llmcall.aio
    found = {
        f"{module.__name__}.{name}": getattr(module, name)
        for module in modules
        for name in module.__all__
    }
    return {name: value for name, value in found.items() if callable(value)}


def run_docstrings() -> doctest.TestResults:
    """Run the examples in the docstrings of the public names, each with names of its own."""
    runner = doctest.DocTestRunner(optionflags=doctest.REPORT_NDIFF)
    for name, value in public_names().items():
        examples = doctest.DocTestParser().get_doctest(
            inspect.getdoc(value) or "", {}, name, name, 0
        )
        examples.globs = {"llmcall": llmcall, "__name__": "__main__"}
        runner.run(examples)
    return runner.summarize(verbose=False)


def _as_session(block: re.Match[str]) -> str:
    """Turn a code block into a session at the prompt of as many lines."""
    language, _, body = block.groups()
    head = block[0][: -len(body)]
    if language == "python" or FILE.match(body.lstrip()):
        line = block.string.count("\n", 0, block.start(3)) + 1
        return f"{head}    >>> _block({line})\n" + "\n" * (body.count("\n") - 1)
    if language == "console":
        whole = re.sub(r" \\\n +", " ", textwrap.dedent(body))  # a command over several lines
        lines = whole.rstrip("\n").split("\n")
        session = [
            _command_line(line, after)
            for line, after in zip(lines, [*lines[1:], "$ "], strict=True)
        ]
        return head + "".join(f"    {line}\n" for line in session)
    return block[0]


def _command_line(line: str, after: str) -> str:
    if line.startswith("$ "):
        return f">>> _command({line[2:]!r}, shown={not after.startswith('$ ')})"
    return line or "<BLANKLINE>"


def _run_block(page: Path, line: int, names: dict[str, Any]) -> None:
    """Run the code block that begins at a line; where its first line names a file, add it to that.

    A module of tests is only written.
    """
    text = page.read_text(encoding="utf-8")
    [block] = [
        block for block in BLOCK.finditer(text) if text.count("\n", 0, block.start(3)) + 1 == line
    ]
    body = textwrap.dedent(block[3])
    named = FILE.match(body)
    if named:
        with open(named[1], "a", encoding="utf-8") as file:
            file.write(body + "\n")
    if block[1] == "python" and not (named and named[1].startswith("test_")):
        with contextlib.redirect_stdout(io.StringIO()) as output:
            exec(compile("\n" * (line - 1) + body, str(page), "exec"), names)
        shown = re.findall(r"^print\(.*\n# (.*)$", body, re.MULTILINE)
        if shown and output.getvalue().splitlines() != shown:
            print(output.getvalue())


def command(line: str, *, shown: bool) -> None:
    """Run a command of a console block: print what it prints, or, where that is not shown, see that
    it succeeds.
    """
    words = shlex.split(line.partition("  #")[0])
    settings = {}
    while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
        name, _, value = words.pop(0).partition("=")
        settings[name] = value
    if words[0] == "cd":
        os.chdir(words[1])
    if words[0] == "export":
        name, _, value = words[1].partition("=")
        os.environ[name] = value
    if words[0] not in RUN:
        return
    if words[0] == "llmcall" and words[1] != "run" and not settings:
        from commands import main

        result = CliRunner().invoke(main, words[1:], prog_name="llmcall")
        output, code = result.output, result.exit_code
    else:
        settings["PYTHONWARNINGS"] = "error"
        settings["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = (
            "1"  # other plugins take more time than the tests
        )
        pytest = ["-m", "pytest", "-p", "no:cacheprovider", "-p", "llmcall"]
        modules = {"llmcall": ["-m", "llmcall"], "pytest": pytest, "python": []}
        whole = [sys.executable, *modules[words[0]], *words[1:]]
        done = subprocess.run(
            whole,
            env={**os.environ, **settings},
            capture_output=True,
            text=True,
            check=False,
            timeout=LONGEST,
        )
        output, code = done.stdout + done.stderr, done.returncode
    assert shown or not code, output
    print(output if shown else "", end="")
