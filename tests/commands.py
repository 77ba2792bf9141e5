"""Programs in a process of their own, the command line in this one, and Ctrl-C in either."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED
from concurrent.futures import wait as wait_for_futures
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from llmcall.cli.main import main
from llmcall.config.resolve import refresh
from llmcall.support.waits import stops

ROOT = Path(__file__).resolve().parents[1]
LONGEST = 300.0  # seconds: a program that takes longer hangs, also on a slow machine
# Another Python with other versions of llmcall's dependencies; looked up before the first test takes
# all of llmcall's variables out of the environment.
OTHER_PYTHON = os.environ.get("LLMCALL_OTHER_PYTHON", "")
NEEDS_OTHER_PYTHON = pytest.mark.skipif(
    not OTHER_PYTHON,
    reason="LLMCALL_OTHER_PYTHON is to name another Python with llmcall's dependencies, "
    "such as .ci/run makes",
)
NEEDS_POSIX = pytest.mark.skipif(
    os.name != "posix", reason="Windows has no fork and no signals: run it on Linux or macOS"
)
NEEDS_NOTES = pytest.mark.skipif(
    sys.version_info < (3, 11), reason="exceptions have notes from Python 3.11 on"
)
PREAMBLE = """
import os, sys, threading
import llmcall
from llmcall import ResponseCache
from llmcall.testing import ScriptedClient
"""

# Settings with the price of the programs' model: without one, each process that asks would import the
# package with the prices of all models.
PRICED = ROOT / "tests" / "programs.ini"
# For programs that do not know llmcall. It asks by httpx, which starts sooner than a model's SDK.
ASK = """
import os, sys, httpx
client = httpx.Client(base_url=os.environ["MODEL_AT"], verify=False, timeout=60)
def ask(text, system=None, **parameters):
    messages = [{"role": "system", "content": system}] if system else []
    messages.append({"role": "user", "content": text})
    body = {"model": "gpt-4o-mini", "messages": messages, "temperature": 1, **parameters}
    response = client.post("/chat/completions", json=body).raise_for_status()
    return response.json()["choices"][0]["message"]["content"]
"""


class RunningProgram(subprocess.Popen[str]):
    """A program that is killed if the block around it fails: leaving the block waits for its end."""

    def __exit__(self, error: type[BaseException] | None, *rest: Any) -> None:
        if error is not None:
            self.kill()
        super().__exit__(error, *rest)


def start(program: str, *arguments: object, **environment: str) -> RunningProgram:
    """Start a program with the usual imports, warnings being errors; its output is text to be read."""
    settings = {} if Path("config.ini").exists() else {"LLMCALL_CONFIG": str(PRICED)}
    return RunningProgram(
        [
            sys.executable,
            "-W",
            "error",
            "-W",
            "ignore:This process",  # is multi-threaded, Python says, if it forks
            "-c",
            PREAMBLE + textwrap.dedent(program),
            *map(str, arguments),
        ],
        env={**settings, **os.environ, "PYTHONPATH": str(ROOT), **environment},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ran(program: str, *arguments: object, **environment: str) -> str:
    """Run a program to its end and return what it printed."""
    with start(program, *arguments, **environment) as process:
        printed, complaints = process.communicate(timeout=LONGEST)
    assert process.returncode == 0, complaints
    return printed.strip()


def under_run(program: str, *options: str, code: int = 0, given: str = "") -> tuple[str, str]:
    """Run a program that asks by :data:`ASK` under ``llmcall run``; return what it printed, and what was reported.

    :param given: its standard input, from a file.
    """
    Path("program.py").write_text(ASK + textwrap.dedent(program), encoding="utf-8")
    Path("input").write_text(given, encoding="utf-8")
    with open("input", encoding="utf-8") as standard_input:
        process = subprocess.run(
            [sys.executable, "-m", "llmcall", "run", *options, "program.py"],
            capture_output=True,
            text=True,
            stdin=standard_input,
            timeout=LONGEST,
            check=False,
        )
    assert process.returncode == code, process.stdout + process.stderr
    return process.stdout, process.stderr


def run(*arguments: Any, text: str | None = None, charset: str = "utf-8") -> Result:
    """Run ``llmcall`` with arguments, and with a text as its standard input; its outputs have a character set."""
    refresh()  # a process of its own would read environment and files
    return CliRunner(charset).invoke(main, [*map(str, arguments)], input=text)


def done(*arguments: Any, code: int = 0, text: str | None = None) -> str:
    """Run it likewise, check how it ends, and return what it printed."""
    result = run(*arguments, text=text)
    assert result.exit_code == code, result.output
    return result.output


def cache(*arguments: Any, **options: Any) -> str:
    """Run ``llmcall cache`` likewise."""
    return done("cache", *arguments, **options)


@contextmanager
def no_ctrl_c_is_lost() -> Iterator[None]:
    """Let the garbage collector rest within: Python loses a KeyboardInterrupt that is raised in what
    the collector calls, such as the end of an earlier test's cache.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def press_ctrl_c() -> None:
    """Press Ctrl-C, and return once the map around has noticed it."""
    os.kill(os.getpid(), signal.SIGINT)
    wait_for_futures(stops(), 30, FIRST_COMPLETED)


def wait_for_maps() -> None:
    """Wait until the threads of all maps have ended, also of those that were left."""
    for thread in threading.enumerate():
        if thread.name.startswith("llmcall map"):
            thread.join(30)
            assert not thread.is_alive()
