"""The names of tests' cassettes: readable, stable, one for each test, and good on every file system."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from replayed_projects import Project, names_of

from llmcall.pytest_plugin.names import LONGEST, safe_name

pytest_plugins = "pytester"

# What Windows allows in no name ("Naming Files, Paths, and Namespaces", Microsoft Learn).
RESERVED = set('<>:"/\\|?*') | {chr(code) for code in range(32)}
DEVICES = {"con", "prn", "aux", "nul", *(f"{port}{number}" for port in ("com", "lpt") for number in range(10))}
names = st.text(min_size=1) | st.from_regex(r"test_[a-z]{1,3}\[[a-zA-Z0-9./ \\-]{0,8}\]", fullmatch=True)


@pytest.fixture
def project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Project:
    """Make a project."""
    return Project(pytester, monkeypatch)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("test_one", "test_one"),
        ("TestMarket.test_buys[bread-3]", "TestMarket.test_buys[bread-3]"),
        ("test_price[0.5-a,b=c+d]", "test_price[0.5-a,b=c+d]"),
        ("test_path[a/b]", "test_path[a_b]-{digest}"),
        ("test_text[What? Now: *]", "test_text[What_Now_]-{digest}"),
        ("test_case[GPT-4]", "test_case[GPT-4]-{digest}"),
        ("test_word[ü]", "test_word[_]-{digest}"),
        ("aux", "aux-{digest}"),
        ("Con.test", "Con.test-{digest}"),
        ("x" * 100, "x" * 100),
        ("x" * 101, "x" * 91 + "-{digest}"),
    ],
)
def test_safe_name(name: str, expected: str) -> None:
    """An ordinary name stays as it is; another one stays readable and gains a digest."""
    pattern = re.escape(expected).replace(r"\{digest\}", "[0-9a-f]{8}")
    assert re.fullmatch(pattern, safe_name(name))


@given(names)
def test_safe_names_are_safe(name: str) -> None:
    """Whatever a test is called, its cassette's name is short, ASCII, and reserved nowhere."""
    safe = safe_name(name) + ".jsonl"
    assert len(safe) <= LONGEST + len(".jsonl") and safe.isascii() and safe.isprintable()
    assert not set(safe) & RESERVED and " " not in safe
    assert safe.partition(".")[0].casefold() not in DEVICES


@given(names, names)
def test_safe_names_differ(one: str, other: str) -> None:
    """Two tests have two names, also where case does not count; those that differ in case alone are told apart."""
    ambiguous = one != other and one.casefold() == other.casefold()
    safe = [safe_name(name, ambiguous=ambiguous).casefold() for name in (one, other)]
    assert (safe[0] == safe[1]) == (one == other)


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
