"""Programs that tests run in a process of their own."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
LONGEST = 300.0  # seconds: a program that takes longer hangs, also on a slow machine
# Another Python with other versions of llmcall's dependencies; looked up before the first test takes
# all of llmcall's variables out of the environment.
OTHER_PYTHON = os.environ.get("LLMCALL_OTHER_PYTHON", "")
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
