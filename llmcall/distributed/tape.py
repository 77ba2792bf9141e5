"""The open cassette of a map's process, as its workers know it."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, NamedTuple

from ..scopes import new_program_scope
from ..stores.cassettes.cassette import Cassette
from ..stores.cassettes.replay_log import ReplayLog
from ..stores.cassettes.tape import Tape
from ..stores.record import GotFrom
from ..stores.records.reader import RecordFile
from ..stores.records.writer import read_if_present
from .draws import DrawsAtHome

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from ..scopes import Position, RecordedAskers
    from ..stores.cassettes.owner import Owner
    from ..stores.record import Record
    from ..stores.records.reader import Question
    from .home import MapHome


class WorkerTape(Tape):
    """The tape of the map's process: each call gets its record there, and leaves it there at once.

    So a worker that is killed loses nothing that was paid, and of two workers that ask the same, both get the
    answer that came first. To answer from the file here, and to tell the process afterwards, was rejected: it
    saves a fraction of a millisecond for each call.

    :param opened: the open cassette.
    :param home: the map's process.
    """

    def __init__(self, opened: OpenCassette, home: MapHome) -> None:
        none = RecordFile(b"", "")
        super().__init__(none, ReplayLog(none), may_record=opened.may_record)
        self._file = opened.file
        self._home = home
        del self.stored

    @functools.cached_property
    def stored(self) -> RecordFile:  # type: ignore[override]  # read only for the report of a miss
        return RecordFile(read_if_present(self._file), self._file)

    def get(self, key: str, question: Question | None = None) -> Record | None:
        return self._home.ask(self._file, Cassette.get, key, question)

    def find(self, key: str, position: Position, question: Question | None = None) -> Record | None:
        record = self._home.ask(self._file, Cassette.find, key, position, question)
        if record is not None:
            self.log.note(record, position, is_replayed=True)
        return record

    def add(self, record: Record, position: Position, source: GotFrom, replace: bool) -> Record:
        kept = self._home.ask(self._file, Cassette.add, record, position, source, replace)
        self.log.note(kept, position)
        return kept

    def recorded_askers(self, path: str, request_key: str) -> RecordedAskers:
        return self._home.ask(self._file, Cassette.recorded_askers, path, request_key)


class OpenCassette(NamedTuple):
    """The open cassette of a map's process, as its tasks take it along.

    :param file: its real path.
    :param owner: who opened it there.
    :param around: records the HTTP clients of the worker while a task runs.
    """

    file: str
    mode: str
    owner: Owner
    around: Callable[[Cassette], AbstractContextManager[object]]
    may_record: bool


class WorkerCassette(Cassette):
    """The open cassette of the map's process. It is never opened here, nor written."""

    def __init__(self, opened: OpenCassette, home: MapHome) -> None:
        super().__init__(opened.file, opened.mode, owner=opened.owner, around=opened.around)
        self.owner.raises_refusals = False  # it is a copy; the one that opened the cassette does
        self.file.real_path = opened.file
        self.tape = WorkerTape(opened, home)
        self.program_scope = new_program_scope(DrawsAtHome(home, opened.file))

    def find(self, key: str, position: Position, question: Question | None = None) -> Record | None:
        return self.tape.find(key, position, question)  # whether it can gain, is looked at there
