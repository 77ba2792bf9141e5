"""The house's order: each folder is a layer, and imports go downwards."""

from __future__ import annotations

import ast
import functools
import graphlib
from collections.abc import Iterator
from importlib.util import resolve_name
from pathlib import Path

import pytest

from llmcall.additions import FEATURES, PARTS, feature

pytestmark = pytest.mark.newest_only
PACKAGE = Path(__file__).resolve().parents[2] / "llmcall"

# The folders and modules of the package, the lowest first. Each imports only from its own line or
# from lower ones, inside functions too; imports for type checkers may look up.
LAYERS = [
    "_version errors additions",
    "support",
    "config",
    "apis",
    "models",
    "keys",
    "answers",
    "scopes",
    "stores",
    "core",
    "traffic",
    "clients testing",
    "recorded_functions",
    "link",
    "many",
    "typed",
    "programs",
    "review",
    "cli",
    " ".join(("features", *(f"features.{name}" for name in FEATURES))),
    "__main__ aio types __init__",
]
LAYER_OF = {name: number for number, names in enumerate(LAYERS) for name in names.split()}


def module_name(path: Path) -> str:
    """Name a module within the package: ``"errors"``, ``"clients.base"``, ``"clients"``,
    ``"__init__"``.
    """
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


PATHS = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


@functools.cache
def parsed(path: Path) -> ast.Module:
    """Return the tree of a module."""
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def imported_names(path: Path) -> Iterator[str]:
    """Yield the full names that a file imports anywhere, but for type checkers."""
    package = ".".join(["llmcall", *path.relative_to(PACKAGE).parts[:-1]])
    nodes: list[ast.AST] = [parsed(path)]
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        nodes += ast.iter_child_nodes(node)
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = resolve_name("." * node.level + (node.module or ""), package)
            yield from (f"{base}.{alias.name}" for alias in node.names)


def module_behind(full_name: str) -> str | None:
    """Find which of our modules a full name leads to: ``"llmcall.keys.keys.key_of"`` to
    ``"keys.keys"``.
    """
    root, _, rest = full_name.partition(".")
    if root != "llmcall":
        return None
    while rest and rest not in PATHS:
        rest = rest.rpartition(".")[0]
    return rest or "__init__"


@functools.cache
def all_imports() -> dict[str, list[str]]:
    """Return which of our modules each one imports; read when the first test needs it."""
    return {
        module: sorted(
            {found for name in imported_names(path) if (found := module_behind(name))} - {module}
        )
        for module, path in PATHS.items()
    }


def folder_of(module: str) -> str:
    """Return the folder, or the module at the top, in which a module stands; each feature has its own."""
    return ".".join(module.split(".")[: 2 if module.startswith("features.") else 1])


def test_every_folder_has_a_layer() -> None:
    """A new one is put into a layer, and a name that is gone is taken out."""
    assert {folder_of(module) for module in PATHS} == LAYER_OF.keys()


def test_imports_make_no_cycle() -> None:
    """No module imports itself by way of others."""
    try:
        graphlib.TopologicalSorter(all_imports()).prepare()
    except graphlib.CycleError as error:
        pytest.fail("import cycle: " + " <- ".join(error.args[1]))


def test_a_folder_imports_from_no_folder_above_it() -> None:
    """No folder imports from one above it, wherever the import stands."""
    upwards = [
        f"{module} imports {imported}"
        for module, names in all_imports().items()
        for imported in names
        if LAYER_OF[folder_of(imported)] > LAYER_OF[folder_of(module)]
    ]
    assert not upwards, "\n".join(upwards)


def test_the_table_of_features_has_every_folder_that_is_one() -> None:
    assert [*FEATURES] == sorted(
        path.parent.name for path in PACKAGE.glob("features/*/__init__.py")
    )


def test_the_table_of_features_names_the_kinds_of_what_each_adds() -> None:
    for name, kinds in {**PARTS, **FEATURES}.items():
        added = {kind for kind, value in feature(name)._asdict().items() if value} - {"needs"}
        assert sorted(added) == sorted(kinds.split()), name


def test_a_declaration_imports_nothing_but_the_table() -> None:
    """What a feature adds is imported when it is first used: any call reads all declarations."""
    declared = {*PARTS, *(f"features.{name}" for name in FEATURES)}
    assert {name for module in declared for name in all_imports()[module]} == {"additions"}


def test_a_feature_imports_only_those_that_it_says_it_needs() -> None:
    """Deleting one of these deletes it, too; all others can be deleted without it."""
    name_of = {f"features.{name}": name for name in FEATURES}
    undeclared = [
        f"{module} imports {imported}"
        for module, names in all_imports().items()
        for imported in names
        if folder_of(module) in name_of
        and folder_of(imported) in name_of.keys() - {folder_of(module)}
        and name_of[folder_of(imported)] not in feature(name_of[folder_of(module)]).needs
    ]
    assert not undeclared, "\n".join(undeclared)


def modules_within(package: str) -> set[str]:
    """Return the modules that an import of one of our packages imports, of its own."""
    found: set[str] = set()
    new = {package}
    while new:
        found |= new
        names = {name for module in new for name in all_imports()[module]}
        new = {name for name in names if name.startswith(f"{package}.")} - found
    return found - {package}


def test_a_package_with_names_of_its_own_is_imported_as_a_whole() -> None:
    """Nothing else imports a module that its package imports: of two threads, one that imports the
    package and one that imports such a module, Python lets one fail.
    """
    packages = [module for module, path in PATHS.items() if path.name == "__init__.py"]
    package_of = {
        module: package
        for package in packages
        if package != "__init__"
        for module in modules_within(package)
    }
    past_their_package = [
        f"{module} imports {imported}"
        for module, names in all_imports().items()
        for imported in names
        if imported in package_of and not f"{module}.".startswith(f"{package_of[imported]}.")
    ]
    assert not past_their_package, "\n".join(past_their_package)


TRANSPORT_METHODS = {"send", "stream", "asend", "astream", "fetch", "list_models"}
KEY_FUNCTIONS = {"provider", "self._token", "self.azure_ad_token_provider"}


def calls_of_transports(module: str) -> Iterator[str]:
    """Yield what a module uses of a transport to send, and where it calls a function that gives a key."""
    tree = parsed(PATHS[module])
    passed_on = {
        argument
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "call_callback"
        for argument in node.args
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr in TRANSPORT_METHODS:
            is_transports = ast.unparse(node.value).endswith("transport")
            if is_transports and node not in passed_on:
                yield ast.unparse(node)
        is_call = isinstance(node, ast.Call)
        if is_call and ast.unparse(node.func) in KEY_FUNCTIONS:
            yield ast.unparse(node)


def test_transports_and_functions_that_give_keys_are_called_in_one_module() -> None:
    """Requests that they send are unrecorded."""
    callers = {module: list(calls_of_transports(module)) for module in PATHS}
    assert {module for module, found in callers.items() if found} == {"core.callbacks"}
    users = [module for module in PATHS if "support.request_origin" in all_imports()[module]]
    assert [module for module in users if folder_of(module) == "core"] == [
        "core.callbacks",
        "core.prepare",
    ]
