"""The pytest plugin: tests record a cassette once, replay it without key and network, and let no
other call out.
"""

from __future__ import annotations

import json
import os
import pkgutil
import re
import subprocess
import sys
import tempfile
import textwrap
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path

import pytest
from commands import LONGEST

import llmcall

pytest_plugins = "pytester"

# pytester forgets what was first imported while it ran; what has a state, or is large, is imported
# before.
NAMES = [
    name
    for _, name, _ in pkgutil.walk_packages(llmcall.__path__, "llmcall.")
    if name != "llmcall.__main__"
]
LOADED = [
    import_module(name) for name in ("jinja2", "pydantic.fields", "pydantic.type_adapter", *NAMES)
]
# A client of one's own, as the plugin sees a client that reaches a model over the network; it notes
# each call.
MARKET = """
import llmcall

class Model(llmcall.LLMClient):
    api_type = "model"

    def send(self, request, timeout):
        text = (request.messages or request.body["input"])[-1]["content"]
        with open("calls.txt", "a") as calls:
            calls.write(text + "\\n")
        if text == "refused":
            raise llmcall.InvalidRequestError("no")
        message = {"role": "assistant", "content": f"Yes, {text}"}
        return {"model": "m", "choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}

def ask(text, **settings):
    return Model(**settings).send_message(text, on_error="raise").content
"""
ONE = "cassettes/test_market/test_one.jsonl"
TEST_ONE = "@pytest.mark.llm\ndef test_one():\n    assert ask('bread') == 'Yes, bread'\n"
FREE = "def test_free():\n    ask('free')\n"
THREE = "@pytest.mark.llm\ndef test_one():\n    for item in ('bread', 'milk', 'fish'): ask(item)\n"
SHARED = "".join(
    f"@pytest.mark.llm('shared')\ndef test_{name}():\n    ask('{name}')\n" for name in "abc"
)


class Project:
    """A project in the working directory, with ``market.ask`` to test."""

    def __init__(self, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
        self.pytester, self.path = pytester, pytester.path
        monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
        monkeypatch.setenv("LLMCALL_CACHE_MODE", "off")
        monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)  # of these tests' own run
        pytester.makefile(".ini", pytest="[pytest]\naddopts = --strict-markers\npythonpath = .\n")
        pytester.makepyfile(market=MARKET)
        self.write(TEST_ONE)

    def write(self, source: str, name: str = "test_market.py") -> None:
        """Write a test module with the usual imports."""
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        head = "import unittest, llmcall, pytest\nfrom market import Model, ask\n"
        path.write_text(
            (head if name.endswith(".py") else "") + textwrap.dedent(source), encoding="utf-8"
        )

    def result(self, *arguments: str, **outcomes: int) -> pytest.RunResult:
        """Run the tests, and check how many passed, failed … if that is given."""
        plugins = ("-p", "llmcall.features.pytest_plugin.plugin", "-p", "no:cacheprovider")
        found = self.pytester.runpytest_inprocess(*plugins, *arguments)
        if outcomes:
            counts = {
                name: count
                for name, count in found.parseoutcomes().items()
                if "warning" not in name
            }
            assert counts == outcomes, found.stdout.str()
        return found

    def run(self, *arguments: str, **outcomes: int) -> str:
        """Run the tests likewise, and return what was printed."""
        return self.result(*arguments, **outcomes).stdout.str()

    def record(self, source: str | None = None, **outcomes: int) -> None:
        """Record the cassettes of all tests, of a module's new source if it is given, and forget
        the calls.
        """
        if source is not None:
            self.write(source)
        self.run("--llm-record=once", **(outcomes or {"passed": 1}))
        self.calls()

    def calls(self) -> list[str]:
        """Return what the model was asked since the last time."""
        file = self.path / "calls.txt"
        texts = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
        file.unlink(missing_ok=True)
        return texts

    def cassettes(self) -> dict[str, list[str]]:
        """Return the questions that each cassette holds, in the order of the file."""
        found = {}
        for path in sorted(self.path.rglob("*.jsonl")):
            _, *lines = map(json.loads, path.read_text(encoding="utf-8").splitlines())
            name = path.relative_to(self.path).as_posix()
            found[name] = [
                line["request"]["messages"][-1]["content"]
                for line in lines
                if line["kind"] == "chat"
            ]
        return found


def summary(printed: str) -> list[str]:
    """Return the plugin's lines of the summary."""
    return [line for line in printed.splitlines() if line.startswith("llmcall: ")]


@pytest.fixture
def project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A project with one test of one call."""
    return Project(pytester, monkeypatch)


def test_pytest_finds_the_plugin() -> None:
    """Installing llmcall adds it."""
    [point] = entry_points(group="pytest11", name="llmcall")
    assert point.load() is llmcall.features.pytest_plugin.plugin


# Recording and replaying


def test_without_a_cassette_a_test_fails_and_says_how_to_record(project: Project) -> None:
    """Nothing is asked, and nothing is written. The miss has the project's frames, and none of llmcall's."""
    printed = project.run(failed=1)
    assert "CacheMissError" in printed
    assert "market.py" in printed and "prepare_chat" not in printed
    assert "pytest --llm-record=" in printed
    assert (project.calls(), project.cassettes()) == ([], {})


SDK = """
    import httpx, openai, pytest

    def answer(request):
        message = {"role": "assistant", "content": "Yes."}
        choices = [{"index": 0, "message": message, "finish_reason": "stop"}]
        return httpx.Response(200, json={"object": "chat.completion", "choices": choices})

    http = httpx.Client(transport=httpx.MockTransport(answer))
    client = openai.OpenAI(api_key="none", http_client=http)

    @pytest.mark.llm
    def test_one():
        asked = [{"role": "user", "content": "Is bread good for a horse?"}]
        client.chat.completions.create(model="gpt-6-luna", messages=asked)
"""


def test_the_summary_says_which_words_of_a_prompt_changed(project: Project) -> None:
    """Of a program on an SDK, too, which raises an error of its own with the status 409."""
    project.record(SDK, passed=1)
    project.write(SDK.replace("horse", "cow"))
    printed = project.run(failed=1)
    assert "FAILED test_market.py::test_one - CacheMissError: [-horse-] {+cow+}" in printed
    assert "_base_client.py" not in printed
    assert printed.count("pytest --llm-record=update") == 1


def test_a_cassette_is_recorded_once_and_replayed_without_a_call(project: Project) -> None:
    """The summary says that the run records, and how many calls. Recording once again asks nothing more either, and the
    cassette stays as it is.
    """
    recording = "llmcall: recording, --llm-record=once"
    printed = summary(project.run("--llm-record=once", passed=1))
    assert printed == [recording, "llmcall: 0 calls replayed, 1 recorded"]
    assert (project.cassettes(), project.calls()) == ({ONE: ["bread"]}, ["bread"])
    recorded = (project.path / ONE).read_bytes()
    for option in ([], ["--llm-record=once"]):
        printed = summary(project.run(*option, passed=1))
        assert printed[-1] == "llmcall: 1 call replayed, 0 recorded"
    assert project.calls() == []
    assert (project.path / ONE).read_bytes() == recorded


@pytest.mark.parametrize(
    ("mode", "calls"),
    [
        ("none", []),
        ("once", []),
        ("new_episodes", ["milk", "fish"]),
        ("all", ["bread", "milk", "fish"]),
    ],
)
def test_the_ini_key_sets_the_mode_by_vcrs_names_too(
    project: Project, mode: str, calls: list[str]
) -> None:
    """Of three questions the cassette has the first; each mode asks what it says. The option stands
    above the key.
    """
    project.record()
    project.write(THREE)
    project.run("-o", f"llm_record={mode}", "--llm-record=none", failed=1)
    project.run("-o", f"llm_record={mode}", **{"passed" if calls else "failed": 1})
    assert project.calls() == calls
    assert project.cassettes()[ONE] == (["bread", "milk", "fish"] if calls else ["bread"])


@pytest.mark.parametrize(
    ("marker", "argument", "complaint"),
    [
        (
            "llm",
            "-ollm_record=twice",
            "llm_record is 'twice'; it must be one of none, once, new, update, rewrite, all",
        ),
        ("llm", "--llm-record=twice", "invalid choice: 'twice'"),
        (
            "llm(1, 2, 3)",
            "-v",
            "test_one: @pytest.mark.llm(1, 2, 3) must be llm, llm(name), llm(actor=…) or llm(live=True)",
        ),
    ],
)
def test_a_wrong_value_or_marker_is_refused_before_any_test_runs(
    project: Project, marker: str, argument: str, complaint: str
) -> None:
    """The message has the values and markers that there are."""
    project.write(f"@pytest.mark.{marker}\ndef test_one(): pass\n")
    result = project.result(argument)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert complaint in result.stderr.str()


FAILING: list[tuple[str, dict[str, int]]] = [
    ("@pytest.mark.llm\ndef test_one():\n    ask('bread')\n    assert 0\n", {"failed": 1}),
    (
        "@pytest.fixture\ndef broken():\n    ask('bread')\n    assert 0\n"
        "@pytest.mark.llm\ndef test_one(broken): pass\n",
        {"errors": 1},
    ),
    (TEST_ONE + "    pytest.skip('dear')\n", {"skipped": 1}),
]


@pytest.mark.parametrize(("source", "outcomes"), FAILING, ids=["call", "setup", "skip"])
def test_a_test_that_did_not_pass_changes_no_cassette(
    project: Project, source: str, outcomes: dict[str, int]
) -> None:
    """It writes none either. Rewriting leaves it as it is, and no record is reported as unused."""
    project.write(source)
    printed = project.run("--llm-record=once", **outcomes)
    assert f"1 new answer of {ONE} not written, since its test did not pass" in printed
    assert (project.calls(), project.cassettes()) == (["bread"], {})
    project.record(TEST_ONE.replace("bread", "milk"))
    project.write(source)
    assert "not used" not in project.run("--llm-record=rewrite", **outcomes)
    assert (project.calls(), project.cassettes()) == (["bread"], {ONE: ["milk"]})


def test_paid_answers_stay_in_the_cache(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """A failed test's answers are not asked for again once the test is mended."""
    monkeypatch.setenv("LLMCALL_CACHE_MODE", "auto")
    project.write(TEST_ONE + "    assert 0\n")
    project.run("--llm-record=once", failed=1)
    project.write(TEST_ONE)
    project.run("--llm-record=once", passed=1)
    assert (project.calls(), project.cassettes()) == (["bread"], {ONE: ["bread"]})


# No other call reaches a model


CALLS = [
    "ask('bread')",
    "ask('bread', cache_mode='off')",
    "with llmcall.cassette('own.jsonl', mode='rewrite'): ask('bread')",
    "with llmcall.configured(cassette_path='own.jsonl', cassette_mode='new'): ask('bread')",
    "import asyncio; asyncio.run(Model().asend_message('bread'))",
    "Model().get_embedding('bread')",
    "import openai; openai.OpenAI(api_key='x', base_url='http://127.0.0.1:9/v1', http_client=llmcall.http_client())"
    ".responses.create(model='m', input='bread')",
]


def test_an_unmarked_test_reaches_no_model(project: Project) -> None:
    """In a project that replays, no test's call gets out, whatever it says itself; the message says
    what to do.
    """
    project.write(
        "".join(f"def test_{number}():\n    {call}\n" for number, call in enumerate(CALLS)),
        "test_free.py",
    )
    project.run("--llm-record=once", "test_market.py", passed=1)
    project.calls()
    printed = re.sub(r"\s*\nE\s+", " ", project.run(passed=1, failed=len(CALLS)))
    for number in range(len(CALLS)):
        assert f"pytest --llm-record=once test_free.py::test_{number}" in printed
    assert (project.calls(), project.cassettes()) == ([], {ONE: ["bread"]})


def test_a_selection_of_unmarked_tests_reaches_no_model(project: Project) -> None:
    """Marked tests beside the selected ones are remembered."""
    project.record()
    project.write(FREE, "test_free.py")
    project.write(TEST_ONE + FREE)
    for selected in ("test_free.py", "test_market.py::test_free"):
        project.run(selected, failed=1)
    assert project.calls() == []


LIVE = "pytest.mark.llm(live=True)"


def test_live_tests_reach_the_model_and_record_nothing(project: Project) -> None:
    """``live=True`` lets a test, a class or a module call; tests beside them stay refused."""
    project.write(f"pytestmark = {LIVE}\ndef test_live():\n    ask('module')\n", "test_a_live.py")
    project.write(
        f"@{LIVE}\ndef test_live():\n    ask('test')\n@{LIVE}\nclass TestLive:\n"
        "    def test_live(self):\n        ask('class')\n" + FREE,
        "test_b_live.py",
    )
    project.run(passed=3, failed=2)
    assert (project.calls(), project.cassettes()) == (["module", "test", "class"], {})


def test_scripted_clients_and_recorded_functions_need_no_cassette(project: Project) -> None:
    """They work in a test without one, recording and replaying."""
    project.write(
        "from llmcall.testing import ScriptedClient\n@llmcall.recorded\ndef now():\n    return 1\n"
        "def test_free():\n    assert now() == 1 and ScriptedClient(['Hi']).send_message('?').content == 'Hi'\n",
        "test_free.py",
    )
    project.run("--llm-record=once", passed=2)
    project.run(passed=2)


def test_projects_that_do_not_use_the_plugin_notice_nothing(project: Project) -> None:
    """Without marker, fixture or ini key, calls go as they always did, also beside cassettes that
    code opens.
    """
    project.write(
        "def test_own():\n    with llmcall.cassette('cassettes/market.jsonl'): ask('milk')\n" + FREE
    )
    for _ in range(2):
        assert "llmcall" not in project.run(passed=2)
    assert project.calls() == ["milk", "free", "free"]


def test_collecting_imports_only_small_modules(project: Project) -> None:
    """In a project that uses the plugin, nothing heavy is imported."""
    (project.path / "test_market.py").write_text(
        "import pytest\n\n@pytest.mark.llm\ndef test_one(): pass\n"
    )
    look = (
        "import json, sys, pytest; pytest.main(['-q', '--co'])\nprint(json.dumps([*sys.modules]))"
    )
    command = [sys.executable, "-c", look]
    environment = {**os.environ, "PYTEST_ADDOPTS": "-p llmcall.features.pytest_plugin.plugin"}
    printed = subprocess.check_output(command, env=environment, timeout=LONGEST)
    loaded = set(json.loads(printed.splitlines()[-1]))
    assert {name for name in loaded if name.partition(".")[0] == "llmcall"} == {
        "llmcall",
        "llmcall._version",
        "llmcall.additions",
        "llmcall.config",
        "llmcall.config.cassette_modes",
        "llmcall.features",
        "llmcall.stores",
        "llmcall.support",
        "llmcall.support.lazy_names",
        "llmcall.features.pytest_plugin",
        "llmcall.features.pytest_plugin.plugin",
    }
    assert loaded.isdisjoint({"openai", "httpx", "pydantic", "jinja2", "tqdm", "diskcache"})


# Fixtures


def test_the_fixture_gives_a_test_its_cassette(project: Project) -> None:
    """The fixture works without the marker, also if it is asked for late, and counts its records."""
    project.write(
        "def test_one(request):\n    it = request.getfixturevalue('llm_cassette')\n    ask('bread')\n    ask('bread')\n"
        "    print('seen', it.path.name, it.records, it.replayed, it.recorded)\n"
    )
    assert "seen test_one.jsonl 1 1 1" in project.run("--llm-record=once", "-s", passed=1)
    assert "seen test_one.jsonl 1 2 0" in project.run("-o", "llm_record=none", "-s", passed=1)
    assert (project.calls(), project.cassettes()) == (["bread"], {ONE: ["bread"]})


def test_draws_do_not_depend_on_other_tests(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The draws of a whole process's scope start at 0 in each test, whichever tests run before."""
    monkeypatch.setenv("LLMCALL_SCOPE", "trial")
    asking = "@pytest.mark.llm\ndef test_{}():\n    ask('x')\n    ask('x')\n"
    project.record(asking.format("a") + asking.format("b"), passed=2)
    project.run("test_market.py::test_b", passed=1)
    project.run("test_market.py::test_b", "test_market.py::test_a", passed=2)
    assert project.calls() == []


def test_a_wider_fixture_opens_a_cassette_of_its_own(project: Project) -> None:
    """It opens before the test's: without one it reaches no model, and with one it replays."""
    fixture = """
        @pytest.fixture(scope="session")
        def world():
            {}
                return ask("world")

        @pytest.mark.llm
        def test_a(world):
            ask("a " + world)
        """
    project.write(fixture.format("if True:"))
    project.run("--llm-record=once", errors=1)
    project.write(fixture.format("with llmcall.cassette('cassettes/world.jsonl'):"))
    project.run(errors=1)
    assert project.calls() == []
    assert project.cassettes() == {}
    project.run("--llm-record=once", passed=1)
    assert project.calls() == ["world", "a Yes, world"]
    project.run(passed=1)
    assert project.calls() == []


# Names


NAMED = """
    pytestmark = pytest.mark.llm

    @pytest.mark.parametrize("item", ["bread", "a/b", "a:b", "Bread", "x" * 200])
    @pytest.mark.parametrize("price", [3, 0.5])
    def test_item(item, price):
        ask(f"{item} {price}")

    class TestMarket:
        def test_method(self): ask("method")
        def test_Method(self): ask("Method")

        class TestNested:
            def test_method(self): ask("nested")
"""


def test_a_cassette_is_named_by_class_test_and_parameters(project: Project) -> None:
    """Names differ in more than capitals, and are not too long, for every file system; they are the
    same whichever tests run.
    """
    project.write(NAMED)
    project.run("--llm-record=once", passed=13)
    names = {Path(name).stem for name in project.cassettes()}
    assert len({name.casefold() for name in names}) == len(names) == len(project.calls())
    assert {
        "test_item[3-bread]",
        "TestMarket.TestNested.test_method",
        "TestMarket.test_method",
    } <= names
    assert any(name.startswith("TestMarket.test_Method-") for name in names)
    assert max(map(len, names)) <= 100
    project.run("test_market.py::TestMarket", "test_market.py::test_item[3-Bread]", passed=4)
    assert project.calls() == []


def test_an_asynchronous_test_has_its_cassette(project: Project) -> None:
    """It holds what its asynchronous fixtures ask too."""
    pytest.importorskip("anyio")
    project.write(
        """
        @pytest.fixture
        def anyio_backend():
            return "asyncio"

        @pytest.fixture
        async def world(anyio_backend):
            yield (await Model().asend_message("world"))["content"]
            await Model().asend_message("bye")

        @pytest.mark.llm
        @pytest.mark.anyio
        async def test_one(world):
            assert (await Model().asend_message(world))["content"] == "Yes, Yes, world"
        """
    )
    project.run("-p", "anyio", "--llm-record=once", passed=1)
    assert project.cassettes() == {ONE: ["world", "Yes, world", "bye"]}
    project.calls()
    project.run("-p", "anyio", passed=1)
    assert project.calls() == []


@pytest.mark.parametrize(("way", "mode"), [("fixture", "once"), ("marker", "rewrite")])
def test_several_tests_share_a_named_cassette(project: Project, way: str, mode: str) -> None:
    """Tests that name one cassette record into it one after the other, and replay from it."""
    name = "@pytest.fixture(scope='module')\ndef llm_cassette_name():\n    return 'shared.jsonl'\n"
    project.write(SHARED if way == "marker" else name + SHARED.replace("('shared')", ""))
    project.run(f"--llm-record={mode}", passed=3)
    assert project.calls() == ["a", "b", "c"]
    assert project.cassettes() == {"cassettes/test_market/shared.jsonl": ["a", "b", "c"]}
    project.run(passed=3)
    assert project.calls() == []


def asking(**texts: str) -> str:
    """Return tests by name that share a cassette, each asking its letters."""
    return "".join(
        f"@pytest.mark.llm('shared')\ndef test_{name}():\n    for text in {letters!r}: ask(text)\n"
        for name, letters in texts.items()
    )


def test_an_updated_shared_cassette_equals_a_fresh_recording(project: Project) -> None:
    """In the order in which the tests asked."""
    project.record(asking(one="ab", two="fa", three="h"), passed=3)
    project.write(asking(one="abc", two="efa", three="hbi"))
    project.run("--llm-record=update", passed=3)
    updated = project.cassettes()
    assert updated["cassettes/test_market/shared.jsonl"] == list("abcefhi")
    project.run("--llm-record=rewrite", passed=3)
    assert updated == project.cassettes()


def test_the_markers_cassette_name_stands_above_the_fixtures(project: Project) -> None:
    """It is a path below the folder of the module's cassettes."""
    project.write("@pytest.fixture\ndef llm_cassette_name():\n    return 'a'\n", "conftest.py")
    project.write("@pytest.mark.llm('../b.jsonl')\ndef test_b():\n    ask('b')\n")
    project.run("--llm-record=once", passed=1)
    assert project.cassettes() == {"cassettes/b.jsonl": ["b"]}


@pytest.mark.parametrize(
    ("options", "path"),
    [([], f"{{}}{ONE}"), (["-o", "llm_cassette_dir=all"], "all/{}test_market/test_one.jsonl")],
)
def test_cassettes_stand_beside_their_module_or_in_llm_cassette_dir(
    project: Project, options: list[str], path: str
) -> None:
    """Each of the folders has a module of the same name."""
    for folder in ("north", "south"):
        project.write("", f"{folder}/__init__.py")
        project.write(TEST_ONE, f"{folder}/test_market.py")
    project.run("--llm-record=once", *options, passed=3)
    assert {*project.cassettes()} == {path.format(folder) for folder in ("", "north/", "south/")}


# The summary


@pytest.mark.parametrize(
    ("option", "code"),
    [("--llm-unused=warn", 0), ("--llm-unused=fail", pytest.ExitCode.TESTS_FAILED)],
)
def test_unused_records_are_listed(project: Project, option: str, code: int) -> None:
    """With --llm-unused=fail they let a run of passed tests fail."""
    project.record(THREE.replace("'fish'", "'fish', 'eggs', 'salt'"))
    project.write(TEST_ONE)
    unused = [
        "llmcall: 1 call replayed, 0 recorded",
        f"llmcall: 4 records of {ONE} not used: "
        'gpt-6-luna "milk", gpt-6-luna "fish", gpt-6-luna "eggs", and 1 more',
        "llmcall: --llm-record=update moves them to the disk cache, and requests only missing ones",
    ]
    result = project.result(option, passed=1)
    assert (result.ret, summary(result.stdout.str())) == (code, unused)


def test_update_moves_records_that_no_test_used_to_the_cache(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It asks only for what is missing. A test that asks for a moved record again is recorded without
    a call.
    """
    monkeypatch.setenv("LLMCALL_CACHE_MODE", "auto")
    project.record(THREE)
    llmcall.client("openai").cache.clear()
    project.write(THREE.replace("'milk', 'fish'", "'eggs'"))
    updated = project.run("--llm-record=update", "--llm-unused=fail", passed=1)
    assert summary(updated)[1:] == [
        "llmcall: 1 call replayed, 1 recorded",
        f"llmcall: 2 unused records of {ONE} moved to the disk cache",
    ]
    assert project.calls() == ["eggs"]
    assert project.cassettes() == {ONE: ["bread", "eggs"]}
    project.write(THREE)
    printed = project.run("--llm-record=new", passed=1)
    assert "1 call replayed, 2 recorded (0 asked, 2 from the cache)" in printed
    assert project.calls() == []


UPDATED = "cassettes/test_market/shared.jsonl"


@pytest.mark.parametrize(
    ("tests", "outcomes", "left"),
    [
        pytest.param("pass", {"passed": 3}, ["a", "b"], id="passed"),
        pytest.param("pytest.skip()", {"passed": 2, "skipped": 1}, ["a", "b", "c"], id="skipped"),
    ],
)
def test_update_waits_for_all_tests_that_share_a_cassette(
    project: Project, tests: str, outcomes: dict[str, int], left: list[str]
) -> None:
    """A record leaves it if all of them passed, and none of them used it."""
    project.record(SHARED, passed=3)
    project.write(SHARED.replace("ask('c')", tests))
    project.run("--llm-record=update", **outcomes)
    assert project.cassettes() == {UPDATED: left}


REFUSED = "@pytest.mark.llm\ndef test_one():\n    Model(on_error='none').send_message('refused')\n    ask('bread')\n"


def test_a_recording_names_the_calls_that_a_replay_will_miss(project: Project) -> None:
    """A call failed, and the test passed all the same."""
    project.write(REFUSED)
    _, counts, line = summary(project.run("--llm-record=once", passed=1))
    assert counts == "llmcall: 0 calls replayed, 1 recorded"
    assert line.startswith(f"llmcall: {ONE}: 1 call failed ")


SWALLOWED = """
    def ask_or_guess(text):
        try:
            return ask(text)
        except llmcall.CacheMissError:
            return "a guess"

    @pytest.mark.llm
    def test_one():
        assert ask_or_guess("bread")

    @pytest.mark.llm
    def test_failed():
        assert ask_or_guess("milk") == "Yes, milk"
"""


def test_a_miss_that_a_tests_code_caught_is_an_error_at_its_end(project: Project) -> None:
    """The cassette raises it again. A failed test needs no second error."""
    project.write(SWALLOWED)
    output = project.run(passed=1, failed=1, errors=1)
    assert "ERROR test_market.py::test_one - CacheMissError: chat request" in output
    assert "FAILED test_market.py::test_failed - AssertionError" in output


@pytest.mark.parametrize(
    ("arguments", "is_judged"),
    [
        ([], True),
        (["."], True),
        (["test_market.py"], False),
        (["-k", "test_a"], False),
        (["--ignore", "test_village.py"], False),
    ],
)
def test_a_shared_cassette_is_judged_if_all_tests_of_the_project_ran(
    project: Project, arguments: list[str], is_judged: bool
) -> None:
    """One that was left out may use the record."""
    project.record(SHARED, passed=3)
    project.write(SHARED.replace("ask('c')", "pass"))
    project.write("def test_village(): pass\n", "test_village.py")
    lines = summary(project.run("--llm-unused=fail", *arguments))
    unused = 'llmcall: 1 record of cassettes/test_market/shared.jsonl not used: gpt-6-luna "c"'
    assert [line for line in lines if "not used" in line] == [unused] * is_judged


# Workers of pytest-xdist

MANY = """
    @pytest.mark.llm
    @pytest.mark.parametrize("number", range(6))
    def test_own(number):
        ask(str(number))

    @pytest.mark.llm("shared")
    @pytest.mark.parametrize("name", "abcdef")
    def test_shared(name):
        ask(name)
"""


TWO_WORKERS = ("-p", "xdist", "-n2")
SHARED_OF_MANY = "cassettes/test_market/shared.jsonl"


@pytest.fixture
def workers(project: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A project whose tests are run by two workers; what they share is recorded before."""
    pytest.importorskip("xdist")
    monkeypatch.setenv("TMPDIR", str(project.path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    project.write(MANY)
    project.run("--llm-record=once", "-k", "shared", passed=6, deselected=6)
    assert sorted(project.calls()) == list("abcdef")
    return project


@pytest.mark.ci
def test_workers_record_a_tests_own_cassette_and_replay_a_shared_one(workers: Project) -> None:
    """The message names one process."""
    workers.write(MANY.replace("    ask(name)", "    ask(name.replace('f', 'g'))"))
    printed = workers.run(*TWO_WORKERS, "--llm-record=rewrite", passed=11, failed=1)
    assert "pytest -n 0 --llm-record=update" in printed
    assert summary(printed)[1].endswith(", 6 recorded")
    assert sorted(workers.calls()) == list("012345")


@pytest.mark.ci
def test_workers_judge_a_shared_cassette_together(workers: Project) -> None:
    """A record that no test of any worker used lets the run fail."""
    workers.record(passed=12)
    workers.write(MANY.replace("    ask(name)", "    name == 'f' or ask(name)"))
    result = workers.result(*TWO_WORKERS, "--llm-unused=fail", passed=12)
    printed = result.stdout.str().replace("1 record of ", "")
    assert f'{SHARED_OF_MANY} not used: gpt-6-luna "f"' in printed
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert workers.calls() == []
