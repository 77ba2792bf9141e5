"""A cassette: the answers of a block of code in one file, made for review and for git."""

from __future__ import annotations

import functools
import os
import threading
import time
from contextlib import ContextDecorator, ExitStack, nullcontext, suppress
from typing import TYPE_CHECKING, Any

from ...config import resolve as config
from ...errors import CacheError, CacheMissError, ScopeError
from ...scopes import new_program_scope
from ...support.display.formatting import counted, natural
from ...support.failures import ABANDONED, Failures, process_failures
from ...support.listeners import listeners
from ...support.notices import notice, warn_once
from ...support.system import ProcessLock, at_exit, current_task
from ..cache.cache import shared_cache
from ..days import day_of
from ..record import FROM_CACHE, FROM_FUNCTION, FROM_SERVER
from ..records.frame import record_frame
from ..records.header import (
    Header,
    joined_settings,
    keyed_settings,
    layer_from_header,
    overridden_settings,
)
from ..records.reader import RecordFile, header_in, read
from ..records.served import served_by
from ..records.writer import check_writable, content_digest, content_of, write
from .after_close import say_what_is_asked_after
from .current import open_cassettes, pop_cassette, push_cassette
from .owner import BLOCK, SETTINGS, Owner, SilentOwner
from .replay_log import ReplayLog

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from contextlib import AbstractContextManager

    from ...scopes import ActiveScope, Position
    from ..days import Days
    from ..record import Record
    from ..records.reader import Question, Selection
    from .replay_log import SortKey


OTHER_REPEAT = "for another repeat, use a scope with another name and its own cassette"
MODES = ("none", "once", "new", "update", "rewrite")

_lock = ProcessLock()


class Cassette(ContextDecorator):
    """Record the answers of a block in a file, and replay them: a context manager and a decorator.

    While it is open, it applies to every thread and task of the process. If another cassette is
    opened inside it, the inner one applies until it closes; a warning says so if another thread or
    task opens that one. If the same one is opened again while it is open, it stays open, and is
    written when it closes for the last time.

    :ivar path: the file.
    :ivar records: the number of its records.
    :ivar replayed: the number of calls that it answered.
    :ivar recorded: the number of records that it gained.
    :ivar asked: the number of gained records that a server answered.
    :ivar supplied: the number of gained records that came from the disk cache.

    >>> with llmcall.cassette("greetings.jsonl") as tape:
    ...     llmcall.client().send_message("Good morning!", max_tokens=16).content
    'Good morning!'
    >>> tape.records, tape.recorded, tape.replayed
    (1, 1, 0)
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        mode: str = "once",
        *,
        owner: Owner = BLOCK,
        around: Callable[[Cassette], AbstractContextManager[Any]] = nullcontext,
    ) -> None:
        mode = "none" if mode == "replay" else mode
        if mode not in MODES:
            raise ValueError(f"mode is {mode!r}; it must be one of {', '.join(MODES)}")
        if not isinstance(path, (str, os.PathLike)) or not os.fspath(path):
            raise TypeError(f"{path!r} is not the path of a cassette; give a file's: 'run.jsonl'")
        from pathlib import Path  # costs 4 ms, and a call without a cassette imports this module

        self.path = Path(os.path.expanduser(path))
        self.mode = mode
        # The disk cache supplies no answers, and new answers replace the ones in it.
        self.bypasses_cache = owner.bypasses_cache or mode == "rewrite"
        self.owner = owner
        self.run = owner.run
        self.failures = Failures()
        # A context that is open as long as the cassette; it records the process's HTTP clients.
        self.around = around
        self._blocks: list[ExitStack] = []  # the open blocks
        self._depth = 0
        self._reset()

    def _reset(self) -> None:
        """Forget the state of an earlier opening."""
        self.file = ""  # its real path, once it is open
        self._digest = b""  # of the file at opening; empty without a file
        self.stored = RecordFile(b"", "")  # the file's records, if the mode reads them
        self._gained: dict[str, tuple[Record, str]] = {}  # by key, with the source
        self.replayed = 0
        self.replay_log = ReplayLog(self.stored)  # which records answered calls
        # The scope of a program's calls outside any scope; a worker process of a map has none.
        self.program_scope: ActiveScope | None = new_program_scope()
        self.unused_report = ""  # the sentence about unused records, at the end
        self.is_written = False
        self._refusals_before = process_failures.refused
        self._settings: dict[str, Any] = {}  # for the header
        self._applied = ExitStack()  # its settings, while they apply
        self._error: BaseException | None = None
        self._drops_unused = False
        self._process = os.getpid()
        self._is_in_cells = False
        self._opener: tuple[int, Any] = (0, None)  # the thread and the task that opened it last

    def replay_only(self) -> None:
        """Switch to the mode ``none`` and to no reports, before the cassette reads its file."""
        self.mode = "none"
        self.bypasses_cache = False
        self.owner = SilentOwner(self.owner)

    # Opening and closing. A block, or open() and close() across cells, starts and stops the cassette, and
    # makes it the innermost one in between. The first start reads the file; the last stop writes it.

    def __enter__(self) -> Cassette:
        # Locked as a whole, so that a second thread finds a cassette that is completely open.
        with _lock, ExitStack() as block:
            self.start()
            block.push(lambda _, error, __: self.stop(error))
            self._warn_of_other_opener()
            push_cassette(self)
            block.callback(pop_cassette, self)
            if not self._blocks:  # the first block is popped last, whichever thread leaves first
                block.enter_context(self.around(self))
            self._blocks.append(block.pop_all())
        return self

    def __exit__(self, *error: Any) -> None:
        self._blocks.pop().__exit__(*error)

    def _warn_of_other_opener(self) -> None:
        """Warn if another thread, or another task, has another cassette open."""
        thread, task = self._opener = threading.get_ident(), current_task()
        for other in reversed(tuple(open_cassettes)):
            other_thread, other_task = other._opener
            tasks_differ = None not in (task, other_task) and task is not other_task
            is_own = other is self or other.owner is SETTINGS or not other.is_of_this_process()
            if not is_own and (thread != other_thread or tasks_differ):
                caller = "thread" if thread != other_thread else "task"
                warn_once(
                    f"{self.path} is opened while another {caller} has {other.path} open: a process has one cassette "
                    f"at a time, so the calls of both {caller}s go to {self.path} now. Open one cassette around all "
                    f"{caller}s, or give each its own process",
                    about=Cassette,
                )
                return

    def open(self) -> Cassette:
        """Open the cassette until :meth:`close`, across the cells of a notebook.

        If the cell runs again, the earlier cassette is closed, and this one continues its recording. If
        the process ends before it is closed, the file is written then, as an incomplete recording, with
        a warning; a ``rewrite`` leaves the old file.

        :raises CacheCorruptError: if the file is damaged.
        :raises CacheError: if a newer version wrote the file, or a ``with`` block of this process
            has it open.
        """
        for other in self._others():
            if other._is_in_cells:
                other._close_all(
                    None if other.mode == "rewrite" else InterruptedError("opened again")
                )
        self.__enter__()
        self._is_in_cells = True
        at_exit(_close_cells)
        return self

    def close(self) -> None:
        """Close a cassette that :meth:`open` opened; a second close does nothing.

        :raises CacheError: if another process wrote the file, or a text looks like a credential.
        """
        if self._depth:
            self.__exit__(None, None, None)
            say_what_is_asked_after(self.path)

    def _close_all(self, error: BaseException | None) -> None:
        while self._depth:
            with suppress(CacheMissError, ScopeError):  # the process warns of refused calls
                self.__exit__(None, error, None)

    def _others(self) -> list[Cassette]:
        """Return this process's open cassettes for the same file."""
        file = os.path.realpath(self.path)
        return [
            other
            for other in tuple(open_cassettes)
            if os.path.realpath(other.path) == file and other.is_of_this_process()
        ]

    def start(self) -> None:
        """Read the file and apply its settings at the first call.

        Each call needs a call of :meth:`stop`.

        :raises CacheCorruptError: if the file is damaged.
        :raises CacheError: if a newer version wrote the file, another cassette of this process has it open,
            or there is none and none can be written.
        """
        with _lock:
            if not self._depth:
                self._start()
            self._depth += 1

    def _start(self) -> None:
        for listener in listeners:
            listener.opens(self)
        for other in self._others():
            place = other.owner.place()
            if other._is_in_cells:
                place = "by an earlier open(); call its close() first (tape.close())"
            raise CacheError(f"{self.path} is already open {place}")
        self._reset()
        config.refresh()
        file = os.path.realpath(self.path)
        content = content_of(file)
        self._digest = content_digest(content)
        with ExitStack() as applied:
            if content and self.mode != "rewrite":
                self.stored = RecordFile(content, file)
                self.run, before = self.stored.header.run, config.settings()
                layer = layer_from_header(self.stored.header.settings, f"cassette {self.path}")
                applied.callback(config.push_layer(layer))
                if overridden := overridden_settings(before, layer, str(self.path)):
                    warn_once(overridden)
            else:
                header_in(file)  # raises if it is not a cassette, which no mode overwrites
                if self.may_record:
                    check_writable(self.path)
            self._update_settings()
            self.file = file
            is_recording = self.may_record and not self.is_complete
            self.replay_log = ReplayLog(
                self.stored, is_recording=is_recording, earlier_calls=self.owner.earlier_calls
            )
            self._applied = applied.pop_all()

    def _update_settings(self) -> None:
        """Put the current settings into the header; a file's own header only gains further models."""
        here = keyed_settings()
        self._settings = joined_settings(self.stored.header.settings or here, here)

    def stop(self, error: BaseException | None = None) -> None:
        """Write the file when the cassette closes for the last time; a failed ``rewrite`` leaves the
        old file.

        :param error: what ended the block, or ``None``.
        :raises CacheError: if another process wrote the file, or a text looks like a credential.
        """
        with _lock:
            if not (isinstance(error, SystemExit) and not error.code):
                self._error = self._error or error
            self._depth -= 1
            if self._depth:
                return
            self._applied.close()
            self._opener = 0, None  # keeps no task alive
            for listener in listeners:
                listener.closed(self)
            if self.is_of_this_process():
                self._report_and_write()

    def _report_and_write(self) -> None:
        """Report unused records and failed calls, and write the file."""
        # The order is a decision. The cassette left the list of open ones before: a call that
        # another thread makes now goes elsewhere, and does not wait for the writing only to find
        # the cassette closed. The reports come before the writing, which may raise (another process
        # wrote the file, or a text looks like a credential): a user who has to record again wants
        # to know then which calls failed. Reporting afterwards in a ``finally`` was rejected, since
        # the reports say what the writing will do. Unused records go to the disk cache before the
        # file is written without them: a crash in between leaves them in both places, and the other
        # order would lose answers that were paid for. The file is written once, whole, and at the
        # end. Appending each answer as it arrives would survive a kill, but the lines would stand
        # in the order of the threads, and each run would change the file in git; a killed run finds
        # its answers in the disk cache.
        if isinstance(self._error, KeyboardInterrupt):
            self.failures.forget(ABANDONED)  # the user pressed Ctrl-C and knows
        unused = self._unused() if self._error is None and self.owner.knows_use else []
        refusals = process_failures.refused - self._refusals_before
        has_failures = bool(refusals or self.failures.counts())
        self._drops_unused = self.mode == "update" and self._error is None and not has_failures
        dropped = unused if self._drops_unused else []
        if unused:
            self._report_unused(len(unused), has_failures=has_failures)
        if self.supplied and self.owner.knows_use:
            answers = counted(self.supplied, "answer")
            source = "came from the disk cache, and so from an earlier run"
            self.owner.report(self.path, f"{answers} {source}; {OTHER_REPEAT}")
        goes_on = self.mode in ("new", "update")
        self.failures.warn(
            f"replay of the cassette {self.path}",
            "run it again" if goes_on else "record it again with the mode 'new'",
        )
        if self.mode == "rewrite" and self.path.exists() and has_failures and not self.recorded:
            notice("%s is left as it was: no call was answered", self.path)
        elif self.owner.writes and (dropped or self._is_changed()):
            keep_in_cache(dropped)
            self._write({record.cache_key for record in dropped})

    def _report_unused(self, count: int, *, has_failures: bool) -> None:
        """Report the number of unused records, and what happens to them."""
        self.unused_report = (
            f"{counted(count, 'record')} {'was' if count == 1 else 'were'} not used; "
        )
        if self.mode != "update":
            self.unused_report += "the mode 'update' moves such records to the disk cache"
        elif has_failures:
            self.unused_report += (
                "the file keeps such records, because a call failed, ended early or was refused"
            )
        else:
            self.unused_report += f"moved to the disk cache {config.settings().cache_path}"
        self.owner.report(self.path, self.unused_report)

    def _is_changed(self) -> bool:
        """Return whether the file needs writing even if no record is dropped."""
        ended_well = self._error is None
        if self.mode == "rewrite":
            return ended_well and (self.recorded > 0 or self.path.exists())
        if self.recorded > 0 or not self.may_record:
            return self.recorded > 0
        becomes_complete = ended_well and not self.is_complete
        if becomes_complete or self.replay_log.has_new_askers:
            return True
        if ended_well and self._keys(self._all_records()) != self._keys(self.stored):
            return True  # the same calls in another order
        # Records that name no arm may be of a version that named none.
        return any(
            self._with_arms(record) is not record
            for record in self.stored
            if record.arms or self.mode == "update"
        )

    @staticmethod
    def _keys(records: Iterable[Record]) -> list[str]:
        return [record.cache_key for record in records]

    def _with_arms(self, record: Record) -> Record:
        """Return a record with the arms that used it; only with this run's arms if the run drops unused
        records.
        """
        is_gained = record.cache_key in self._gained
        return self.replay_log.with_arms(
            record, is_gained=is_gained, drops_unused=self._drops_unused
        )

    def _write(self, dropped_keys: set[str]) -> None:
        """Write the file, whole or not at all, without some records."""
        is_complete = self._error is None
        kept = (
            self._with_arms(record)
            for record in self._all_records()
            if record.cache_key not in dropped_keys
        )
        records = self.replay_log.with_askers(kept, self._gained, is_complete=is_complete)
        imported = self.stored.header.imported
        header = Header(self._settings, self.run, is_complete, imported=imported)
        write(self.file, header, records, replaces=self._digest)
        self.is_written = True

    def is_of_this_process(self) -> bool:
        """Return whether this process opened it. A forked process leaves the file to its parent."""
        return self._process == os.getpid()

    # State and counts

    @property
    def is_complete(self) -> bool:
        """Return whether the recording in the file is complete. After an exception it is not, and the next
        run continues it.
        """
        return self.stored.header.is_complete

    @property
    def may_record(self) -> bool:
        """Return whether a call may ask for a missing answer and record it."""
        if self.mode == "once":
            return not self._digest or not self.is_complete
        return self.mode != "none"

    @property
    def records(self) -> int:
        """Return the number of its records."""
        return len(self.stored) + sum(key not in self.stored for key in list(self._gained))

    @property
    def recorded(self) -> int:
        """Return the number of gained records."""
        return len(self._gained)

    @property
    def served(self) -> dict[str, Days | None]:
        """Return the models that answered, by the server's names, with the days in UTC and the
        fingerprints; ``None`` for unknown days.
        """
        return served_by(self.all_records())

    @property
    def asked(self) -> int:
        """Return the number of gained records that a server answered."""
        return self._count(FROM_SERVER)

    @property
    def supplied(self) -> int:
        """Return the number of gained records that came from the disk cache."""
        return self._count(FROM_CACHE)

    def _count(self, source: str) -> int:
        return sum(origin == source for _, origin in list(self._gained.values()))

    # Records

    def get(self, key: str, question: Question | None = None) -> Record | None:
        """Return the record of a key, or ``None``, without counting it as used.

        :param question: what has the key; a file finds it faster.
        """
        gained = self._gained.get(key)
        return self.stored.get(key, question) if gained is None else gained[0].copy()

    def find(self, key: str, position: Position, question: Question | None = None) -> Record | None:
        """Return the record of a key for a call, or ``None``, and count it as used.

        :param question: what has the key; a file finds it faster.
        :raises CacheError: if it is missing in a forked process, or from a file that cannot be written: what
            would be recorded would be lost.
        """
        record = self.get(key, question)  # unlocked: it is slow, and all threads look up records
        if record is not None:
            self.replay_log.note(record, position, is_replayed=True)
            with _lock:
                self.replayed += 1
        elif self.may_record and not self.is_of_this_process():
            raise CacheError(
                f"{self.path} is recorded by the parent of this forked process, which does not see calls made here. "
                "Run the function with llmcall.map(…, executor=…), or open another cassette in this process"
            )
        elif self.may_record:
            check_writable(self.file)
        return record

    def add(
        self, record: Record, position: Position, source: str = FROM_FUNCTION, replace: bool = False
    ) -> Record:
        """Add an answer, unless one is recorded; return the recorded one.

        :param source: ``FROM_SERVER``, ``FROM_CACHE`` or ``FROM_FUNCTION``.
        :param replace: whether to replace a recorded answer. An answer of the file is replaced only from
            the second call on, so that a program that asks once gets it.
        """
        with _lock:
            if self._depth:
                is_asked_again = self.replay_log.has_used(record.cache_key)
                question = record.kind, record.sample, record.request
                existing = self.get(record.cache_key, question)
                if existing is not None:
                    self.replay_log.note(existing, position, is_replayed=True)
                    is_same = existing.response == record.response
                    _, source_before = self._gained.get(record.cache_key, (None, ""))
                    # another call found the answer in the disk cache before this one, which asked, came here
                    is_own = is_same and source == FROM_SERVER and source_before == FROM_CACHE
                    if not is_own and (is_same or not (replace and is_asked_again)):
                        return existing
                if not self._gained:  # the program may have changed its settings since the opening
                    self._update_settings()
                record = record.replace(days=_days_of(record, source))
                kept = record.copy()
                _ = kept.request  # copied now, since the caller may change its own
                self._gained[record.cache_key] = kept, source
                self.replay_log.note(record, position)
                return record
        warn_once(f"an answer came after the cassette {self.path} was closed, so the file lacks it")
        return record

    def all_records(self) -> list[Record]:
        """Return its records; before the first opening, the file's records."""
        return list(map(self._with_arms, self._all_records()))

    def _all_records(self) -> list[Record]:
        if not self.file:
            return list(read(self.path)) if self.path.exists() else []
        if not self.may_record:
            return list(self.stored)
        gained = [record for record, _ in self.gained()]
        kept = (record for record in self.stored if record.cache_key not in self._gained)
        return self.replay_log.in_order(kept, gained)

    def gained(self) -> list[tuple[Record, SortKey]]:
        """Return the gained records, each with the sort key of its first call, in the order of the calls."""
        with _lock:
            calls = sorted((self.replay_log.first_call(key), key) for key in self._gained)
            return [(self._gained[key][0], first_call) for first_call, key in calls]

    def unused(self) -> list[Record]:
        """Return the file's records that answered no call and that no dry run looked up.

        Records that may belong to a replayed function do not count as unused. These are all records
        outside any scope, such as embeddings. If the function was called outside any scope, they also
        include the records in outermost scopes that this run did not enter.
        """
        return list(self._unused())

    def _unused(self) -> Selection | list[Record]:
        others = self.stored.others(self.replay_log.has_used)
        return self.replay_log.unused(self.stored, others)

    def to_frame(self, levels: Sequence[str] | None = None) -> Any:
        """Return a pandas DataFrame with a row for each record, by scope. The cassette need not be open.

        :param levels: names for the levels of the scopes, such as ``["rep", "agent"]``. Each level
            gets a column; a scope with fewer levels fills the first ones.
        :returns: columns scope, draw, arms (if any record has some), kind, model, served (the
            server's name for the model), prompt, answer, finish_reason, refusal, input_tokens,
            output_tokens, cost (USD), used (whether a call used it, or a dry run, since the cassette
            was opened), cache_key.
        :raises CacheCorruptError: if the file is damaged.
        :raises ValueError: if ``levels`` does not name exactly the levels of the deepest scope, or
            uses another column's name.
        """
        records = sorted(self.all_records(), key=lambda record: natural(record.scope))
        unused_records = self.replay_log.unused(records)
        unused_keys = {record.cache_key for record in unused_records}
        return record_frame(records, lambda record: record.cache_key not in unused_keys, levels)

    def __call__(self, function: Any) -> Any:
        """Open it around each call of a function, also an async one; concurrent calls share it."""
        from inspect import isasyncgenfunction, iscoroutinefunction, isgeneratorfunction

        if isinstance(function, (staticmethod, classmethod)):
            return type(function)(self(function.__func__))
        if isgeneratorfunction(function) or isasyncgenfunction(function):
            raise TypeError(
                f"{function.__qualname__} is a generator function; open the cassette with 'with' inside it"
            )
        if not iscoroutinefunction(function):
            return super().__call__(function)

        @functools.wraps(function)
        async def arecorded(*args: Any, **kwargs: Any) -> Any:
            with self:
                return await function(*args, **kwargs)

        return arecorded

    def __repr__(self) -> str:
        return f"cassette({str(self.path)!r}, mode={self.mode!r})"


def _close_cells() -> None:
    """Close the cassettes that :meth:`Cassette.open` left open, at the end of the process."""
    for cassette in tuple(open_cassettes):
        if cassette._is_in_cells and cassette.is_of_this_process():
            if cassette.recorded:
                notice(
                    "%s was opened with open() but not closed: call close() at the end",
                    cassette.path,
                )
            cassette._close_all(
                InterruptedError("the process ended") if cassette.may_record else None
            )


def keep_in_cache(records: Iterable[Record]) -> None:
    """Add records that are dropped from a cassette to the disk cache."""
    records = list(records)
    if records:
        shared_cache(config.settings().cache_path).add_all(records)


def _days_of(record: Record, source: str) -> Days | None:
    """Return the days of an added answer, or ``None`` if unknown."""
    if record.days is not None or source == FROM_FUNCTION:
        return record.days
    # An answer shared by an equal concurrent call also came from a server just now, and is in no cache
    # yet.
    is_new = record.was_asked and (source == FROM_SERVER or record.stored_at is None)
    return record.answered_on(day_of(time.time())) if is_new else None
