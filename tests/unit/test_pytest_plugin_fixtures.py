"""Wider fixtures that call a model: each has a cassette of its own, whichever test asks for it first."""

from __future__ import annotations

import re
import textwrap

import pytest
from replayed_projects import Project

pytest_plugins = "pytester"

SOURCE = """
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
HOMES = {
    "class": ["tests/cassettes/test_market/TestC.world.jsonl", "tests/cassettes/test_market/world.jsonl"],
    "module": ["tests/cassettes/test_market/world.jsonl"],
    "package": ["tests/cassettes/test_market/world.jsonl"],
    "session": ["tests/cassettes/test_market/world.jsonl"],
}


@pytest.fixture
def project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Project:
    """Make a project."""
    return Project(pytester, monkeypatch)


@pytest.mark.parametrize(
    ("scope", "mode"), [*((scope, "once") for scope in HOMES), ("module", "new"), ("module", "rewrite")]
)
def test_a_wider_fixture(project: Project, scope: str, mode: str) -> None:
    """What it asks, before and after its yield, stands in its own cassette, so tests can be run one by one."""
    project.write("tests/test_market.py", textwrap.dedent(SOURCE).format(scope=scope))
    project.write("tests/__init__.py", "", header="")
    for _ in range(2 if mode == "rewrite" else 1):
        project.run(f"--llm-record={mode}", passed=3)
        assert sorted(project.calls()) == sorted(["a Yes, world", "b", *(["world", "bye"] * len(HOMES[scope]))])
    tests = ["tests/cassettes/test_market/test_a.jsonl", "tests/cassettes/test_market/test_b.jsonl"]
    assert project.cassettes() == sorted([*tests, *HOMES[scope]])
    assert all(project.questions(home) == ["world", "bye"] for home in HOMES[scope])
    project.run("tests/test_market.py::TestC", "tests/test_market.py::test_b", "tests/test_market.py::test_a", passed=3)
    project.run("tests/test_market.py::TestC", passed=1)
    assert project.calls() == []


def test_fixtures_within_fixtures(project: Project) -> None:
    """A fixture that asks for another one has its own calls, and the other one its own."""
    project.write(
        "conftest.py",
        "@pytest.fixture(scope='session')\ndef land():\n    return ask('land')\n"
        "@pytest.fixture(scope='module')\ndef town(request):\n    before = ask('town')\n"
        "    return before + request.getfixturevalue('land') + ask('town hall')\n",
    )
    project.write("test_market.py", "@pytest.mark.llm\ndef test_one(town):\n    ask('house')\n")
    project.run("--llm-record=once", passed=1)
    assert project.calls() == ["town", "land", "town hall", "house"]
    assert {name: project.questions(name) for name in project.cassettes()} == {
        "cassettes/conftest/land.jsonl": ["land"],
        "cassettes/test_market/town.jsonl": ["town", "town hall"],
        "cassettes/test_market/test_one.jsonl": ["house"],
    }
    project.run(passed=1)
    assert project.calls() == []


def test_a_fixture_of_a_conftest_by_module(project: Project) -> None:
    """A module's fixture that stands in a conftest has a cassette for each module: it may ask each other things."""
    project.write(
        "conftest.py", "@pytest.fixture(scope='module')\ndef who(request):\n    return ask(request.module.__name__)\n"
    )
    for name in ("test_x", "test_y"):
        project.write(f"{name}.py", "@pytest.mark.llm\ndef test_one(who): pass\n")
    project.run("--llm-record=once", passed=2)
    assert [project.questions(f"cassettes/{name}/who.jsonl") for name in ("test_x", "test_y")] == [
        ["test_x"],
        ["test_y"],
    ]


def test_a_fixture_of_a_package(project: Project) -> None:
    """A package's fixture has its cassette beside the package's modules, however deep they lie."""
    project.write("tests/conftest.py", "@pytest.fixture(scope='package')\ndef land():\n    return ask('land')\n")
    for folder in ("tests", "tests/deep"):
        project.write(f"{folder}/__init__.py", "", header="")
        project.write(f"{folder}/test_market.py", "@pytest.mark.llm\ndef test_one(land): pass\n")
    project.run("--llm-record=once", passed=2)
    assert project.cassettes() == ["tests/cassettes/conftest/land.jsonl"]


def test_parameters(project: Project) -> None:
    """Each parameter of a wider fixture has a cassette."""
    project.write(
        "test_market.py",
        "@pytest.fixture(scope='module', params=['bread', 3, 'Ä'])\ndef item(request):\n"
        "    return ask(str(request.param))\n"
        "@pytest.fixture(scope='module', params=[object(), object()], ids=['x', 'y'])\ndef thing(request):\n"
        "    return ask(request.node.name + str(request.param_index))\n"
        "@pytest.mark.llm\ndef test_one(item, thing):\n    ask(item + thing)\n",
    )
    project.run("--llm-record=once", passed=6)
    folder = "cassettes/test_market/"
    wide = [name.removeprefix(folder) for name in project.cassettes() if not name.startswith(f"{folder}test_")]
    assert [re.sub("-[0-9a-f]{8}", "-…", name.removesuffix(".jsonl")) for name in wide] == [
        "item[3]", "item[_]-…", "item[bread]", "thing[x]", "thing[y]",
    ]  # fmt: skip
    project.calls()
    project.run(passed=6)
    assert project.calls() == []


def test_setup_functions(project: Project) -> None:
    """The setup and teardown functions of modules and classes are wider fixtures too, by their own names."""
    source = """
        import unittest
        import pytest
        from market import ask

        pytestmark = pytest.mark.llm

        def setup_module():
            ask("module")

        def teardown_module():
            ask("module ends")

        class TestMarket:
            @classmethod
            def setup_class(cls):
                ask("class")

            def setup_method(self):
                ask("method")

            def test_one(self):
                ask("test")

        class Case(unittest.TestCase):
            @classmethod
            def setUpClass(cls):
                ask("case")

            @classmethod
            def tearDownClass(cls):
                ask("case ends")

            def test_two(self):
                ask("unit")
    """
    project.write("test_market.py", textwrap.dedent(source), header="")
    project.run("--llm-record=once", passed=2)
    assert {name.removeprefix("cassettes/test_market/"): project.questions(name) for name in project.cassettes()} == {
        "setup_module.jsonl": ["module", "module ends"],
        "TestMarket.setup_class.jsonl": ["class"],
        "TestMarket.test_one.jsonl": ["method", "test"],
        "Case.setUpClass.jsonl": ["case", "case ends"],
        "Case.test_two.jsonl": ["unit"],
    }
    project.calls()
    project.run(passed=2)
    assert project.calls() == []


@pytest.mark.parametrize("mode", ["once", "rewrite"])
def test_a_fixture_that_fails_is_not_written(project: Project, mode: str) -> None:
    """A fixture whose setup fails leaves no cassette, nor do the tests that needed it; those that did not go on."""
    project.write(
        "test_market.py",
        "@pytest.fixture(scope='module')\ndef world():\n    ask('world')\n    assert 0\n"
        "@pytest.mark.llm\ndef test_a(world): pass\n@pytest.mark.llm\ndef test_b():\n    ask('b')\n",
    )
    project.run(f"--llm-record={mode}", passed=1, errors=1)
    assert project.cassettes() == ["cassettes/test_market/test_b.jsonl"]


def test_a_fixture_without_a_cassette(project: Project) -> None:
    """Without a recording, a wider fixture reaches no model: also where only unmarked tests use it."""
    project.write("test_market.py", textwrap.dedent(SOURCE).format(scope="module"))
    project.run(failed=1, errors=2)
    assert project.calls() == [] and project.cassettes() == []


@pytest.mark.parametrize("scope", ["class", "module"])
def test_a_live_fixture(project: Project, scope: str) -> None:
    """Where a module or class is marked live, its fixtures are, whichever test asks for them first."""
    live = "pytest.mark.llm(live=True)"
    above = f"pytestmark = {live}\n" if scope == "module" else ""
    on_class = f"@{live}\n" if scope == "class" else ""
    project.write(
        "test_market.py",
        f"{above}@pytest.fixture(scope='{scope}')\ndef world():\n    yield ask('world')\n    ask('bye')\n"
        f"{on_class}class TestLive:\n    @pytest.mark.llm\n    def test_replayed(self, world):\n        ask('a')\n"
        "    def test_live(self, world):\n        ask('b')\n",
    )
    project.run("--llm-record=once", passed=2)
    project.calls()
    project.run(passed=2)
    assert project.calls() == ["world", "b", "bye"]
    assert project.cassettes() == ["cassettes/test_market/TestLive.test_replayed.jsonl"]
