"""Cassettes: the answers of a stretch of code in one file, made for review and for git."""

from __future__ import annotations

import functools
import hashlib
import itertools
import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..cache.locks import alone
from ..config import resolve as config
from ..errors import CacheError, ConfigError
from ..notices import warn_once
from ..requests.keys import key_of
from . import headers, tapes
from . import records as lines
from .reels import Reel
from .unrecorded import Failures

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from ..config.settings import Settings
    from ..types import Record, Request
    from .tapes import Place

__all__ = ["MODES", "Cassette", "cassette"]

MODES = ("none", "once", "new", "rewrite")


class Cassette:
    """Record the answers of a block in a file, and replay them: a context manager and a decorator.

    It holds for every thread and task of the process while it is open; a second one opened inside it is the one that
    counts until it closes. Opened again while it is open, it goes on, and is written at the last closing.

    :ivar path: the file.
    :ivar records: how many records it holds now.
    :ivar replayed: how many calls it answered.
    :ivar recorded: how many records it gained.
    :ivar write_at_end: whether what it gained is written when it closes.
    """

    def __init__(self, path: str | os.PathLike[str], mode: str = "once", *, write: bool = True) -> None:
        if mode not in MODES:
            raise ValueError(f"mode is {mode!r}; a cassette's is one of {', '.join(MODES)}")
        self.path = Path(path)
        self.mode = mode
        self.write_at_end = write
        self.failures = Failures()
        self._opening = threading.RLock()
        self._depth = 0
        self._begin("")

    def _begin(self, file: str) -> None:
        """Stand at the beginning of a file."""
        self.replayed = 0
        self.namespaces: dict[str, str] | None = None
        self.file = file
        self._is_read = self.mode != "rewrite" and os.path.exists(file)
        self._digest = _digest(file) if self.asks else None  # only what is written must be known
        self._reel = Reel(None)
        self._header: dict[str, Any] = {}
        self._layer: object = None
        self._orders = itertools.count()
        self._agreed: set[tuple[int | None, int]] = set()
        self._error: BaseException | None = None
        self._process = os.getpid()

    # Opening and closing

    def __enter__(self) -> Cassette:
        self.open()
        tapes.begin(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        tapes.end(self)
        self.close(error)

    def open(self) -> None:
        """Read the file and let its settings hold, unless it is open already; who opens it closes it.

        :raises CacheCorruptError: where the file is damaged.
        :raises CacheError: where it is of a newer version, or another cassette of this process has it open.
        """
        with self._opening:
            if not self._depth:
                self._open(os.path.realpath(self.path))
            self._depth += 1

    def _open(self, file: str) -> None:
        if any(each.file == file and each.is_mine() for each in tapes.all_open()):
            raise CacheError(f"{self.path} is open already in this process; use one cassette for both, or two files")
        self._begin(file)
        if not self._is_read:
            self._header = headers.header_of()
            return
        stored = lines.read(file, key_of)
        self._header = stored.settings
        self._reel = Reel(stored)
        self._layer = config.push_layer(headers.layer_of(self._header), f"cassette {self.path}")
        self.namespaces = self._header.get(headers.NAMESPACES, {})

    def close(self, error: BaseException | None = None) -> None:
        """Write what it gained, at the last closing; a ``rewrite`` that failed leaves the old file.

        :param error: what ended the block, or ``None``.
        :raises CacheError: where another process wrote it meanwhile, or a text looks like a credential.
        """
        with self._opening:
            self._error = self._error or error
            self._depth -= 1
            if self._depth:
                return
            if self._layer is not None:
                config.pop_layer(self._layer)
                self._layer = None
            if self.is_mine():
                self.failures.warn(f"replay of the cassette {self.path}")
                if self.write_at_end and self._is_changed():
                    self._write()

    def _is_changed(self) -> bool:
        if self.mode == "rewrite":
            return self._error is None and bool(self.recorded or self._digest)
        return self.recorded > 0

    def _write(self) -> None:
        """Write the file, whole or not at all."""
        os.makedirs(os.path.dirname(self.file), exist_ok=True)
        with alone(os.path.dirname(self.file)):
            if _digest(self.file) != self._digest:
                raise CacheError(
                    f"{self.path} was written by another process while it was being recorded here; nothing of it is "
                    "overwritten. The answers are in the disk cache: record again, one process at a time"
                )
            lines.write(self.file, self._header, self._reel, allow=config.settings().cassette_allow)
            self._digest = _digest(self.file)

    def is_mine(self) -> bool:
        """Return whether this process opened it: a forked one leaves the file to its parent."""
        return self._process == os.getpid()

    def leave_parent(self) -> None:
        """Stand in a forked process, where the threads that may have held the locks are gone."""
        self._opening, self._reel.lock = threading.RLock(), threading.Lock()

    # What may answer

    @property
    def asks(self) -> bool:
        """Return whether a request that is not recorded may be asked, and recorded."""
        return self.mode in ("new", "rewrite") or (self.mode == "once" and not self._is_read)

    @property
    def reads_cache(self) -> bool:
        """Return whether the disk cache may supply an answer."""
        return self.asks and self.mode != "rewrite"

    @property
    def records(self) -> int:
        """Return how many records it holds now."""
        return len(self._reel)

    @property
    def recorded(self) -> int:
        """Return how many records it gained."""
        return self._reel.count_gained()

    @property
    def stored(self) -> lines.Lines | None:
        """Return the records of its file, or ``None`` where none was read."""
        return self._reel.stored

    def agree(self, base: Settings | None) -> None:
        """Let the first caller's settings stand in the header, and the others' be the same.

        :param base: the settings that a client was given, or ``None`` for the process's.
        :raises ConfigError: where they differ: the cassette would not replay for both.
        """
        asking = None if base is None else id(base), config.generation()
        if asking in self._agreed:
            return
        header = headers.header_of(base)
        with self._opening:
            if not self._agreed and not self._is_read:
                self._header = header
            different = headers.differences(self._header, header)
            if different:
                raise ConfigError(
                    f"{self.path} holds one set of settings for all its records, but the clients that it records "
                    f"disagree on {different}: give them as arguments in code, or record each in a file of its own"
                )
            self._agreed.add(asking)

    # Records

    def place(self) -> Place:
        """Return the next call's place in the order of the calls."""
        return (*tapes.position(), next(self._orders))

    def find(self, request: Request, place: Place) -> Record | None:
        """Return the recorded answer of a request, or ``None``.

        :param place: of the call that it answers.
        """
        return self._reel.find(request, place)

    def find_key(self, cache_key: str, place: Place) -> Record | None:
        """Return the record of a key, or ``None``."""
        return self._reel.find_key(cache_key, place)

    def count_replay(self) -> None:
        """Count a call that it answered."""
        with self._reel.lock:
            self.replayed += 1

    def add(self, record: Record, place: Place) -> Record:
        """Take in an answer, and return the one that counts: whatever was recorded first.

        :param place: of the call that it answers.
        """
        if not self._depth:
            warn_once(f"an answer came after the cassette {self.path} was closed, and is not in it")
            return record
        return self._reel.add(record, place)

    def gained(self) -> list[tuple[Record, Place]]:
        """Return the records that it gained, each with its place, in the order of the calls."""
        return self._reel.gained()

    def unused(self) -> list[Record]:
        """Return the records of the file that answered no call."""
        return self._reel.unused()

    # The decorator

    def __call__(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Open it around each call of a function, which may be asynchronous; calls at the same time share it."""
        from inspect import isasyncgenfunction, iscoroutinefunction, isgeneratorfunction

        if isgeneratorfunction(function) or isasyncgenfunction(function):
            raise TypeError(f"{function.__qualname__} is a generator function; open the cassette with 'with' inside it")
        if iscoroutinefunction(function):

            @functools.wraps(function)
            async def arecorded(*args: Any, **kwargs: Any) -> Any:
                with self:
                    return await function(*args, **kwargs)

            return arecorded

        @functools.wraps(function)
        def recorded(*args: Any, **kwargs: Any) -> Any:
            with self:
                return function(*args, **kwargs)

        return recorded

    def __repr__(self) -> str:
        return f"cassette({str(self.path)!r}, mode={self.mode!r})"


def cassette(path: str | os.PathLike[str], mode: str = "once") -> Cassette:
    """Open a cassette around a block, or around the calls of a function.

    :param path: the file, JSON Lines.
    :param mode: ``none`` only reads; ``once`` records if there is no file, else only reads; ``new`` adds what is
        missing; ``rewrite`` starts empty and asks everything anew.
    :raises ValueError: for another mode.
    :raises CacheCorruptError: at the beginning of the block, where the file is damaged.
    """
    return Cassette(path, mode)


def _digest(path: str) -> bytes | None:
    try:
        with open(path, "rb") as file:
            return hashlib.sha256(file.read()).digest()
    except FileNotFoundError:
        return None
