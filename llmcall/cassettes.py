"""Cassettes: the answers of a stretch of code in one file, made for review and for git."""

from __future__ import annotations

import functools
import hashlib
import inspect
import itertools
import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from . import config, lines, tapes
from .errors import CacheError
from .keys import key_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import TracebackType

    from .types import Record, Request

__all__ = ["MODES", "Cassette", "cassette", "whole_process"]

MODES = ("none", "once", "new", "rewrite")


class _Entry(NamedTuple):
    """Hold a record and its place among the calls."""

    order: int
    record: Record


class Cassette:
    """Record the answers of a block in a file, and replay them: a context manager and a decorator.

    It holds for every thread and task of the process while it is open; a second one opened inside it is the one that
    counts until it closes.

    :ivar path: the file.
    :ivar records: how many records it holds now.
    :ivar replayed: how many calls it answered.
    :ivar recorded: how many records it gained.
    """

    def __init__(self, path: str | os.PathLike[str], mode: str = "once", *, write: bool = True) -> None:
        if mode not in MODES:
            raise ValueError(f"mode is {mode!r}; a cassette's is one of {', '.join(MODES)}")
        self.path = Path(path)
        self.mode = mode
        self.write_at_end = write
        self.replayed = 0
        self.recorded = 0
        self._lock = threading.Lock()
        self._orders = itertools.count()
        self._gained: dict[str, _Entry] = {}
        self._used: set[str] = set()
        self._stored: lines.Lines | None = None
        self._digest: bytes | None = None
        self._layer: object = None
        self._settings: dict[str, Any] = {}

    # The open file

    def __enter__(self) -> Cassette:
        self.open()
        return self

    def open(self, *, below: bool = False) -> None:
        """Read the file, let its settings hold, and begin to count; see :func:`llmcall.tapes.begin`."""
        self._absolute = Path(os.path.abspath(self.path))
        self._gained, self._used, self.replayed, self.recorded = {}, set(), 0, 0
        self._digest = _digest(self._absolute)
        self._stored = None
        if self._digest is not None and self.mode != "rewrite":
            self._stored = lines.read(self._absolute, key_of)
            self._settings = self._stored.settings
            self._layer = config.push_layer(config.layer_of(self._settings), f"cassette {self.path}")
        else:
            self._settings = config.keyed_settings()
        tapes.begin(self, below=below)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        tapes.end(self)
        if self._layer is not None:
            config.pop_layer(self._layer)
            self._layer = None
        failed_rewrite = self.mode == "rewrite" and error is not None
        if self._gained and self.write_at_end and not failed_rewrite:
            self.write()

    @property
    def asks(self) -> bool:
        """Return whether a request that is not recorded may be asked, and recorded."""
        return self.mode in ("new", "rewrite") or (self.mode == "once" and self._digest is None)

    @property
    def reads_cache(self) -> bool:
        """Return whether the disk cache may supply an answer."""
        return self.asks and self.mode != "rewrite"

    @property
    def records(self) -> int:
        """Return how many records it holds now."""
        return len(self._gained) + (len(self._stored) if self._stored is not None else 0)

    def place(self) -> int:
        """Return the next call's place in the order of the calls."""
        return next(self._orders)

    def find(self, request: Request) -> Record | None:
        """Return the recorded answer of a request, or ``None``."""
        with self._lock:
            gained = self._gained.get(request.cache_key)
            found = gained.record if gained else self._stored.get(request) if self._stored is not None else None
            if found is not None:
                self._used.add(found.cache_key)
        return found

    def find_key(self, cache_key: str) -> Record | None:
        """Return the record of a key, or ``None``."""
        with self._lock:
            gained = self._gained.get(cache_key)
            found = gained.record if gained else self._stored.find(cache_key) if self._stored is not None else None
            if found is not None:
                self._used.add(cache_key)
        return found

    def count_replay(self) -> None:
        """Count a call that it answered."""
        with self._lock:
            self.replayed += 1

    def add(self, record: Record, place: int) -> None:
        """Take in an answer, unless there is one to its request already."""
        with self._lock:
            if record.cache_key not in self._gained:
                self._gained[record.cache_key] = _Entry(place, record)
                self.recorded += 1
            self._used.add(record.cache_key)

    def unused(self) -> list[Record]:
        """Return the records of the file that answered no call."""
        return [record for record in self._stored or () if record.cache_key not in self._used]

    def write(self) -> None:
        """Write the file, whole or not at all.

        :raises CacheError: where another process wrote it meanwhile, or a text looks like a credential.
        """
        if _digest(self._absolute) != self._digest:
            raise CacheError(
                f"{self.path} was written by another process while it was being recorded here; nothing of it is "
                "overwritten. The answers are in the disk cache: record again, one process at a time"
            )
        lines.write(self._absolute, self._settings, self._all(), allow=config.settings().cassette_allow)
        self._digest = _digest(self._absolute)

    def _all(self) -> Iterator[Record]:
        yield from self._stored or ()
        for _, record in sorted(self._gained.values(), key=lambda entry: entry.order):
            yield record

    # The decorator

    def __call__(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Open it around each call of a function, which may be asynchronous."""
        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def arecorded(*args: Any, **kwargs: Any) -> Any:
                with self._again():
                    return await function(*args, **kwargs)

            return arecorded

        @functools.wraps(function)
        def recorded(*args: Any, **kwargs: Any) -> Any:
            with self._again():
                return function(*args, **kwargs)

        return recorded

    def _again(self) -> Cassette:
        return type(self)(self.path, self.mode)

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


@functools.lru_cache(maxsize=1)
def whole_process(path: str, mode: str) -> Cassette:
    """Return the cassette that ``[Cassette] PATH`` names, opened now and written when the process ends."""
    import atexit

    made = Cassette(path, mode)
    made.open(below=True)
    atexit.register(made.__exit__, None, None, None)
    return made


def _digest(path: Path) -> bytes | None:
    try:
        return hashlib.sha256(path.read_bytes()).digest()
    except FileNotFoundError:
        return None
