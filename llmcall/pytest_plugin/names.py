"""The names of tests' cassettes: readable, the same in every run, and good on every file system."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from _pytest.fixtures import SubRequest

__all__ = ["fixture_path", "item_name", "item_path", "safe_name"]

FOLDER = "cassettes"
SUFFIX = ".jsonl"
LONGEST = 100  # characters: with folders, under the 260 of a path in Windows
DIGITS = 8
UNSAFE = re.compile(r"[^A-Za-z0-9_.,=+\[\]-]+")
UPPER_PARAMETER = re.compile(r"\[.*[A-Z].*\]")
# Names that Windows keeps for devices, whatever their suffix ("Naming Files, Paths, and Namespaces", Microsoft Learn).
DEVICE = re.compile(r"(con|prn|aux|nul|(com|lpt)[0-9])(\..*)?$", re.IGNORECASE)
# How pytest names the fixtures that it makes of setup functions (pytest 8 and 9).
SETUP_FIXTURE = re.compile(r"_(?:xunit|unittest)_(\w+?)_fixture_")


def safe_name(name: str, *, ambiguous: bool = False) -> str:
    """Return a file's name, without suffix, for a test's or fixture's name.

    Where something had to be replaced, or another name could be the same in a file system that ignores case, a digest
    of the name is added.

    :param name: such as ``TestMarket.test_buys[bread-3]``.
    :param ambiguous: whether another name differs in case alone.
    """
    safe = UNSAFE.sub("_", name)
    changed = safe != name or len(name) > LONGEST or DEVICE.match(name) or UPPER_PARAMETER.search(name)
    if not changed and not ambiguous:
        return safe
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:DIGITS]
    return f"{safe[: LONGEST - DIGITS - 1]}-{digest}"


def item_name(item: pytest.Item) -> str:
    """Return the name of a test's cassette: its classes, its name and its parameters."""
    nodes = [node for node in item.listchain() if isinstance(node, pytest.Class)] + [item]
    return safe_name(".".join(node.name for node in nodes), ambiguous=any(map(_has_twin, nodes))) + SUFFIX


def _has_twin(node: Any) -> bool:
    """Return whether something beside a test or class has a name that differs in case alone."""
    name = getattr(node, "originalname", None) or node.name
    around = dir(getattr(node.parent, "obj", None))
    return any(other != name and other.casefold() == name.casefold() for other in around)


def item_path(item: pytest.Item, name: str) -> Path:
    """Return the file of a test's cassette.

    :param name: what the marker, a fixture or :func:`item_name` calls it.
    :raises pytest.UsageError: where it is no name.
    """
    if not isinstance(name, str) or not name.strip():
        raise pytest.UsageError(f"{item.nodeid}: a cassette's name must be a text, not {name!r}")
    return _folder(item.config, item.path) / (name if Path(name).suffix else name + SUFFIX)


def _folder(config: pytest.Config, module: Path) -> Path:
    """Return the folder of a test module's cassettes."""
    named = config.getini("llm_cassette_dir")
    if not named:
        return module.parent / FOLDER / module.stem
    root = config.rootpath
    beside = module.with_suffix("")
    inside = beside.relative_to(root) if beside.is_relative_to(root) else Path(beside.name)
    return root / str(named) / inside


def fixture_path(fixture: pytest.FixtureDef[Any], request: SubRequest) -> Path:
    """Return the file of a wider fixture's cassette: beside what it is set up for, a session's where it is defined."""
    name = _fixture_name(fixture, request)
    node = request.node
    if isinstance(node, pytest.Session):
        return _defined(request.config, fixture.baseid) / (safe_name(name) + SUFFIX)
    if isinstance(node, pytest.Package):
        folder = node.path if node.path.is_dir() else node.path.parent
        return _folder(request.config, folder / "conftest.py") / (safe_name(name) + SUFFIX)
    classes = [each.name for each in node.listchain() if isinstance(each, pytest.Class)]
    return _folder(request.config, node.path) / (safe_name(".".join([*classes, name])) + SUFFIX)


def _defined(config: pytest.Config, baseid: str) -> Path:
    place = config.rootpath / baseid.partition("::")[0]
    return _folder(config, place if place.suffix == ".py" else place / "conftest.py")


def _fixture_name(fixture: pytest.FixtureDef[Any], request: SubRequest) -> str:
    made = SETUP_FIXTURE.match(fixture.argname)
    name = made[1] if made else fixture.argname
    if not hasattr(request, "param"):
        return name
    ids = fixture.ids
    given = ids[request.param_index] if isinstance(ids, (list, tuple)) else request.param
    plain = isinstance(given, (str, int, float, bool)) or given is None
    return f"{name}[{given if plain else request.param_index}]"
