"""One run of a test, or of a wider fixture, with its cassette."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..cassettes import tapes
from ..cassettes.cassette import Cassette
from .tally import unused_in

if TYPE_CHECKING:
    from pathlib import Path

    from .tally import Tally
    from .turns import Turn, Turns

__all__ = ["Recorder", "Run"]


class Recorder:
    """Open cassettes, and take note of what became of them.

    :param mode: the mode of every cassette.
    :param root: the project's root, from which the summary names files.
    :param turns: the turns at recording.
    :param tally: where calls and unused records are counted.
    """

    def __init__(self, mode: str, root: Path, turns: Turns, tally: Tally) -> None:
        self.mode = mode
        self.tally = tally
        self._root = root
        self._turns = turns

    def open(self, path: Path, *, shared: bool = False) -> Run:
        """Open the cassette of a test or fixture; one that this run has begun is added to.

        :param shared: whether tests besides this one may use it.
        """
        turn = self._turns.take(path) if self.mode != "none" else None
        cassette = Cassette(path, "new" if turn and turn.begun else self.mode, write=False)
        try:
            cassette.open()
        except BaseException:
            if turn:
                turn.end()
            raise
        return Run(self, cassette, turn, shared)

    def open_own(self, path: Path) -> Run:
        """Open the cassette of one test alone, whose last run is the one that counts."""
        self.tally.forget(self.name(path))
        return self.open(path)

    def name(self, path: Path) -> str:
        """Return what the summary calls a file."""
        inside = path.is_relative_to(self._root)
        return (path.relative_to(self._root) if inside else path).as_posix()


class Run:
    """Be one run with its cassette, which counts between :meth:`begin` and :meth:`end`."""

    def __init__(self, recorder: Recorder, cassette: Cassette, turn: Turn | None, shared: bool) -> None:
        self.cassette = cassette
        self._recorder = recorder
        self._turn = turn
        self._shared = shared

    def begin(self) -> None:
        """Let the cassette answer."""
        tapes.begin(self.cassette)

    def end(self) -> None:
        """Let it answer no more."""
        tapes.end(self.cassette)

    def close(self, passed: bool) -> None:
        """Write the cassette where all passed, and only then.

        :raises CacheError: where it cannot be written; see :meth:`Cassette.write`.
        """
        cassette = self.cassette
        cassette.write_at_end = passed
        unrecorded = cassette.failures.counts() if passed else {}
        written = False
        try:
            cassette.close()
            written = passed and cassette.recorded > 0
            if self._turn and written:
                self._turn.begin()
        finally:
            if self._turn:
                self._turn.end()
            self._count(passed, written)
            self._recorder.tally.miss(self._recorder.name(cassette.path), unrecorded)

    def _count(self, passed: bool, written: bool) -> None:
        tally, name = self._recorder.tally, self._recorder.name(self.cassette.path)
        tally.add(self.cassette, written=written)
        tally.judge(name, unused_in(self.cassette) if passed else None, shared=self._shared)
