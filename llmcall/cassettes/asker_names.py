"""The names of the tasks and threads that asked for a cassette's records."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..scopes import RecordedAskers
from ..system import process_lock

if TYPE_CHECKING:
    from ..records.askers import Askers
    from ..records.reader import RecordFile
    from ..scopes import Draw
    from ..types import Record

_lock = process_lock(__name__)


class AskerNames:
    """Who asked for each record, in the file and in this run.

    Any thread may call the methods.

    :param stored: the records of the file, or ``None`` if none was read.
    :param is_recording: whether the recording in the file goes on.
    :ivar has_new_names: whether this run's names differ from those in the file.
    """

    def __init__(self, stored: RecordFile | None, *, is_recording: bool) -> None:
        self.has_new_names = False
        self._stored = stored
        self._is_recording = is_recording
        self._recorded: Askers | None = None  # those of the file, read when somebody needs them
        self._draws: dict[str, Draw] = {}  # by the key of a record: which draw got it first

    def recorded(self, path: str, request_key: str) -> RecordedAskers:
        """Return who asked for a request's draws when they were recorded, as far as the file says it.

        :param path: the scope path.
        :param request_key: the request's key outside any scope.
        """
        with _lock:
            if self._recorded is None:
                self._recorded = {} if self._stored is None else self._stored.askers()
        return RecordedAskers(self._recorded.get((path, request_key), {}), self._is_recording)

    def note(self, key: str, draw: Draw, recorded: str | None = None) -> None:
        """Note whose draw gets a record; the first one counts.

        :param key: the record's.
        :param draw: one of an asker with a name.
        :param recorded: who asked when it was recorded, or ``None`` if that is unknown.
        """
        with _lock:
            is_first = self._draws.setdefault(key, draw) is draw
            if is_first and recorded is not None and draw.asker and recorded != draw.asker.name:
                self.has_new_names = True

    def with_asker(self, record: Record, *, is_gained: bool, is_complete: bool) -> Record:
        """Return a record with its asker's name, if the file needs it to tell equal requests apart.

        A recording that goes on needs each name: a call that was missed may come before the others.

        :param is_gained: whether this run recorded it.
        :param is_complete: whether the recording is complete.
        """
        name = None if is_gained else record.asker
        draw = self._draws.get(record.cache_key)
        if draw is not None and draw.asker is not None:
            is_needed = not is_complete or len(self._names_of(draw)) > 1
            name = draw.asker.name if is_needed else None
        return record if name == record.asker else record.replace(asker=name)

    def _names_of(self, draw: Draw) -> set[str]:
        """Return who made the same request, in this run or the file."""
        recorded = self.recorded(draw.request.path, draw.request.key)
        return draw.askers() | set(recorded.askers.values())
