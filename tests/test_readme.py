"""What README.rst and the documentation show is what happens, from recorded answers."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
from pages import PAGES, ROOT, answers_of, blocks, run_page

import llmcall
import llmcall.aio
import llmcall.testing

REFERENCE = ROOT / "docs" / "reference"
NEEDED = {"survey": ("matplotlib", "pandas"), "other_machines": ("distributed",)}


def name_of(page: Path) -> str:
    """Name a page as a test's parameter."""
    return page.relative_to(ROOT).with_suffix("").as_posix()


@pytest.fixture
def reading(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Replay the answers that ship with the page or the examples, in a folder of the reader's own."""
    monkeypatch.setenv("LLMCALL_API_TYPE", "local")
    monkeypatch.setenv("LLMCALL_CACHE_PATH", str(tmp_path / ".llmcall" / "cache"))
    with llmcall.ResponseCache(tmp_path / ".llmcall" / "cache") as cache:
        cache.load(answers_of(page))
    monkeypatch.setenv("LLMCALL_CACHE_MODE", "replay")
    monkeypatch.setenv("COLUMNS", "100")
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    yield
    llmcall.force_api_type(None)


@pytest.mark.usefixtures("reading")
@pytest.mark.filterwarnings("ignore:one recorded answer:UserWarning")
@pytest.mark.filterwarnings("ignore::DeprecationWarning:(matplotlib|pyparsing)")
@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_pages_show_what_happens(page: Path) -> None:
    """Every block of a page runs, and every session and command gives the output beneath it."""
    if not all(map(find_spec, NEEDED.get(page.stem, ()))):
        pytest.skip(f"needs {' and '.join(NEEDED[page.stem])}")
    assert not run_page(page).failed


SETTINGS = [(page, text) for page in PAGES for text in blocks(page, "ini") if "[pytest]" not in text]


@pytest.mark.parametrize(("page", "text"), SETTINGS, ids=[name_of(page) for page, _ in SETTINGS])
def test_settings_that_are_shown(page: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A config.ini that a page shows is read without a warning."""
    for name in re.findall(r"\$\{(\w+)\}", text):
        monkeypatch.setenv(name, "secret")
    Path("config.ini").write_text(text, encoding="utf-8")
    settings = llmcall.settings()
    assert any("config.ini" in settings.origin_of(name).text for name in settings.layer() if name[0] != "_")


def test_the_reference_is_complete() -> None:
    """Every public name stands in the reference, once."""
    pages = "".join(page.read_text(encoding="utf-8") for page in REFERENCE.glob("*.rst"))
    names = re.findall(r"\.\. auto(?:function|class|exception):: (\S+)", pages)
    assert len(names) == len(set(names))
    shown = {name.rpartition(".")[2] for name in names}
    assert shown >= {*llmcall.__all__, *llmcall.testing.__all__} - {"__version__"}
    [of_aio] = re.findall(r"automodule:: llmcall\.aio\n   :members: (.*)", pages)
    assert of_aio.split(", ") == llmcall.aio.__all__


def test_no_text_says_to_install_another_package() -> None:
    """The name on the package index belongs to another project."""
    assert not any("pip install llmcall" in page.read_text(encoding="utf-8") for page in PAGES)
    assert os.path.getsize(ROOT / "README.rst") and len((ROOT / "README.rst").read_text("utf-8").splitlines()) <= 160
