"""The pytest plugin: tests record a cassette once, replay it without key and network, and let no
other call out.
"""

from __future__ import annotations

import json
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

import llmcall

pytest_plugins = "pytester"

# pytester forgets what was first imported while it ran; what has a state, or is large, is imported
# before.
NAMES = [
    name
    for _, name, _ in pkgutil.walk_packages(llmcall.__path__, "llmcall.")
    if name != "llmcall.__main__"
]
LOADED = [import_module(name) for name in ("jinja2", "pydantic", *NAMES)]
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
    """Be a project in the working directory, with ``market.ask`` to test."""

    def __init__(self, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
        self.pytester, self.path = pytester, pytester.path
        monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
        monkeypatch.setenv("LLMCALL_CACHE_MODE", "off")
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
        """Run the tests, and check how many passed, failed … where that is given."""
        plugins = ("-p", "llmcall.pytest_plugin", "-p", "no:cacheprovider")
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
    """Make a project with one test of one call."""
    return Project(pytester, monkeypatch)


def test_pytest_finds_it() -> None:
    """Installing llmcall adds the plugin."""
    [point] = entry_points(group="pytest11", name="llmcall")
    assert point.load() is llmcall.pytest_plugin


# Recording and replaying


def test_record_once_then_replay(project: Project) -> None:
    """Without a cassette the test fails and says how to record; recorded once, it calls nothing
    more.
    """
    printed = project.run(failed=1)
    assert "CacheMissError" in printed and "pytest --llm-record=" in printed
    assert project.calls() == [] and project.cassettes() == {}
    printed = project.run("--llm-record=once", passed=1)
    assert summary(printed) == [
        "llmcall: recording, --llm-record=once",
        "llmcall: 0 calls replayed, 1 recorded",
    ]
    assert (project.cassettes(), project.calls()) == ({ONE: ["bread"]}, ["bread"])
    recorded = (project.path / ONE).read_bytes()
    assert summary(project.run(passed=1)) == ["llmcall: 1 call replayed, 0 recorded"]
    assert summary(project.run("--llm-record=once", passed=1))[1:] == [
        "llmcall: 1 call replayed, 0 recorded"
    ]
    assert project.calls() == [] and (project.path / ONE).read_bytes() == recorded


def test_modes(project: Project) -> None:
    """Each mode asks what it says, by VCR's names too, and by the ini key, above which the option
    stands.
    """
    project.run("--llm-record=once", passed=1)
    project.calls()
    recorded = (project.path / ONE).read_text(encoding="utf-8")
    project.write(THREE)
    all_three = ["bread", "milk", "fish"]
    for mode, calls in (
        ("none", []),
        ("once", []),
        ("new_episodes", ["milk", "fish"]),
        ("all", all_three),
    ):
        project.write(recorded, ONE)
        project.run("-o", f"llm_record={mode}", "--llm-record=none", failed=1)
        project.run("-o", f"llm_record={mode}", **{"passed" if calls else "failed": 1})
        assert (project.calls(), project.cassettes()[ONE]) == (
            calls,
            all_three if calls else ["bread"],
        )


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
            "test_one: @pytest.mark.llm(1, 2, 3) must be llm, llm(name) or llm(live=True)",
        ),
        ("llm(recrod='once')", "-v", "@pytest.mark.llm(recrod='once') must be"),
        ("llm('a.jsonl', live=True)", "-v", "@pytest.mark.llm('a.jsonl', live=True) must be"),
    ],
)
def test_wrong_usage(project: Project, marker: str, argument: str, complaint: str) -> None:
    """A value or marker that there is not is refused before any test runs, with those that there
    are.
    """
    project.write(f"@pytest.mark.{marker}\ndef test_one(): pass\n")
    result = project.result(argument)
    assert result.ret == pytest.ExitCode.USAGE_ERROR and complaint in result.stderr.str()


FAILING: list[tuple[str, dict[str, int]]] = [
    ("@pytest.mark.llm\ndef test_one():\n    ask('bread')\n    assert 0\n", {"failed": 1}),
    ("@pytest.mark.llm\ndef test_one():\n    ask('bread')\n    pytest.skip()\n", {"skipped": 1}),
    (
        "@pytest.mark.xfail\n@pytest.mark.llm\ndef test_one():\n    ask('bread')\n    assert 0\n",
        {"xfailed": 1},
    ),
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
]


def test_what_did_not_pass_is_not_written(project: Project) -> None:
    """A test that failed in its setup, call or teardown, or was skipped, leaves no cassette and
    changes none.
    """
    for source, outcomes in FAILING:
        project.write(source)
        project.run("--llm-record=once", **outcomes)
        assert project.calls() == ["bread"] and project.cassettes() == {}, source
    project.write(TEST_ONE.replace("bread", "milk"))
    project.run("--llm-record=once", passed=1)
    project.calls()
    for source, outcomes in FAILING:
        project.write(source)
        assert "not used" not in project.run("--llm-record=rewrite", **outcomes), source
        assert project.calls() == ["bread"] and project.cassettes() == {ONE: ["milk"]}, source


def test_paid_answers_stay_in_the_cache(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """A failed test's answers are not asked for again once the test is mended."""
    monkeypatch.setenv("LLMCALL_CACHE_MODE", "auto")
    project.write(TEST_ONE + "    assert 0\n")
    project.run("--llm-record=once", failed=1)
    project.write(TEST_ONE)
    project.run("--llm-record=once", passed=1)
    assert (project.calls(), project.cassettes()) == (["bread"], {ONE: ["bread"]})


def test_what_cannot_be_written_or_read_is_an_error(project: Project) -> None:
    """A credential is refused when the test has passed; a damaged cassette before, with its line
    and no call.
    """
    secret = "sk-proj-" + "a1B2c3D4e5" * 5
    project.write(f"@pytest.mark.llm\ndef test_one():\n    ask({secret!r})\n")
    printed = project.run("--llm-record=once", passed=1, errors=1)
    assert (
        "looks like an OpenAI API key" in printed and project.cassettes() == {} and project.calls()
    )
    project.write('{"llmcall": 1, "settings": {}}\n<<<<<<< HEAD\n', ONE)
    assert "test_one.jsonl:2: the line is a conflict marker" in project.run(
        "--llm-record=new", errors=1
    )
    assert project.calls() == []


# No other call reaches a model


CALLS = [
    "ask('bread')",
    "ask('bread', cache_mode='off')",
    "with llmcall.cassette('own.jsonl'): ask('bread')",
    "with llmcall.cassette('own.jsonl', mode='rewrite'): ask('bread')",
    "with llmcall.configured(cassette_path='own.jsonl', cassette_mode='new'): ask('bread')",
    "next(Model().stream_message('bread', on_error='raise'))",
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
    printed = re.sub(r"\s*\nE\s+", " ", project.run(passed=1, failed=len(CALLS)))
    for number in range(len(CALLS)):
        assert f"pytest --llm-record=once test_free.py::test_{number}" in printed
    assert project.calls() == ["bread"] and project.cassettes() == {ONE: ["bread"]}


def test_a_miss_shows_the_test_alone(project: Project) -> None:
    """The report of a miss has the test's line and what the miss says, and no frame inside llmcall."""
    project.write("@pytest.mark.llm\ndef test_new():\n    ask('milk')\n")
    printed = project.run(failed=1)
    assert "is not recorded" in printed
    assert "errors.py:" not in printed and "prepare.py:" not in printed.partition("Captured log")[0]
    assert len(printed.partition("E       llmcall")[0].splitlines()) < 30  # until the report begins


def test_the_selection_of_tests_opens_nothing(project: Project) -> None:
    """Where only tests run that do not use the marker, those beside them that do are remembered."""
    project.run("--llm-record=once", passed=1)
    project.write(FREE, "test_free.py")
    project.write(TEST_ONE + FREE)
    project.run("test_free.py", failed=1)
    project.run("test_market.py::test_free", failed=1)
    assert project.calls() == ["bread"]


def test_an_unmarked_test_is_told_so_while_recording(project: Project) -> None:
    """Recording refuses the calls that a replay would refuse; a cassette that code opens itself may
    record.
    """
    project.write(FREE, "test_free.py")
    project.write(
        "def test_own():\n    with llmcall.cassette('own.jsonl'): ask('milk')\n", "test_own.py"
    )
    project.run("--llm-record=once", passed=2, failed=1)
    assert sorted(project.calls()) == ["bread", "milk"] and list(project.cassettes()) == [
        ONE,
        "own.jsonl",
    ]
    project.run(passed=2, failed=1)


def test_live_tests_reach_the_model(project: Project) -> None:
    """live=True lets a test, a class or a module call, records nothing, and ends with it; it has no
    cassette.
    """
    live = "pytest.mark.llm(live=True)"
    project.write(f"pytestmark = {live}\ndef test_live():\n    ask('module')\n", "test_a_live.py")
    project.write(
        f"@{live}\ndef test_live():\n    ask('test')\n@{live}\nclass TestLive:\n    def test_live(self):\n"
        f"        ask('class')\n@{live}\ndef test_both(llm_cassette): pass\n" + FREE,
        "test_b_live.py",
    )
    printed = project.run(passed=3, failed=2, errors=1)
    assert "a live test has no cassette; remove the fixture llm_cassette" in printed
    assert (project.calls(), project.cassettes()) == (["module", "test", "class"], {})


def test_what_is_no_model_goes_on(project: Project) -> None:
    """A scripted client and a recorded function work in a test without a cassette."""
    project.write(
        "from llmcall.testing import ScriptedClient\n@llmcall.recorded\ndef now():\n    return 1\n"
        "def test_free():\n    assert now() == 1 and ScriptedClient(['Hi']).send_message('?').content == 'Hi'\n",
        "test_free.py",
    )
    project.run("--llm-record=once", passed=2)
    project.run(passed=2)


def test_other_projects_notice_nothing(project: Project) -> None:
    """Without marker, fixture or ini key, calls go as they always did, also beside cassettes that
    code opens.
    """
    project.write(
        "def test_own():\n    with llmcall.cassette('cassettes/market.jsonl'): ask('milk')\n" + FREE
    )
    for _ in range(2):
        assert "llmcall" not in project.run(passed=2)
    assert project.calls() == ["milk", "free", "free"]
    assert "this test has no cassette" in project.run("-o", "llm_record=none", passed=1, failed=1)
    project.pytester.syspathinsert()
    from market import ask  # type: ignore[import-not-found]

    assert ask("after the run") == "Yes, after the run"


@pytest.mark.parametrize("mark", ["", "@pytest.mark.llm"])
def test_collecting_costs_nothing(project: Project, mark: str) -> None:
    """In a project that does not use it or does, it imports its own small modules and nothing
    heavy.
    """
    (project.path / "test_market.py").write_text(
        f"import pytest\n\n{mark}\ndef test_one(): pass\n", encoding="utf-8"
    )
    look = "import json, sys, pytest; pytest.main(['-q', '--co', *sys.argv[1:]])\nprint(json.dumps([*sys.modules]))"
    loaded = [
        set(
            json.loads(
                subprocess.check_output([sys.executable, "-c", look, "-p", plugin]).splitlines()[-1]
            )
        )
        for plugin in ("no:llmcall", "llmcall.pytest_plugin")
    ]
    names = {"llmcall", "llmcall._version", "llmcall.pytest_plugin"}
    assert loaded[1] - loaded[0] - {"test_market"} == names


# Fixtures


def test_the_fixture(project: Project) -> None:
    """It gives a test its cassette with what it holds and did, without the marker, also when asked
    for late.
    """
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
    """The draws of a whole process's scope begin at 0 in each test, whichever tests run before."""
    monkeypatch.setenv("LLMCALL_SCOPE", "trial")
    project.write(
        "".join(
            f"@pytest.mark.llm\ndef test_{name}():\n    ask('x')\n    ask('x')\n" for name in "ab"
        )
    )
    project.run("--llm-record=once", passed=2)
    project.run("test_market.py::test_b", passed=1)
    project.run("test_market.py::test_b", "test_market.py::test_a", passed=2)
    assert len(project.calls()) == 4


WORLD = """
    @pytest.fixture(scope="{scope}")
    def world():
        yield ask("world")
        ask("bye")

    @pytest.mark.llm
    def test_a(world):
        ask("a " + world)

    @pytest.mark.llm
    def test_b():
        ask("b")

    class TestC:
        def test_c(self, world):
            assert world == "Yes, world"
"""


@pytest.mark.parametrize(
    ("scope", "mode"),
    [("class", "once"), ("package", "once"), ("session", "new"), ("module", "rewrite")],
)
def test_a_wider_fixture(project: Project, scope: str, mode: str) -> None:
    """What it asks, before and after its yield, stands in its own cassette, so tests can be run one
    by one.
    """
    project.write(WORLD.format(scope=scope))
    project.write("", "__init__.py")
    project.run(failed=1, errors=2)
    assert project.calls() == []
    homes = ["TestC.world", "world"] if scope == "class" else ["world"]
    for _ in range(2 if mode == "rewrite" else 1):
        project.run(f"--llm-record={mode}", passed=3)
        assert sorted(project.calls()) == sorted(
            ["a Yes, world", "b", *(["world", "bye"] * len(homes))]
        )
    assert project.cassettes() == {
        **{f"cassettes/test_market/{home}.jsonl": ["world", "bye"] for home in homes},
        "cassettes/test_market/test_a.jsonl": ["a Yes, world"],
        "cassettes/test_market/test_b.jsonl": ["b"],
    }
    project.run(
        "test_market.py::TestC", "test_market.py::test_b", "test_market.py::test_a", passed=3
    )
    project.run("test_market.py::TestC", passed=1)
    assert project.calls() == []


def test_fixtures_within_fixtures(project: Project) -> None:
    """Each has its own calls in its own cassette: of a session where it is defined, of a module
    beside that.
    """
    project.write(
        "@pytest.fixture(scope='session')\ndef land():\n    return ask('land')\n"
        "@pytest.fixture(scope='module')\ndef town(request):\n    before = ask('town ' + request.module.__name__)\n"
        "    return before + request.getfixturevalue('land') + ask('town hall')\n",
        "conftest.py",
    )
    for name in "xy":
        project.write(
            f"@pytest.mark.llm\ndef test_one(town):\n    ask('house {name}')\n", f"test_{name}.py"
        )
    project.run("--llm-record=once", "test_x.py", "test_y.py", passed=2)
    assert project.cassettes() == {
        "cassettes/conftest/land.jsonl": ["land"],
        **{
            f"cassettes/test_{name}/town.jsonl": [f"town test_{name}", "town hall"] for name in "xy"
        },
        **{f"cassettes/test_{name}/test_one.jsonl": [f"house {name}"] for name in "xy"},
    }
    project.run("test_y.py", "test_x.py", passed=2)
    assert len(project.calls()) == 7


def test_setup_functions(project: Project) -> None:
    """The setup and teardown functions of modules and classes are wider fixtures too, by their own
    names.
    """
    project.write(
        """
        pytestmark = pytest.mark.llm

        def setup_module(): ask("module")
        def teardown_module(): ask("module ends")

        def setup_function(): ask("function")
        def test_one(): ask("test")

        class Case(unittest.TestCase):
            @classmethod
            def setUpClass(cls): ask("case")
            @classmethod
            def tearDownClass(cls): ask("case ends")
            def setUp(self): ask("before")
            def tearDown(self): ask("after")
            def test_two(self): ask("unit")
        """
    )
    project.run("--llm-record=once", passed=2)
    recorded = project.cassettes()
    assert {Path(name).stem: questions for name, questions in recorded.items()} == {
        "setup_module": ["module", "module ends"],
        "test_one": ["function", "test"],
        "Case.setUpClass": ["case", "case ends"],
        "Case.test_two": ["before", "unit", "after"],
    }
    project.run(passed=2)
    assert len(project.calls()) == 9


# Names


def test_names_of_cassettes(project: Project) -> None:
    """Parameters and classes in classes have names of their own, the same each time, good on every
    file system.
    """
    project.write(
        """
        pytestmark = pytest.mark.llm

        @pytest.mark.parametrize("item", ["bread", "a/b", "a:b", "Bread", "x" * 200])
        @pytest.mark.parametrize("price", [3, 0.5])
        def test_item(item, price):
            ask(f"{item} {price}")

        @pytest.fixture(scope="module", params=[1, "Ä"])
        def world(request):
            return ask(f"world {request.param}")

        class TestMarket:
            def test_method(self): ask("method")
            def test_Method(self): ask("Method")

            class TestNested:
                def test_method(self, world): ask("nested")
        """
    )
    project.run("--llm-record=once", passed=14)
    found = [Path(name).stem for name in project.cassettes()]
    assert (
        len(found) == 16
        and len({name.casefold() for name in found}) == 16
        and max(map(len, found)) <= 100
    )
    assert {"test_item[3-bread]", "TestMarket.TestNested.test_method[1]", "world[1]"} <= set(found)
    assert "TestMarket.test_method" in found and any(
        name.startswith("TestMarket.test_Method-") for name in found
    )
    project.run("test_market.py::TestMarket", "test_market.py::test_item[3-Bread]", passed=5)
    assert len(project.calls()) == len(project.cassettes()) == 16


def test_async_tests(project: Project) -> None:
    """An async test has its cassette too, for its async fixtures as well."""
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
    project.run("-p", "anyio", passed=1)
    assert len(project.calls()) == 3


@pytest.mark.parametrize(
    ("way", "mode"), [("fixture", "once"), ("marker", "new"), ("marker", "rewrite")]
)
def test_several_tests_share_a_named_cassette(
    project: Project, monkeypatch: pytest.MonkeyPatch, way: str, mode: str
) -> None:
    """Tests that name one cassette record into it one after the other, within one run, and replay
    from it.

    What the disk cache holds is no answer to a rewrite, and takes no new answer's place.
    """
    monkeypatch.setenv("LLMCALL_CACHE_MODE", "auto")
    name = "@pytest.fixture(scope='module')\ndef llm_cassette_name():\n    return 'shared.jsonl'\n"
    project.write(SHARED if way == "marker" else name + SHARED.replace("('shared')", ""))
    for answer in ("No", "Yes") if mode == "rewrite" else ("Yes",):
        project.pytester.makepyfile(market=MARKET.replace("Yes", answer))
        project.run(f"--llm-record={mode}", passed=3)
        assert project.calls() == ["a", "b", "c"]
    path = "cassettes/test_market/shared.jsonl"
    assert project.cassettes() == {path: ["a", "b", "c"]}
    assert (project.path / path).read_text(encoding="utf-8").count('"Yes, ') == 3
    project.run(passed=3)
    assert project.calls() == []


def test_places_of_cassettes(project: Project) -> None:
    """A name may be made of the usual one; the marker's counts above it; llm_cassette_dir moves
    all.
    """
    project.write(
        "@pytest.fixture\ndef llm_cassette_name(llm_cassette_name):\n    return f'v2/{llm_cassette_name}'\n",
        "conftest.py",
    )
    project.write(TEST_ONE + "@pytest.mark.llm('../b.jsonl')\ndef test_b():\n    ask('b')\n")
    for folder in ("north", "south"):
        project.write("", f"{folder}/__init__.py")
        project.write(TEST_ONE, f"{folder}/test_market.py")
    names = ["test_market/v2/test_one.jsonl", "b.jsonl"]
    project.run("--llm-record=once", passed=4)
    assert sorted(project.cassettes()) == sorted(
        [
            *(f"cassettes/{name}" for name in names),
            *(f"{f}/cassettes/{names[0]}" for f in ("north", "south")),
        ]
    )
    assert len(project.calls()) == 4
    project.run("--llm-record=once", "-o", "llm_cassette_dir=all", passed=4)
    inside = [name for name in project.cassettes() if name.startswith("all/")]
    assert inside == [
        "all/b.jsonl",
        *(f"all/{folder}{names[0]}" for folder in ("north/", "south/", "")),
    ]
    project.write("@pytest.fixture\ndef llm_cassette_name():\n    return None\n" + TEST_ONE)
    assert "test_one: a cassette's name must be a string, not None" in project.run(
        "test_market.py", errors=1
    )


def test_marks_that_a_conftest_adds(project: Project) -> None:
    """A conftest that marks tests in pytest_collection_modifyitems gives them cassettes."""
    project.write(
        "def pytest_collection_modifyitems(items):\n    for item in items: item.add_marker(pytest.mark.llm)\n",
        "conftest.py",
    )
    project.write(TEST_ONE.replace("@pytest.mark.llm\n", ""))
    project.run("--llm-record=once", passed=1)
    project.run(passed=1)
    assert (project.calls(), project.cassettes()) == (["bread"], {ONE: ["bread"]})


# The summary


def test_unused_records(project: Project) -> None:
    """Records that a passed test did not use are listed, and let the run fail where wanted;
    rewriting drops them.
    """
    project.write(THREE.replace("'fish'", "'fish', 'eggs', 'salt'"))
    project.run("--llm-record=once", passed=1)
    assert project.result("--llm-unused=fail", passed=1).ret == 0
    project.write(TEST_ONE)
    expected = [
        "llmcall: 1 call replayed, 0 recorded",
        f"llmcall: 4 records of {ONE} were not used: "
        'gpt-4o-mini "milk", gpt-4o-mini "fish", gpt-4o-mini "eggs", and 1 more',
        "llmcall: --llm-record=update removes such records, and asks only for missing ones",
    ]
    for option, code in (
        ("-v", 0),
        ("--llm-unused=warn", 0),
        ("--llm-unused=fail", pytest.ExitCode.TESTS_FAILED),
    ):
        result = project.result(option, passed=1)
        assert (result.ret, summary(result.stdout.str())) == (code, expected)
    assert (
        project.result("--llm-unused=fail", "-k", "nothing").ret
        == pytest.ExitCode.NO_TESTS_COLLECTED
    )
    project.run("--llm-record=rewrite", passed=1)
    assert project.result("--llm-unused=fail", passed=1).ret == 0 and project.cassettes() == {
        ONE: ["bread"]
    }


def test_update_takes_out_what_no_test_used(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It asks only for what is missing; what it takes out is in the disk cache."""
    monkeypatch.setenv("LLMCALL_CACHE_MODE", "auto")
    project.write(THREE)
    project.run("--llm-record=once", passed=1)
    llmcall.client("openai").cache.clear()
    project.calls()
    project.write(THREE.replace("'milk', 'fish'", "'eggs'"))
    printed = project.run("--llm-record=update", "--llm-unused=fail", passed=1)
    assert summary(printed)[1:] == [
        "llmcall: 1 call replayed, 1 recorded",
        f"llmcall: 2 records of {ONE} were not used: moved to the disk cache",
    ]
    assert project.calls() == ["eggs"] and project.cassettes() == {ONE: ["bread", "eggs"]}
    project.write(THREE)
    printed = project.run("--llm-record=new", passed=1)
    assert "1 call replayed, 2 recorded (0 asked, 2 from the cache)" in printed
    assert project.calls() == []


@pytest.mark.parametrize(
    ("tests", "outcomes"),
    [
        (SHARED.replace("ask('c')", "pass"), {"passed": 3}),
        (SHARED.replace("ask('c')", "assert False"), {"passed": 2, "failed": 1}),
        (SHARED.replace("ask('c')", "pytest.skip()"), {"passed": 2, "skipped": 1}),
    ],
)
def test_update_waits_for_all_tests_that_share_a_cassette(
    project: Project, tests: str, outcomes: dict[str, int]
) -> None:
    """Records leave it after a complete, passed run of them all, and not if one is left out."""
    project.write(SHARED)
    project.run("--llm-record=once", passed=3)
    shared = "cassettes/test_market/shared.jsonl"
    project.write(tests)
    project.run("--llm-record=update", "-k", "test_a", passed=1, deselected=2)
    assert project.cassettes() == {shared: ["a", "b", "c"]}
    project.run("--llm-record=update", **outcomes)
    left = ["a", "b"] if outcomes == {"passed": 3} else ["a", "b", "c"]
    assert project.cassettes() == {shared: left}


INNER = """
    @llmcall.recorded
    async def think(text):
        return (await Model().asend_message(f"think of {text}")).content

    @llmcall.recorded
    def price(item):
        with llmcall.scope("clerk"):
            return ask(f"price of {item}") + discount(item)

    @llmcall.recorded
    def discount(item):
        return ask(f"discount on {item}")

    @pytest.mark.llm
    @pytest.mark.parametrize("scoped", [True, False])
    def test_one(scoped):
        import asyncio
        with llmcall.scope("lisa" if scoped else None):
            price("bread")
            asyncio.run(think("milk"))
            ask("bread")
"""


def test_inner_records_of_a_recorded_function_are_used(project: Project) -> None:
    """Where a recorded function is replayed, what it asked when it ran counts as used; what it did
    not ask does not.
    """
    project.write(INNER)
    project.run("--llm-record=once", passed=2)
    asked = ["price of bread", "discount on bread", "think of milk", "bread"]
    assert project.calls() == asked * 2
    result = project.result("--llm-unused=fail", passed=2)
    assert result.ret == 0 and summary(result.stdout.str()) == [
        "llmcall: 6 calls replayed, 0 recorded"
    ]
    project.write(INNER.replace('            ask("bread")\n', ""))
    unused = project.result("--llm-unused=fail", passed=2)
    assert unused.ret == pytest.ExitCode.TESTS_FAILED and project.calls() == []
    told = '1 record of cassettes/test_market/test_one[True]-5473be87.jsonl was not used: lisa#0 gpt-4o-mini "bread"'
    assert f"llmcall: {told}" in unused.stdout.str()


def test_calls_that_left_no_record(project: Project) -> None:
    """A test that passes while it records says which of its calls its replay will miss; one that
    fails does not.
    """
    source = "@pytest.mark.llm\ndef test_one():\n    Model(on_error='none').send_message('refused')\n    ask('bread')\n"
    project.write(source)
    assert summary(project.run("--llm-record=once", passed=1))[1:] == [
        "llmcall: 0 calls replayed, 1 recorded",
        f"llmcall: 1 call of {ONE} failed for good and is not recorded: a replay misses it",
    ]
    project.write(source + "    assert 0\n")
    assert "not recorded" not in project.run("--llm-record=rewrite", failed=1)


def test_a_shared_cassette_is_judged_after_all_its_tests(project: Project) -> None:
    """A cassette that several tests share is judged where all tests ran and passed, and only then."""
    project.write(SHARED)
    project.run("--llm-record=once", passed=3)
    assert "not used" not in project.run("--llm-unused=fail", passed=3)
    project.write(SHARED.replace("ask('c')", "pass"))
    unused = '1 record of cassettes/test_market/shared.jsonl was not used: gpt-4o-mini "c"'
    for arguments in ([], ["."]):
        assert unused in project.run("--llm-unused=fail", *arguments)
    some = (["test_market.py"], ["-k", "test_a"], ["--deselect", "test_market.py::test_b"])
    for arguments in some:
        assert "not used" not in project.run("--llm-unused=fail", *arguments)
    project.write("def test_first():\n    assert 0\n", "test_a_first.py")
    assert "not used" not in project.run("--llm-unused=fail", "-x")


def test_wider_fixtures_are_judged(project: Project) -> None:
    """What neither setup nor teardown of a wider fixture used is listed, however many tests ran."""
    source = "@pytest.fixture(scope='module')\ndef world():\n    {}\n    yield\n    ask('bye')\n"
    test = "@pytest.mark.llm\ndef test_w(world): pass\n"
    project.write(source.format("ask('hello')") + test)
    project.run("--llm-record=once", passed=1)
    assert "not used" not in project.run("test_market.py", passed=1)
    project.write(source.format("pass") + test)
    assert 'world.jsonl was not used: gpt-4o-mini "hello"' in project.run(
        "test_market.py", passed=1
    )


# Workers of pytest-xdist

MANY = """
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


def test_workers(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two workers record what one process would, though they meet at the same cassettes, rewrite
    and replay it.
    """
    pytest.importorskip("xdist")
    monkeypatch.setenv("TMPDIR", str(project.path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    project.write(MANY)
    two, shared = ("-p", "xdist", "-n2"), "cassettes/test_market/shared.jsonl"
    project.run("--llm-record=once", "-k", "shared", passed=6, deselected=6)
    assert len(project.calls()) == 6
    recording, counted = summary(project.run(*two, "--llm-record=rewrite", passed=12))
    assert recording.endswith("--llm-record=rewrite") and counted.endswith(", 14 recorded")
    assert sorted(project.calls()) == sorted([*"abcdef", *"012345", "world", "bye"])
    recorded = project.cassettes()
    assert len(recorded) == 8 and recorded["cassettes/test_market/world.jsonl"] == ["world", "bye"]
    assert sorted(recorded[shared]) == list("abcdef")
    assert not list(project.path.glob("llmcall-*"))
    project.write(MANY.replace("    ask(name)", "    name == 'f' or ask(name)"))
    result = project.result(*two, "--llm-unused=fail", passed=12)
    assert f'{shared} was not used: gpt-4o-mini "f"' in result.stdout.str().replace(
        "1 record of ", ""
    )
    assert result.ret == pytest.ExitCode.TESTS_FAILED and project.calls() == []
