"""The search for the record nearest to a request."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from ...apis.http_requests import CONTENT_FIELDS
from ...errors import CacheError
from ...keys.request import Data, Request, messages_of, strings_in, text_with_placeholders
from ...support.display import counted
from ..differences import (
    CONTENTS,
    canonical_text,
    common_ends,
    differences,
    have_same_parts,
    likeness,
    sorted_parts,
)
from ..record import Record

BEGINNING = 40  # characters


class Source(NamedTuple):
    """A collection of records to search.

    :param name: its name in messages.
    :param records: its readable records.
    :param rekey: the commands that give its records new keys.
    :param is_complete: whether the recording is complete.
    :param is_used: whether this run has used the record of a key.
    :param run: the command that recorded it, ``llmcall run --cassette FILE``; empty for any other recording.
    :param is_strange: whether none of this run's requests so far is recorded in it.
    """

    name: str
    records: Iterable[Record]
    rekey: str
    is_complete: bool = True
    is_used: Callable[[str], bool] = lambda _: False
    is_strange: bool = False
    run: str = ""


class SearchResult(NamedTuple):
    """The result of a search.

    :param looked_in: the place that was searched, in words.
    :param problem: why nothing could be read, or an empty text.
    :param nearest: the nearest record of the request's kind.
    :param samples: the samples of the records that asked the same.
    :param scopes: the scope paths of all records, in order.
    :param reordered: the scope paths of the records that asked the same in another order.
    :param all_used: whether this run has used all records of the request's kind in its scope.
    """

    looked_in: str
    problem: str = ""
    nearest: Record | None = None
    samples: Sequence[str | None] = ()
    scopes: Sequence[str] = ()
    reordered: Sequence[str] = ()
    all_used: bool = False


def search(request: Request, source: Source | None) -> SearchResult:
    """Return the record nearest to a request, and the records that asked the same.

    A record of the same scope is nearer than any other; of these, one that this run has not used, since
    the others are what the program still asks; of these, one with the same persona.

    :param source: where to look, or ``None`` if no record may answer the request.
    """
    if source is None:
        problem = "cache=False bypasses the disk cache, and no cassette is open"
        return SearchResult("nothing", problem)
    asked, (path, _) = request.asked, split_sample(request.sample)
    persona, size, order_free = _persona(asked), _size(asked), _order_free(asked)
    count, least = 0, (True, True, True, True)
    nearest: list[Record] = []
    samples: list[str | None] = []
    scopes: set[str] = set()
    reordered: list[str] = []
    try:
        for record in source.records:
            count += 1
            scopes.add(record.scope)
            if record.kind != request.kind:
                continue
            fields = record.request
            if fields == asked:
                samples.append(record.sample)
            elif _size(fields) == size and _order_free(fields) == order_free:
                reordered.append(record.scope)
            # Outside any scope, one record answers a question as often as it is asked.
            is_used = bool(path) and source.is_used(record.cache_key)
            rank = (
                fields != asked,
                record.scope != path,
                is_used,
                _persona(fields) != persona,
            )
            if rank < least:
                nearest, least = [], rank
            if rank == least:
                nearest.append(record)
    except (CacheError, OSError) as error:
        return SearchResult(source.name, str(error))
    looked_in = f"{source.name}: {counted(count, 'record')}"
    if not nearest:
        return SearchResult(looked_in)
    record = min(nearest, key=lambda candidate: _distance(asked, candidate.request))
    if not reordered and record.request != asked and _is_reordered(record.request, asked):
        reordered.append(record.scope)
    is_other, is_elsewhere, all_used, _ = least
    all_used = is_other and not is_elsewhere and all_used
    return SearchResult(looked_in, "", record, samples, sorted(scopes), reordered, all_used)


def split_sample(sample: str | None) -> tuple[str, str]:
    """Return a sample's scope path and draw; a draw that the user names may contain another ``#``."""
    path, _, draw = (sample or "").partition("#")
    return path, draw


def _order_free(data: Data) -> Data:
    """Return data with lists, and the parts of texts, sorted, so that their order does not matter."""
    if isinstance(data, dict):
        return {name: _order_free(item) for name, item in data.items()}
    if isinstance(data, list):
        return sorted(map(_order_free, data), key=canonical_text)
    return sorted_parts(data) if isinstance(data, str) else data


def _is_reordered(recorded: Mapping[str, Data], asked: Mapping[str, Data]) -> bool:
    """Return whether two requests differ only in the order of their texts' parts."""
    return all(
        isinstance(difference.recorded, str)
        and isinstance(difference.asked, str)
        and have_same_parts(difference.recorded, difference.asked)
        for difference in differences(recorded, asked)
    )


def _persona(fields: Mapping[str, Data]) -> Data:
    """Return the persona of a request: its system messages, or else the beginning of its first message."""
    messages = messages_of(fields)
    systems = [
        message
        for message in messages
        if isinstance(message, dict) and message.get("role") in ("system", "developer")
    ]
    return systems or [text_with_placeholders(message)[:BEGINNING] for message in messages[:1]]


def _size(fields: Mapping[str, Data]) -> int:
    """Return the number of characters in a request's messages."""
    return sum(map(len, strings_in(messages_of(fields))))


def _parameters(fields: Mapping[str, Data]) -> dict[str, Data]:
    """Return the parameters of a request: its fields without the contents."""
    body = fields.get("body")  # of another API
    if isinstance(body, dict):
        fields = {**fields, **body}
    left_out = {*CONTENTS, *CONTENT_FIELDS, "body"}
    return {name: value for name, value in fields.items() if name not in left_out}


def _distance(asked: Mapping[str, Data], recorded: Mapping[str, Data]) -> tuple[bool, float]:
    """Return whether the messages differ, and the number of differing parameters plus their unlikeness."""
    parameters, others = _parameters(asked), _parameters(recorded)
    names = parameters.keys() | others.keys()
    unlikeness = _unlikeness(asked, recorded)
    changed = sum(parameters.get(name) != others.get(name) for name in names)
    return unlikeness > 0, changed + unlikeness


def _unlikeness(asked: Mapping[str, Data], recorded: Mapping[str, Data]) -> float:
    """Return 0 for the same messages, up to 1 if they share no word after their common beginning."""
    messages, others = messages_of(asked), messages_of(recorded)
    if messages == others:
        return 0.0
    common, _ = common_ends(messages, others)
    words, other_words = (
        {word for text in strings_in(side[common:]) for word in text.split()}
        for side in (messages, others)
    )
    return 1 - likeness(words, other_words)
