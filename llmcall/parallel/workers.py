"""A worker of another process: what it stands on while it works for a ``map``, and what it sends home.

Settings, keys, open cassette and named budgets of the process at home hold in the worker, for all its threads. What
its calls used, what they recorded and which failed goes home with the result of the next task that ends.
"""

from __future__ import annotations

import json
import os
import pickle
import threading
import time
from base64 import b64decode, b64encode
from collections import deque
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from ..cache import record as packing
from ..cassettes import cassette as cassettes
from ..config import resolve as config
from ..engine import budgets
from ..engine import usage as metering
from ..engine.interrupts import Stop
from ..notices import process_failures
from .boards import STOP
from .carried import CarriedCassette, Event, retell

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ..cassettes.cassette import Cassette, Place
    from ..types import Record
    from .boards import Board

__all__ = ["GRACE", "Cargo", "Desk", "Luggage", "here", "pack", "root", "take_home", "watched", "working_with"]

SEEDS = "gained"  # on a map's board: what its cassette had gained before it began
POLL = 0.5  # seconds between two looks at a map's board while a task runs
CUT_AGAIN = 0.2  # seconds between two cuts: a connection may have been opened meanwhile
GRACE = 0.5  # seconds in which calls under way may still end, before their connections are cut

_token = os.urandom(8)


def here() -> tuple[int, bytes]:
    """Return what this process is known by, among those of all machines."""
    return os.getpid(), _token


class Luggage(NamedTuple):
    """Hold what a worker is to stand on.

    :param home: the process whose results are waited for.
    :param settings: as :func:`llmcall.config.travel.pack` returns them.
    :param budgets: as :func:`llmcall.engine.budgets.travelling` returns them.
    :param cassette: path and mode of the open cassette.
    """

    home: tuple[int, bytes]
    settings: Any
    budgets: tuple[dict[str, Any], ...]
    cassette: tuple[str, str] | None


class Cargo(NamedTuple):
    """Hold what a worker sends home.

    :param usage: model, scope and amounts of each addition to the usage.
    :param events: what was done with the cassette.
    :param failures: why calls left no record, how many in each scope, and the first of them in words.
    """

    usage: list[tuple[str, str, metering.UsageDelta]]
    events: list[Event]
    failures: list[tuple[str, dict[str, int], str]]


def pack(cassette: Cassette | None, board: Board) -> bytes:
    """Return what a worker is to stand on, pickled: all that holds in this process now.

    :param cassette: the one that is open.
    :param board: the map's, for what is too large to travel with each task.
    :raises ValueError: where a budget without a name is open.
    :raises TypeError: where a setting is a function that cannot be pickled.
    """
    if _desks and _desks[0].is_unchanged(cassette):
        return _desks[0].packed  # the very same, so that a map inside a map's task never waits for a free desk
    budgets.check_for_processes()
    gained = cassette.gained() if cassette is not None else []
    if gained:
        seeds = [(record.cache_key, b64encode(packing.pack(record)).decode(), place) for record, place in gained]
        board.post(SEEDS, json.dumps(seeds).encode())
    carried = None if cassette is None else (os.path.realpath(cassette.path), cassette.mode)
    luggage = Luggage(root(), config.pack(), budgets.travelling(), carried)
    try:
        return pickle.dumps(luggage)
    except (pickle.PicklingError, TypeError, AttributeError) as error:
        raise TypeError(
            f"the settings cannot travel to other processes: {error}. A function among them, such as api_key=, must be "
            "one that can be imported, not a lambda or one inside another"
        ) from error


class _Receipts:
    """Be a meter that keeps each addition."""

    def __init__(self) -> None:
        self.kept: deque[tuple[str, str, metering.UsageDelta]] = deque()

    def add(self, model: str, scope: str, amounts: metering.UsageDelta) -> None:
        """Keep an addition."""
        self.kept.append((model, scope, dict(amounts)))


class Desk:
    """Let a luggage hold in this process, from its making until it is closed."""

    def __init__(self, packed: bytes, board: Board) -> None:
        luggage: Luggage = pickle.loads(packed)
        self.home = luggage.home
        self.packed = packed
        self.users = 0
        self._receipts = _Receipts()
        self._cassette: CarriedCassette | None = None
        self._closing = ExitStack()
        _clear_tapes()
        config.unpack(luggage.settings)
        with ExitStack() as opened:
            opened.enter_context(budgets.opened(luggage.budgets))
            opened.enter_context(metering.watching(self._receipts))
            if luggage.cassette is not None:
                self._cassette = CarriedCassette(*luggage.cassette)
                opened.enter_context(self._cassette)
                self._cassette.know(_seeds(board))
            self._closing = opened.pop_all()
        self._generation = config.generation()

    def is_unchanged(self, cassette: Cassette | None) -> bool:
        """Return whether settings and cassette are still those of the luggage."""
        return config.generation() == self._generation and cassette is self._cassette

    def close(self) -> None:
        """Let the luggage hold no longer."""
        self._closing.close()

    def cargo(self) -> Cargo:
        """Return what was not sent home yet."""
        cassette = self._cassette
        with _free:
            if cassette is None:
                return Cargo(_taken(self._receipts.kept), [], process_failures.take())
            return Cargo(_taken(self._receipts.kept), _taken(cassette.events), cassette.failures.take())


def _clear_tapes() -> None:
    """Let no cassette count that a forked process has from its parent."""
    cassettes.set_named(None)
    while (opened := cassettes.innermost()) is not None:
        cassettes.pop(opened)


def _seeds(board: Board) -> Iterator[tuple[Record, Place]]:
    for cache_key, packed, place in json.loads(board.read(SEEDS) or b"[]"):
        yield packing.unpack(cache_key, b64decode(packed)), tuple(place)


def _taken(kept: deque[Any]) -> list[Any]:
    """Take what is in a deque, into which other threads may put more meanwhile."""
    return [kept.popleft() for _ in range(len(kept))]


_free = threading.Condition()
_desks: list[Desk] = []  # the one that this process works at
_watches: dict[str, _Watch] = {}  # by the name of the board


def _begin_anew() -> None:
    """Forget, in a forked process, what the parent works at."""
    global _free, _token
    _free, _token = threading.Condition(), os.urandom(8)
    _desks.clear()
    _watches.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_anew)


def root() -> tuple[int, bytes]:
    """Return the process for which this one works; itself, where it works for none."""
    return _desks[0].home if _desks else here()


@contextmanager
def working_with(packed: bytes, board: Board) -> Iterator[Desk]:
    """Let a luggage hold while a block runs, together with others that work with the same; others are waited for.

    :param packed: the luggage, pickled.
    :param board: the map's.
    """
    with _free:
        while _desks and _desks[0].packed != packed and _desks[0].users:
            _free.wait()
        if _desks and _desks[0].packed != packed:
            _desks.pop().close()
        if not _desks:
            _desks.append(Desk(packed, board))
        desk = _desks[0]
        desk.users += 1
    try:
        yield desk
    finally:
        with _free:
            desk.users -= 1
            _free.notify_all()


class _Watch:
    """Be a thread that looks at a map's board for as long as a task of the map runs here."""

    def __init__(self, board: Board) -> None:
        self.stop = Stop()
        self.users = 0
        self._board = board
        self._cut_at: float | None = None
        threading.Thread(target=self._look, name="llmcall stop", daemon=True).start()

    def _look(self) -> None:
        while self._is_needed():
            if self._cut_at is None and self._board.has(STOP):
                self.stop.set()
                self._cut_at = time.monotonic() + GRACE
            if self._cut_at is not None and time.monotonic() >= self._cut_at:
                self.stop.cut()
            time.sleep(POLL if self._cut_at is None else CUT_AGAIN)

    def _is_needed(self) -> bool:
        with _free:
            if self.users:
                return True
            del _watches[self._board.name]
            return False


@contextmanager
def watched(board: Board) -> Iterator[Stop]:
    """Give what stops the calls of a map of another process, for a block in which a task of it runs."""
    with _free:
        watch = _watches.get(board.name)
        if watch is None:
            watch = _watches[board.name] = _Watch(board)
        watch.users += 1
    try:
        yield watch.stop
    finally:
        with _free:
            watch.users -= 1


def take_home(cargo: Cargo, cassette: Cassette | None, add: Callable[[str, str, Any], Any]) -> None:
    """Let what a worker sent home count here.

    :param cassette: the one that is open.
    :param add: adds to the usage.
    """
    for model, scope, amounts in cargo.usage:
        add(model, scope, amounts)
    if cassette is not None:
        retell(cargo.events, cassette)
    failures = process_failures if cassette is None else cassette.failures
    for why, scopes, first in cargo.failures:
        for scope, count in scopes.items():
            for _ in range(count):
                failures.add(scope, first, why)
