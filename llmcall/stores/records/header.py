"""The header of a file of records, and the entries of a file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import NamedTuple

from ...additions import additions
from ...errors import CacheCorruptError
from ...keys.keys import key_of
from ...keys.request import Data
from ...support.display import printable
from ..days import Days, days_entry, joined_days, parse_days
from ..notes import NO_NOTES, Notes
from ..record import Record
from .keyed_settings import joined_settings, settings_differences
from .line import CHANGED_BY_HAND, CONFLICT, RESTORE, notes_in, parse_line
from .readable import unreadable

MAX_SEED = 2**32 - 1  # for Python's hashes and NumPy
# The models that answered, by the server's names, each with its days, or None if they are unknown.
Served = Mapping[str, Days | None]


class Header(NamedTuple):
    """The header of a file of records.

    :param settings: the settings that decide keys, as JSON data; an empty file has none.
    :param run: the options of the ``llmcall run`` that recorded it, and the program's exit code if it was not 0; or
        ``None``.
    :param is_complete: ``True`` if the recording is complete.
    :param served: the models that answered. Writing takes those of the records instead.
    :param notes: what features say of all its records, by name; writing adds those of the records.
    :param unanswered: the number of calls that failed in the run that wrote it, and so left no record.
    """

    settings: Mapping[str, Data]
    run: Mapping[str, Data] | None = None
    is_complete: bool = True
    served: Served = MappingProxyType({})
    notes: Notes = NO_NOTES
    unanswered: int = 0

    @classmethod
    def of(cls, line: Mapping[str, Data]) -> Header:
        """Return the header that a line holds.

        :raises CacheCorruptError: if a setting's name or its entry of served models is damaged.
        """
        run, settings = line.get("run"), line["settings"]
        if not all(map(str.isidentifier, settings)):
            raise CacheCorruptError(f"the header has settings unknown to llmcall; {RESTORE}")
        served = parse_served(line.get("served", {}))
        complete, notes = line.get("complete", True), notes_in(line)
        return cls(settings, run, complete, served, notes, line.get("unanswered", 0))

    def differences(self, other: Header) -> str:
        """Return the differences that keep two headers apart, in words; empty if they can be joined."""
        return settings_differences(
            {**self.settings, "run": self._run_with(other), **self.notes},
            {**other.settings, "run": other._run_with(self), **other.notes},
        )

    def joined(self, other: Header) -> Header:
        """Return the joined header of two recordings."""
        return Header(
            joined_settings(self.settings or other.settings, other.settings),
            self._run_with(other),
            self.is_complete and other.is_complete,
            joined_served((*self.served.items(), *other.served.items())),
            {**other.notes, **self.notes},
            max(self.unanswered, other.unanswered),
        )

    def _run_with(self, other: Header) -> Mapping[str, Data] | None:
        return other.run if self.run is None else self.run  # a run without options counts, too


HEADER_LINE = b'{"llmcall": '  # the beginning of a header's line, unless it was edited


def first_header(line: bytes) -> Header:
    """Return the header in the first line of a file."""
    try:
        entry = parse_line(line)
    except CacheCorruptError:
        if line.startswith((HEADER_LINE, *CONFLICT)):
            raise
        raise _not_a_cassette(line) from None
    if "llmcall" not in entry:
        raise no_header()
    return Header.of(entry)


def no_header() -> CacheCorruptError:
    """Return the error for a file whose first line is not a header."""
    return CacheCorruptError(
        'there is no header {"llmcall": …} before this; restore the file from version control'
    )


def _not_a_cassette(line: bytes) -> CacheCorruptError:
    """Return the error for a file that is not a cassette, by its first line."""
    remedy = additions("remedies").get("a file that is not a cassette")
    if line.startswith(b"version https://git-lfs.github.com/"):
        return CacheCorruptError(
            "this is a Git LFS pointer, and the cassette itself is not here: fetch it with 'git lfs pull'"
        )
    return CacheCorruptError(
        'this is not a cassette of llmcall: the first line is not the header {"llmcall": …}; give another file'
        + (f", or {remedy}" if remedy else "")
    )


def check_record(record: Record, asked: Mapping[str, Data] | None) -> None:
    """Check a record that was read from a line.

    :param asked: a request that has its key, if one is known.
    :raises CacheCorruptError: if its key is not its request's, or no reader can read it.
    :raises ValueError: if its request has a lone surrogate.
    """
    request = record.request
    if request != asked and key_of(record.kind, request, record.sample) != record.cache_key:
        raise CacheCorruptError(f"its key does not match its request; {CHANGED_BY_HAND}")
    if problem := unreadable(record):
        raise CacheCorruptError(f"{problem}; {RESTORE}")


def record_of(entry: dict[str, Data], header: Header) -> Record:
    """Return the record of a line, with what its file's header says of it."""
    record = Record(
        entry["key"],
        entry["kind"],
        entry.get("sample"),
        entry["request"],
        entry["response"],
        entry.get("cost"),
        caller=entry.get("caller"),
        arms=tuple(entry.get("arms", ())),
        header_notes=header.notes,
        notes=notes_in(entry),
    )
    if header.served:
        record.noted_days = header.served.get(model_of(record) or "")
    return record


def model_of(record: Record) -> str | None:
    """Return the model that gave an answer, by the server's name, else by the requested name; ``None`` if
    no model answered.
    """
    if record.kind == "function" or record.given or not record.model_answer:
        return None
    model = record.served or record.model
    return None if model is None else model.encode(errors="replace").decode()  # no lone surrogates


def answered(record: Record) -> tuple[str | None, Days | None]:
    """Return the model and the days of an answer."""
    model = model_of(record)
    return model, None if model is None else record.days


def served_by(records: Iterable[Record]) -> Served:
    """Return the models that gave the answers of some records, sorted."""
    return joined_served(map(answered, records))


def joined_served(found: Iterable[tuple[str | None, Days | None]]) -> Served:
    """Return the models among what :func:`answered` returned, or what headers hold, sorted, each with all its days."""
    served: dict[str, Days | None] = {}
    for model, days in found:
        if model is not None:
            served[model] = joined_days(served.get(model), days)
    return dict(sorted(served.items()))


def served_words(served: Served) -> list[str]:
    """Return each model with its days in words, such as ``gpt-4o-mini-2024-07-18 (2026-11-22)``."""
    return [f"{printable(model)}{via(days)} ({days_words(days)})" for model, days in served.items()]


def via(days: Days | None) -> str:
    """Return in words which providers answered behind a gateway; empty if none is known."""
    return f" via {printable(' and '.join(days.providers))}" if days and days.providers else ""


def days_words(days: Days | None) -> str:
    """Return some days in words."""
    return "days not recorded" if days is None else str(days)


def served_entry(served: Served) -> dict[str, Data]:
    """Return the models whose days are known as a header's JSON data."""
    return {model: days_entry(days) for model, days in served.items() if days is not None}


def parse_served(entries: Mapping[str, Data]) -> Served:
    """Return the models in a header's ``served``.

    :raises CacheCorruptError: if it is damaged.
    """
    served = {model: parse_days(entry) for model, entry in entries.items()}
    for model, days in served.items():
        if days is None:
            raise CacheCorruptError(
                f"the entry of {printable(model)[:64]} in 'served' is damaged; {RESTORE}"
            )
    return served
