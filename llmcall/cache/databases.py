"""The database of a cache: how it comes into being, private and out of git, and how it is changed in one go."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING

from .locks import alone

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from .storage import Change

__all__ = ["MADE_IN", "file_identity", "make_database", "make_directory", "remove_left", "rewrite", "transaction"]

ASIDE = "~"  # before a new key until all old ones are gone; no key begins with it
MOVE = f"UPDATE Cache SET key = '{ASIDE}' || ?, value = ? WHERE key = ? AND raw = 1"
SETTLE = f"UPDATE Cache SET key = substr(key, 2) WHERE key >= '{ASIDE}' AND key < '{ASIDE}g' AND raw = 1"

MADE_IN = ".new-"  # what the folder begins with in which a database is made
IGNORED = ".gitignore"


def make_database(database: Path) -> None:
    """Make a directory and diskcache's database in it, where another process has made none.

    :param database: the file; see :func:`make_directory` for its folder.
    :raises OSError: where that is not possible.
    """
    make_directory(database.parent)
    _create(database)


def make_directory(directory: Path) -> None:
    """Make a cache's directory where there is none; one that is new or empty becomes private and is left out of git.

    :raises OSError: where that is not possible.
    """
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    if _is_fresh(directory):
        directory.chmod(0o700)
        (directory / IGNORED).write_text("*\n", encoding="utf-8")


def _is_fresh(directory: Path) -> bool:
    """Return whether there is nothing in a folder, or no more than the beginning of what belongs into it."""
    return all(path.name == IGNORED and not path.stat().st_size for path in directory.iterdir())


def remove_left(directory: Path) -> None:
    """Remove what is left of processes that were killed; those that live hold a lock on their folder."""
    for folder in directory.glob(f"{MADE_IN}*"):
        with suppress(FileNotFoundError, PermissionError), alone(folder, wait=False) as gone:
            if gone:
                from shutil import rmtree

                rmtree(folder)


def _create(database: Path) -> None:
    """Let diskcache make its database aside, and put it in place whole: others may be about to open it."""
    from tempfile import TemporaryDirectory

    while True:
        made_in = TemporaryDirectory(prefix=MADE_IN, dir=database.parent)
        with made_in as folder, suppress(FileNotFoundError), alone(folder):
            if os.path.exists(folder):  # else somebody took it for left before it was locked
                _put(_made(folder, database.name), database)
                return


def _made(folder: str, name: str) -> str:
    import diskcache

    made = diskcache.Cache(folder, eviction_policy="none", cull_limit=0, size_limit=2**62, statistics=0)
    made.close()
    return os.path.join(folder, name)


def _put(file: str, place: Path) -> None:
    """Move a file to its place unless another process has put one there first."""
    try:
        os.link(file, place)
    except FileExistsError:
        return
    except OSError:  # a file system without links
        os.rename(file, place)


def rewrite(writer: sqlite3.Connection, changes: Iterable[Change]) -> int:
    """Give rows (key, new key, new value) other keys and bytes; return how many there were."""
    count = sum(writer.execute(MOVE, (new, value, key)).rowcount for key, new, value in changes)
    writer.execute(SETTLE)
    return count


def file_identity(path: str) -> tuple[int, int] | None:
    """Return what tells a file from one that was put in its place; ``None`` where there is none."""
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def transaction(writer: sqlite3.Connection, action: Callable[[sqlite3.Connection], int]) -> int:
    """Run an action on a connection, all of it or nothing, while no other process writes; return what it returns."""
    writer.execute("BEGIN IMMEDIATE")
    try:
        changed = int(action(writer))
    except BaseException:
        if writer.in_transaction:  # SQLite itself rolls back where the disk is full
            writer.execute("ROLLBACK")
        raise
    writer.execute("COMMIT")
    return changed
