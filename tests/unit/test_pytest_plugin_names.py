"""The names of tests' cassettes: readable, stable, one for each test, and good on every file system."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

import pytest
from replayed_projects import Project, names_of

pytest_plugins = "pytester"


@pytest.fixture
def project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Project:
    """Make a project."""
    return Project(pytester, monkeypatch)


SOURCE = """
    import unittest
    import pytest
    from market import ask

    pytestmark = pytest.mark.llm

    def test_plain():
        ask("plain")

    @pytest.mark.parametrize("item", ["bread", "a/b", "a:b", "Bread", "x" * 200])
    @pytest.mark.parametrize("price", [3, 0.5])
    def test_item(item, price):
        ask(f"{item} {price}")

    class TestMarket:
        def test_method(self):
            ask("method")

        def test_Method(self):
            ask("Method")

        class TestNested:
            def test_method(self):
                ask("nested")

    class Case(unittest.TestCase):
        def setUp(self):
            ask("before")

        def tearDown(self):
            ask("after")

        def test_method(self):
            ask("unit")
"""


def test_names_of_tests(project: Project) -> None:
    """Functions, parameters, classes in classes and unittest's classes have names of their own, each time the same."""
    project.write("test_market.py", textwrap.dedent(SOURCE), header="")
    project.run("--llm-record=once", passed=15)
    found = names_of(project.path / "cassettes" / "test_market")
    assert len(found) == 15 and len({name.casefold() for name in found}) == 15
    for name in ("test_plain", "TestMarket.TestNested.test_method", "Case.test_method", "test_item[3-bread]"):
        assert f"{name}.jsonl" in found
    assert len([name for name in found if re.match(r"TestMarket\.test_[mM]ethod-", name)]) == 2
    assert project.questions("cassettes/test_market/Case.test_method.jsonl") == ["before", "unit", "after"]
    project.calls()
    project.run(passed=15)
    project.run("test_market.py::TestMarket::test_Method", "test_market.py::test_item[3-Bread]", passed=2)
    assert project.calls() == [] and names_of(project.path / "cassettes" / "test_market") == found


def test_async_tests(project: Project) -> None:
    """An async test has its cassette too, one for each event loop that it is run on."""
    pytest.importorskip("anyio")
    source = """
        import pytest
        from market import Model

        @pytest.fixture(params=["asyncio"])
        def anyio_backend(request):
            return request.param

        @pytest.fixture
        async def world(anyio_backend):
            yield (await Model().asend_message("world"))["content"]
            await Model().asend_message("bye")

        @pytest.mark.llm
        @pytest.mark.anyio
        async def test_async(world):
            assert world == "Yes, world"
            assert (await Model().asend_message("bread"))["content"] == "Yes, bread"
    """
    project.write("test_market.py", textwrap.dedent(source), header="")
    project.run("-p", "anyio", "--llm-record=once", passed=1)
    assert project.questions("cassettes/test_market/test_async[asyncio].jsonl") == ["world", "bread", "bye"]
    project.calls()
    project.run("-p", "anyio", passed=1)
    assert project.calls() == []


NAMED = {
    "marker": "@pytest.mark.llm('shared.jsonl')\ndef {}():\n    ask('{}')\n",
    "marker without suffix": "@pytest.mark.llm('shared')\ndef {}():\n    ask('{}')\n",
    "fixture": "@pytest.mark.llm\ndef {}():\n    ask('{}')\n",
}
OVERRIDE = "@pytest.fixture(scope='module')\ndef llm_cassette_name():\n    return 'shared.jsonl'\n"


@pytest.mark.parametrize("way", NAMED)
@pytest.mark.parametrize("mode", ["once", "new", "rewrite"])
def test_several_tests_share_a_named_cassette(project: Project, way: str, mode: str) -> None:
    """Tests that name one cassette record into it one after the other, within one run, and replay from it."""
    source = "".join(NAMED[way].format(f"test_{name}", name) for name in "ab")
    project.write("test_market.py", source + (OVERRIDE if way == "fixture" else ""))
    for _ in range(2 if mode == "rewrite" else 1):
        project.run(f"--llm-record={mode}", passed=2)
        assert project.calls() == ["a", "b"]
    assert project.questions("cassettes/test_market/shared.jsonl") == ["a", "b"] and len(project.cassettes()) == 1
    project.run(passed=2)
    assert project.calls() == []


def test_a_name_made_of_the_usual_one(project: Project) -> None:
    """The fixture can be overridden by one that asks for the name it stands for; the marker's name counts above it."""
    project.write(
        "conftest.py",
        "@pytest.fixture\ndef llm_cassette_name(llm_cassette_name):\n    return f'v2/{llm_cassette_name}'\n",
    )
    project.write(
        "test_market.py",
        "@pytest.mark.llm\ndef test_a():\n    ask('a')\n@pytest.mark.llm('../b.jsonl')\ndef test_b():\n    ask('b')\n",
    )
    project.run("--llm-record=once", passed=2)
    assert project.cassettes() == ["cassettes/b.jsonl", "cassettes/test_market/v2/test_a.jsonl"]


@pytest.mark.parametrize("name", ["''", "None", "3"])
def test_a_name_that_is_none(project: Project, name: str) -> None:
    """A fixture that gives no name is an error of the test."""
    project.write(
        "test_market.py",
        f"@pytest.fixture\ndef llm_cassette_name():\n    return {name}\n\n@pytest.mark.llm\ndef test_a(): pass\n",
    )
    assert "test_market.py::test_a: a cassette's name must be a text, not" in project.run(errors=1)


def test_two_modules_of_one_name(project: Project) -> None:
    """Each module's cassettes lie beside it."""
    for folder in ("north", "south"):
        project.write(f"{folder}/test_market.py", f"@pytest.mark.llm\ndef test_one():\n    ask('{folder}')\n")
        Path(folder, "__init__.py").touch()
    project.run("--llm-record=once", passed=2)
    assert project.cassettes() == [f"{folder}/cassettes/test_market/test_one.jsonl" for folder in ("north", "south")]
