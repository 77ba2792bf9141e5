"""The pytest plugin: record once, replay without key and network, write what passed, and let nothing else out."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from replayed_projects import Project, summary

pytest_plugins = "pytester"

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "replay_in_tests"
ONE = "tests/cassettes/test_market/test_one.jsonl"
TEST_ONE = "@pytest.mark.llm\ndef test_one():\n    assert ask('bread') == 'Yes, bread'\n"
BOTH = "@pytest.mark.llm\ndef test_one():\n    ask('bread')\n    ask('milk')\n"
FREE = "def test_free():\n    {}\n"


@pytest.fixture
def project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Project:
    """Make a project with one test of one call."""
    made = Project(pytester, monkeypatch)
    made.write("tests/test_market.py", TEST_ONE)
    return made


def test_record_once_then_replay(project: Project) -> None:
    """The story of it: record once, then replay without any call; the file stays byte for byte."""
    printed = project.run("--llm-record=once", passed=1)
    assert summary(printed) == ["llmcall: recording, --llm-record=once", "llmcall: 0 calls replayed, 1 recorded"]
    assert (project.cassettes(), project.calls()) == ([ONE], ["bread"])
    recorded = (project.path / ONE).read_bytes()
    assert summary(project.run(passed=1)) == ["llmcall: 1 call replayed, 0 recorded"]
    assert summary(project.run("--llm-record=once", passed=1))[1:] == ["llmcall: 1 call replayed, 0 recorded"]
    assert project.calls() == [] and (project.path / ONE).read_bytes() == recorded


def test_without_a_cassette(project: Project) -> None:
    """A test that has no cassette fails, says how to record it, and calls nothing."""
    printed = project.run(failed=1)
    assert "CacheMissError" in printed and "pytest --llm-record=" in printed
    assert project.calls() == [] and project.cassettes() == []


@pytest.mark.parametrize(
    ("mode", "calls", "questions"),
    [
        ("none", [], ["bread"]),
        ("once", [], ["bread"]),
        ("new", ["milk"], ["bread", "milk"]),
        ("new_episodes", ["milk"], ["bread", "milk"]),
        ("rewrite", ["bread", "milk"], ["bread", "milk"]),
        ("all", ["bread", "milk"], ["bread", "milk"]),
    ],
)
def test_modes(project: Project, mode: str, calls: list[str], questions: list[str]) -> None:
    """Each mode asks what it says, by VCR's names too."""
    project.run("--llm-record=once", passed=1)
    project.calls()
    project.write("tests/test_market.py", BOTH)
    project.run(f"--llm-record={mode}", **{"passed" if calls else "failed": 1})
    assert (project.calls(), project.questions(ONE)) == (calls, questions)


def test_the_option_stands_above_the_ini_key(project: Project) -> None:
    """The ini key says what holds without the option, and the option counts where it is given."""
    project.run("-o", "llm_record=all", "--llm-record=none", failed=1)
    assert project.cassettes() == []
    project.run("-o", "llm_record=all", passed=1)
    assert project.cassettes() == [ONE]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["-o", "llm_record=twice"], "llm_record is 'twice'; it must be one of none, once, new, rewrite, all"),
        (["--llm-record=twice"], "invalid choice: 'twice'"),
        (["--llm-unused=never"], "invalid choice: 'never'"),
    ],
)
def test_wrong_options(project: Project, arguments: list[str], complaint: str) -> None:
    """A value that there is not is refused with those that there are."""
    result = project.result(*arguments)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert complaint in result.stderr.str()


@pytest.mark.parametrize(
    ("marker", "complaint"),
    [
        ("llm(1, 2, 3)", "@pytest.mark.llm(1, 2, 3) is none of llm, llm(name), llm(live=True)"),
        ("llm(recrod='once')", "@pytest.mark.llm(recrod='once') is none of"),
        ("llm('a.jsonl', live=True)", "a live test has no cassette"),
    ],
)
def test_wrong_markers(project: Project, marker: str, complaint: str) -> None:
    """A marker that says what none can is refused before any test runs, naming the test."""
    project.write("tests/test_market.py", f"@pytest.mark.{marker}\ndef test_one(): pass\n")
    result = project.result()
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert complaint in result.stderr.str() and "tests/test_market.py::test_one" in result.stderr.str()


def test_how_to_record_is_said(project: Project) -> None:
    """Beside a miss that does not say it itself stands the command that records this test."""
    source = (
        "import llmcall\n@llmcall.recorded\ndef now():\n    return 1\n@pytest.mark.llm\ndef test_one():\n    now()\n"
    )
    project.write("tests/test_market.py", source)
    assert "pytest --llm-record=once tests/test_market.py::test_one" in project.run(failed=1)
    project.run("--llm-record=once", passed=1)
    project.write("tests/test_market.py", source.replace("now()\n", "now()\n    ask('bread')\n"))
    assert "pytest --llm-record=" in project.run(failed=1)


# Only what passed is written


@pytest.mark.parametrize(
    ("source", "outcomes"),
    [
        ("@pytest.mark.llm\ndef test_one():\n    ask('bread')\n    assert 0\n", {"failed": 1}),
        ("@pytest.mark.llm\ndef test_one():\n    ask('bread')\n    pytest.skip()\n", {"skipped": 1}),
        ("@pytest.mark.xfail\n@pytest.mark.llm\ndef test_one():\n    ask('bread')\n    assert 0\n", {"xfailed": 1}),
        (
            "@pytest.fixture\ndef broken():\n    ask('bread')\n    assert 0\n"
            "@pytest.mark.llm\ndef test_one(broken): pass\n",
            {"errors": 1},
        ),
        (
            "@pytest.fixture\ndef broken():\n    yield\n    assert 0\n"
            "@pytest.mark.llm\ndef test_one(broken):\n    ask('bread')\n",
            {"passed": 1, "errors": 1},
        ),
    ],
)
@pytest.mark.parametrize("mode", ["once", "rewrite"])
def test_what_did_not_pass_is_not_written(project: Project, source: str, outcomes: dict[str, int], mode: str) -> None:
    """A test that failed in its setup, call or teardown, or was skipped, leaves no cassette and changes none."""
    project.write("tests/test_market.py", source)
    if mode == "rewrite":
        project.write("tests/test_market.py", TEST_ONE.replace("bread", "milk"))
        project.run("--llm-record=once", passed=1)
        assert project.calls() == ["milk"]
        project.write("tests/test_market.py", source)
    project.run(f"--llm-record={mode}", **outcomes)
    assert project.calls() == ["bread"]
    assert [project.questions(name) for name in project.cassettes()] == ([["milk"]] if mode == "rewrite" else [])


def test_paid_answers_stay_in_the_cache(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """A failed test's answers are not asked for again once the test is mended."""
    monkeypatch.setenv("LLMCALL_CACHE_MODE", "auto")
    project.write("tests/test_market.py", TEST_ONE + "    assert 0\n")
    project.run("--llm-record=once", failed=1)
    project.write("tests/test_market.py", TEST_ONE)
    project.run("--llm-record=once", passed=1)
    assert project.calls() == ["bread"] and project.cassettes() == [ONE]


def test_fixtures_and_teardown_count(project: Project) -> None:
    """What a test's own fixtures ask, before and after it, stands in its cassette."""
    source = (
        "@pytest.fixture\ndef world():\n    yield ask('before')\n    ask('after')\n"
        "@pytest.fixture(autouse=True)\ndef around():\n    ask('around')\n"
        "@pytest.mark.llm\ndef test_one(world):\n    assert world == 'Yes, before'\n    ask('call')\n"
    )
    project.write("tests/test_market.py", source)
    project.run("--llm-record=once", passed=1)
    assert project.calls() == project.questions(ONE) == ["around", "before", "call", "after"]
    project.run(passed=1)
    assert project.calls() == []


def test_what_cannot_be_written_is_an_error(project: Project) -> None:
    """A cassette that would hold a credential is an error of the test that recorded it."""
    secret = "sk-proj-" + "a1B2c3D4e5" * 5
    project.write("tests/test_market.py", f"@pytest.mark.llm\ndef test_one():\n    ask({secret!r})\n")
    printed = project.run("--llm-record=once", passed=1, errors=1)
    assert "looks like an OpenAI API key" in printed and project.cassettes() == []


def test_a_damaged_cassette_is_an_error(project: Project) -> None:
    """A test whose cassette is damaged is an error that names the line, and asks nothing."""
    project.write(ONE, '{"llmcall": 1, "settings": {}}\n<<<<<<< HEAD\n', header="")
    assert "test_one.jsonl:2: the line is a conflict marker" in project.run("--llm-record=new", errors=1)
    assert project.calls() == []


# No other call reaches a model


@pytest.mark.parametrize(
    "statement",
    [
        "ask('bread')",
        "ask('bread', cache_mode='off')",
        "with __import__('llmcall').cassette('own.jsonl'): ask('bread')",
        "with __import__('llmcall').cassette('own.jsonl', mode='rewrite'): ask('bread')",
        "with __import__('llmcall').configured(cassette_path='own.jsonl', cassette_mode='new'): ask('bread')",
        "__import__('market').Model().stream_message('bread', on_error='raise').__next__()",
        "__import__('asyncio').run(__import__('market').Model().asend_message('bread'))",
        "__import__('market').Model().get_embedding('bread')",
    ],
)
def test_an_unmarked_test_reaches_no_model(project: Project, statement: str) -> None:
    """In a project that replays, no test's call gets out, whatever it says itself; the message says what to do."""
    project.write("tests/test_free.py", FREE.format(statement))
    project.run("--llm-record=once", "tests/test_market.py", passed=1)
    project.calls()
    printed = project.run(passed=1, failed=1)
    assert "pytest --llm-record=once tests/test_free.py::test_free" in printed.replace("\nE       ", " ")
    assert project.calls() == [] and project.cassettes() == [ONE]


@pytest.mark.parametrize("selected", ["tests/test_free.py", "tests/test_market.py::test_free"])
def test_the_selection_of_tests_opens_nothing(project: Project, selected: str) -> None:
    """Where only tests run that do not use the marker, those beside them that do are remembered."""
    project.run("--llm-record=once", passed=1)
    project.write("tests/test_free.py", FREE.format("ask('milk')"))
    project.write("tests/test_market.py", TEST_ONE + FREE.format("ask('milk')"))
    project.run(selected, failed=1)
    assert project.calls() == ["bread"]


def test_cassettes_of_code_close_nothing(project: Project) -> None:
    """A project that opens its cassettes in code, beside its tests too, is none that uses the plugin."""
    own = "import llmcall\ndef test_own():\n    with llmcall.cassette('tests/cassettes/market.jsonl'): ask('milk')\n"
    project.write("tests/test_market.py", own + FREE.format("ask('bread')"))
    for _ in range(2):
        project.run(passed=2)
    assert project.calls() == ["milk", "bread", "bread"]


def test_an_unmarked_test_is_told_so_while_recording(project: Project) -> None:
    """Recording refuses the calls that a replay would refuse; a cassette that code opens itself may record."""
    project.write("tests/test_free.py", FREE.format("ask('bread')"))
    project.write("tests/test_own.py", FREE.format("with __import__('llmcall').cassette('own.jsonl'): ask('milk')"))
    project.run("--llm-record=once", passed=2, failed=1)
    assert sorted(project.calls()) == ["bread", "milk"] and project.cassettes() == ["own.jsonl", ONE]
    project.run(passed=2, failed=1)


@pytest.mark.parametrize("where", ["decorator", "module", "class"])
def test_a_live_test_reaches_the_model(project: Project, where: str) -> None:
    """live=True lets a test, a class or a module call, records nothing, and ends with it."""
    live = "pytest.mark.llm(live=True)"
    source = {
        "decorator": f"@{live}\ndef test_live():\n    ask('live')\n",
        "module": f"pytestmark = {live}\ndef test_live():\n    ask('live')\n",
        "class": f"@{live}\nclass TestLive:\n    def test_live(self):\n        ask('live')\n",
    }[where]
    project.write("tests/test_a_live.py", source)
    project.write("tests/test_free.py", FREE.format("ask('free')"))
    project.run(passed=1, failed=2)
    assert project.calls() == ["live"] and project.cassettes() == []


def test_a_live_test_has_no_cassette(project: Project) -> None:
    """The fixture in a live test is an error, not a cassette that holds nothing."""
    project.write("tests/test_market.py", "@pytest.mark.llm(live=True)\ndef test_one(llm_cassette): pass\n")
    assert "a live test has no cassette; take the fixture llm_cassette away" in project.run(errors=1)


def test_scripted_clients_go_on(project: Project) -> None:
    """A client whose answers are written in the test reaches no model, and works without a cassette."""
    statement = "from llmcall.testing import ScriptedClient; assert ScriptedClient(['Hi']).send_message('?')['content']"
    project.write("tests/test_free.py", FREE.format(statement))
    project.run("--llm-record=once", passed=2)
    project.run(passed=2)


def test_recorded_functions_go_on(project: Project) -> None:
    """A recorded function of one's own runs in a test without a cassette: it is no model."""
    project.write(
        "tests/test_free.py",
        "import llmcall\n@llmcall.recorded\ndef now():\n    return 1\ndef test_free():\n    assert now() == 1\n",
    )
    project.run("--llm-record=once", passed=2)
    project.run(passed=2)


def test_other_projects_notice_nothing(project: Project) -> None:
    """Where neither marker, fixture nor ini key is used, calls go as they always did, and nothing is said."""
    project.write("tests/test_market.py", FREE.format("ask('bread')"))
    printed = project.run(passed=1)
    assert project.calls() == ["bread"] and "llmcall" not in printed
    printed = project.run("-o", "llm_record=none", failed=1)
    assert project.calls() == [] and "this test has no cassette" in printed


def test_all_is_as_it_was_after_the_run(project: Project) -> None:
    """When pytest is done, in one process with other code, calls are free again."""
    project.run("--llm-record=once", passed=1)
    project.pytester.syspathinsert()
    from market import ask  # type: ignore[import-not-found]

    assert ask("after") == "Yes, after"


@pytest.mark.parametrize(
    "source", ["def test_one(): pass\n", "import pytest\n\n@pytest.mark.llm\ndef test_one(): pass\n"]
)
def test_the_import_costs_nothing(project: Project, source: str) -> None:
    """Collecting tests, in a project that does not use it or does, imports its own small modules and nothing heavy."""
    project.write("tests/test_market.py", source, header="")
    look = "import sys, pytest; pytest.main(['-q', '--co', *sys.argv[1:]]); print('\\n' + repr(sorted(sys.modules)))"
    arguments = [sys.executable, "-c", look, "tests", "-p"]
    loaded = [
        set(json.loads(subprocess.check_output([*arguments, plugin], text=True).splitlines()[-1].replace("'", '"')))
        for plugin in ("no:llmcall", "llmcall.pytest_plugin")
    ]
    assert loaded[1] - loaded[0] - {"test_market"} == {
        "llmcall",
        "llmcall._version",
        "llmcall.pytest_plugin",
        "llmcall.pytest_plugin.plugin",
    }


# The fixture


def test_the_fixture(project: Project) -> None:
    """The fixture gives a test its cassette with what it holds and did; no marker is needed."""
    source = (
        "def test_one(llm_cassette):\n    ask('bread')\n    ask('bread')\n"
        "    it = llm_cassette\n    print('seen', it.path.name, it.records, it.replayed, it.recorded)\n"
    )
    project.write("tests/test_market.py", source)
    assert "seen test_one.jsonl 1 1 1" in project.run("--llm-record=once", "-s", passed=1)
    assert "seen test_one.jsonl 1 2 0" in project.run("-s", passed=1)


def test_the_fixture_asked_for_late(project: Project) -> None:
    """The fixture may be asked for by name, in the middle of a test."""
    source = "def test_one(request):\n    request.getfixturevalue('llm_cassette')\n    ask('bread')\n"
    project.write("tests/test_market.py", source)
    project.run("--llm-record=once", passed=1)
    project.run("-o", "llm_record=none", passed=1)
    assert project.calls() == ["bread"] and project.cassettes() == [ONE]


@pytest.mark.parametrize("order", [("test_a", "test_b"), ("test_b",), ("test_b", "test_a")])
def test_draws_do_not_depend_on_other_tests(
    project: Project, monkeypatch: pytest.MonkeyPatch, order: tuple[str, ...]
) -> None:
    """The draws of a whole process's scope begin at 0 in each test, whichever tests run before."""
    monkeypatch.setenv("LLMCALL_SCOPE", "trial")
    tests = [f"@pytest.mark.llm\ndef {name}():\n    ask('bread')\n    ask('bread')\n" for name in ("test_a", "test_b")]
    project.write("tests/test_market.py", "".join(tests))
    project.run("--llm-record=once", passed=2)
    project.run(*(f"tests/test_market.py::{name}" for name in order), passed=len(order))
    assert len(project.calls()) == 4


def test_a_rerun_begins_anew(project: Project) -> None:
    """A test that is run again after a failure is recorded from its last run alone."""
    pytest.importorskip("pytest_rerunfailures")
    source = (
        "tries = []\n@pytest.mark.llm\ndef test_one(llm_cassette):\n    tries.append(1)\n"
        "    ask(f'try {len(tries)}')\n    assert llm_cassette.recorded == 1 and len(tries) == 3\n"
    )
    project.write("tests/test_market.py", source)
    project.run("-p", "pytest_rerunfailures", "--reruns=3", "--llm-record=once", passed=1, rerun=2)
    assert project.questions(ONE) == ["try 3"]


def test_a_folder_for_all_cassettes(project: Project) -> None:
    """llm_cassette_dir puts the cassettes of all modules into one folder, each under its module's path."""
    project.write("tests/deep/test_market.py", TEST_ONE)
    project.path.joinpath("tests/deep/__init__.py").touch()
    project.path.joinpath("tests/__init__.py").touch()
    project.run("--llm-record=once", "-o", "llm_cassette_dir=recorded", passed=2)
    assert project.cassettes() == [
        "recorded/tests/deep/test_market/test_one.jsonl",
        "recorded/tests/test_market/test_one.jsonl",
    ]
    project.run("-o", "llm_cassette_dir=recorded", passed=2)
    assert Path.cwd() == project.path


def test_the_example(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """The example's tests pass from its cassettes alone, without a key, a model or a socket."""
    shutil.rmtree(project.path / "tests")
    shutil.copytree(EXAMPLE, project.path, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__", ".llmcall"))
    monkeypatch.delattr(socket, "socket")
    printed = project.run("--llm-unused=fail", passed=4)
    assert summary(printed) == ["llmcall: 7 calls replayed, 0 recorded"]
    changed = (project.path / "cinema.py").read_text(encoding="utf-8").replace("short greeting", "long greeting")
    (project.path / "cinema.py").write_text(changed, encoding="utf-8")
    printed = project.run(passed=3, failed=1)
    assert "CacheMissError" in printed and "--llm-record=new" in printed


def test_marks_that_a_conftest_adds(project: Project) -> None:
    """A conftest that marks tests in pytest_collection_modifyitems gives them cassettes."""
    project.write(
        "conftest.py",
        "def pytest_collection_modifyitems(items):\n    for item in items:\n        item.add_marker(pytest.mark.llm)\n",
        header="import pytest\n",
    )
    project.write("tests/test_market.py", "def test_one():\n    ask('bread')\n")
    project.run("--llm-record=once", passed=1)
    assert project.calls() == ["bread"]
    project.run(passed=1)
    assert project.calls() == [] and project.cassettes() == ["tests/cassettes/test_market/test_one.jsonl"]
