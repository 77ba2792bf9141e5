"""The names of the tasks and threads that asked for a cassette's records."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..records.askers import Askers
    from ..records.reader import RecordFile
    from ..scopes import Draw
    from ..types import Record


class AskerNames:
    """Who asked for each record, in the file and in this run.

    :param stored: the records of the file, or ``None`` if none was read.
    :ivar has_new_names: whether this run's names differ from those in the file.
    """

    def __init__(self, stored: RecordFile | None) -> None:
        self.has_new_names = False
        self._stored = stored
        self._recorded: Askers | None = None  # those of the file, read when somebody needs them
        self._draws: dict[str, Draw] = {}  # by the key of a record: the first draw it answered

    def recorded_askers(self, path: str, request_key: str) -> Mapping[int, str]:
        """Return the names in the file, by draw number.

        :param path: the scope path.
        :param request_key: the request's key outside any scope.
        """
        if self._recorded is None:
            self._recorded = {} if self._stored is None else self._stored.askers()
        return self._recorded.get((path, request_key), {})

    def note(self, key: str, draw: Draw, recorded: str | None) -> None:
        """Note the draw that a record answers; the first one counts.

        :param key: the record's.
        :param recorded: the name in the file, or ``None`` if it has none.
        """
        is_first = self._draws.setdefault(key, draw) is draw
        if is_first and recorded is not None and recorded != draw.asker:
            self.has_new_names = True

    def with_asker(self, record: Record, *, is_gained: bool, is_complete: bool) -> Record:
        """Return a record with its asker's name, if the file needs it to tell equal requests apart.

        A recording that goes on needs each name: a call that was missed may come before the others.

        :param is_gained: whether this run recorded it.
        :param is_complete: whether the recording is complete.
        """
        draw = self._draws.get(record.cache_key)
        if draw is not None:
            asker = draw.asker if self._is_shared(draw) or not is_complete else None
        else:
            asker = None if is_gained else record.asker
        return record if asker == record.asker else record.replace(asker=asker)

    def _is_shared(self, draw: Draw) -> bool:
        """Return whether several askers make the same request."""
        if draw.equal_requests is None:
            return False
        recorded = self.recorded_askers(draw.path, draw.request_key)
        return len({*draw.equal_requests.askers, *recorded.values()}) > 1
