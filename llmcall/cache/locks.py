"""Locks between processes that leave no file behind and end with the process that holds them.

Windows has no such lock, and some file systems of other machines have none: there, nobody is kept out.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["alone", "lock"]


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
