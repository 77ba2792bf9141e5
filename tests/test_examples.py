"""The examples run as they stand, from the answers that ship with them, and the benchmarks at their
smallest.
"""

from __future__ import annotations

import os
import runpy
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from programs import ROOT

import llmcall

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"


@pytest.fixture
def recorded(tmp_path: Path) -> dict[str, str]:
    """Return an environment in which the shipped answers are replayed, with neither key nor
    network.
    """
    with llmcall.ResponseCache(tmp_path / "cache") as cache:
        cache.load(EXAMPLES / "answers.jsonl")
    return {
        **os.environ,
        "LLMCALL_API_TYPE": "local",
        "LLMCALL_CACHE_PATH": str(tmp_path / "cache"),
        "LLMCALL_CACHE_MODE": "replay",
    }


@pytest.mark.parametrize(
    ("command", "name"),
    [
        ([str(EXAMPLES / "market_day.py")], "market_day.py"),
        (["-m", "llmcall", "demo"], "python -m llmcall demo"),
    ],
)
def test_market_day(command: list[str], name: str) -> None:
    """The market is replayed without key, network or configuration, always the same, and says what
    was shown.

    The help has the name by which it was asked for.
    """

    def shown(columns: int, *options: str) -> str:
        environment = {**os.environ, "COLUMNS": str(columns), "PYTHONIOENCODING": "utf-8"}
        whole = [sys.executable, *command, *options]
        return subprocess.run(
            whole, env=environment, capture_output=True, encoding="utf-8", check=True
        ).stdout

    helped, first, second = shown(80, "-h"), shown(60), shown(80)
    assert helped.startswith(f"usage: {name} [-h]") and f"{name} --local " in helped
    assert max(map(len, first.splitlines())) <= 60
    assert max(map(len, second.splitlines())) <= 80
    assert first.split() == second.split()
    one_day, other_day = second.split("What if Pip is a boy who lost his frog")
    assert one_day.count("\nRound ") == 6
    assert all(
        one_day.count(f"\n  {name} ") == 6 for name in ("Greta", "Otto", "Mira", "Bruno", "Pip")
    )
    assert (
        "The same 62 answers" in one_day
        and "That saved $0.0036: the tokens of SmolLM2-135M-Instruct" in one_day
    )
    assert (other_day.count("\n* "), other_day.count("\n* Pip")) == (11, 3)
    assert "42 answers stay" in other_day and "21 are asked again" in " ".join(other_day.split())
    assert "Pip, call 15: the prompt changed: [-with a-] {+who lost his+}" in other_day
    assert "\033" not in first


EXECUTE = """
import sys, nbclient, nbformat
notebook = nbformat.read(sys.argv[1], as_version=4)
nbclient.NotebookClient(notebook, timeout=600, startup_timeout=600, iopub_timeout=60).execute()
nbformat.write(notebook, sys.argv[2])
"""


def executed(name: str, environment: dict[str, str], folder: Path) -> Any:
    """Run a notebook's cells in a process of its own, since nbclient never closes its event loop;
    return it.
    """
    nbformat = pytest.importorskip("nbformat")
    pytest.importorskip("nbclient")
    command = [sys.executable, "-c", EXECUTE, str(EXAMPLES / name), str(folder / "executed.ipynb")]
    done = subprocess.run(
        command, env=environment, cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return nbformat.read(folder / "executed.ipynb", as_version=4)


@pytest.mark.slow
def test_the_notebook_runs_headless(recorded: dict[str, str], tmp_path: Path) -> None:
    """Every cell of the notebook runs, and a scope's draws continue from cell to cell."""
    notebook = executed("first_steps.ipynb", recorded, tmp_path)
    shown = "\n".join(
        output["data"]["text/plain"]
        for cell in notebook.cells
        for output in cell.get("outputs", ())
    )
    assert "('Orange', 'trial-1#0')" in shown
    assert "('Banana', 'trial-1#2')" in shown
    assert "'bad'" in shown


def results(notebook: Any) -> list[str]:
    """Return what each cell of a notebook gave, as text; bars and warnings, on standard error,
    apart.
    """
    widget = "application/vnd.jupyter.widget-view+json"
    return [
        "".join(
            output["text"] if output["output_type"] == "stream" else output["data"]["text/plain"]
            for output in cell.get("outputs", ())
            if output.get("name") != "stderr" and widget not in output.get("data", ())
        )
        for cell in notebook.cells
    ]


@pytest.mark.slow
@pytest.mark.skipif(
    not all(map(find_spec, ("matplotlib", "pandas"))), reason="needs pandas and matplotlib"
)
def test_the_survey_gives_what_is_saved_in_it(tmp_path: Path) -> None:
    """The survey is replayed from its cassette, without key, network or cache, and gives the
    results saved with it.
    """
    for name in ("survey.jsonl", "survey_need.jsonl", "survey_orders.jsonl"):
        shutil.copy(EXAMPLES / name, tmp_path)
    environment = {**os.environ, "LLMCALL_CACHE_PATH": str(tmp_path / "cache")}
    notebook = executed("survey.ipynb", environment, tmp_path)
    saved = pytest.importorskip("nbformat").read(EXAMPLES / "survey.ipynb", as_version=4)
    assert results(notebook) == results(saved)
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    assert sum("image/png" in output.get("data", ()) for output in outputs) == 2
    assert any(
        "/480 [" in output.get("text", output.get("data", {}).get("text/plain", ""))
        for output in outputs
    )
    assert not (tmp_path / "cache").exists()


def test_the_picture_of_a_treatment_is_that_of_its_page() -> None:
    """Drawn anew from the experiment on the page, it is the picture that is there."""
    script = runpy.run_path(str(ROOT / "docs" / "pictures" / "spread.py"))
    shown = (ROOT / "docs" / "pictures" / "spread.svg").read_text(encoding="utf-8")
    assert script["picture"](script["spread"]()) == shown


def test_the_picture_of_power_is_that_of_its_page() -> None:
    """Drawn anew from the study on the page, it is the picture that is there."""
    script = runpy.run_path(str(ROOT / "docs" / "pictures" / "power.py"))
    shown = (ROOT / "docs" / "pictures" / "power.svg").read_text(encoding="utf-8")
    assert script["picture"](script["powers"]()) == shown
    llmcall.reset()


BENCHMARKS = """
import sys
from benchmarks import __main__ as program
from benchmarks.environments import Environments

Environments.python = lambda self, name: sys.executable
program.main()
"""


@pytest.mark.slow
def test_the_smallest_run_prints_its_tables() -> None:
    """Both who was asked for stand in each table, with a ratio; what ran where stands below."""
    chosen = [
        "--small",
        "--rounds",
        "1",
        "-c",
        "hits",
        "-p",
        "llmcall_client",
        "-p",
        "plain_diskcache",
    ]
    command = [sys.executable, "-c", BENCHMARKS, *chosen]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    rows = [line.split() for line in done.stdout.splitlines()]
    assert sum(row[:1] == ["llmcall"] and float(row[-1]) > 0 for row in rows) == 2
    assert sum(row[:2] == ["plain", "diskcache"] and row[-1] == "1.00" for row in rows) == 2
    assert "openai " in done.stdout and "CPython" in done.stdout
