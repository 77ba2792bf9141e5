"""The plugin in the workers of pytest-xdist: they record and replay side by side, and their counts are added up."""

from __future__ import annotations

import tempfile
import textwrap
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from replayed_projects import Project, names_of, summary

from llmcall.pytest_plugin.tally import Tally
from llmcall.pytest_plugin.turns import Turns

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


@pytest.mark.parametrize("folder", [None, "meeting"])
def test_turns(tmp_path: Path, folder: str | None) -> None:
    """A run that has begun a cassette is remembered, by every worker that meets the others."""
    here = None if folder is None else str(tmp_path / folder)
    turns = Turns(here)
    first = turns.take(Path("a.jsonl"))
    assert not first.begun
    other = turns.take(Path("b.jsonl"))
    first.begin()
    first.end()
    other.end()
    worker = turns if here is None else Turns(here)
    for name, begun in (("a.jsonl", True), ("./x/../a.jsonl", True), ("b.jsonl", False)):
        turn = worker.take(Path(name))
        assert turn.begun == begun
        turn.end()


judged = st.tuples(
    st.sampled_from(["own", "shared"]), st.none() | st.dictionaries(st.sampled_from("abc"), st.just("x")), st.booleans()
)


@given(st.lists(judged), st.lists(judged))
def test_tallies_add_up(
    one: list[tuple[str, dict[str, str] | None, bool]], other: list[tuple[str, dict[str, str] | None, bool]]
) -> None:
    """Two processes come to the same verdict as one would."""
    tallies = [Tally(), Tally(), Tally()]
    for tally, verdicts in zip(tallies, (one, other, one + other), strict=True):
        for name, unused, complete in verdicts:
            tally.judge(name, unused, shared=name == "shared")
            tally.complete = tally.complete and complete
            tally.replayed += 1
            tally.miss(name, dict.fromkeys(unused or (), 1))
    tallies[0].take(tallies[1].dump())
    assert tallies[0].unused() == tallies[2].unused()
    assert list(tallies[0].lines()) == list(tallies[2].lines())
