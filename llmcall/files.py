"""Files that are written beside those whose places they take, and locks between processes.

A lock leaves no file behind and ends with the process that holds it. Windows has none, and some file systems of other
machines have none: there, nobody is kept out.
"""

from __future__ import annotations

import os
from contextlib import contextmanager, suppress
from glob import escape, iglob
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["alone", "atomic_write", "lock"]

FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL


@contextmanager
def alone(folder: str | os.PathLike[str], *, wait: bool = True) -> Iterator[bool]:
    """Keep other processes that ask for it out of a folder while a block runs; give whether they are kept out.

    :param wait: whether to wait until nobody else is in it.
    """
    if os.name == "nt":
        yield False
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        locked = lock(handle, wait=wait)
        yield locked
        if locked:
            _unlock(handle)
    finally:
        os.close(handle)


def lock(handle: int, *, wait: bool = True) -> bool:
    """Lock an open file or folder until it is closed; return whether that was possible.

    :param wait: whether to wait until nobody else holds it.
    """
    try:
        import fcntl

        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except (ImportError, OSError):
        return False
    return True


def _unlock(handle: int) -> None:
    """Unlock it for forked processes, too, which hold the same lock."""
    import fcntl

    fcntl.flock(handle, fcntl.LOCK_UN)


@contextmanager
def atomic_write(folder: str, name: str, mode: int) -> Iterator[str]:
    """Make an empty file in a folder, for one of another name; unless it is moved there, it is gone at the end.

    So are those of processes that were killed: each is locked as long as its process lives, and the next one for the
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
