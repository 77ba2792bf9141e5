"""The open cassette of a map's process, as its workers know it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..stores.cassettes.cassette import Cassette
from ..stores.record import FROM_FUNCTION

if TYPE_CHECKING:
    from ..scopes import Position
    from ..stores.record import Record
    from ..stores.records.reader import Question
    from .home import Home


class WorkerCassette(Cassette):
    """The open cassette of the map's process: each call gets its record there, and leaves it there at once.

    So a worker that is killed loses nothing that was paid, and of two workers that ask the same, both get the
    answer that came first. The file is read here as well, for its header and for the report of a miss. To
    answer from it here, and to tell the process afterwards, was rejected: it saves a fraction of a millisecond
    for each call.

    :param path: its file.
    :param mode: its mode.
    :param home: the map's process.
    """

    def __init__(self, path: str, mode: str, home: Home) -> None:
        self._home = home
        super().__init__(path, mode, write=False)

    def _reset(self) -> None:
        super()._reset()
        self.program_scope = None  # each worker would count its draws separately

    def get(self, key: str, question: Question | None = None) -> Record | None:
        """Return the record of a key, or ``None``, without counting it as used."""
        return self._ask("get_record", key, question)

    def find(self, key: str, position: Position, question: Question | None = None) -> Record | None:
        """Return the record of a key for a call, or ``None``, and count it as used."""
        record = self._ask("find_record", key, position._replace(asker=None), question)
        if record is not None:
            self.replay_log.note(record, position, is_replayed=True)
        return record

    def add(
        self, record: Record, position: Position, source: str = FROM_FUNCTION, replace: bool = False
    ) -> Record:
        """Add an answer, unless one is recorded; return the recorded one."""
        kept = self._ask("add_record", record, position._replace(asker=None), source, replace)
        assert kept is not None
        self.replay_log.note(kept, position)
        return kept

    def _ask(self, name: str, *arguments: Any) -> Record | None:
        with self._home.lending() as connection:
            found: Record | None = connection.ask(name, self.file, *arguments)
            return found
