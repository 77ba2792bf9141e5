"""A lock between processes on a folder, for the moment in which a file in it is replaced."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["alone"]


@contextmanager
def alone(folder: str | os.PathLike[str]) -> Iterator[None]:
    """Keep other processes that ask for it out of a folder while a block runs; it leaves no file behind.

    Windows has no such lock on a folder: there, nobody is kept out.
    """
    try:
        import fcntl
    except ImportError:
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
