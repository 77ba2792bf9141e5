"""Notes: what a feature says about an answer, beside its record's key, or in the header of a file."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

from ..additions import additions, load
from ..config.values import FrozenDict
from ..keys.request import Data

if TYPE_CHECKING:
    from ..scopes.position import Position
    from .record import Record

T = TypeVar("T")
Notes = Mapping[str, Data]
NO_NOTES: Notes = FrozenDict()


class Note(Generic[T]):
    """A kind of note, which its feature's ``FEATURE`` names. A file keeps it beside the key, under its name; the
    disk cache does not. Records that differ only in their notes are equal.

    :param name: its name.
    :param type: the type of its values, one of JSON's.
    :param default: what a record without it has.
    :param rule: what holds of all its values, for messages; empty if any value of the type will do.
    :param check: returns whether that holds of a value.
    :param merge: returns what a file keeps of a recorded value and of the one that a run noted for the same answer;
        by default, the latter.
    :param words: returns in words what a value says of the answer, for ``llmcall show``.
    """

    # No dataclass: that module takes 10 ms to import, and a replay needs nothing else of it.
    def __init__(
        self,
        name: str,
        type: type,
        default: T,
        rule: str = "",
        check: Callable[[Any], object] = bool,
        merge: Callable[[Any, Any], Data] = lambda recorded, noted: noted,
        words: Callable[[Any], str] = lambda value: "",
    ) -> None:
        self.name = name
        self.type = type
        self.default = default
        self.rule = rule
        self.check = check
        self.merge = merge
        self.words = words

    def of(self, holder: Record | Position) -> T:
        """Return the note of a record or a call."""
        notes: Notes = holder.notes or NO_NOTES
        value: T = notes.get(self.name, self.default)
        return value

    def problem(self, value: Data) -> str:
        """Return what is wrong with a value; empty if nothing is."""
        if type(value) is not self.type:
            return f"the line's {self.name!r} is not of the type {self.type.__name__}"
        if self.rule and not self.check(value):
            return f"the line's {self.name!r} {self.rule}"
        return ""


# A digest of what a record's caller had asked before in the scope, with which a replay finds out whether it did so,
# too; or "?" in an export of a cache, which does not know it
HISTORY = Note[str](
    "after",
    str,
    "",
    rule="must be four hexadecimal digits or ?",
    check=re.compile(r"[0-9a-f]{4}|\?").fullmatch,
)


class HeaderNote(NamedTuple):
    """A kind of note in the header of a file whose answers llmcall did not record, or not all of them. Each record of
    the file has it, and keeps it in the disk cache.

    :param name: its name.
    :param types: the types of its values, of JSON's.
    :param of_file: returns the note of a file, from those of its records; ``None`` is that of a record, or a file,
        without one.
    :param words: returns in words what a value says of the answers.
    :param details: returns further words by label, for those who verify a study.
    :param layout: the number of the layout of those rows of a cache that have it (``records/packed.py``).
    :param remake: the place of a function that makes the answers again, for those who verify a study.
    """

    name: str
    types: tuple[type, ...]
    of_file: Callable[[Iterable[Any]], Data]
    words: Callable[[Any], str]
    layout: int
    details: Callable[[Any], dict[str, str]] = dict
    remake: str = ""

    def problem(self, value: Data) -> str:
        """Return what is wrong with a value; empty if nothing is."""
        if type(value) in self.types:
            return ""
        return f"the line's {self.name!r} is not of the type {self.types[-1].__name__}"


@cache
def known_header_notes() -> dict[str, HeaderNote]:
    """Return all kinds of notes of a header by name."""
    return {name: load(place) for name, place in additions("header_notes").items()}


def header_notes_of(notes: Sequence[Notes]) -> Notes:
    """Return the notes of a file, from those of its records."""
    if not any(notes):
        return NO_NOTES
    kinds = known_header_notes()
    names = {name for each in notes for name in each}
    found = {
        name: kinds[name].of_file(each.get(name) for each in notes)
        for name in sorted(names & kinds.keys())
    }
    return {name: value for name, value in found.items() if value is not None}


@cache
def known_notes() -> dict[str, Note[Any]]:
    """Return all kinds of notes by name."""
    of_features = {name: load(place) for name, place in additions("notes").items()}
    return {HISTORY.name: HISTORY, **of_features}


def checked_notes(notes: Notes) -> Notes:
    """Return the notes of a call that is about to be made, or of an answer.

    :raises LookupError: if no part or feature lists one: no file could keep it.
    """
    for name in notes.keys() - known_notes().keys():
        raise LookupError(f"no FEATURE lists the note {name!r} under notes")
    return notes


def words_of_notes(notes: Notes) -> Iterator[str]:
    """Yield in words what the notes of a record say of its answer."""
    for name, kind in known_notes().items():
        if name in notes and (words := kind.words(notes[name])):
            yield words


def merged_notes(recorded: Notes, noted: Notes | None) -> Notes:
    """Return the notes that a file keeps about an answer.

    :param recorded: the notes that the file has.
    :param noted: the notes of the run; ``None`` or ``False`` removes one.
    """
    if not noted:
        return recorded
    kinds = known_notes()
    merged = {
        name: kinds[name].merge(recorded[name], value) if name in recorded else value
        for name, value in noted.items()
    }
    return {
        name: value
        for name, value in sorted({**recorded, **merged}.items())
        if value is not None and value is not False
    }
