"""What README.rst and the guide show at the prompt is what happens, from recorded answers."""

from __future__ import annotations

import ast
import doctest
import re
import textwrap
from pathlib import Path

import pytest

import llmcall

ROOT = Path(__file__).resolve().parent.parent
README, GUIDE = ROOT / "README.rst", ROOT / "docs" / "guide.rst"
INDENTED = re.compile(r"(?:    .*\n|\n)+")


@pytest.fixture
def replaying(tmp_path: Path) -> None:
    """Replay the answers that ship with the examples."""
    llmcall.configure(api_type="local", cache_path=tmp_path / "cache")
    llmcall.client().cache.load(ROOT / "examples" / "answers.jsonl")
    llmcall.configure(cache_mode="replay")


@pytest.mark.usefixtures("replaying")
@pytest.mark.filterwarnings("ignore:one recorded answer:UserWarning")
@pytest.mark.parametrize(("page", "least"), [(README, 6), (GUIDE, 20)], ids=["README", "guide"])
def test_the_prompt_sessions_print_what_they_show(page: Path, least: int) -> None:
    """Every example at the prompt gives the output beneath it."""
    failed, attempted = doctest.testfile(str(page), module_relative=False, optionflags=doctest.REPORT_NDIFF)
    assert attempted >= least
    assert not failed


def test_no_text_says_to_install_another_package() -> None:
    """The name on the package index belongs to another project."""
    assert "pip install llmcall" not in README.read_text(encoding="utf-8")


def code_blocks() -> list[str]:
    """Return the code blocks that are not run at the prompt."""
    pages = "".join(page.read_text(encoding="utf-8") for page in (README, GUIDE))
    _, *rest = pages.split(".. code-block:: python\n\n")
    return [textwrap.dedent(INDENTED.match(text)[0]) for text in rest]  # type: ignore[index]


@pytest.mark.parametrize("block", code_blocks())
def test_code_blocks_are_python(block: str) -> None:
    """Every code block that is not run at the prompt parses."""
    assert ast.parse(block).body
