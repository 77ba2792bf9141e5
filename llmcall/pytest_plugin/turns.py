"""Turns at recording: several workers of one run record a cassette one after the other, each on top of the last."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import sqlite3
import tempfile
from pathlib import Path

__all__ = ["Turn", "Turns", "make_folder", "remove_folder"]

LONGEST_WAIT = 3600.0  # seconds: another worker's test may take long


class Turns:
    """Give out turns at the cassettes of a run.

    :param folder: where the workers of the run meet; ``None`` where there is one process alone.
    """

    def __init__(self, folder: str | None) -> None:
        self._folder = folder
        self._begun: set[str] = set()

    def take(self, path: Path) -> Turn:
        """Wait until no other worker records a cassette, and keep the others waiting until the turn ends."""
        file = os.path.realpath(path)
        if self._folder is None:
            return Turn(file, self._begun, None)
        os.makedirs(self._folder, exist_ok=True)
        return Turn(file, self._begun, os.path.join(self._folder, hashlib.sha256(file.encode()).hexdigest()))


class Turn:
    """Be one turn.

    :ivar begun: whether a test of this run has recorded the cassette already, so that another one adds to it.
    """

    def __init__(self, file: str, begun: set[str], lock: str | None) -> None:
        self._file = file
        self._all_begun = begun
        self.begun = file in begun
        self._connection: sqlite3.Connection | None = None
        if lock is not None:
            # SQLite's lock ends with its process, on every system, however the process ends.
            self._connection = sqlite3.connect(
                lock, timeout=LONGEST_WAIT, isolation_level=None, check_same_thread=False
            )
            self._connection.execute("BEGIN EXCLUSIVE")
            self.begun = bool(self._connection.execute("PRAGMA user_version").fetchone()[0])

    def begin(self) -> None:
        """Note that this run has recorded the cassette."""
        self._all_begun.add(self._file)
        if self._connection is not None:
            self._connection.execute("PRAGMA user_version = 1")

    def end(self) -> None:
        """Let the next one have its turn."""
        if self._connection is not None:
            self._connection.execute("COMMIT")
            self._connection.close()
            self._connection = None


def make_folder() -> str:
    """Return a new folder in which the workers of a run meet."""
    return tempfile.mkdtemp(prefix="llmcall-")


def remove_folder(folder: str) -> None:
    """Remove the folder of a run that is over."""
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(folder)
