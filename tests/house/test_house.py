"""The house's style: documented names, tables that line up, and nothing left lying about."""

from __future__ import annotations

import re
import runpy
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from commands import LONGEST, done

from llmcall.review.outputs import ALIKE
from llmcall.support.normalizers import NORMALIZERS

ROOT = Path(__file__).resolve().parents[2]
# Written so that this file does not match itself.
FORBIDDEN = {
    "a path of one machine": r"(?<![\w.])/wor[k]/|/tmp/[w]/|(?<![\w.])/roo[t]/",
    "unfinished work": r"\b(TOD[O]|FIXM[E]|XX[X])\b",
    "a merge's conflict": r"(?m)^(<{7}|>{7}) ",
}


def tree_files() -> Iterator[Path]:
    """Yield the project's own files, whether git knows them or not; no environment, cache, build or
    keys.
    """
    made = {"__pycache__", ".llmcall", ".hypothesis", ".ipynb_checkpoints"}
    for folder in (".", "llmcall", "tests", "examples", "benchmarks", ".ci"):
        for path in (ROOT / folder).glob("*" if folder == "." else "**/*"):
            hidden = any(
                part in made or part.endswith("_cache") for part in path.relative_to(ROOT).parts
            )
            if path.is_file() and not hidden and path.name not in (".env", ".git"):
                yield path


@pytest.mark.parametrize("what", FORBIDDEN)
def test_no_file_holds_what_belongs_to_one_machine_or_moment(what: str) -> None:
    """No file of the project holds what belongs to one machine or one moment."""
    found = [
        f"{path.relative_to(ROOT)}: {match[0].strip()}"
        for path in tree_files()
        for match in re.finditer(
            FORBIDDEN[what], path.read_bytes().decode("utf-8", errors="replace")
        )
    ]
    assert not found, "\n".join(found)


def test_importing_reads_no_file() -> None:
    """Importing llmcall opens its modules, and no configuration, cache or data."""
    watch = "import sys; sys.addaudithook(lambda event, args: event == 'open' and print(args[0])); import llmcall"
    done = subprocess.run(
        [sys.executable, "-c", watch], check=True, capture_output=True, text=True, timeout=LONGEST
    )
    others = [
        path
        for path in done.stdout.splitlines()
        if not re.search(r"\.py$|\.pyc\b|\.so$|\.pyd$", path)
    ]
    assert done.stdout and not others


def test_the_picture_of_the_architecture_is_what_the_code_draws() -> None:
    """After a change: ``python docs/pictures/architecture.py``."""
    script = ROOT / "docs" / "pictures" / "architecture.py"
    drawn = runpy.run_path(str(script))["picture"]()
    assert drawn == script.with_suffix(".svg").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", NORMALIZERS)
def test_a_normalizer_is_named_wherever_they_are_listed(name: str) -> None:
    """In the configuration, on the pages, in the help, and where two outputs of a program are compared."""
    for page in ("config.ini", "docs/howto/troubleshooting.rst", "docs/howto/programs.rst"):
        assert name in (ROOT / page).read_text(encoding="utf-8"), page
    assert name in done("run", "-h")
    assert name in ALIKE
