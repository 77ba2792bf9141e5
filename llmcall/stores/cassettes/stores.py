"""Stores of a call's records: the disk cache, or a cassette over it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from ...config import resolve as config
from ...keys.keys import Identity, key_of, sampled_key
from ...keys.request import Request
from ...scopes.draw_numbers import RecordedCallers
from ...scopes.position import Position, draw_in_arm
from ...support.notices import warn_once
from ...support.system import unwatched
from ..cache.cache import shared_cache
from ..record import GotFrom, Record

if TYPE_CHECKING:
    from ..cache.cache import ResponseCache
    from .cassette import Cassette


# Draws in a row that the cache lacks after the last one. It cannot list them, and one may have
# been deleted, or be damaged. More would slow down each first draw of a program's request.
MISSING_AT_END = 3


class CacheStore(NamedTuple):
    """The disk cache.

    :param mode: the cache's mode for the call.
    :param position: the call's, whose caller and arm the record names; ``None`` for a dry run.
    :param overwrites: ``True`` to call anew and replace the stored answer.
    :param is_read: ``True`` if the answer was read before it is added, by a stream's reader.
    """

    cache: ResponseCache
    mode: str
    position: Position | None
    overwrites: bool = False
    is_read: bool = False

    def has_used(self, key: str) -> bool:
        """Return whether a call of this process used or made the record of a key."""
        return key in self.cache.used_keys

    def get(self, request: Request) -> Record | None:
        """Return the recorded answer of a request, or ``None``."""
        if self.overwrites:
            return None
        record = self.cache.get(request.cache_key, mode=self.mode)
        if record is not None and self.position is not None:
            self.cache.used_keys.add(request.cache_key)
            self._note_use(record, self.position)
        return record

    def add(self, record: Record) -> Record:
        """Add an answer; return the answer that counts: the one read, else the first stored."""
        if self.position is not None:
            if self.position.caller is not None and not self.position.is_in_order:
                record = record.replace(caller=self.position.caller)
            if arm := self.position.arm:
                record = record.with_arms((arm,))
        if self.mode == "off":
            return record
        self.cache.used_keys.add(record.cache_key)
        stored = self.cache.store(record, mode=self.mode, replace=self.overwrites)
        if self.position is not None:
            self._note_use(stored, self.position)
        return record if self.is_read else stored

    def _note_use(self, record: Record, position: Position) -> None:
        """Note in the cache which caller got a record. A record loaded from a file may name none, and its draw
        would belong to none beside later draws with names.
        """
        arm = position.arm
        if arm in record.arms:
            arm = ""
        caller = position.caller if record.caller is None and not position.is_in_order else None
        if (arm or caller) and self.mode != "replay":
            self.cache.note_use(record.cache_key, arm, caller)

    @unwatched()
    def callers(self, path: str, identity: Identity) -> RecordedCallers:
        """Return the callers that took a request's draws in the recording.

        :param path: the scope path.
        :param identity: of the request.
        """
        callers: dict[int, str] = {}
        number = missing = 0
        while missing < MISSING_AT_END and not self.overwrites:
            record_key = sampled_key(identity, f"{path}#{number}")
            record = self.cache.get(record_key, mode=self.mode)
            missing = missing + 1 if record is None else 0
            if record is not None and record.caller is not None:
                callers[number] = record.caller
            number += 1
        return RecordedCallers(callers, is_of_cache=self.mode != "replay")


class CassetteStore(NamedTuple):
    """A cassette over the disk cache, which may supply answers to a recording.

    :param cache: the disk cache.
    :param position: the call's; ``None`` for a dry run, which uses no record.
    :param replaces: ``True`` to call anew and replace an answer of this run.
    """

    cassette: Cassette
    cache: CacheStore
    position: Position | None
    replaces: bool = False

    def has_used(self, key: str) -> bool:
        """Return whether a call of this process used or made the record of a key."""
        return self.cache.has_used(key) or self.cassette.tape.log.has_used(key)

    def get(self, request: Request) -> Record | None:
        """Return the recorded answer of a request, or ``None``.

        :raises CacheError: if it is missing in a forked process, or from a file that cannot be written: a new
            record would be lost.
        """
        tape, position = self.cassette.tape, self.position
        if tape.stored.has_given and position is not None and position.arm:
            sample = draw_in_arm(str(request.sample), position.arm)
            own_key = key_of(request.kind, request.hashed, sample)
            given = tape.find(own_key, position)
            if given is not None:
                return given
        key = request.cache_key
        record = None if self.replaces else tape.find(key, position, request.hashed)
        if record is not None:
            return record
        if not tape.may_record:
            other_key = None if position is None else self.cassette.stand_in(request, position)
            return None if other_key is None else tape.find(other_key, position)
        if position is not None:
            self.cassette.file.check_can_gain()
            tape.take_settings(request.kind, request.model)
        record = self.cache.get(request)
        if record is None:
            return None
        is_of_run = key in self.cache.cache.batched_keys
        source = GotFrom.SERVER if is_of_run else GotFrom.CACHE
        # The caller of an earlier run does not count; in this run the first to get it does.
        return self._put(record.replace(caller=None), source)

    def add(self, record: Record) -> Record:
        """Add an answer; return the answer that counts on it."""
        from ..records.answers import same_answer  # not needed for a recorded answer

        source = GotFrom.FUNCTION if record.kind == "function" else GotFrom.SERVER
        try:
            first_record = self.cache.add(record)
        except KeyboardInterrupt:  # the answer was paid for
            self._put(record, source)
            raise
        if not same_answer(first_record, record):
            first_record, source = first_record.replace(caller=None), source | GotFrom.CACHE
        return self._put(first_record, source)

    def put_given(self, record: Record) -> Record:
        """Replace a recorded answer by one that no model gave, and return the new record. The model's answer goes to
        the disk cache.
        """
        tape, position = self.cassette.tape, self.position
        if position is None:
            return record
        if not tape.may_record:  # the recorded answer to this request counts as used
            if tape.find(record.cache_key, position) is None and position.draw is not None:
                sample = f"{position.path}#{position.draw}"
                tape.find(key_of(record.kind, record.request, sample), position)
            return record
        self.cassette.file.check_can_gain()
        tape.take_settings(record.kind, record.model or "")
        replaced = tape.get(record.cache_key)
        if replaced is not None and not replaced.given:
            shared_cache(config.settings().cache_path).add_all([replaced])
        tape.add(record, position, GotFrom.GIVEN, replace=True)
        return record

    def callers(self, path: str, identity: Identity) -> RecordedCallers:
        """Return the callers that took a request's draws in the recording."""
        tape = self.cassette.tape
        recorded = tape.log.recorded_callers(path, sampled_key(identity, None))
        if not tape.may_record:
            return recorded._replace(replayed=tape.callers) if recorded.callers else tape.no_callers

        def key_of(number: int) -> str:
            return sampled_key(identity, f"{path}#{number}")

        below = self.cache.callers(path, identity).callers
        if not (below or recorded.callers):
            return recorded  # one for all requests
        # Draws of the file without a caller come first, as in a replay, whichever caller took others of the cache.
        has_nameless = below and any(
            number not in recorded.callers and key_of(number) in tape.stored
            for number in (0, *below)
        )
        callers = recorded.callers if has_nameless else {**below, **recorded.callers}
        if not recorded.is_recording:
            return recorded._replace(callers=callers)
        again = {number for number in callers if tape.log.has_used(key_of(number))}
        return recorded._replace(callers=callers, again=again)

    def _put(self, record: Record, source: GotFrom) -> Record:
        """Put an answer on the cassette; return the answer that counts there."""
        if self.position is None:
            return record
        kept = self.cassette.tape.add(record, self.position, source, self.replaces)
        if kept is None:
            path = self.cassette.path
            warn_once(f"an answer came after the cassette {path} was closed, so the file lacks it")
        return kept or record
