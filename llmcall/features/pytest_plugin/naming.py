"""A test's cassette: its marker's arguments, and its file."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

if TYPE_CHECKING:
    from ...programs.actors import Actor

FOLDER = "cassettes"
SUFFIX = ".jsonl"
MAX_NAME_CHARACTERS = 100
DIGEST_DIGITS = 8
UNSAFE = re.compile(r"[^A-Za-z0-9_.,=+\[\]-]+")
# Another test's name may differ only in case, which some file systems ignore.
UPPER = re.compile(r"\[.*[A-Z].*\]|(?:^|\.)test\w*[A-Z]")


def item_name(item: pytest.Item) -> str:
    """Return the name of a test's cassette: its classes, its name and its parameters, such as
    ``TestMarket.test_buys[bread-3]``.

    If a character is replaced, or two names may differ only in case, a digest of the name is added.
    """
    full_name = ".".join(
        [*(node.name for node in item.listchain() if isinstance(node, pytest.Class)), item.name]
    )
    safe_name = UNSAFE.sub("_", full_name)
    if (
        safe_name == full_name
        and len(full_name) <= MAX_NAME_CHARACTERS
        and not UPPER.search(full_name)
    ):
        return safe_name + SUFFIX
    digest = hashlib.sha256(full_name.encode("utf-8", "surrogatepass")).hexdigest()[:DIGEST_DIGITS]
    return f"{safe_name[: MAX_NAME_CHARACTERS - DIGEST_DIGITS - 1]}-{digest}{SUFFIX}"


def item_path(item: pytest.Item, name: str) -> Path:
    """Return the file of a test's cassette.

    :param name: the marker's or the fixture's name for it, or :func:`item_name`'s.
    """
    base_folder = item.config.getini("llm_cassette_dir")
    if base_folder:
        module = Path(item.nodeid.partition("::")[0]).with_suffix("")
        folder = item.config.rootpath / str(base_folder) / module
    else:
        folder = item.path.parent / FOLDER / item.path.stem
    path = folder / (name if Path(name).suffix else name + SUFFIX)
    # Tests of several modules may share "../shared.jsonl", which must have one name.
    return Path(os.path.normpath(path))


class Mark(NamedTuple):
    """The arguments of a test's nearest marker."""

    name: str | None = None
    live: bool = False
    actor: Actor | None = None


def read_marker(node: pytest.Item | pytest.Collector) -> Mark:
    """Return the arguments of a node's marker, or the defaults without one.

    :raises pytest.UsageError: if the arguments are wrong.
    """
    marker = node.get_closest_marker("llm")
    if marker is None:
        return Mark()
    with contextlib.suppress(TypeError):
        mark = Mark(*marker.args, **marker.kwargs)
        if mark.name is None or not mark.live:
            return mark
    arguments = [
        *map(repr, marker.args),
        *(f"{name}={value!r}" for name, value in marker.kwargs.items()),
    ]
    problem = f"@pytest.mark.llm({', '.join(arguments)}) must be llm, llm(name), llm(actor=…) or llm(live=True)"
    raise pytest.UsageError(f"{node.nodeid}: {problem}")
