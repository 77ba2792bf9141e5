"""The names of cassettes: readable, the same in every run, good on every file system."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path

import pytest

FOLDER = "cassettes"
SUFFIX = ".jsonl"
LONGEST_NAME = 100  # characters
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
        [*(each.name for each in item.listchain() if isinstance(each, pytest.Class)), item.name]
    )
    safe_name = UNSAFE.sub("_", full_name)
    if safe_name == full_name and len(full_name) <= LONGEST_NAME and not UPPER.search(full_name):
        return safe_name + SUFFIX
    digest = hashlib.sha256(full_name.encode("utf-8", "surrogatepass")).hexdigest()[:DIGEST_DIGITS]
    return f"{safe_name[: LONGEST_NAME - DIGEST_DIGITS - 1]}-{digest}{SUFFIX}"


def item_path(item: pytest.Item, name: str) -> Path:
    """Return the file of a test's cassette.

    :param name: from the marker, a fixture or :func:`item_name`.
    :raises pytest.UsageError: if it is not a name.
    """
    if not isinstance(name, str) or not name.strip():
        raise pytest.UsageError(f"{item.nodeid}: a cassette's name must be a string, not {name!r}")
    base_folder = item.config.getini("llm_cassette_dir")
    if base_folder:
        module = Path(item.nodeid.partition("::")[0]).with_suffix("")
        folder = item.config.rootpath / str(base_folder) / module
    else:
        folder = item.path.parent / FOLDER / item.path.stem
    path = folder / (name if Path(name).suffix else name + SUFFIX)
    # Tests of several modules may share "../shared.jsonl", which must have one name.
    return Path(os.path.normpath(path))
