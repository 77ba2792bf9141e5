"""The selection of records in commands: by model, scope and age, or by the beginning of a key."""

from __future__ import annotations

import functools
import re
import time
from datetime import datetime
from fnmatch import fnmatchcase
from itertools import islice
from typing import TYPE_CHECKING

import click

from ..errors import CacheError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ..stores.record import Record

    Where = Callable[[Record], bool]

SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
MAX_COUNTED_KEYS = 10  # with the same beginning, in a message


def selection_options(command: Callable[..., object]) -> Callable[..., object]:
    """Add the options that select records; the command gets them as one function ``where``, or
    ``None`` without any.
    """

    @click.option("--model", help="Only this model's answers.")
    @click.option(
        "--scope",
        metavar="GLOB",
        help="Only records whose scope path matches, such as 'trial-3/*'.",
    )
    @click.option(
        "--since",
        help="Only records stored since a date (2026-11-30) or within an age (90m, 12h, 7d).",
    )
    @functools.wraps(command)
    def with_selection(
        *args: object, model: str | None, scope: str | None, since: str | None, **options: object
    ) -> object:
        return command(*args, where=_selection(model, scope, since), **options)

    return with_selection


def _selection(model: str | None, scope: str | None, since: str | None) -> Where | None:
    if model is None and scope is None and since is None:
        return None
    earliest = None if since is None else _timestamp(since)

    def where(record: Record) -> bool:
        """Return whether the options select a record."""
        return (
            (earliest is None or (record.stored_at or 0) >= earliest)
            and (scope is None or fnmatchcase(record.scope, scope))
            and (model is None or record.model == model)
        )

    return where


def _timestamp(text: str) -> float:
    age = re.fullmatch(r"(\d+)\s*([smhdw])", text)
    if age:
        return time.time() - int(age[1]) * SECONDS[age[2]]
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        raise click.BadParameter(
            f"{text!r} is neither a date (2026-11-30) nor an age (90m, 12h, 7d)"
        ) from None


def full_key(keys: Iterable[str], prefix: str, place: str, *, shown_by: str) -> str:
    """Return the one key that begins with some characters.

    :param place: the place of the records, in words, for the error.
    :param shown_by: the command that shows them.
    :raises CacheError: if no key begins so, or several do.
    """
    beginning = prefix.rstrip("…")
    found = list(islice((key for key in keys if key.startswith(beginning)), MAX_COUNTED_KEYS))
    if len(found) != 1:
        problem = f"{len(found)} keys begin" if found else "no key begins"
        raise CacheError(f"{problem} with {prefix!r} among {place}; '{shown_by}' shows the keys")
    return found[0]
