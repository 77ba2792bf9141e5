"""A file that is written beside the one whose place it is to take."""

from __future__ import annotations

import os
from contextlib import contextmanager, suppress
from glob import escape, iglob
from typing import TYPE_CHECKING

from .locks import lock

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["draft"]

FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL


@contextmanager
def draft(folder: str, name: str, mode: int) -> Iterator[str]:
    """Make an empty file in a folder, for one of another name; unless it is moved there, it is gone at the end.

    So are those of processes that were killed: each is locked as long as its process lives, and the next draft for the
    same name takes away those that are not.

    :param mode: the mode of the new file, before the umask.
    """
    _remove_left(folder, name)
    path, handle = _made(folder, name, mode)
    try:
        yield path
    finally:
        with suppress(FileNotFoundError):
            os.unlink(path)
        if handle is not None:
            os.close(handle)


def _made(folder: str, name: str, mode: int) -> tuple[str, int | None]:
    """Return a new file's path and the handle that keeps it locked; ``None`` where there are no locks."""
    while True:
        path = os.path.join(folder, f".{name}.{os.urandom(4).hex()}.tmp")
        handle = os.open(path, FLAGS, mode)
        if os.name == "nt":
            os.close(handle)
            return path, None
        lock(handle)
        if os.path.exists(path):  # else somebody took it for left before it was locked
            return path, handle
        os.close(handle)


def _remove_left(folder: str, name: str) -> None:
    for path in [] if os.name == "nt" else iglob(os.path.join(escape(folder), f".{escape(name)}.????????.tmp")):
        with suppress(FileNotFoundError, PermissionError):
            handle = os.open(path, os.O_WRONLY)
            try:
                if lock(handle, wait=False):
                    os.unlink(path)
            finally:
                os.close(handle)
