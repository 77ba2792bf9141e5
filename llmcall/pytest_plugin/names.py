"""The names of cassettes: readable, the same in every run, good on every file system."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from _pytest.fixtures import SubRequest

FOLDER = "cassettes"
SUFFIX = ".jsonl"
LONGEST_NAME = 100  # characters
DIGEST_DIGITS = 8
UNSAFE = re.compile(r"[^A-Za-z0-9_.,=+\[\]-]+")
# Another test's name may differ only in case, which some file systems ignore.
UPPER = re.compile(r"\[.*[A-Z].*\]|(?:^|\.)test\w*[A-Z]")
# How pytest names the fixtures that it makes of setup functions (pytest 8 and 9).
SETUP_FIXTURE = re.compile(r"^_(?:xunit|unittest)_(\w+?)_fixture_.*")


def item_name(item: pytest.Item) -> str:
    """Return the name of a test's cassette: its classes, its name and its parameters."""
    return _name_below(item, item.name)


def item_path(item: pytest.Item, name: str) -> Path:
    """Return the file of a test's cassette.

    :param name: from the marker, a fixture or :func:`item_name`.
    :raises pytest.UsageError: if it is not a name.
    """
    if not isinstance(name, str) or not name.strip():
        raise pytest.UsageError(f"{item.nodeid}: a cassette's name must be a string, not {name!r}")
    path = _folder(item.config, item.path) / (name if Path(name).suffix else name + SUFFIX)
    # Tests of several modules may share "../shared.jsonl", which must have one name.
    return Path(os.path.normpath(path))


def fixture_path(fixture: pytest.FixtureDef[Any], request: SubRequest) -> Path:
    """Return the file of the cassette of a fixture with a wider scope: next to the module, class or
    package that it is set up for; for a session, next to the fixture's definition.
    """
    node, config = request.node, request.config
    is_session = isinstance(node, pytest.Session)
    location = config.rootpath / fixture.baseid.partition("::")[0] if is_session else node.path
    module = location if location.suffix == ".py" else location / "conftest.py"
    name = SETUP_FIXTURE.sub(r"\1", fixture.argname)
    if hasattr(request, "param"):
        is_readable = isinstance(request.param, (str, int, float, type(None)))
        name += f"[{request.param if is_readable else request.param_index}]"
    return _folder(config, module) / _name_below(node, name)


def _name_below(node: pytest.Item | pytest.Collector, name: str) -> str:
    """Return a file's name for a test's or fixture's name, such as
    ``TestMarket.test_buys[bread-3]`` with its classes.

    If a character is replaced, or two names may differ only in case, a digest of the name is added.
    """
    full_name = ".".join(
        [*(each.name for each in node.listchain() if isinstance(each, pytest.Class)), name]
    )
    safe_name = UNSAFE.sub("_", full_name)
    if safe_name == full_name and len(full_name) <= LONGEST_NAME and not UPPER.search(full_name):
        return safe_name + SUFFIX
    digest = hashlib.sha256(full_name.encode("utf-8", "surrogatepass")).hexdigest()[:DIGEST_DIGITS]
    return f"{safe_name[: LONGEST_NAME - DIGEST_DIGITS - 1]}-{digest}{SUFFIX}"


def _folder(config: pytest.Config, module: Path) -> Path:
    """Return the folder of a test module's cassettes."""
    base_folder = config.getini("llm_cassette_dir")
    if not base_folder:
        return module.parent / FOLDER / module.stem
    root = config.rootpath
    module_path = module.with_suffix("")
    is_in_project = module_path.is_relative_to(root)
    return (
        root
        / str(base_folder)
        / (module_path.relative_to(root) if is_in_project else module_path.name)
    )
