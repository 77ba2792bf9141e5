"""The house's order: imports go downwards, and make no cycle."""

from __future__ import annotations

import ast
import functools
import graphlib
import sys
from collections.abc import Iterator
from importlib.util import resolve_name
from pathlib import Path

import pytest

pytestmark = pytest.mark.newest_only
PACKAGE = Path(__file__).resolve().parents[2] / "llmcall"

# Imports go to the same layer or down; a module that is not named here is in the layer of its
# package.
LAYERS = [
    "_version blocking errors failures values lazy_names libraries notices system display surrogates secrets "
    "keys.keys keys.normalizers keys.plain_data",
    "config",
    "models keys values.checks typed.expectations typed.json_texts typed.lettered_options "
    "typed.reading",
    "askers interrupts scopes records differences misses",
    "ancestors.tinytroupe cache",
    "cassettes",
    "call",
    "clients",
    "recorded_functions typed parallel ancestors aio programs testing",
    "review",
    "study pytest_plugin cli __main__ types __init__",
]
LAYER_OF = {module: number for number, layer in enumerate(LAYERS) for module in layer.split()}


def module_name(path: Path) -> str:
    """Name a module within the package: ``"keys"``, ``"clients.base"``, ``"clients"``,
    ``"__init__"``.
    """
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


PATHS = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def module_behind(full_name: str) -> str | None:
    """Find which of our modules a full name leads to: ``"llmcall.keys.keys.digest"`` to
    ``"keys.keys"``.
    """
    root, _, rest = full_name.partition(".")
    if root != "llmcall":
        return None
    while rest and rest not in PATHS:
        rest = rest.rpartition(".")[0]
    return rest or "__init__"


def imports(module: str) -> Iterator[str]:
    """Yield which of our modules another one imports, also inside functions and for type checkers."""
    path = PATHS[module]
    package = ".".join(["llmcall", *path.relative_to(PACKAGE).parts[:-1]])
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path))):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = resolve_name("." * node.level + (node.module or ""), package)
            names = [f"{base}.{alias.name}" for alias in node.names]
        yield from {found for name in names if (found := module_behind(name)) not in (None, module)}


@functools.cache
def all_imports() -> dict[str, list[str]]:
    """Return which of our modules each one imports; read when the first test needs it."""
    return {module: sorted(imports(module)) for module in PATHS}


def test_imports_make_no_cycle() -> None:
    """No module imports itself by way of others."""
    try:
        graphlib.TopologicalSorter(all_imports()).prepare()
    except graphlib.CycleError as error:
        pytest.fail("import cycle: " + " <- ".join(error.args[1]))


def layer_of(module: str) -> int:
    """Return the number of a module's layer, the lowest being 0."""
    return LAYER_OF[module] if module in LAYER_OF else layer_of(module.rpartition(".")[0])


def test_every_module_has_a_layer() -> None:
    """A new package or module at the top is put into one of the layers, and a name that is gone is
    taken out.
    """
    assert {module for module in PATHS if module.partition(".")[0] not in LAYER_OF} == set()
    assert LAYER_OF.keys() - PATHS.keys() == set()


def test_imports_go_down() -> None:
    """No module imports another of a higher layer, wherever the import stands."""
    upwards = [
        f"{module} imports {each}"
        for module in PATHS
        for each in all_imports()[module]
        if layer_of(each) > layer_of(module)
    ]
    assert not upwards, "\n".join(upwards)


def imported_at_run_time(path: Path) -> Iterator[str]:
    """Yield the full names of the modules that a file's imports name, but for type checkers."""
    package = ".".join(["llmcall", *path.relative_to(PACKAGE).parts[:-1]])
    nodes: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8"), str(path))]
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        nodes += ast.iter_child_nodes(node)
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield resolve_name("." * node.level + (node.module or ""), package)


def test_libraries_are_imported_in_one_place() -> None:
    """Only there do they leave the program's random numbers; the command line and the plugin have
    theirs in every run.
    """
    own = {"llmcall", *sys.stdlib_module_names}
    elsewhere = [
        f"{module} imports {name}"
        for module, path in PATHS.items()
        if module != "libraries" and module.partition(".")[0] not in ("cli", "pytest_plugin")
        for name in imported_at_run_time(path)
        if name.partition(".")[0] not in own
    ]
    assert not elsewhere, "\n".join(elsewhere)


def modules_within(package: str) -> set[str]:
    """Return the modules that an import of one of our packages imports, of its own."""
    found: set[str] = set()
    new = {package}
    while new:
        found |= new
        names = {name for module in new for name in imported_at_run_time(PATHS[module])}
        new = {name.removeprefix("llmcall.") for name in names}
        new = {name for name in new if name.startswith(f"{package}.")} - found
    return found - {package}


def test_a_package_with_names_of_its_own_is_imported_as_a_whole() -> None:
    """Nothing else imports a module that its package imports: of two threads, one that imports the
    package and one that imports such a module, Python lets one fail.
    """
    packages = [module for module, path in PATHS.items() if path.name == "__init__.py"]
    package_of = {
        f"llmcall.{module}": package
        for package in packages
        if package != "__init__"
        for module in modules_within(package)
    }
    past_their_package = [
        f"{module} imports {name}"
        for module, path in PATHS.items()
        for name in imported_at_run_time(path)
        if name in package_of and not f"{module}.".startswith(f"{package_of[name]}.")
    ]
    assert not past_their_package, "\n".join(past_their_package)
