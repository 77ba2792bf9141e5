"""A map's board: marks that it and its workers leave for each other, where both see them.

That is where they share answers already: the cache's directory, or its Redis database. So Ctrl-C reaches a worker on
another machine as it reaches one on this. Nothing on it is unpickled.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from ..cache.cache import shared_cache
from ..cache.sqlite import make_directory
from ..errors import CacheError
from ..notices import warn_once

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..cache.redis import RedisServer
    from ..config.settings import Settings

    T = TypeVar("T")

__all__ = ["HALT", "STOP", "UNHEARD", "Board", "board_at", "new_board"]

STOP = "stop"  # once the map is interrupted
HALT = "halt"  # once no task may begin any more
FOLDER = "maps-"  # in the cache's directory; what follows tells it from that of another machine, at the same path
KNOWN = 32  # boards of which a worker keeps the connections
WRITING = ("auto", "refresh")  # modes in which a cache's directory is made
UNHEARD = "meanwhile Ctrl-C may not reach the workers of a map"
LEFT_FOR = 7 * 24 * 3600  # seconds that marks stay after the last was made, where their map was killed


class Board(Protocol):
    """Hold marks, each with a name and some bytes, for any number of processes."""

    place: str
    name: str

    def post(self, mark: str, content: bytes = b"") -> None:
        """Leave a mark."""

    def has(self, mark: str) -> bool:
        """Return whether a mark is there, and can be seen from here."""

    def read(self, mark: str) -> bytes | None:
        """Return what a mark holds, or ``None`` where it is not there."""

    def marks(self) -> set[str]:
        """Return the names of all marks."""

    def begin(self, mark: str) -> bool:
        """Leave a mark, and return whether anything may begin yet: whoever forbids it meanwhile sees the mark."""

    def withdraw(self, mark: str) -> None:
        """Remove a mark, if it is there."""

    def remove(self) -> None:
        """End it: whoever comes later may not begin."""


def new_board(settings: Settings) -> Board:
    """Make a board beside the answers; in this machine's folder for temporary files where no directory takes it."""
    place, name = settings.cache_path, os.urandom(8).hex()
    if "://" in place:
        return board_at(place, name)
    directory = Path(shared_cache(place).path)
    if settings.cache_mode in WRITING or directory.is_dir():
        with suppress(OSError):  # the disk may be full, or read only
            return _board_in(_folder_in(directory), name)
    return _board_in(Path(tempfile.mkdtemp(prefix="llmcall-map-")), name)


def _board_in(folder: Path, name: str) -> Board:
    (folder / name).mkdir()
    return board_at(str(folder), name)


def _folder_in(directory: Path) -> Path:
    """Return the folder of the boards in a cache's directory, free of those whose maps were killed."""
    make_directory(directory)  # now, since a cache leaves a directory that it finds in use as it is
    folder = min(directory.glob(f"{FOLDER}*"), default=directory / f"{FOLDER}{os.urandom(8).hex()}")
    folder.mkdir(mode=0o700, exist_ok=True)
    for each in directory.glob(f"{FOLDER}*/*"):
        with suppress(FileNotFoundError):  # its map has ended meanwhile
            if time.time() - each.stat().st_mtime > LEFT_FOR:
                shutil.rmtree(each)
    return folder


@lru_cache(maxsize=KNOWN)
def board_at(place: str, name: str) -> Board:
    """Return the board of a name.

    :param place: a folder, or the address of a Redis database.
    """
    return RedisBoard(place, name) if "://" in place else FolderBoard(place, name)


class FolderBoard:
    """Be a folder in which each mark is a file. Where a machine does not see it, all may begin and nothing is read."""

    def __init__(self, place: str, name: str) -> None:
        self.place, self.name = place, name
        self._folder = os.path.join(place, name)

    def post(self, mark: str, content: bytes = b"") -> None:
        """Leave a mark, whole or not at all."""
        path = os.path.join(self._folder, mark)
        with open(f"{path}.part", "wb") as file:
            file.write(content)
        os.replace(f"{path}.part", path)

    def has(self, mark: str) -> bool:
        """Return whether a mark is there, and can be seen from here."""
        return os.path.exists(os.path.join(self._folder, mark))

    def read(self, mark: str) -> bytes | None:
        """Return what a mark holds, or ``None`` where it is not there."""
        try:
            return Path(self._folder, mark).read_bytes()
        except FileNotFoundError:
            return None

    def marks(self) -> set[str]:
        """Return the names of all marks."""
        return set(os.listdir(self._folder)) if os.path.isdir(self._folder) else set()

    def begin(self, mark: str) -> bool:
        """Leave a mark, and return whether anything may begin yet."""
        try:
            open(os.path.join(self._folder, mark), "wb").close()
        except FileNotFoundError:  # it was removed, or another machine's place is not seen here
            return not os.path.isdir(self.place)
        except OSError as error:
            warn_once(f"{self._folder} takes no marks ({error}): {UNHEARD}", about=self._folder)
        return not self.has(HALT)

    def withdraw(self, mark: str) -> None:
        """Remove a mark, if it is there."""
        with suppress(FileNotFoundError):
            os.unlink(os.path.join(self._folder, mark))

    def remove(self) -> None:
        """End it: whoever comes later may not begin."""
        shutil.rmtree(self._folder, ignore_errors=True)
        if not os.path.basename(self.place).startswith(FOLDER):
            shutil.rmtree(self.place, ignore_errors=True)


@lru_cache(maxsize=4)
def _server(address: str) -> RedisServer:
    from ..cache.redis import RedisServer

    return RedisServer(address)


class RedisBoard:
    """Be a hash in a Redis database in which each mark is a field. While the server is down, nothing is seen there."""

    def __init__(self, place: str, name: str) -> None:
        self.place, self.name = place, name
        self._key = f"llmcall:map:{name}"
        self._server = _server(place)

    def post(self, mark: str, content: bytes = b"") -> None:
        """Leave a mark."""
        self._changed(None, lambda pipe: pipe.hset(self._key, mark, content))

    def has(self, mark: str) -> bool:
        """Return whether a mark is there, and can be seen from here."""
        return self._asked(False, lambda redis: bool(redis.hexists(self._key, mark)))

    def read(self, mark: str) -> bytes | None:
        """Return what a mark holds, or ``None`` where it is not there."""
        return self._asked(None, lambda redis: redis.hget(self._key, mark))

    def marks(self) -> set[str]:
        """Return the names of all marks."""
        none: list[bytes] = []
        return {mark.decode() for mark in self._asked(none, lambda redis: redis.hkeys(self._key))}

    def begin(self, mark: str) -> bool:
        """Leave a mark, and return whether anything may begin yet."""
        return not self._changed(False, lambda pipe: pipe.hset(self._key, mark, b"").hexists(self._key, HALT))

    def withdraw(self, mark: str) -> None:
        """Remove a mark, if it is there."""
        self._asked(0, lambda redis: redis.hdel(self._key, mark))

    def remove(self) -> None:
        """End it: whoever comes later may not begin."""
        self._changed(None, lambda pipe: pipe.delete(self._key).hset(self._key, HALT, b""))
        self._server.close()

    def _changed(self, otherwise: T, change: Callable[[Any], Any]) -> T:
        """Make changes, all or none, and return the answer to the last."""

        def changed(redis: Any) -> Any:
            """Make them, and let the marks stay for a while."""
            with redis.pipeline() as pipe:
                change(pipe)
                pipe.expire(self._key, LEFT_FOR)
                return pipe.execute()[-2]

        return self._asked(otherwise, changed)

    def _asked(self, otherwise: T, action: Callable[[Any], Any]) -> T:
        try:
            found: T = self._server.ask(action)
            return found
        except CacheError as error:
            warn_once(f"{error}; {UNHEARD}", about=self._key)
            return otherwise
