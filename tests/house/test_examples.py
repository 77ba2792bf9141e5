"""The examples run as they stand, from the answers that ship with them, and the benchmarks at their
smallest.
"""

from __future__ import annotations

import contextlib
import json
import os
import runpy
import shlex
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from commands import LONGEST, ROOT

import llmcall

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


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


class Market:
    """The market day, as one of its commands shows it: its help, and its output on two terminals."""

    def __init__(self, command: list[str], folder: Path) -> None:
        self.command = command
        self.folder = folder
        self.help = self.shown(80, "-h")
        self.narrow = self.shown(60)
        self.wide = self.shown(80)
        self.one_day, self.other_day = self.wide.split("What if Pip is a boy who lost his frog")

    def shown(self, columns: int, *options: str) -> str:
        """Run the command on a terminal of some columns, and return what it prints."""
        environment = {**os.environ, "COLUMNS": str(columns), "PYTHONIOENCODING": "utf-8"}
        return subprocess.run(
            [sys.executable, *self.command, *options],
            env=environment,
            cwd=self.folder,
            capture_output=True,
            encoding="utf-8",
            check=True,
            timeout=LONGEST,
        ).stdout


SCRIPT = shlex.join([sys.executable, "market_day.py"])  # Python as it was called
COMMANDS = {
    SCRIPT: ["market_day.py"],
    "python -m llmcall demo": ["-m", "llmcall", "demo"],
}


@pytest.fixture(
    scope="module",
    params=[
        SCRIPT,
        pytest.param("python -m llmcall demo", marks=pytest.mark.ci),
    ],
    ids=["script", "llmcall demo"],
)
def market_command(request: pytest.FixtureRequest) -> str:
    """The command by which the market is asked for."""
    return str(request.param)


@pytest.fixture(scope="module")
def market(
    market_command: str, only_loopback: None, tmp_path_factory: pytest.TempPathFactory
) -> Market:
    """The market, run without key, network or configuration, beside its recorded days."""
    folder = tmp_path_factory.mktemp("market")
    for path in EXAMPLES.glob("market_day*"):
        shutil.copy(path, folder)
    return Market(COMMANDS[market_command], folder)


@pytest.mark.ci
def test_the_markets_help_has_the_command_that_was_asked(
    market: Market, market_command: str
) -> None:
    """Its examples can be pasted."""
    assert " ".join(market.help.split()).startswith(f"usage: {market_command} [-h]")
    assert f"{market_command} --local " in market.help


def test_the_market_is_always_the_same_and_no_wider_than_the_terminal(
    market: Market, market_command: str
) -> None:
    """It is replayed, and has no colours, as its output is no terminal. The command at its end can be pasted: it stays
    one line, however narrow the terminal, and however long the path of Python.
    """
    assert market.narrow.split() == market.wide.split()
    assert max(map(len, market.narrow.splitlines()[:-1])) <= 60
    assert max(map(len, market.wide.splitlines()[:-1])) <= 80
    assert "\033" not in market.narrow
    assert market.narrow.splitlines()[-1] == f"  {market_command} --help"


def test_the_market_shows_six_rounds_and_what_a_changed_persona_changes(market: Market) -> None:
    """All actors speak in each round, and the lines that differ on the second day are marked."""
    assert market.one_day.count("\nRound ") == 6
    for name in ("Greta", "Otto", "Mira", "Bruno", "Pip"):
        assert market.one_day.count(f"\n  {name} ") == 6, name
    assert market.other_day.count("\n* ") == 11
    assert market.other_day.count("\n* Pip") == 3


def test_the_market_says_what_a_replay_saves_and_what_is_new(market: Market) -> None:
    """It has the number of answers, and what they cost; the two parts of the second day add up to the whole."""
    first = "That day took 47 answers, worth $0.0016 at gpt-6-luna's price."
    assert first in one_line(market.one_day)
    words = one_line(market.other_day)
    assert "The second day took 47 answers: 31 of the first day, and 16 new ones" in words
    assert words.endswith("--help")


def one_line(text: str) -> str:
    """Return a text without its line breaks."""
    return " ".join(text.split())


@pytest.mark.feature("importing")
def test_the_layout_for_langchains_cache_reads_its_rows(tmp_path: Path) -> None:
    """Its table as langchain_community's SQLAlchemyCache makes it; texts as ``dumps`` of langchain_core writes them."""

    def constructor(name: str, **fields: Any) -> dict[str, Any]:
        place = ["langchain", "schema", name]
        return {"lc": 1, "type": "constructor", "id": place, "kwargs": fields}

    asked = [
        constructor("SystemMessage", content="You are Ann.", type="system"),
        constructor("HumanMessage", content="What do you sell?", type="human"),
    ]
    model = constructor("ChatOpenAI", model_name="gpt-4o", temperature=0.5)
    said = constructor("AIMessage", content="Bread.", type="ai")
    answer = constructor("ChatGeneration", text="Bread.", message=said)
    texts = json.dumps(asked), f"{json.dumps(model)}---[('stop', None)]", json.dumps(answer)
    with contextlib.closing(sqlite3.connect(tmp_path / ".langchain.db")) as database:
        database.execute(
            "CREATE TABLE full_llm_cache (prompt VARCHAR NOT NULL, llm VARCHAR NOT NULL,"
            " idx INTEGER NOT NULL, response VARCHAR, PRIMARY KEY (prompt, llm, idx))"
        )
        database.execute("INSERT INTO full_llm_cache VALUES (?, ?, 0, ?)", texts)
        database.commit()
    layout = runpy.run_path(str(EXAMPLES / "published" / "langchain_cache.py"))
    to = tmp_path / "langchain.jsonl"
    llmcall.import_answers(layout["rows"](str(tmp_path / ".langchain.db")), to)
    record = json.loads(to.read_text(encoding="utf-8").splitlines()[1])
    assert record["request"] == {
        "messages": [
            {"content": "You are Ann.", "role": "system"},
            {"content": "What do you sell?", "role": "user"},
        ],
        "model": "gpt-4o",
        "temperature": 0.5,
    }
    assert record["response"]["choices"][0]["message"]["content"] == "Bread."


EXECUTE = """
import sys, nbclient, nbformat
notebook = nbformat.read(sys.argv[1], as_version=4)
nbclient.NotebookClient(notebook, timeout=600, startup_timeout=600, iopub_timeout=600).execute()
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
        command,
        env=environment,
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=LONGEST,
    )
    assert done.returncode == 0, done.stderr
    return nbformat.read(folder / "executed.ipynb", as_version=4)


@pytest.mark.feature("local_model")
@pytest.mark.slow
def test_the_notebook_runs_headless(recorded: dict[str, str], tmp_path: Path) -> None:
    """A scope's draws continue from cell to cell."""
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


@pytest.mark.feature("effects")
@pytest.mark.slow
def test_the_designs_give_what_is_saved_in_them(tmp_path: Path) -> None:
    """Scripted models answer, with known effects."""
    saved = pytest.importorskip("nbformat").read(EXAMPLES / "designs.ipynb", as_version=4)
    assert results(executed("designs.ipynb", {**os.environ}, tmp_path)) == results(saved)


@pytest.mark.feature("closed_questions")
@pytest.mark.feature("local_model")
@pytest.mark.feature("plans")
@pytest.mark.slow
def test_the_survey_gives_what_is_saved_in_it(tmp_path: Path) -> None:
    """Each cell has the result that the repository has, with two pictures and a bar of 480 calls. It makes no cache:
    its cassettes hold all answers.
    """
    for name in ("survey.jsonl", "survey_need.jsonl", "survey_orders.jsonl"):
        shutil.copy(EXAMPLES / name, tmp_path)
    environment = {**os.environ, "LLMCALL_CACHE_PATH": str(tmp_path / "cache")}
    survey = executed("survey.ipynb", environment, tmp_path)
    saved = pytest.importorskip("nbformat").read(EXAMPLES / "survey.ipynb", as_version=4)
    assert results(survey) == results(saved)
    outputs = [output for cell in survey.cells for output in cell.get("outputs", ())]
    assert sum("image/png" in output.get("data", ()) for output in outputs) == 2
    assert any(
        "/480 [" in output.get("text", output.get("data", {}).get("text/plain", ""))
        for output in outputs
    )
    assert not (tmp_path / "cache").exists()


BENCHMARKS = """
import sys
from benchmarks import __main__ as program
from benchmarks.environments import Environments

Environments.python = lambda self, name: sys.executable
Environments.missing = lambda self, names: []
program.main()
"""


@pytest.mark.slow
def test_each_table_of_the_benchmarks_compares_all_that_were_asked_for() -> None:
    """Each contestant, and what only computes, has a ratio, in that of threads for each number of them; the versions
    of Python and of the libraries stand below the tables.
    """
    chosen = ["--small", "--rounds", "1", "-c", "hits", "-c", "threads"]
    chosen += ["-p", "llmcall_client", "-p", "plain_diskcache", "-p", "plain_sqlite"]
    command = [sys.executable, "-c", BENCHMARKS, *chosen]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=LONGEST
    )
    assert done.returncode == 0, done.stderr
    rows = [line.split() for line in done.stdout.splitlines()]
    assert sum(row[:1] == ["llmcall"] and float(row[-1]) > 0 for row in rows) == 2
    assert sum(row[:2] == ["plain", "diskcache"] and row[-1] == "1.00" for row in rows) == 2
    for contestant in ("llmcall", "plain diskcache", "plain sqlite3", "json and SHA-256"):
        rows = [line.split() for line in done.stdout.splitlines() if f" {contestant}, " in line]
        words = len(contestant.split())
        assert [row[words] for row in rows] == ["1", "2", "4", "8", "32"]
        assert all(float(row[-1]) > 0 for row in rows)
    assert "openai " in done.stdout and "CPython" in done.stdout
