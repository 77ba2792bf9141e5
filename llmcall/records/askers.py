"""Askers of records: the tasks and threads of a program that asked for them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..keys.keys import key_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..values import Record

# By scope path and by the request's key outside any scope: by the number of a draw, who asked.
Askers = dict[tuple[str, str], dict[int, str]]


def askers_of(records: Iterable[Record]) -> Askers:
    """Return who asked for numbered draws, for the records that say it."""
    askers: Askers = {}
    for record in records:
        scope, _, number = (record.sample or "").partition("#")
        if record.asker is not None and number.isdecimal():
            request_key = key_of(record.kind, record.request, None)
            askers.setdefault((scope, request_key), {})[int(number)] = record.asker
    return askers
