"""A cassette: the answers of a block of code in one file, made for review and for git."""

from __future__ import annotations

import copy
import functools
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, ContextDecorator, ExitStack, nullcontext, suppress
from typing import TYPE_CHECKING, Any, TypeVar

from ...config import resolve as config
from ...config.cassette_modes import ALIASES, MODES
from ...errors import CacheError, CacheMissError, ScopeError
from ...keys.request import Data, Request
from ...scopes.active import ActiveScope, new_program_scope
from ...scopes.position import Position
from ...support.display import counted, natural
from ...support.failures import ABANDONED, FAILED, NOTHING_WRITTEN, RUN_AGAIN, Counts, Failures
from ...support.listeners import notify
from ...support.notices import notice, warn_once
from ...support.system import at_exit, last_in, unwatched
from ..cache.cache import ResponseCache, shared_cache
from ..record import GotFrom, Record
from ..records.frame import record_frame
from ..records.header import Served, served_by
from ..records.keyed_settings import layer_from_header, overridden_words
from ..records.reader import read
from .current import open_cassettes
from .reports import BLOCK, MOVED, REUSED, Owner, left_out_words, unused_words
from .tape import CassetteFile, Tape, lock

if TYPE_CHECKING:
    import pandas


Function = TypeVar("Function", bound="Callable[..., Any]")


class Cassette(ContextDecorator):
    """A file with the answers of a block, to record and replay: a context manager and a decorator.

    While it is open, it applies to every thread and task of the process. If another cassette is
    opened inside it, the inner one applies until it closes; a warning says so if another thread or
    task opens that one. If the same one is opened again while it is open, it stays open, and is
    written when it closes for the last time.

    :ivar path: the file.
    :ivar records: the number of its records.
    :ivar replayed: the number of calls that it answered; each text of embeddings counts, as it has a record.
    :ivar recorded: the number of new records.
    :ivar asked: the number of new records that a server answered.
    :ivar supplied: the number of new records that came from the disk cache.

    >>> with llmcall.cassette("greetings.jsonl") as tape:
    ...     llmcall.client().send_message("Good morning!", max_tokens=16).content
    'Good morning!'
    >>> tape.records, tape.recorded, tape.replayed
    (1, 1, 0)
    """

    # A block, or open() and close() across cells, starts and stops it, and makes it the innermost one in between.
    # The first start reads the file, and puts its settings above those of environment and files; the last stop writes
    # it. The file and the tape are those of one time of being open, and are made anew when it starts.
    def __init__(
        self,
        path: str | os.PathLike[str],
        mode: str = "once",
        *,
        owner: Owner = BLOCK,
        around: Callable[[Cassette], AbstractContextManager[object]] = nullcontext,
    ) -> None:
        mode = ALIASES.get(mode, mode)
        if mode not in MODES:
            raise ValueError(f"mode is {mode!r}; it must be one of {', '.join(MODES)}")
        if not isinstance(path, (str, os.PathLike)) or not os.fspath(path):
            raise TypeError(
                f"{path!r} is not the path of a cassette; name a file, such as 'run.jsonl'"
            )
        from pathlib import Path  # costs 4 ms, and a call without a cassette imports this module

        self.path = Path(os.path.expanduser(path))
        self.mode = mode
        self.owner = owner
        # A context that is open as long as the cassette; it records the process's HTTP clients.
        self.around = around
        # Names the record that answers an unrecorded request of a replay; of a packed study's check, there is one.
        self.stand_in: Callable[[Request, Position], str | None] = lambda request, position: None
        self.failures = Failures()
        self.exit_code = 0  # of the program that is recorded
        self._blocks: list[ExitStack] = []  # in which it is open
        self._depth = 0
        self._error: BaseException | None = None  # what ended a block
        self._settings = ExitStack()  # those of the file, while they apply
        self._is_in_cells = False  # open() opened it
        self._begin(CassetteFile(self.path, mode), may_record=False)

    def _begin(self, file: CassetteFile, *, may_record: bool) -> None:
        """Begin a time of being open."""
        self.file = file
        earlier_calls = self.owner.earlier_calls
        self.tape = Tape(file.records, may_record=may_record, earlier_calls=earlier_calls)
        self.counts = Counts()
        self.program_scope = new_program_scope()  # of a program's calls outside any scope
        # The sentence about unused records; empty before the end, and without any
        self.unused_words = ""
        self.left_out: dict[str, str] = {}  # why a record could not be written, by its key

    def replay_only(self) -> None:
        """Switch to the mode ``none`` and to no reports of use, before the cassette reads its file."""
        self.mode = "none"
        self.owner = copy.copy(self.owner)
        self.owner.writes = self.owner.knows_use = False

    def read_file(self) -> None:
        """Read the file, and begin a tape with its records."""
        file = CassetteFile(self.path, self.mode)
        file.read()
        self._begin(file, may_record=file.may_record)

    def finish(self, error: BaseException | None) -> None:
        """Report unused records and failed calls, and write the file.

        :param error: the exception that ended the run, or ``None``.
        """
        # The order is a decision. The cassette left the list of open ones before: a call that
        # another thread makes now goes elsewhere, and does not wait for the writing only to find
        # the cassette closed. The reports come before the writing, which may raise (another process
        # wrote the file): a user who has to record again wants to know then which calls failed.
        # Reporting afterwards in a ``finally`` was rejected, since the reports say what the writing
        # will do. Unused records go to the disk cache before the file is written without them: a
        # crash in between leaves them in both places, and the other order would lose answers that
        # were paid for. The file is written once, whole, and at the end: lines that are appended as
        # the answers arrive stand in the order of the threads, and each run would change the file
        # in git. They are in the disk cache, which survives a kill.
        if isinstance(error, KeyboardInterrupt):
            self.failures.forget(ABANDONED)  # the user pressed Ctrl-C and knows
        ended_well, tape, owner = error is None, self.tape, self.owner
        has_failures = bool(self.counts.sums["refused"] or self.failures.counts())
        # A run that only plans neither ends the recording that another one began nor empties it.
        is_complete = ended_well and (tape.has_calls or self.is_complete)
        mode = MODES[self.mode]
        tape.drops_unused = mode.moves_unused and ended_well and tape.has_calls and not has_failures
        unused = tape.log.unused() if ended_well and owner.knows_use else []
        # Further draws of the run's requests stay, so as to leave no gap among them.
        dropped = [*tape.not_of_run(unused)] if unused and tape.drops_unused else []
        if mode.reads:
            is_changed = tape.differs_from_file(
                is_complete=is_complete, names_all=mode.moves_unused
            )
        else:
            is_changed = ended_well and tape.has_calls
        writes = owner.writes and (bool(dropped) or is_changed)
        # A complete recording only replays in the mode that made it.
        adds = (mode.adds and mode.reads) or not is_complete
        again = RUN_AGAIN.format(how="" if adds else " with mode 'new'")
        advice = again if writes else NOTHING_WRITTEN
        unanswered = self.failures.counts().get(FAILED, 0)
        if unused:
            self.unused_words = unused_words(
                unused, self.mode, tape, dropped, has_failures=has_failures
            )
            owner.report(self.path, self.unused_words)
        if self.supplied and owner.knows_use:
            owner.report(self.path, f"{counted(self.supplied, 'answer')} {REUSED}")
        if moved := tape.callers.calls:
            owner.report(self.path, f"{counted(moved, 'call')} {MOVED}")
        self.failures.warn(advice, place=f"{self.path}: ")
        is_idle = not (tape.has_calls or has_failures or owner.is_settings)
        if is_idle and self.may_record and ended_well:
            owner.report(
                self.path, "no call was answered while it was open, so nothing was written"
            )
        if not writes:
            return
        keep_in_cache(dropped)
        run = self.run
        if run is not None:
            ended = {"exit_code": self.exit_code} if self.exit_code else {}
            run = {name: run[name] for name in run if name != "exit_code"} | ended
        lacking = {record.cache_key for record in dropped}
        records = tape.to_write(lacking, is_complete=is_complete)
        header = self.file.records.header._replace(
            settings=tape.settings_of(records),
            run=run,
            is_complete=is_complete,
            unanswered=unanswered,
        )
        # An incomplete file names all callers, and a caller's name may be what cannot be written.
        while left_out := self.file.write(header, records):
            self.left_out |= left_out
            keep_in_cache(tape.leave_out(left_out))
            header = header._replace(is_complete=False)
            records = tape.to_write(lacking | self.left_out.keys(), is_complete=False)
        if self.left_out:
            notice("%s: %s", self.path, left_out_words([*self.left_out.values()]))

    @unwatched()
    def __enter__(self) -> Cassette:
        # Locked as a whole, so that a second thread finds a cassette that is completely open.
        with lock, ExitStack() as block:
            if not self._depth:
                self._start()
            self._depth += 1
            block.push(lambda _, error, __: self._stop(error))
            block.enter_context(last_in(open_cassettes, self))
            if not self._blocks:  # the first block is popped last, whichever thread leaves first
                block.enter_context(self.around(self))
            self._blocks.append(block.pop_all())
        return self

    @unwatched()
    def __exit__(self, *error: Any) -> None:
        self._blocks.pop().__exit__(*error)

    @unwatched()
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
                is_left = not MODES[other.mode].reads
                other._close_all(None if is_left else InterruptedError("opened again"))
        self.__enter__()
        self._is_in_cells = True
        at_exit(_close_cells)
        return self

    def close(self) -> None:
        """Close a cassette that :meth:`open` opened; a second close, or one in a ``with`` block, does nothing.

        :raises CacheError: if another process wrote the file.
        """
        if self._is_in_cells:
            self._is_in_cells = False
            self.__exit__(None, None, None)

    def __call__(self, function: Function) -> Function:
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
        async def arecorded(*args: object, **kwargs: object) -> object:
            with self:
                return await function(*args, **kwargs)

        return arecorded  # type: ignore[return-value]

    def _close_all(self, error: BaseException | None) -> None:
        self._is_in_cells = False
        while self._depth:
            with suppress(CacheMissError, ScopeError):  # the process warns of refused calls
                self.__exit__(None, error, None)

    def _start(self) -> None:
        notify("opened", self)
        for other in self._others():
            place = other.owner.place()
            if other._is_in_cells:
                place = "by an earlier open(); call its close() first (tape.close())"
            raise CacheError(f"{self.path} is already open {place}")
        self._error = None
        config.refresh()
        self.read_file()
        if self.file.goes_on:
            path, header = str(self.path), self.file.records.header
            layer = layer_from_header(
                header.settings,
                f"cassette {path}",
                self.file.records,
                is_recorded=not header.notes,
            )
            if words := overridden_words(config.settings(), layer, path):
                warn_once(words)
            self._settings.callback(config.push_layer(layer))

    def _stop(self, error: BaseException | None) -> None:
        with lock:
            if not (isinstance(error, SystemExit) and not error.code):
                self._error = self._error or error
            self._depth -= 1
            if self._depth:
                return
            self.tape.is_over = True
            self._settings.close()
            try:
                notify("closed", self)
            finally:  # its answers were paid for
                if self.file.is_of_this_process():
                    try:
                        self.finish(self._error)
                    finally:
                        self.tape.has_ended = True

    def _others(self) -> list[Cassette]:
        """Return this process's open cassettes for the same file."""
        file = os.path.realpath(self.path)
        return [
            other
            for other in tuple(open_cassettes)
            if os.path.realpath(other.path) == file and other.file.is_of_this_process()
        ]

    # State and counts

    @property
    def is_complete(self) -> bool:
        """Return whether the recording in the file is complete. After an exception it is not, and the next
        run continues it.
        """
        return self.tape.stored.header.is_complete

    @property
    def may_record(self) -> bool:
        """Return whether a call may request a missing answer and record it."""
        return self.tape.may_record

    @property
    def bypasses_cache(self) -> bool:
        """Return whether the disk cache supplies no answers, and new answers replace the ones in it."""
        return self.owner.bypasses_cache or not MODES[self.mode].reads

    @property
    def answers(self) -> ResponseCache | None:
        """Return the cache of a recording's calls that have no disk cache; ``None`` where each is requested anew."""
        return self.file.answers if self.may_record and not self.bypasses_cache else None

    @property
    def run(self) -> Mapping[str, Data] | None:
        """Return the options of the ``llmcall run`` that recorded it, or records it; ``None`` for a block."""
        return self.file.records.header.run if self.file.goes_on else self.owner.run

    @property
    def default_scope(self) -> ActiveScope | None:
        """Return the scope of all calls outside any, including llmcall's own and a ``map``'s, as in the run that
        recorded it; ``None`` for a block's recording, in which only calls of programs have one.
        """
        return None if self.run is None else self.program_scope

    @property
    def records(self) -> int:
        """Return the number of its records."""
        return len(self.tape)

    @property
    def replayed(self) -> int:
        """Return the number of calls that it answered; of embeddings, each text counts."""
        return self.tape.replayed

    @property
    def recorded(self) -> int:
        """Return the number of new records."""
        return self.tape.count()

    @property
    def asked(self) -> int:
        """Return the number of new records that a server answered."""
        return self.tape.count(GotFrom.SERVER)

    @property
    def supplied(self) -> int:
        """Return the number of new records that came from the disk cache."""
        return self.tape.count(GotFrom.CACHE)

    @property
    def served(self) -> Served:
        """Return the models that answered, by the server's names, with the days in UTC and the
        fingerprints; ``None`` for unknown days.
        """
        return served_by(self.all_records())

    # Records

    def all_records(self) -> Sequence[Record]:
        """Return its records; before the first opening, and after a recording, the file's."""
        tape = self.tape
        if not self.file.real_path or (tape.has_ended and tape.count()):
            return [*read(self.path)] if self.path.exists() else []
        return [*map(tape.noted, tape.in_order())]

    def unused(self) -> list[Record]:
        """Return the file's records that answered no call and that no dry run looked up.

        Records that may belong to a replayed function do not count as unused. These are all records
        outside any scope, such as embeddings. If the function was called outside any scope, they also
        include the records in outermost scopes that this run did not enter.
        """
        return self.tape.log.unused()

    def to_frame(self, levels: Sequence[str] | None = None) -> pandas.DataFrame:
        """Return a pandas DataFrame with a row for each record, by scope. The cassette need not be open.

        :param levels: names for the levels of the scopes, such as ``["rep", "agent"]``, or the
            name of the only one. Each level gets a column; a scope with fewer levels fills the first ones.
        :returns: columns scope, draw, arms (if any record has some), kind, model, served (the
            server's name for the model), prompt, answer, finish_reason, refusal, input_tokens,
            output_tokens, cost (USD), used (whether a call used it, or a dry run, since the cassette
            was opened), cache_key, request (the digest of the request without its draw: the same in
            another recording of the same question); and for each kind of answer that features give in the
            model's place, whether it is one.
        :raises CacheCorruptError: if the file is damaged.
        :raises ValueError: if ``levels`` does not name exactly the levels of the deepest scope, or
            uses another column's name.
        """
        records = self.all_records()
        places = {scope: natural(scope) for scope in {record.scope for record in records}}
        records = sorted(records, key=lambda record: places[record.scope])
        is_unused = self.tape.log.unused_test(records)
        return record_frame(records, lambda record: not is_unused(record), levels)

    def __repr__(self) -> str:
        counts = ", ".join(f"{name}={count:,}" for name, count in self._counts().items())
        return f"cassette({str(self.path)!r}, mode={self.mode!r}{counts and f', {counts}'})"

    def _repr_html_(self) -> str:
        from ...support.display import html_table

        counts = self._counts()
        return html_table(
            [
                ["cassette", "mode", *counts],
                [str(self.path), self.mode, *(f"{count:,}" for count in counts.values())],
            ]
        )

    def _counts(self) -> dict[str, int]:
        """Return the counts of its calls; none before the first opening, which reads the file."""
        names = ("records", "replayed", "recorded", "asked") if self.file.real_path else ()
        return {name: getattr(self, name) for name in names}


def _close_cells() -> None:
    """Close the cassettes that cells of a notebook left open, at the end of the process."""
    for cassette in tuple(open_cassettes):
        if cassette._is_in_cells and cassette.file.is_of_this_process():
            if cassette.recorded:
                notice(
                    "%s was opened with open() but not closed: call close() at the end",
                    cassette.path,
                )
            cassette._close_all(
                InterruptedError("the process ended") if cassette.may_record else None
            )


def keep_in_cache(records: Iterable[Record]) -> None:
    """Add records dropped from a cassette to the disk cache, with the names of their last callers: another may have
    got one before.
    """
    records = [record for record in records if not record.given]
    if records:
        cache = shared_cache(config.settings().cache_path)
        cache.add_all(records)
        for record in records:
            if record.caller is not None:
                cache.note_use(record.cache_key, "", record.caller)
