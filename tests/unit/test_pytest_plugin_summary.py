"""What the plugin says at the end of a run: what was replayed and recorded, and which records no test used."""

from __future__ import annotations

import pytest
from replayed_projects import Project, summary

pytest_plugins = "pytester"

THREE = "@pytest.mark.llm\ndef test_one():\n    for item in ('bread', 'milk', 'fish'):\n        ask(item)\n"
ONE = "@pytest.mark.llm\ndef test_one():\n    ask('bread')\n"
SHARED = "".join(f"@pytest.mark.llm('shared')\ndef test_{name}():\n    ask('{name}')\n" for name in "abc")
HINT = "llmcall: --llm-record=rewrite records these tests anew, without what they do not use"


@pytest.fixture
def project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Project:
    """Make a project whose one test made three calls when it was recorded."""
    made = Project(pytester, monkeypatch)
    made.write("test_market.py", THREE)
    made.run("--llm-record=once", passed=1)
    made.calls()
    return made


def test_unused_records(project: Project) -> None:
    """Records that a passed test did not use are listed; they let the run fail where that is wanted."""
    project.write("test_market.py", ONE)
    names = 'gpt-4o-mini "milk", gpt-4o-mini "fish"'
    unused = f"llmcall: 2 records of cassettes/test_market/test_one.jsonl were not used: {names}"
    result = project.result(passed=1)
    assert result.ret == 0
    assert summary(result.stdout.str()) == ["llmcall: 1 call replayed, 0 recorded", unused, HINT]
    assert project.result("--llm-unused=warn", passed=1).ret == 0
    result = project.result("--llm-unused=fail", passed=1)
    assert result.ret == pytest.ExitCode.TESTS_FAILED and unused in result.stdout.str()


CUT = """
import llmcall
from llmcall.testing import ScriptedClient

def answered(messages):
    if messages[-1]["content"] == "refused":
        raise llmcall.InvalidRequestError("no")
    return "so it goes"

def test_cut(llm_cassette):
    client = ScriptedClient(answered)
    client.send_message("whole")
    for number in range(CALLS):
        with client.stream_message(f"{number}") as stream:
            next(stream)
    client.send_message("refused")
    assert PASSES
"""


@pytest.mark.parametrize(
    ("calls", "said"),
    [
        (1, "1 call of {} ended before the whole answer had come and is not recorded: a replay misses it"),
        (2, "2 calls of {} ended before the whole answer had come and are not recorded: a replay misses them"),
    ],
)
def test_calls_that_left_no_record(project: Project, calls: int, said: str) -> None:
    """A test that passes while it records says which of its calls its replay will miss, and why."""
    place = "cassettes/test_cut/test_cut.jsonl"
    failed = f"llmcall: 1 call of {place} failed for good and is not recorded: a replay misses it"
    source = CUT.replace("CALLS", str(calls))
    project.write("test_cut.py", source.replace("PASSES", "True"), header="")
    project.run("test_cut.py", failed=1)
    printed = project.run("--llm-record=once", "test_cut.py", passed=1)
    assert summary(printed)[1:] == [
        "llmcall: 0 calls replayed, 1 recorded", failed, f"llmcall: {said.format(place)}",
    ]  # fmt: skip
    project.write("test_cut.py", source.replace("PASSES", "False"), header="")
    assert "not recorded" not in project.run("--llm-record=rewrite", "test_cut.py", failed=1)


def test_rewriting_drops_unused_records(project: Project) -> None:
    """What the summary recommends mends it."""
    project.write("test_market.py", ONE)
    project.run("--llm-record=rewrite", passed=1)
    assert project.result("--llm-unused=fail", passed=1).ret == 0
    assert project.questions("cassettes/test_market/test_one.jsonl") == ["bread"]


def test_many_unused_records(project: Project) -> None:
    """Of many records only the first are named."""
    project.write("test_market.py", "@pytest.mark.llm\ndef test_one():\n    for number in range(9): ask(str(number))\n")
    project.run("--llm-record=rewrite", passed=1)
    project.write("test_market.py", "@pytest.mark.llm\ndef test_one(): pass\n")
    assert summary(project.run(passed=1))[0].endswith('gpt-4o-mini "0", gpt-4o-mini "1", gpt-4o-mini "2", and 6 more')


@pytest.mark.parametrize(
    ("source", "outcomes"),
    [
        ("@pytest.mark.llm\ndef test_one():\n    ask('bread')\n    assert 0\n", {"failed": 1}),
        ("@pytest.mark.llm\ndef test_one():\n    ask('bread')\n    pytest.skip()\n", {"skipped": 1}),
        ("@pytest.mark.skip\n@pytest.mark.llm\ndef test_one():\n    ask('bread')\n", {"skipped": 1}),
        ("@pytest.mark.xfail\n@pytest.mark.llm\ndef test_one():\n    ask('bread')\n    assert 0\n", {"xfailed": 1}),
    ],
)
def test_an_incomplete_test_is_not_judged(project: Project, source: str, outcomes: dict[str, int]) -> None:
    """What a test would have used, had it come to its end, nobody knows."""
    project.write("test_market.py", source)
    assert "not used" not in project.run("--llm-unused=fail", **outcomes)


@pytest.mark.parametrize(
    ("arguments", "judged"),
    [
        ([], True),
        (["."], True),
        (["test_market.py"], False),
        (["test_market.py::test_a"], False),
        (["-k", "test_a"], False),
        (["--deselect", "test_market.py::test_b"], False),
        (["-x"], False),
    ],
)
def test_a_shared_cassette_is_judged_after_all_its_tests(project: Project, arguments: list[str], judged: bool) -> None:
    """A cassette that several tests share is judged where all tests ran and passed, and only then."""
    project.write("test_market.py", SHARED)
    project.run("--llm-record=once", passed=3)
    assert "not used" not in project.run("--llm-unused=fail", passed=3)
    project.write("test_market.py", SHARED.replace("ask('c')", "pass"))
    if arguments == ["-x"]:
        project.write("test_a_first.py", "def test_first():\n    assert 0\n")
    printed = project.run("--llm-unused=fail", *arguments)
    assert ('1 record of cassettes/test_market/shared.jsonl was not used: gpt-4o-mini "c"' in printed) == judged


def test_wider_fixtures_are_judged(project: Project) -> None:
    """What neither setup nor teardown of a wider fixture used is listed, however many tests ran."""
    source = "@pytest.fixture(scope='module')\ndef world():\n    {}\n    yield\n    ask('bye')\n"
    test = "@pytest.mark.llm\ndef test_w(world): pass\n"
    project.write("test_world.py", source.format("ask('hello')") + test)
    project.run("--llm-record=once", passed=2)
    assert "not used" not in project.run("test_world.py", passed=1)
    project.write("test_world.py", source.format("pass") + test)
    assert 'world.jsonl was not used: gpt-4o-mini "hello"' in project.run("test_world.py", passed=1)


def test_a_failing_run_keeps_its_exit_code(project: Project) -> None:
    """Unused records change the exit code of a run that passed, and of no other."""
    project.write("test_market.py", ONE)
    assert project.result("--llm-unused=fail", "-k", "nothing").ret == pytest.ExitCode.NO_TESTS_COLLECTED


def test_a_rerun_is_judged_by_its_last_run(project: Project) -> None:
    """A run of a test that failed at first does not stand against the one that passed."""
    pytest.importorskip("pytest_rerunfailures")
    source = ONE + "    tries.append(1)\n    assert len(tries) == 2\n"
    project.write("test_market.py", "tries = []\n" + source)
    printed = project.run("-p", "pytest_rerunfailures", "--reruns=1", passed=1, rerun=1)
    assert "2 records of cassettes/test_market/test_one.jsonl were not used" in printed
