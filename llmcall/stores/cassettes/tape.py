"""The tape of a cassette: its file, the records in it, those that a run adds, and which calls they answered."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import chain
from typing import TYPE_CHECKING, NamedTuple

from ...config import resolve as config
from ...config.cassette_modes import MODES
from ...errors import CacheError
from ...keys.request import Data
from ...scopes.draw_numbers import RecordedCallers, ReplayedCallers
from ...scopes.position import Position
from ...support.system import ProcessLock, check_replaceable
from ..cache.cache import ResponseCache, remove
from ..cache.directory import Directory
from ..days import Days, day_of
from ..record import GotFrom, Record, draw_of
from ..records.answers import same_answer
from ..records.header import Header
from ..records.keyed_settings import joined_settings, settings_shown, settings_taken
from ..records.packed import LazyRecord, kept
from ..records.reader import RecordFile, content_of, header_in
from ..records.writer import check_writable, header_line, write
from .replay_log import ReplayLog, SortKey

if TYPE_CHECKING:
    from pathlib import Path


class CassetteFile:
    """The file of a cassette, from when it opens until it closes.

    :param mode: a name in ``MODES``.
    :ivar real_path: its real path, once it has been read; empty before.
    :ivar records: those that the mode reads.
    :ivar goes_on: ``True`` if the cassette continues what the file holds.
    :ivar is_written: ``True`` if it has been written.
    """

    # An answer is on the disk before its call returns: in the disk cache or, where that is off, in a cache of its
    # own beside the file, which the next opening reads and the file replaces. Another format, such as lines in the
    # order of the answers, would be a second way to store, to read and to join what the cache has.
    def __init__(self, path: Path, mode: str) -> None:
        self.path = path
        self.mode = mode
        self.real_path = ""
        self.records = RecordFile(b"", "")
        self.goes_on = False
        self.is_written = False
        self._content = b""  # when it was read; empty without a file
        self._is_writable = False  # as far as that was checked
        self._process = os.getpid()

    def read(self) -> None:
        """Read the file, unless the mode is ``rewrite``.

        :raises CacheCorruptError: if it is damaged, or not a cassette, which no mode overwrites.
        :raises CacheError: if a newer version wrote it, or if there is no file and none can be written.
        """
        real_path = os.path.realpath(self.path)
        check_replaceable(real_path)
        self._content = content_of(real_path)
        header_in(real_path)  # no mode overwrites another file
        content = self._content if MODES[self.mode].reads else b""
        self.goes_on = bool(content)
        self.records = RecordFile(content, real_path)
        if not self.goes_on and self.may_record:
            check_writable(real_path)
        self.real_path = real_path

    @cached_property
    def answers(self) -> ResponseCache:
        """Return the cache beside the file, of a recording without a disk cache."""
        folder, name = os.path.split(self.real_path)
        answers = ResponseCache(os.path.join(folder, f".{name}.answers"))
        if isinstance(answers.storage, Directory):
            answers.storage.outlives_system = False
        return answers

    def _remove_answers(self, header: Header, records: Iterable[Record]) -> None:
        """Remove the cache beside the file once the recording is complete, or the file has all of its answers."""
        written = {record.cache_key for record in records}
        if header.is_complete or all(key in written for key, *_ in self.answers.storage.rows()):
            remove(self.answers)

    @property
    def may_record(self) -> bool:
        """Return whether a call may request a missing answer and record it."""
        mode = MODES[self.mode]
        is_complete = self.goes_on and self.records.header.is_complete
        return mode.adds if is_complete else mode.records

    def is_of_this_process(self) -> bool:
        """Return whether this process opened it. A forked process leaves it to its parent."""
        return self._process == os.getpid()

    def check_can_gain(self) -> None:
        """Check that what a call records would not be lost.

        :raises CacheError: in a forked process, or if it cannot be written.
        """
        if not self.is_of_this_process():
            raise CacheError(
                f"{self.path} is recorded by the parent of this forked process, which does not see calls made here. "
                "Run the function with llmcall.map(…, executor=…), or open another cassette in this process"
            )
        if not self._is_writable:
            check_writable(self.real_path)
            self._is_writable = True

    def write(self, header: Header, records: Sequence[Record]) -> dict[str, str]:
        """Write the file, if all of it can be written; else return why a record cannot, by its key.

        :raises CacheError: if another process wrote it.
        """
        left_out: dict[str, str] = {}
        write(self.real_path, header, records, replaces=self._content, left_out=left_out)
        self.is_written = not left_out
        if self.is_written:
            self._remove_answers(header, records)
        return left_out


class Gained(NamedTuple):
    """A record that a run gained.

    :param source: where it came from.
    """

    record: LazyRecord
    source: GotFrom


lock = ProcessLock()  # for all cassettes of the process, also while one opens or closes


class Tape:
    """The records of a cassette, from when it opens until it closes.

    :param stored: the records of the file.
    :param may_record: ``True`` if records may be added.
    :param earlier_calls: as of a :class:`ReplayLog`.
    :ivar log: logs which records answered calls.
    :ivar replayed: the number of calls that it answered; for embeddings, each text counts.
    :ivar is_over: ``True`` if it was closed, so that nothing more is added.
    :ivar has_ended: ``True`` if it was written, so that its records are read from the file.
    :ivar drops_unused: ``True`` if the file loses what no call used; known at the end.
    :ivar callers: compares what each caller asks with what the file has, if nothing may be added.
    :ivar names_no_callers: ``True`` if nothing may be added, and the file names no caller: a replay of most files.
    :ivar no_callers: the recorded callers of a request for which the file names none, if nothing may be added.
    """

    def __init__(
        self, stored: RecordFile, *, may_record: bool, earlier_calls: Mapping[str, SortKey]
    ) -> None:
        self.stored = stored
        self.log = ReplayLog(stored, may_record=may_record, earlier_calls=earlier_calls)
        self.may_record = may_record
        self.replayed = 0
        has_named = next(stored.named(), None) is not None
        self.names_no_callers = not (may_record or has_named)
        self.callers = ReplayedCallers(has_named=has_named)
        self.no_callers = RecordedCallers(replayed=self.callers)
        self._settings: dict[str, Data] = {}  # those of the models that the run called
        self._called: set[tuple[str, str]] = set()  # their kinds and names
        self.is_over = self.has_ended = False
        self.drops_unused = False
        self._gained: dict[str, Gained] = {}

    def take_settings(self, kind: str, model: str) -> None:
        """Take the settings on which the keys of a model's calls depend, before its first call.

        :param kind: of the call.

        :raises CacheError: if one looks like a credential.
        :raises ValueError: if one has a lone surrogate.
        """
        called = kind, model
        if called not in self._called:
            current = config.without_code()
            taken = settings_taken(current, *called)
            header_line(Header(taken), current.cassette_allow)
            with lock:
                self._settings = joined_settings(self._settings, taken)
                self._called.add(called)

    def settings_of(self, records: Iterable[Record]) -> dict[str, Data]:
        """Return the settings on which the keys of the records depend that the file will have, for its header."""
        settings = joined_settings(self.stored.header.settings, self._settings)
        return settings_shown(settings, records)

    def get(self, key: str, asked: Mapping[str, Data] | None = None) -> Record | None:
        """Return the record of a key, or ``None``, without counting it as used.

        :param asked: the request with the key, if it is known.
        """
        gained = self._gained.get(key)
        if gained is None or self.has_ended:
            return self.stored.get(key, asked)
        return gained.record.copy()

    def find(
        self, key: str, position: Position | None, asked: Mapping[str, Data] | None = None
    ) -> Record | None:
        """Return the record of a key, or ``None``, and count it as used.

        :param position: the call's position; ``None`` for a dry run, which only looks the record up.
        :param asked: the request with the key, if it is known.
        """
        record = self.get(key, asked)  # unlocked: it is slow, and all threads look up records
        if record is None:
            return None
        if position is None:
            self.log.note_planned(key)
            return record
        self.log.note(record, position, is_replayed=True)
        with lock:
            self.replayed += 1
        return record

    def add(
        self, record: Record, position: Position, source: GotFrom, replace: bool
    ) -> Record | None:
        """Add an answer, unless one is recorded; return the recorded one, or ``None`` if the tape is over.

        :param replace: ``True`` to replace a recorded answer. An answer in the file is replaced by a server's only from
            the second call on, so that a program that makes the call once gets the file's answer.
        """
        record = record.replace(days=_days_of(record, source))
        with lock:
            if self.is_over:
                return None
            is_asked_again = self.log.has_used(record.cache_key)
            existing = self.get(record.cache_key)
            if existing is not None:
                self.log.note(existing, position, is_replayed=True)
                is_same = same_answer(existing, record) and existing.given == record.given
                may_replace = replace and (is_asked_again or source == GotFrom.GIVEN)
                if is_same or not may_replace:
                    return existing
            self._gained[record.cache_key] = Gained(kept(record), source)
            self.log.note(record, position)
            return record

    def leave_out(self, keys: Iterable[str]) -> list[Record]:
        """Take out gained records that cannot be written; return those that the file had, which has them no more."""
        with lock:
            return [
                record
                for key in keys
                if self._gained.pop(key, None) is None and (record := self.stored.get(key))
            ]

    def __len__(self) -> int:
        return len(self.stored) + sum(key not in self.stored for key in self._gained)

    def count(self, source: GotFrom | None = None) -> int:
        """Return the number of new records, or of those from one source."""
        gained = [*self._gained.values()]
        return sum(source is None or source in sources for _, sources in gained)

    def in_order(self) -> list[Record]:
        """Return all records in the order of the run or, if it only replays, in that of the file."""
        stored = list(self.stored)
        if not self.may_record:
            return stored
        stored = [record for record in stored if record.cache_key not in self._gained]
        return self.log.in_order(stored, [record for record, _ in self._gained.values()])

    def not_of_run(self, records: Iterable[Record]) -> Iterator[Record]:
        """Yield the records that are not draws of any request that the run made."""
        used = (record for key in self.log.used_keys() if (record := self.stored.get(key)))
        gained = (record for record, _ in self._gained.values())
        drawn = {draw[:2] for draw in map(draw_of, chain(gained, used)) if draw}
        return (
            record
            for record in records
            if (draw := draw_of(record)) is None or draw[:2] not in drawn
        )

    def with_arms(self, record: Record) -> Record:
        """Return a record with the arms that used it; only with those of this run if unused records are dropped."""
        is_gained = record.cache_key in self._gained
        return self.log.with_arms(record, is_gained=is_gained, drops_unused=self.drops_unused)

    def noted(self, record: Record) -> Record:
        """Return a record with the arms that used it, and the notes about it."""
        return self.log.with_notes(self.with_arms(record))

    def to_write(self, dropped_keys: set[str], *, is_complete: bool) -> Sequence[Record]:
        """Return the records that the file will have, without the dropped ones."""
        kept = [
            self.with_arms(record)
            for record in self.in_order()
            if record.cache_key not in dropped_keys
        ]
        named = self.log.with_callers(kept, self._gained.__contains__, is_complete=is_complete)
        return [*map(self.log.with_notes, named)]

    @property
    def has_calls(self) -> bool:
        """Return whether any call got an answer; what a dry run looks up does not count."""
        return self.replayed > 0 or bool(self._gained)

    def differs_from_file(self, *, is_complete: bool, names_all: bool) -> bool:
        """Return whether writing would change the file, even if no record is dropped.

        :param is_complete: ``True`` if the recording is complete, after a run that came to its end.
        :param names_all: ``True`` if records that name no arm or template may come from a version that named none.
        """
        if self._gained or not self.may_record:
            return bool(self._gained)
        becomes_complete = is_complete and not self.stored.header.is_complete
        if becomes_complete or self.log.has_new_callers():
            return True
        if is_complete and [record.cache_key for record in self.in_order()] != [
            record.cache_key for record in self.stored
        ]:
            return True  # the same calls in another order
        if names_all:
            return any(self.noted(record) is not record for record in self.stored)
        return any(self.with_arms(record) is not record for record in self.stored if record.arms)


def _days_of(record: Record, source: GotFrom) -> Days | None:
    """Return the days of an added answer, or ``None`` if unknown."""
    days = record.days
    if days is not None or GotFrom.FUNCTION in source:
        return days
    # An answer shared by an identical concurrent call also came from a server just now, and is in no cache
    # yet.
    is_new = record.is_from_server and (source == GotFrom.SERVER or record.stored_at is None)
    return record.answered_on(day_of(time.time())) if is_new else None
