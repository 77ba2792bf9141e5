"""The house's order: imports go downwards, and make no cycle."""

from __future__ import annotations

import ast
import graphlib
from pathlib import Path
from typing import NamedTuple

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "llmcall"

# Imports go to the same layer or down; a module that is not named here is in the layer of its package.
LAYERS = [
    "_version errors types notices system text secrets",
    "config",
    "models requests prompts outputs responses",
    "scopes cassettes.format explain",
    "cache",
    "cassettes",
    "engine",
    "clients",
    "recorded_functions calls parallel legacy aio http_clients testing",
    "review pytest_plugin cli __main__ __init__",
]
LAYER_OF = {module: number for number, layer in enumerate(LAYERS) for module in layer.split()}


class Import(NamedTuple):
    """Say that ``source`` imports ``target`` in a line."""

    source: str
    target: str
    line: int


def module_name(path: Path) -> str:
    """Name a module within the package: ``"keys"``, ``"clients.base"``, ``"clients"``, ``"__init__"``."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


TREES = {
    module_name(path): ast.parse(path.read_text(encoding="utf-8"), str(path)) for path in sorted(PACKAGE.rglob("*.py"))
}


def absolute(module: str, level: int, name: str | None) -> str:
    """Resolve the left part of ``from … import`` to a full name; ``module`` is where it stands."""
    if not level:
        return name or ""
    is_package = module == "__init__" or PACKAGE.joinpath(*module.split("."), "__init__.py").exists()
    parts = ["llmcall", *(module.split(".") if module != "__init__" else [])]
    base = parts[: len(parts) - level + is_package]
    return ".".join([*base, name] if name else base)


def imported_names(module: str, node: ast.AST) -> list[str]:
    """List the full names that a node imports, also by ``import_module("…")``."""
    match node:
        case ast.Import(names=names):
            return [alias.name for alias in names]
        case ast.ImportFrom(module=name, names=names, level=level):
            base = absolute(module, level, name)
            return [f"{base}.{alias.name}" for alias in names]
        case ast.Call(func=ast.Name(id=called) | ast.Attribute(attr=called), args=[ast.Constant(value=str(name)), *_]):
            if called in ("import_module", "__import__"):
                dots = len(name) - len(name.lstrip("."))
                return [absolute(module, dots, name[dots:])]
    return []


def module_behind(full_name: str) -> str | None:
    """Find which of our modules a full name leads to: ``"llmcall.requests.keys.digest"`` to ``"requests.keys"``."""
    root, _, rest = full_name.partition(".")
    if root != "llmcall":
        return None
    while rest and rest not in TREES:
        rest = rest.rpartition(".")[0]
    return rest or "__init__"


def imports() -> list[Import]:
    """List every import of one of our modules by another, inside functions and for type checkers too."""
    found = {
        Import(module, target, getattr(node, "lineno", 0))
        for module, tree in TREES.items()
        for node in ast.walk(tree)
        for name in imported_names(module, node)
        if (target := module_behind(name)) is not None and target != module
    }
    return sorted(found)


def test_imports_make_no_cycle() -> None:
    """No module imports itself by way of others."""
    graph: dict[str, set[str]] = {module: set() for module in TREES}
    for found in imports():
        graph[found.source].add(found.target)
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        pytest.fail("import cycle: " + " <- ".join(error.args[1]))


def layer_of(module: str) -> int:
    """Return the number of a module's layer, the lowest being 0."""
    return LAYER_OF[module] if module in LAYER_OF else layer_of(module.rpartition(".")[0])


def test_every_module_has_a_layer() -> None:
    """A new package or module at the top is put into one of the layers, and a name that is gone is taken out."""
    assert {module for module in TREES if module.partition(".")[0] not in LAYER_OF} == set()
    assert LAYER_OF.keys() - TREES.keys() == set()


def test_imports_go_down() -> None:
    """No module imports another of a higher layer, wherever the import stands."""
    upwards = [found for found in imports() if layer_of(found.target) > layer_of(found.source)]
    assert not upwards, "\n".join(f"{one.source}, line {one.line}, imports {one.target}" for one in upwards)
