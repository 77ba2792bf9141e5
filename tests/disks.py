"""Disks that fail for real: too small, mounted read-only (skipped where mounting is not allowed),
or damaged.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

DATABASE = "cache.db"


def in_database(folder: object, statement: str, *values: Any) -> list[Any]:
    """Run a statement on the database of a cache, as somebody else would who damages it; return
    what it finds.
    """
    with closing(sqlite3.connect(f"{folder}/{DATABASE}")) as connection, connection:
        return connection.execute(statement, values).fetchall()


def mount(place: Path, *arguments: str) -> None:
    """Mount something at a place, or skip the test where that is not allowed."""
    command = shutil.which("mount")
    if command is None or os.getuid():
        pytest.skip("only a superuser mounts")
    done = subprocess.run([command, *arguments, str(place)], capture_output=True, check=False)
    if done.returncode:
        pytest.skip(f"mounting is not allowed here: {done.stderr.decode().strip()}")


@contextmanager
def small(place: Path, size: str = "1m") -> Iterator[Path]:
    """Provide a disk of little size."""
    place.mkdir()
    mount(place, "-t", "tmpfs", "-o", f"size={size}", "none")
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


@contextmanager
def read_only(place: Path) -> Iterator[Path]:
    """Make a folder one that nobody can write to."""
    mount(place, "--bind", str(place))
    try:
        subprocess.run(["mount", "-o", "remount,ro,bind", str(place)], check=True)
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)
