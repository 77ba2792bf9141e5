"""The house's style: short functions and files, documented names, and nothing left lying about."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("llmcall", "tests", "examples", "benchmarks", ".ci")
MAIN = "llmcall/__main__.py"  # a program, not a module to import from
FUNCTION_LINES = 50
FILE_LINES = 300

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
    """Tell whether a path lies in a folder that a tool made, or holds somebody's keys."""
    made = {"__pycache__", ".llmcall", ".hypothesis", ".ipynb_checkpoints"}
    return path.name == ".env" or any(part in made or part.endswith("_cache") for part in path.parts)


FILES = tree_files()
TREES = {
    str(path.relative_to(ROOT)): ast.parse(path.read_text(encoding="utf-8"), str(path))
    for path in FILES
    if path.suffix == ".py"
}
PACKAGE = {name: tree for name, tree in TREES.items() if name.startswith("llmcall/")}
TESTS = {name: tree for name, tree in TREES.items() if re.match(r"tests/(.*/)?test_[^/]*$", name)}


def functions(tree: ast.AST) -> Iterator[Function]:
    """Yield every function and method, nested ones too."""
    return (node for node in ast.walk(tree) if isinstance(node, Function))


def lines_of(function: Function) -> int:
    """Count a function's lines without its decorators and docstring."""
    first = function.body[0]
    docstring = (first.end_lineno or 0) - first.lineno + 1 if ast.get_docstring(function) is not None else 0
    return (function.end_lineno or 0) - function.lineno + 1 - docstring


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


def assigned(tree: ast.Module) -> set[str]:
    """Name what a module assigns at its top level."""
    targets = [target for node in tree.body if isinstance(node, ast.Assign) for target in node.targets]
    targets += [node.target for node in tree.body if isinstance(node, ast.AnnAssign)]
    return {target.id for target in targets if isinstance(target, ast.Name)}


def test_functions_are_short() -> None:
    """No function has more than 50 lines beside its docstring."""
    long = [
        f"{name}:{function.lineno} {function.name} has {lines_of(function)} lines"
        for name, tree in TREES.items()
        for function in functions(tree)
        if lines_of(function) > FUNCTION_LINES
    ]
    assert not long, "\n".join(long)


def test_files_are_short() -> None:
    """No file of the package has more than 300 lines."""
    lengths = {name: len((ROOT / name).read_text(encoding="utf-8").splitlines()) for name in PACKAGE}
    long = [f"{name} has {length} lines" for name, length in lengths.items() if length > FILE_LINES]
    assert not long, "\n".join(long)


def test_public_names_are_documented() -> None:
    """Every public class, function and method has a docstring."""
    bare = [
        f"{name}:{node.lineno} {node.name} has no docstring"
        for name, tree in PACKAGE.items()
        for node in public(tree)
        if not ast.get_docstring(node)
    ]
    assert not bare, "\n".join(bare)


def test_tests_say_what_they_show() -> None:
    """Every test has a docstring of one line."""
    silent = [
        f"{name}:{function.lineno} {function.name} has no docstring of one line"
        for name, tree in TESTS.items()
        for function in functions(tree)
        if function.name.startswith("test_") and len((ast.get_docstring(function) or "").splitlines()) != 1
    ]
    assert not silent, "\n".join(silent)


def test_modules_begin_alike() -> None:
    """Every module postpones its annotations and lists what it exports."""
    future = "from __future__ import annotations"
    missing = [f"{name} lacks {future}" for name, tree in PACKAGE.items() if future not in heads(tree)]
    modules = {name: tree for name, tree in PACKAGE.items() if name != MAIN}
    missing += [f"{name} lacks __all__" for name, tree in modules.items() if "__all__" not in assigned(tree)]
    assert not missing, "\n".join(missing)


def heads(tree: ast.Module) -> list[str]:
    """Give a module's first two statements as text."""
    return [ast.unparse(statement) for statement in tree.body[:2]]


@pytest.mark.parametrize("what", FORBIDDEN)
def test_nothing_is_left_lying_about(what: str) -> None:
    """No file of the project holds what belongs to one machine or one moment."""
    pattern = re.compile(FORBIDDEN[what])
    found = []
    for path in FILES:
        text = path.read_bytes().decode("utf-8", errors="replace")
        found += [f"{path.relative_to(ROOT)}: {match[0].strip()}" for match in pattern.finditer(text)]
    assert not found, "\n".join(found)
