"""The benchmarks: at their smallest, in this interpreter instead of pinned environments, they print their tables."""

from __future__ import annotations

import subprocess
import sys

import pytest
from programs import ROOT

PROGRAM = """
import sys
from benchmarks import __main__ as program
from benchmarks.environments import Environments

Environments.python = lambda self, name: sys.executable
program.main()
"""


@pytest.mark.slow
def test_the_smallest_run_prints_its_tables() -> None:
    """Both who was asked for stand in each table, with a ratio; what ran where stands below."""
    chosen = ["--small", "--rounds", "1", "-c", "hits", "-p", "llmcall_client", "-p", "plain_diskcache"]
    command = [sys.executable, "-c", PROGRAM, *chosen]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    rows = [line.split() for line in done.stdout.splitlines()]
    assert sum(row[:1] == ["llmcall"] and float(row[-1]) > 0 for row in rows) == 2
    assert sum(row[:2] == ["plain", "diskcache"] and row[-1] == "1.00" for row in rows) == 2
    assert "openai " in done.stdout and "CPython" in done.stdout
