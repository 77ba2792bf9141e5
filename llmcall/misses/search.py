"""The search for the record nearest to a request."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from ..differences.fields import CONTENTS, as_text
from ..differences.words import common_ends
from ..display.formatting import counted
from ..errors import CacheError
from ..keys.contents import messages_of, strings_in, text_of
from ..keys.plain_data import map_texts
from ..values import CONTENT_FIELDS, Data, Record, Request

UNRELATED = 2.0  # from this distance on, a record has little to do with a request

BEGINNING = 40  # characters
PARAMETER = 1.0  # for each parameter that differs
OTHER_SCOPE = 0.6
OTHER_DRAW = 0.2
MISSING_MESSAGE = 0.8  # for each message more or less
MOST_MISSING = 1.6  # for all of them together
LAST_MESSAGE = 2.5  # times another message's weight: it contains the question
OTHER_TEXT = 0.02  # for any difference between two texts, however small


class Source(NamedTuple):
    """A collection of records to search.

    :param name: its name in messages.
    :param records: those that can be read.
    :param find: returns the record of a key, or ``None``.
    :param rekey: the command that gives its records new keys.
    :param is_complete: whether the recording came to its end.
    """

    name: str
    records: Iterable[Record]
    find: Callable[[str], Record | None]
    rekey: str = "llmcall cache rekey"
    is_complete: bool = True


class SearchResult(NamedTuple):
    """What a search found.

    :param looked_in: what was searched, in words.
    :param problem: why nothing could be read; empty if it could.
    :param nearest: the nearest record of the request's kind.
    :param distance: its distance.
    :param samples: the samples of the records that asked the same.
    :param scopes: the scope paths of all records, in order.
    :param reordered: the scope paths of the records that asked the same in another order.
    """

    looked_in: str
    problem: str = ""
    nearest: Record | None = None
    distance: float = 0.0
    samples: Sequence[str | None] = ()
    scopes: Sequence[str] = ()
    reordered: Sequence[str] = ()


def search(request: Request, source: Source | None) -> SearchResult:
    """Return the record nearest to a request, and those that asked the same. One of the same
    persona and scope is nearer than any other.

    :param source: where to look, or ``None`` if no record may answer the request.
    """
    if source is None:
        problem = "cache=False bypasses the disk cache, and no cassette is open"
        return SearchResult("nothing", problem)
    count, nearest, least = 0, None, (True, True, True, 0.0)
    samples: list[str | None] = []
    scopes: set[str] = set()
    reordered: list[str] = []
    in_any_order = _in_any_order(request.asked)
    persona, (path, _) = _persona(request.asked), split_sample(request.sample)
    try:
        for record in source.records:
            count += 1
            scopes.add(record.scope)
            if record.kind != request.kind:
                continue
            if record.request == request.asked:
                samples.append(record.sample)
            elif record.request.keys() == request.asked.keys() and (
                _in_any_order(record.request) == in_any_order
            ):
                reordered.append(record.scope)
            rank = (
                record.request != request.asked,
                persona != _persona(record.request),
                record.scope != path,
                _distance(request, record),
            )
            if nearest is None or rank < least:
                nearest, least = record, rank
    except (CacheError, OSError) as error:
        return SearchResult(source.name, str(error))
    looked_in = f"{source.name}: {counted(count, 'record')}"
    return SearchResult(looked_in, "", nearest, least[-1], samples, sorted(scopes), reordered)


def split_sample(sample: str | None) -> tuple[str, str]:
    """Return a sample's scope path and draw; a draw that the user gave may hold another ``#``."""
    path, _, draw = (sample or "").partition("#")
    return path, draw


def _in_any_order(fields: Mapping[str, Data]) -> dict[str, Data]:
    """Return a request in a form that is the same for every order of its messages and their lines."""
    body = fields.get("body")  # of another API
    if isinstance(body, dict):
        return {**fields, "body": _in_any_order(body)}
    return {name: _sorted(item) if name in CONTENTS else item for name, item in fields.items()}


def _sorted(contents: Data) -> Data:
    contents = map_texts(contents, lambda text: "\n".join(sorted(text.split("\n"))))
    return sorted(contents, key=as_text) if isinstance(contents, list) else contents


def _persona(fields: Mapping[str, Data]) -> Data:
    """Return what describes who is asked: the system messages, or else how the first one begins."""
    messages = messages_of(fields)
    systems = [
        each
        for each in messages
        if isinstance(each, dict) and each.get("role") in ("system", "developer")
    ]
    return systems or [text_of(each)[:BEGINNING] for each in messages[:1]]


def _parameters(fields: Mapping[str, Data]) -> dict[str, Data]:
    """Return what a request asks for besides its contents."""
    body = fields.get("body")  # of another API
    if isinstance(body, dict):
        fields = {**fields, **body}
    left_out = {*CONTENTS, *CONTENT_FIELDS, "body"}
    return {name: value for name, value in fields.items() if name not in left_out}


def _distance(request: Request, record: Record) -> float:
    """Return how far a record is from a request: 0 if they are the same, else more."""
    asked, recorded = request.asked, record.request
    parameters, others = _parameters(asked), _parameters(recorded)
    names = parameters.keys() | others.keys()
    total: float = PARAMETER * sum(parameters.get(name) != others.get(name) for name in names)
    if request.sample != record.sample:
        is_same_scope = split_sample(request.sample)[0] == record.scope
        total += OTHER_DRAW if is_same_scope else OTHER_SCOPE
    messages, recorded_messages = messages_of(asked), messages_of(recorded)
    common, _ = common_ends(messages, recorded_messages)
    messages, recorded_messages = messages[common:], recorded_messages[common:]
    missing = abs(len(messages) - len(recorded_messages))
    total += min(MISSING_MESSAGE * missing, MOST_MISSING)
    weight = LAST_MESSAGE
    for one, other in zip(reversed(messages), reversed(recorded_messages), strict=False):
        if one != other:
            total += weight * (OTHER_TEXT + (1 - OTHER_TEXT) * _unlikeness(one, other))
        weight = 1.0
    return total


def _unlikeness(message: Data, other: Data) -> float:
    """Return 0 for messages of the same words and 1 for those without a common one."""
    words, other_words = _words(message), _words(other)
    return 1 - 2 * len(words & other_words) / max(1, len(words) + len(other_words))


def _words(message: Data) -> set[str]:
    return {word for text in strings_in(message) for word in text.split()}
