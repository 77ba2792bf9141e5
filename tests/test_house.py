"""The house's style: documented names, and nothing left lying about."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("llmcall", "tests", "examples", "benchmarks", ".ci")

Function = ast.FunctionDef | ast.AsyncFunctionDef

# Written so that this file does not match itself.
FORBIDDEN = {
    "a path of one machine": r"(?<![\w.])/wor[k]/|/tmp/[w]/|(?<![\w.])/roo[t]/",
    "unfinished work": r"\b(TOD[O]|FIXM[E]|XX[X])\b",
    "a merge's conflict": r"(?m)^(<{7}|>{7}) ",
}


def tree_files() -> list[Path]:
    """List the project's own files, whether git knows them or not; no environment, cache or build."""
    found = [path for path in ROOT.iterdir() if path.is_file()]
    for folder in FOLDERS:
        found += (path for path in (ROOT / folder).rglob("*") if path.is_file())
    return sorted(path for path in found if not hidden(path.relative_to(ROOT)))


def hidden(path: Path) -> bool:
    """Tell whether a path lies in a folder that a tool made, is a worktree's link to git, or holds somebody's keys."""
    made = {"__pycache__", ".llmcall", ".hypothesis", ".ipynb_checkpoints"}
    return path.name in (".env", ".git") or any(part in made or part.endswith("_cache") for part in path.parts)


FILES = tree_files()
TREES = {
    str(path.relative_to(ROOT)): ast.parse(path.read_text(encoding="utf-8"), str(path))
    for path in FILES
    if path.suffix == ".py"
}
PACKAGE = {name: tree for name, tree in TREES.items() if name.startswith("llmcall/")}


def is_overload(node: ast.AST) -> bool:
    """Tell whether a definition only repeats another: an overload, or a property's setter."""
    decorators = [ast.unparse(decorator) for decorator in getattr(node, "decorator_list", [])]
    return any(name.endswith(("overload", ".setter", ".deleter")) for name in decorators)


def public(node: ast.Module | ast.ClassDef) -> Iterator[Function | ast.ClassDef]:
    """Yield the public classes, functions and methods of a module or class."""
    for child in node.body:
        if isinstance(child, Function | ast.ClassDef) and not child.name.startswith("_") and not is_overload(child):
            yield child
            if isinstance(child, ast.ClassDef):
                yield from public(child)


def test_public_names_are_documented() -> None:
    """Every public class, function and method has a docstring."""
    bare = [
        f"{name}:{node.lineno} {node.name} has no docstring"
        for name, tree in PACKAGE.items()
        for node in public(tree)
        if not ast.get_docstring(node)
    ]
    assert not bare, "\n".join(bare)


@pytest.mark.parametrize("what", FORBIDDEN)
def test_nothing_is_left_lying_about(what: str) -> None:
    """No file of the project holds what belongs to one machine or one moment."""
    pattern = re.compile(FORBIDDEN[what])
    found = []
    for path in FILES:
        text = path.read_bytes().decode("utf-8", errors="replace")
        found += [f"{path.relative_to(ROOT)}: {match[0].strip()}" for match in pattern.finditer(text)]
    assert not found, "\n".join(found)
