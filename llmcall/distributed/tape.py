"""The open cassette of a map's process, as its workers know it."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from ..stores.cassettes.cassette import Cassette
from ..stores.record import FROM_FUNCTION
from ..stores.records.reader import RecordFile
from ..stores.records.writer import content_of

if TYPE_CHECKING:
    from ..scopes import Position
    from ..stores.cassettes.owner import Owner
    from ..stores.record import Record
    from ..stores.records.reader import Question
    from .home import Home


class WorkerCassette(Cassette):
    """The open cassette of the map's process: each call gets its record there, and leaves it there at once.

    So a worker that is killed loses nothing that was paid, and of two workers that ask the same, both get the
    answer that came first. To answer from the file here, and to tell the process afterwards, was rejected: it
    saves a fraction of a millisecond for each call.

    :param home: the map's process.
    """

    may_record = False

    def __init__(self, file: str, mode: str, owner: Owner, may_record: bool, home: Home) -> None:
        super().__init__(file, mode, owner=owner)
        self.file = file
        self.may_record = may_record
        self.program_scope = None  # each worker would count its draws separately
        self._home = home
        del self.stored

    @functools.cached_property
    def stored(self) -> RecordFile:  # type: ignore[override]  # read only for the report of a miss
        return RecordFile(content_of(self.file), self.file)

    def get(self, key: str, question: Question | None = None) -> Record | None:
        return self._home.ask(self.file, Cassette.get, key, question)

    def find(self, key: str, position: Position, question: Question | None = None) -> Record | None:
        nobody = position._replace(asker=None)
        record = self._home.ask(self.file, Cassette.find, key, nobody, question)
        if record is not None:
            self.replay_log.note(record, position, is_replayed=True)
        return record

    def add(
        self, record: Record, position: Position, source: str = FROM_FUNCTION, replace: bool = False
    ) -> Record:
        nobody = position._replace(asker=None)
        kept = self._home.ask(self.file, Cassette.add, record, nobody, source, replace)
        self.replay_log.note(kept, position)
        return kept
