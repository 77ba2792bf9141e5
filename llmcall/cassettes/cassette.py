"""A cassette: the answers of a stretch of code in one file, made for review and for git."""

from __future__ import annotations

import functools
import hashlib
import itertools
import os
import time
from collections import Counter
from collections.abc import Collection, Mapping
from contextlib import ContextDecorator, suppress
from contextvars import ContextVar
from mmap import mmap
from typing import TYPE_CHECKING, Any

from .. import scopes
from ..config import resolve as config
from ..display.data_frames import record_frame
from ..display.formatting import counted, one_line
from ..display.notebook import html_message, html_table
from ..errors import CacheError, ConfigError, short_traceback
from ..failures import LEFT, Failures, process_failures
from ..notices import notice, warn_once
from ..records.askers import Askers
from ..records.header import (
    header_differences,
    header_of,
    joined_headers,
    layer_of,
    with_used_models,
)
from ..records.packed import pack, unpack
from ..records.reader import Lines, read
from ..records.served import served_by
from ..records.writer import Writer, write
from ..requests.keys import key_of
from ..scopes import Recorded
from ..system import alone, process_lock
from ..types import FROM_CACHE, FROM_FUNCTION, FROM_SERVER, Request
from ..types.days import day_of, joined_days
from .unused import keep_in_cache, unused_words

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..config.settings import Settings
    from ..scopes import Draw
    from ..types import Record
    from ..types.days import Days

Place = tuple[int, ...]  # in the order of the calls
UNUSED: tuple[list[str], Place] = (["\U0010ffff"], ())  # comes after all calls
MODES = ("none", "once", "new", "update", "rewrite")
LISTED = 20  # records that a notebook shows
CELL = 80  # characters of a prompt or an answer there


def function_scope(asked: Mapping[str, Any], sample: str | None) -> str:
    """Return the name of the scope in which one call of a recorded function runs, if it runs.

    It is the same in every arm.

    :param asked: what identifies the call.
    """
    name = str(asked.get("function", "http"))
    key = key_of("function", {field: asked[field] for field in asked if field != "arm"}, sample)
    return f"{name.replace('/', '.').replace('#', '.')}.{key[:8]}"


class Cassette(ContextDecorator):
    """Record the answers of a block in a file, and replay them: a context manager and a decorator.

    It holds for every thread and task of the process while it is open; a second one opened inside
    it is the one that counts until it closes. Opened again while it is open, it goes on, and is
    written at the last closing.

    :ivar path: the file.
    :ivar stored: the records of the file, or ``None`` if none was read.
    :ivar records: how many records it holds now.
    :ivar replayed: how many calls it answered.
    :ivar asked: how many of the records that it gained a server was asked for.
    :ivar supplied: how many of them the disk cache had.
    :ivar recorded: how many records it gained, whoever gave them.
    :ivar anew: whether all that it does not hold is asked of the model, past the disk cache.
    :ivar write_at_end: whether what it gained is written when it closes.
    :ivar command: the command whose options opened it, for messages; empty where code did.
    :ivar is_named_by_settings: whether ``[Cassette] PATH`` opened it.
    :ivar told_unused: how many records no call used, in words, when it was closed; empty if there are
        none.
    :ivar keeps_unused: why the mode ``update`` leaves in the file what no call used; empty if it does
        not.
    :ivar run: the options of ``llmcall run``, which recorded it; ``None`` if code did.

    >>> with llmcall.cassette("greetings.jsonl") as tape:
    ...     llmcall.client().send_message("Good morning!", max_tokens=16).content
    'Good morning!'
    >>> tape.records, tape.recorded, tape.replayed
    (1, 1, 0)
    """

    def __init__(
        self, path: str | os.PathLike[str], mode: str = "once", *, write: bool = True
    ) -> None:
        if mode not in MODES:
            raise ValueError(f"mode is {mode!r}; a cassette's is one of {', '.join(MODES)}")
        from pathlib import Path  # costs 4 ms, and a call without a cassette imports this module

        self.path = Path(path)
        self.mode = mode
        self.anew = mode == "rewrite"
        self.write_at_end = write
        # Whoever writes it otherwise says what was not used, too.
        self.tells_unused = write
        self.command = ""
        self.is_named_by_settings = False
        self.run: dict[str, Any] | None = None
        self.failures = Failures()
        self._depth = 0
        self._begin("")

    def _begin(self, file: str) -> None:
        """Begin anew with a file."""
        self.replayed = 0
        self.keeps_unused = self.told_unused = ""
        self._refused_before = process_failures.refused
        self._sources: Counter[str] = Counter()
        # A forked process says by it that it used a record, which this one cannot see.
        self._used_by_child = mmap(-1, 1)
        self.file = file
        self.stored: Lines | None = None
        self._gained: dict[str, bytes] = {}  # as bytes, so that nobody shares a record
        # The first of the calls that each record answered: by the callers' scope paths, then by
        # their places, no matter which thread came first.
        self._first: dict[str, tuple[list[str], Place]] = {}
        # the scopes of recorded functions that did not run, since they were replayed
        self._skipped: set[str] = set()
        # By key: the draw that a record answered first.
        self._drawn: dict[str, Draw] = {}
        self._askers: Askers | None = None  # those of the file, once somebody looks for them
        self._is_renamed = False  # whether records of the file were asked for by others
        self._header: dict[str, Any] = {}
        # What the file's header says of the settings of models, and of those that answered.
        self._told_models: Collection[str] = ()
        self._told_served: dict[str, Days | None] = {}
        self._layer: object = None
        self._orders = itertools.count()
        self._agreed: set[tuple[int | None, int]] = set()
        self._is_settled = False
        self._error: BaseException | None = None
        self._process = os.getpid()
        self._is_in_cells = False
        self._writes_on = False
        self._writer: Writer | None = None
        self._hash: Any = None  # of the file, where it may be written

    # Opening and closing

    @short_traceback
    def __enter__(self) -> Cassette:
        self.start()
        push(self)
        active = scopes.current_scope()
        if active is not None and active.arm is not None:
            warn_once(
                f"the cassette {self.path} is opened inside the arm {active.arm.name!r}, so its calls share no answer "
                "with other arms: open one cassette around all arms",
                about="a cassette in an arm",
            )
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        pop(self)
        self.stop(error)

    @short_traceback
    def open(self) -> Cassette:
        """Open the cassette until :meth:`close`, across the cells of a notebook. It is written as it
        goes.

        If the cell runs again, this closes the cassette that an earlier ``open`` of the same file
        opened, and begins anew; a recording goes on. A ``rewrite`` is written at the end, so that a
        failed one leaves the old file.

        :raises CacheCorruptError: if the file is damaged.
        :raises CacheError: if it is of a newer version, or a ``with`` block of this process has
            it open.
        """
        file = os.path.realpath(self.path)
        for other in tuple(open_cassettes):
            if other._is_in_cells and other.file == file and other.is_mine():
                other._end_for_another()
        self.__enter__()
        self._is_in_cells = True
        self._writes_on = self.mode != "rewrite"
        return self

    def _end_for_another(self) -> None:
        """Close it because another one takes its place: the recording is not complete."""
        error = None if self.mode == "rewrite" else InterruptedError("opened again")
        while self._depth:
            self.__exit__(None, error, None)

    def close(self) -> None:
        """Close what :meth:`open` opened.

        :raises CacheError: if another process wrote it meanwhile, or a text looks like a
            credential.
        """
        self.__exit__(None, None, None)

    def start(self) -> None:
        """Read the file and put its settings in force, unless that is done already. Each start needs a
        stop.

        :raises CacheCorruptError: if the file is damaged.
        :raises CacheError: if it is of a newer version, or another cassette of this process has
            it open.
        """
        with _lock:
            if not self._depth:
                self._start(os.path.realpath(self.path))
            self._depth += 1

    def _start(self, file: str) -> None:
        if any(each.file == file and each.is_mine() for each in tuple(open_cassettes)):
            raise CacheError(
                f"{self.path} is open already in this process; use one cassette for both, or two files"
            )
        self._begin(file)
        content = _content(file)
        if content and self.mode != "rewrite":
            self.stored = Lines(content, file)
            self._header, self.run = self.stored.settings, self.stored.run
            self._layer = config.push_layer(layer_of(self._header), f"cassette {self.path}")
        else:
            self._header = header_of(namespaces=header_namespaces())
        if self.asks:
            self._hash = hashlib.sha256(content)

    def stop(self, error: BaseException | None = None) -> None:
        """Write what it gained, at the last closing; a ``rewrite`` that failed leaves the old file.

        :param error: what ended the block, or ``None``.
        :raises CacheError: if another process wrote it meanwhile, or a text looks like a
            credential.
        """
        with _lock:
            if not (isinstance(error, SystemExit) and not error.code):
                self._error = self._error or error
            self._depth -= 1
            if self._depth:
                return
            if self._layer is not None:
                config.pop_layer(self._layer)
                self._layer = None
            if self.is_mine():
                if isinstance(self._error, KeyboardInterrupt):
                    self.failures.forget(LEFT)  # whoever stopped them knows
                self._end_block()

    def _end_block(self) -> None:
        """Tell which records no call used, and write the file."""
        dropped: list[Record] = []
        if self._error is None:
            dropped = self._unused_at_end()
        self.failures.warn(
            f"replay of the cassette {self.path}", "record it again with the mode 'new'"
        )
        if self.write_at_end and (dropped or self._is_changed()):
            keep_in_cache(dropped)
            self._write(complete=self._error is None, dropped=dropped)

    def _unused_at_end(self) -> list[Record]:
        """Tell how many records no call used; return those that the mode ``update`` takes out."""
        unused = self.unused() if self.tells_unused else []
        if not unused or (self.mode != "update" and self._used_by_child[0]):
            return []
        kept = self._kept_unused()
        drops = self.mode == "update" and not kept
        self.told_unused = unused_words(len(unused), self.mode, kept)
        if not self.command:  # the command says it
            notice("%s: %s", self.path, self.told_unused)
        return unused if drops else []

    def _kept_unused(self) -> str:
        """Return why records that no call used are left in the file; empty if nothing speaks for
        it.
        """
        if self.keeps_unused:
            return self.keeps_unused
        if self._used_by_child[0]:
            return "a child process made calls"
        refused = process_failures.refused - self._refused_before
        left = refused or any(self.failures.counts().values())
        return "a call failed, was left or was refused" if left else ""

    def _is_changed(self) -> bool:
        if self.mode == "rewrite":
            return self._error is None and (self.recorded > 0 or os.path.exists(self.file))
        if self.asks and self._is_renamed:
            return True
        return self.recorded > 0 or (self.asks and not self.is_complete and self._error is None)

    def _write(self, *, complete: bool, dropped: Collection[Record] = ()) -> None:
        """Write the file, whole or not at all.

        :param dropped: the records that it holds no longer.
        """
        os.makedirs(os.path.dirname(self.file), exist_ok=True)
        gone = {record.cache_key for record in dropped}
        records = [
            record
            for record in self._with_askers(complete=complete)
            if record.cache_key not in gone
        ]
        if (
            not self.is_complete
        ):  # one order for what both recordings hold; what was not used stands at the end
            records.sort(key=lambda record: self._first.get(record.cache_key, UNUSED))
        with alone(os.path.dirname(self.file)):
            if hashlib.sha256(_content(self.file)).digest() != self._hash.digest():
                raise CacheError(
                    f"{self.path} was written by another process while it was being recorded here; nothing of it is "
                    "overwritten. The answers are in the disk cache: record again, one process at a time"
                )
            allow = config.settings().cassette_allow
            header = with_used_models(self._header, records)
            self._told_models = header.get("models", {}).keys()
            self._told_served = served_by(records)
            write(self.file, header, records, run=self.run, allow=allow, complete=complete)
            self._hash = hashlib.sha256(_content(self.file))

    def _write_on(self, record: Record) -> None:
        """Add a record at the end of the file; whole and in order it is written when the cassette
        closes.
        """
        with _lock:
            said = with_used_models(self._header, [record]).get("models", {})
            is_told = not said.keys() - self._told_models and all(
                model in self._told_served
                and joined_days(self._told_served[model], days) == self._told_served[model]
                for model, days in served_by([record]).items()
            )
            if self._writer is None or not is_told:
                self._write(complete=False)
                self._writer = Writer(config.settings().cassette_allow)
                return
            lines = "".join(self._writer.lines(record)).encode()
            with open(self.file, "ab", buffering=0) as file:
                file.write(lines)
            self._hash.update(lines)

    def is_mine(self) -> bool:
        """Return whether this process opened it: a forked one leaves the file to its parent."""
        return self._process == os.getpid()

    # What may answer

    @property
    def is_complete(self) -> bool:
        """Return whether its file was recorded to the end; one that an exception ended goes on
        being recorded.
        """
        return self.stored is None or self.stored.is_complete

    @property
    def asks(self) -> bool:
        """Return whether a request that is not recorded may be asked, and recorded."""
        return self.mode in ("new", "update", "rewrite") or (
            self.mode == "once" and (self.stored is None or not self.is_complete)
        )

    @property
    def reads_cache(self) -> bool:
        """Return whether the disk cache may supply an answer."""
        return self.asks and not self.anew

    @property
    def records(self) -> int:
        """Return how many records it holds now."""
        return len(self._gained) + (0 if self.stored is None else len(self.stored))

    @property
    def recorded(self) -> int:
        """Return how many records it gained, whoever gave them."""
        return len(self._gained)

    @property
    def served(self) -> dict[str, Days | None]:
        """Return the models that gave its answers, by the servers' names, each with its days in UTC
        and its fingerprints; ``None`` in the place of days that are unknown.
        """
        return served_by(self.all_records())

    @property
    def asked(self) -> int:
        """Return how many of the records that it gained a server was asked for."""
        return self._sources[FROM_SERVER]

    @property
    def supplied(self) -> int:
        """Return how many of the records that it gained the disk cache had."""
        return self._sources[FROM_CACHE]

    def agree(self, base: Settings | None) -> None:
        """Take the first caller's settings into the header, and refuse callers with other settings.

        :param base: the settings that a client was given, or ``None`` for the process's.
        :raises ConfigError: if they differ, since the cassette would not replay for both.
        """
        asking = None if base is None else id(base), config.layers.generation
        if asking not in self._agreed:
            self.settle(header_of(base, namespaces=header_namespaces()))
            self._agreed.add(asking)

    def settle(self, header: dict[str, Any]) -> None:
        """Take the first caller's header as the cassette's, and refuse callers with another one.

        :raises ConfigError: if they differ.
        """
        with _lock:
            if not self._is_settled:
                # of models that a file does not speak of, what is said now counts
                first = header if self.stored is None else self._header
                self._header = joined_headers(first, header)
            different = header_differences(self._header, header, all_models=self.stored is None)
            if different:
                raise ConfigError(
                    f"{self.path} holds one set of settings for all its records, but the clients that it records "
                    f"disagree on {different}: give them as arguments in code, or record each in a file of its own"
                )
            self._is_settled = True

    # Records

    def place(self) -> Place:
        """Return the next call's place in the order of the calls."""
        return (*current_position.get(), next(self._orders))

    def find(self, asked: Request | str, place: Place) -> Record | None:
        """Return the recorded answer of a request, or the record of a key, or ``None``.

        :param place: of the call that it answers.
        :raises CacheError: in a forked process, if there is none: what it recorded would be lost.
        """
        found = self._found(asked, place)
        if found is None and self.asks and not self.is_mine():
            raise CacheError(
                f"the cassette {self.path} is recorded by the process that this one was forked from, and would not "
                "learn of a call that is made here. Run the function with llmcall.map(…, executor=…), which brings "
                "home what it records, or open a cassette of its own in this process"
            )
        return found

    def _found(self, asked: Request | str, place: Place) -> Record | None:
        key = asked if isinstance(asked, str) else asked.cache_key
        with _lock:
            found = None if self.stored is None else self.stored.get(asked)
            if found is None and key in self._gained:
                found = unpack(key, self._gained[key])
            if found is not None:
                self._note_use(key, place)
                if not self.is_mine():
                    self._used_by_child[0] = 1
                if found.kind == "function":
                    inside = function_scope(found.request, found.sample)
                    self._skipped.add(f"{found.scope}/{inside}".lstrip("/"))
            return found

    def _note_use(self, key: str, place: Place) -> None:
        path = scopes.current_path()
        now = path.split("/") if path else [], place
        self._first[key] = min(now, self._first.get(key, now))

    def count_replay(self) -> None:
        """Count a call that it answered."""
        with _lock:
            self.replayed += 1

    def add(self, record: Record, place: Place, source: str = FROM_FUNCTION) -> Record:
        """Add an answer, and return the one that counts: whichever was recorded first.

        :param place: of the call that it answers.
        :param source: ``FROM_SERVER``, ``FROM_CACHE`` or ``FROM_FUNCTION``, by which it is counted.
        """
        if not self._depth:
            warn_once(f"an answer came after the cassette {self.path} was closed, and is not in it")
            return record
        request = Request(record.kind, "", record.request, {}, {}, record.sample, record.cache_key)
        with _lock:
            found = self._found(request, place)
            if found is not None:
                return found
            record = record.replace(days=_days_of(record, source))
            self._gained[record.cache_key] = pack(record)
            self._sources[source] += 1
            self._note_use(record.cache_key, place)
            if self._writes_on and self.write_at_end:
                self._write_on(record)
            return record

    def recorded_askers(self, path: str, digest: str) -> Recorded:
        """Return who asked for the draws of a request when they were recorded, as far as the file
        tells.

        :param path: the scope path.
        :param digest: the request's key outside any scope.
        """
        with _lock:
            if self._askers is None:
                self._askers = {} if self.stored is None else self.stored.askers()
            goes_on = self.asks and not self.is_complete
            return Recorded(self._askers.get((path, digest), {}), goes_on)

    def note_asker(self, key: str, draw: Draw, recorded: str | None = None) -> None:
        """Note the draw that a record of this cassette answers; the first one counts.

        :param key: of the record.
        :param recorded: who asked when it was recorded, if that is known.
        """
        with _lock:
            if self._drawn.setdefault(key, draw) is draw and recorded is not None:
                self._is_renamed = self._is_renamed or recorded != draw.asker

    def _with_askers(self, *, complete: bool) -> list[Record]:
        """Return the records that it holds, each with who asked if that tells it from others.

        A recording that goes on needs each asker: a call that was left may come before the others.

        :param complete: whether the recording came to its end.
        """
        records = []
        for record in self.all_records():
            draw = self._drawn.get(record.cache_key)
            asker = record.asker if record.cache_key not in self._gained else None
            if draw is not None:
                asker = draw.asker if self._is_shared(draw) or not complete else None
            records.append(record if asker == record.asker else record.replace(asker=asker))
        return records

    def _is_shared(self, draw: Draw) -> bool:
        """Return whether several askers ask what a draw was taken for."""
        if draw.equal is None:
            return False
        recorded = self.recorded_askers(draw.path, draw.digest).askers
        return len({*draw.equal.askers, *recorded.values()}) > 1

    def all_records(self) -> list[Record]:
        """Return the records that it holds; where it was never opened, those of the file."""
        if not self.file and self.path.exists():
            return read(self.path).records()
        return [*(self.stored or ()), *(record for record, _ in self.gained())]

    def gained(self) -> list[tuple[Record, Place]]:
        """Return the records that it gained, each with its place, in the order of the calls."""
        with _lock:
            ordered = sorted((self._first[key], key) for key in self._gained)
            return [(unpack(key, self._gained[key]), place) for (_, place), key in ordered]

    def unused(self) -> list[Record]:
        """Return the records of the file that answered no call, nor belong to a recorded function
        that was replayed.

        Those that stand in no scope may be any function's: an embedding's, or of a function outside
        any scope; so may those of an outermost scope that no call of this run entered, where a
        function outside any scope was replayed.
        """
        records = list(self.stored or ())
        skipped = tuple(f"{path}/" for path in self._skipped)
        entered = {
            record.scope.partition("/")[0] for record in records if record.cache_key in self._first
        }
        anywhere = any("/" not in path for path in self._skipped)
        return [
            record
            for record in records
            if record.cache_key not in self._first
            and not (skipped and (record.sample is None or f"{record.scope}/".startswith(skipped)))
            and not (anywhere and record.scope.partition("/")[0] not in entered)
        ]

    def to_frame(self, levels: Sequence[str] | None = None) -> Any:
        """Return a pandas DataFrame with a row for each record, of the file too if it is not open.

        :param levels: names for the levels of the scopes, such as ``["rep", "agent"]``, each of
            which then has a column. A scope with fewer levels has the first ones.
        :returns: columns scope, draw, kind, model, served (the name that the server gave), prompt,
            answer, finish_reason, refusal, input_tokens, output_tokens, cost (USD), used (by a call
            since it was opened), cache_key.
        :raises CacheCorruptError: if the file is damaged.
        :raises ValueError: if ``levels`` names more or fewer levels than the deepest scope has, or
            another column.
        """
        records = self.all_records()
        unused = {record.cache_key for record in (self.unused() if self.file else records)}
        return record_frame(records, lambda record: record.cache_key not in unused, levels)

    def remedy(self) -> str:
        """Return how to record what is missing: a command in one line, and what it does in the next."""
        import shlex

        mode = "once" if self.stored is None else "new"
        if not self.write_at_end:
            way = recording_command(mode)
        elif self.command:
            way = f"{self.command} --cassette {shlex.quote(str(self.path))} --mode {mode} …"
        elif self.is_named_by_settings:
            way = f"LLMCALL_CASSETTE_MODE={mode}"
        else:
            way = f"llmcall.cassette({str(self.path)!r}, mode={mode!r})"
        return f"{way}\nkeeps recorded answers and asks only for missing ones (the mode is {self.mode!r})"

    # The decorator

    def __call__(self, function: Any) -> Any:
        """Open it around each call of a function, which may be asynchronous; calls at the same time
        share it.
        """
        from inspect import isasyncgenfunction, iscoroutinefunction, isgeneratorfunction

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

    def _repr_html_(self) -> str:
        records = self.all_records()
        more = [f"… and {len(records) - LISTED:,} more"] if len(records) > LISTED else []
        rows = [
            (each.sample or "", one_line(each.prompt, CELL), one_line(each.answer, CELL))
            for each in records[:LISTED]
        ]
        notes = (
            counted(len(records), "record"),
            f"{self.replayed:,} replayed",
            f"{self.asked:,} asked",
            f"{self.recorded:,} recorded",
            *more,
        )
        return html_message(repr(self), notes) + html_table([("sample", "prompt", "answer"), *rows])


def cassette(path: str | os.PathLike[str], mode: str = "once") -> Cassette:
    """Open a cassette around a block, around the calls of a function, or with ``.open()`` until
    ``.close()``.

    :param path: the file, JSON Lines.
    :param mode: ``none`` only reads; ``once`` records if there is no file, or one whose recording
        an exception ended, else only reads; ``new`` adds what is missing; ``update`` does so, too,
        and moves what no call used to the disk cache; ``rewrite`` starts empty and asks everything
        anew.
    :raises ValueError: for another mode.
    :raises CacheCorruptError: at the beginning of the block, if the file is damaged.

    >>> for _ in range(2):
    ...     with llmcall.cassette("good-morning.jsonl", mode="once") as tape:
    ...         llmcall.client().send_message("Good morning!", max_tokens=16).content, tape.replayed
    ('Good morning!', 0)
    ('Good morning!', 1)
    """
    return Cassette(path, mode)


def recording_command(mode: str) -> str:
    """Return the command that records the test that runs now."""
    import shlex

    running = os.environ.get("PYTEST_CURRENT_TEST", "").rpartition(" (")[0]
    return f"pytest --llm-record={mode} {shlex.quote(running) if running else ''}".rstrip()


def _days_of(record: Record, source: str) -> Days | None:
    """Return the days of an answer that a cassette gains; ``None`` if they are unknown.

    :param source: ``FROM_SERVER``, ``FROM_CACHE`` or ``FROM_FUNCTION``.
    """
    if record.days is not None or source == FROM_FUNCTION:
        return record.days
    # An equal call that was under way has the answer of a server, too, which no cache holds yet.
    is_of_now = source == FROM_SERVER or (record.stored_at is None and record.api_type is not None)
    return record.answered_on(day_of(time.time())) if is_of_now else None


def _content(path: str) -> bytes:
    """Return the bytes of a file; none if there is no file."""
    with suppress(FileNotFoundError), open(path, "rb") as file:
        return file.read()
    return b""


# Which one is open

# The innermost last; one that began several times stands there as often, and the one that the
# settings name is first.
open_cassettes: list[Cassette] = []
_lock = process_lock(__name__)
# Where in the order of the calls the present context stands: empty, or an item of a ``map``.
current_position: ContextVar[Place] = ContextVar("llmcall place in a cassette", default=())


def push(opened: Cassette) -> None:
    """Put a cassette in front of the others until it closes."""
    with _lock:
        open_cassettes.append(opened)


def pop(closed: Cassette) -> None:
    """Take a closed cassette out; if it was opened several times, only the last time."""
    with _lock:
        last = max(index for index, each in enumerate(open_cassettes) if each is closed)
        del open_cassettes[last]


def header_namespaces() -> dict[str, str] | None:
    """Return the models' namespaces in an open cassette's header, or ``None`` if no header was
    read.
    """
    for each in reversed(tuple(open_cassettes)):
        if each.stored is not None:
            return dict(each.stored.settings.get("namespaces", {}))
    return None
