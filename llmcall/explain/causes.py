"""Why a request is not recorded, as far as it is certain: its scope and draw, its settings, or what nobody sees."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from ..text import printable
from .differences import brief
from .nearest import split_sample

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ..config.settings import Settings
    from ..types import Record
    from .differences import Difference

__all__ = ["cause_of_sample", "cause_of_scope", "causes_of_differences", "scope_words"]

LISTED = 4  # scopes that a message names
WIDTH = 60  # characters of a value


# Scopes and draws


def scope_words(kind: str, sample: str | None) -> str:
    """Return a sample in words; an embedding has none."""
    if kind == "embedding":
        return "the same in every scope"
    path, draw = split_sample(sample)
    if path is None:
        return "outside any scope"
    number = f"draw {draw}" if draw.isdecimal() else f"sample {draw!r}"
    return f"{printable(path) or 'outside any scope'}, {number}"


def cause_of_sample(sample: str | None, same: Sequence[Record]) -> str:
    """Say how a sample differs from those under which the very same request is recorded.

    :param same: the records of the request, whatever their sample.
    """
    path, draw = split_sample(sample)
    samples = [split_sample(record.sample) for record in same]
    here = sorted((found for other, found in samples if other == path), key=lambda each: (len(each), each))
    if here:
        return _of_draws(path or "", draw, here)
    paths = sorted({other for other, _ in samples if other})
    if path:
        where = f"in {_listed(paths)}" if paths else "outside any scope: what is asked in a scope is a draw of its own"
        return f"the call is made in the scope {path!r}, and the same request is recorded {where}"
    if paths:
        opened = ", ".join(f"llmcall.scope({name!r})" for name in paths[0].split("/"))
        return (
            f"the call is made outside any scope, and the same request is recorded in {_listed(paths)}: "
            f"a scope is missing; open it by 'with {opened}:'"
        )
    if path is None:
        return f"no sample is given, and the same request is recorded with sample={samples[0][1]!r}"
    return f"sample={draw!r} is given, and the same request is recorded without: leave it out"


def _of_draws(path: str, draw: str, recorded: list[str]) -> str:
    where = f"in the scope {path!r}" if path else "outside any scope"
    if not draw:
        return "the request is recorded under another key: 'llmcall cache rekey' makes the keys anew"
    if not (draw.isdecimal() and all(map(str.isdecimal, recorded))):
        shown = ", ".join(map(repr, recorded[:LISTED]))
        return f"draw {draw!r} of this request {where} is asked for, and recorded {_are(recorded)} {shown}"
    numbers = f"draw {recorded[0]}" if len(recorded) == 1 else f"draws {recorded[0]} to {recorded[-1]}"
    return (
        f"draw {draw} of this request {where} is asked for, and {len(recorded)} {_are(recorded)} recorded ({numbers}): "
        "the same request is made more often than when it was recorded"
    )


def _are(items: Sequence[str]) -> str:
    return "is" if len(items) == 1 else "are"


def _listed(paths: Sequence[str]) -> str:
    return ", ".join(map(repr, paths[:LISTED])) + (", …" if len(paths) > LISTED else "")


def cause_of_scope(sample: str | None, records: Sequence[Record]) -> str:
    """Say that nothing at all is recorded in a request's scope, and which scopes there are beside it."""
    path, _ = split_sample(sample)
    beside = sorted({other for record in records if (other := split_sample(record.sample)[0])} - {path})
    recorded = f"; there are records in {_listed(beside)}" if beside else ""
    return f"nothing at all is recorded in the scope {path!r}{recorded}"


# Differences


def causes_of_differences(differences: Sequence[Difference], settings: Settings) -> list[str]:
    """Return what is known of the differences from the nearest record, beyond the differences themselves.

    :param settings: those that made the request.
    """
    return list(dict.fromkeys(cause for each in differences for cause in _of_field(each, settings)))


def _of_field(difference: Difference, settings: Settings) -> Iterator[str]:
    place, recorded, asked = difference.place, difference.recorded, difference.asked
    value = getattr(settings, place, None) if place.isidentifier() else None
    if place == "model" and recorded in settings.aliases:
        yield f"{recorded} is an alias now: 'llmcall cache rekey' moves what was recorded before it was"
    elif place == "namespace":
        origin = settings.origin("cache_namespace")
        yield (
            f"[Cache] NAMESPACE is {_value(asked or '')} here ({origin}), and {_value(recorded or '')} in the record: "
            "'llmcall cache rekey' moves a cache's records to the present one"
        )
    elif place == "function" and str(recorded).rpartition(".")[2] == str(asked).rpartition(".")[2]:
        yield f"the function has another name: @llmcall.recorded(name={recorded!r}) finds what it recorded"
    elif value is not None and value == asked:
        yield f"the setting {place.upper()} says {_value(asked)}: {settings.origin(place)}"
    elif difference.role == "assistant":
        yield "an earlier answer is another: this run parted from the recorded one before this call"
    elif difference.role == "tool":
        yield "a tool's result is another: with the tool under @llmcall.recorded it is replayed as well"
    elif difference.passages and (outward := _outward(str(recorded), str(asked))):
        yield f"{place} differs only in {outward}"


def _value(value: Any) -> str:
    return brief(value, WIDTH)


def _outward(recorded: str, asked: str) -> str:
    """Return what two texts of the same words differ in, or nothing where the words differ."""
    if re.sub(r"\r\n?", "\n", recorded) == re.sub(r"\r\n?", "\n", asked):
        return "its line endings (CRLF and LF)"
    if recorded.rstrip() == asked.rstrip():
        return "the white space at its end"
    if [line.lstrip() for line in recorded.split("\n")] == [line.lstrip() for line in asked.split("\n")]:
        return "its indentation: dedent_messages=True removes what is common to all lines"
    return "its white space" if "".join(recorded.split()) == "".join(asked.split()) else ""
