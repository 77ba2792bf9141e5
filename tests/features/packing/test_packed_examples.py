"""Every program among the examples packs, and its package verifies."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from commands import LONGEST, NEEDS_OTHER_PYTHON, OTHER_PYTHON, ROOT, done
from pytest_httpserver import HTTPServer
from servers import completion
from werkzeug import Request, Response

import llmcall

EXAMPLES = ROOT / "examples"
# No studies: what makes the examples' files, a layout, tests with the module that they call, a child process.
MAKERS = {"record.py", "published/make.py", "published/langchain_cache.py"}
TESTS = {"pytest_plugin/cinema.py", "pytest_plugin/test_cinema.py", "solar/test_solar.py"}
OTHERS = {*MAKERS, *TESTS, "three_processes/citizen.py"}
STUDIES = sorted(
    path
    for path in (script.relative_to(EXAMPLES).as_posix() for script in EXAMPLES.glob("**/*.py"))
    if path not in OTHERS
)
# The cassettes of a study, if they are not the one with its name.
CASSETTES = {
    "solar/solar.py": ["village.jsonl"],
    "market_day.py": ["market_day.jsonl", "market_day_changed.jsonl"],
    "unchanged_program/simulation.py": ["votes.jsonl"],
}
# These open no cassette. "llmcall run" records them.
RECORDED_FROM_OUTSIDE = {"first_call.py", "typed_answers.py"}


def serve_recorded_answers(server: HTTPServer) -> str:
    """Answer with what the examples' model answered to the same messages, and return the address."""
    cache = llmcall.ResponseCache("shipped-answers")
    cache.load(EXAMPLES / "answers.jsonl")
    answers: dict[str, list[Any]] = {}
    for record in sorted(cache.records(), key=lambda record: record.sample or ""):
        if "messages" in record.request:
            asked = json.dumps(record.request["messages"])
            answers.setdefault(asked, []).append(record.response)

    def respond(request: Request) -> Response:
        recorded = answers[json.dumps(request.get_json()["messages"])]
        response = recorded.pop(0) if len(recorded) > 1 else recorded[0]
        answer = completion(response["choices"][0]["message"]["content"])
        return Response(json.dumps(answer), content_type="application/json")

    server.expect_request("/v1/chat/completions").respond_with_handler(respond)
    return server.url_for("/v1")


def record_from_outside(study: str, cassette: str) -> None:
    """Record a study in the working directory with ``llmcall run``."""
    with HTTPServer() as server:
        address = serve_recorded_answers(server)
        subprocess.run(
            [sys.executable, "-m", "llmcall", "run", "--cassette", cassette, study],
            env={**os.environ, "OPENAI_BASE_URL": address, "OPENAI_API_KEY": "none"},
            check=True,
            capture_output=True,
            timeout=LONGEST,
        )


def cassettes_of(study: str) -> list[str]:
    """Return the paths of a study's cassettes in its folder."""
    return CASSETTES.get(study, [f"{Path(study).stem}.jsonl"])


def packing(study: str, package: Path) -> list[str]:
    """Return the arguments that pack a study."""
    options = [word for path in cassettes_of(study) for word in ("--cassette", path)]
    return ["pack", str(package), *options, "--", Path(study).name]


@pytest.mark.slow
@pytest.mark.parametrize("study", STUDIES)
def test_an_example_packs_and_verifies(
    study: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(EXAMPLES, tmp_path / "examples")
    monkeypatch.chdir(tmp_path / "examples" / Path(study).parent)
    if study in RECORDED_FROM_OUTSIDE:
        record_from_outside(Path(study).name, cassettes_of(study)[0])
    package = tmp_path / "package"
    done(*packing(study, package))
    found = llmcall.verify(package)
    assert found.ok, str(found)
    assert [check.name for check in found.checks if check.status != "ok"] == ["shuffled answers"]


@pytest.mark.slow
@NEEDS_OTHER_PYTHON
@pytest.mark.parametrize(
    ("packs", "verifies"),
    [(OTHER_PYTHON, sys.executable), (sys.executable, OTHER_PYTHON)],
    ids=["from another Python", "for another Python"],
)
@pytest.mark.parametrize("study", ["market_day.py", "unchanged_program/simulation.py"])
def test_a_package_verifies_on_another_python(
    packs: str, verifies: str, study: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A package of one Python is verified by another, with other versions, which are reported and
    fail nothing.
    """
    monkeypatch.chdir((EXAMPLES / study).parent)
    package = tmp_path / "package"
    subprocess.run([packs, "-m", "llmcall", *packing(study, package)], check=True, timeout=LONGEST)
    printed = subprocess.run(
        [verifies, "-m", "llmcall", "verify", package, "--json"],
        stdout=subprocess.PIPE,
        check=True,
        timeout=LONGEST,
    ).stdout
    found = json.loads(printed)
    others = [check for check in found["checks"] if check["name"] != "shuffled answers"]
    notes = [check for check in others if check["status"] != "ok"]
    assert found["ok"]
    assert [check["name"] for check in notes] == ["versions"]
    details = " ".join(notes[0]["details"])
    assert "Python 3." in details
    assert "packed with 3." in details
