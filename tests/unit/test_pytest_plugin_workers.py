"""The plugin in the workers of pytest-xdist: they record and replay side by side, and their counts are added up."""

from __future__ import annotations

import tempfile
import textwrap

import pytest
from replayed_projects import Project, names_of, summary

pytest_plugins = "pytester"

TWO = ("-p", "xdist", "-n2")
SOURCE = """
    @pytest.fixture(scope="session")
    def world():
        yield ask("world")
        ask("bye")

    @pytest.mark.llm
    @pytest.mark.parametrize("number", range(6))
    def test_own(world, number):
        assert world == "Yes, world"
        ask(str(number))

    @pytest.mark.llm("shared")
    @pytest.mark.parametrize("name", "abcdef")
    def test_shared(name):
        ask(name)
"""


@pytest.fixture
def project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Project:
    """Make a project with a session's fixture, and tests of which some share a cassette."""
    pytest.importorskip("xdist")
    made = Project(pytester, monkeypatch)
    monkeypatch.setenv("TMPDIR", str(made.path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    made.write("test_market.py", textwrap.dedent(SOURCE))
    return made


def test_workers(project: Project) -> None:
    """Two workers record what one process would, though they meet at the same cassettes, and replay it."""
    recording, counted = summary(project.run(*TWO, "--llm-record=once", passed=12))
    assert recording.endswith("--llm-record=once") and counted.endswith(", 14 recorded")
    assert sorted(project.calls()) == sorted([*"abcdef", *"012345", "world", "bye"])
    files = project.cassettes()
    assert len(files) == 8 and sorted(project.questions("cassettes/test_market/shared.jsonl")) == list("abcdef")
    assert project.questions("cassettes/test_market/world.jsonl") == ["world", "bye"]
    assert not [name for name in names_of(project.path) if name.startswith("llmcall-")]
    project.write("test_market.py", textwrap.dedent(SOURCE).replace("    ask(name)", "    name == 'f' or ask(name)"))
    result = project.result(*TWO, "--llm-unused=fail", passed=12)
    assert 'shared.jsonl was not used: gpt-4o-mini "f"' in result.stdout.str()
    assert result.ret == pytest.ExitCode.TESTS_FAILED and project.calls() == []


def test_workers_rewrite(project: Project) -> None:
    """What several tests share is begun anew once in a run, whichever worker comes first."""
    project.run("--llm-record=once", passed=12)
    shared = project.path / "cassettes" / "test_market" / "shared.jsonl"
    before = shared.read_bytes()
    project.calls()
    project.run(*TWO, "--llm-record=rewrite", passed=12)
    assert sorted(project.calls()) == sorted([*"abcdef", *"012345", "world", "bye"])
    assert sorted(shared.read_bytes().splitlines()) == sorted(before.splitlines())
