"""The records nearest to a request that has none, found among a hundred thousand within a second or two.

Not every record is unpickled to be judged. Pieces of the request's texts, its probes, are sought in the bytes of all of
them, and only the records that hold the most are read and compared.
"""

from __future__ import annotations

import re
from contextlib import suppress
from difflib import SequenceMatcher
from functools import lru_cache
from heapq import nlargest
from typing import TYPE_CHECKING, NamedTuple

from ..errors import CacheError
from ..text import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from ..types import Data, Record

__all__ = ["Nearest", "Source", "conversation", "nearest", "said", "split_sample", "title_of"]

PIECE = re.compile(r"[^\x00-\x1f'\"\\]{4,}")  # what JSON, Python's repr and pickles write alike
PROBE_CHARACTERS = 32
SHORT_CHARACTERS = 200  # of a text that is searched by its words as well
PROBES = 12
READ = 300  # records that are read and compared
FIELD = 1.0  # a parameter that differs
MESSAGE, MESSAGES = 0.8, 1.6  # a message more or less, and however many
LAST_MESSAGE = 2.5  # times what another message counts: it is the question
OTHER_SCOPE, OTHER_DRAW = 0.6, 0.2


class Source(NamedTuple):
    """Be a collection of records that is searched.

    :param name: what messages call it.
    :param rows: of each record, its own part and those it shares with others, which are searched, and what reads it.
    """

    name: str
    rows: Iterable[tuple[Sequence[bytes], Callable[[], Record]]]


# How near it is


def strings_in(data: Data) -> Iterator[str]:
    """Yield the texts in plain data, names apart, in order."""
    if isinstance(data, str):
        yield data
    elif isinstance(data, dict):
        for item in data.values():
            yield from strings_in(item)
    elif isinstance(data, list):
        for item in data:
            yield from strings_in(item)


def split_sample(sample: str | None) -> tuple[str | None, str]:
    """Return the scope path and the draw of a sample; the path is ``None`` outside any scope."""
    if sample is None:
        return None, ""
    path, _, draw = sample.partition("#")  # a given draw may hold another
    return path, draw


def conversation(asked: Mapping[str, Data]) -> list[Data]:
    """Return a request's messages; an embedding's text or a function's arguments count as one."""
    messages = asked.get("messages")
    if isinstance(messages, list):
        return messages
    return [{name: asked[name]} for name in ("input", "arguments") if name in asked]


def title_of(kind: str, asked: Mapping[str, Data]) -> str:
    """Return what is asked, in one line: the model's or function's name, or a method and path."""
    if kind == "http":
        return printable(f"{asked.get('method')} {asked.get('path')}")
    return printable(str(asked.get("function" if kind == "function" else "model", "?")))


def said(message: Data) -> str:
    """Return the text of a message; an image or a sound is its type in brackets."""
    content = message.get("content", message) if isinstance(message, dict) else message
    if not isinstance(content, list):
        return next(strings_in(content), "")
    parts = [part if isinstance(part, dict) else {} for part in content]
    return " ".join(str(part.get("text", f"[{part.get('type')}]")) for part in parts)


def distance(asked: dict[str, Data], sample: str | None, record: Record) -> float:
    """Return 0 for the request itself, the more the less it has in common with a record."""
    recorded = record.request
    names = (asked.keys() | recorded.keys()) - {"messages", "input", "arguments"}
    fields = FIELD * len([name for name in names if asked.get(name) != recorded.get(name)])
    is_near = split_sample(sample)[0] == split_sample(record.sample)[0]
    draw = 0.0 if sample == record.sample else OTHER_DRAW if is_near else OTHER_SCOPE
    return fields + draw + _of_messages(conversation(asked), conversation(recorded))


def _of_messages(one: list[Data], other: list[Data]) -> float:
    begin = 0
    while begin < min(len(one), len(other)) and one[begin] == other[begin]:
        begin += 1
    if begin == len(one) == len(other):
        return 0.0
    one, other = one[begin:], other[begin:]
    total = min(MESSAGE * abs(len(one) - len(other)), MESSAGES)
    for back, (left, right) in enumerate(zip(reversed(one), reversed(other), strict=False)):
        total += _of_texts(left, right) * (1.0 if back else LAST_MESSAGE)
    return total


def _of_texts(one: Data, other: Data) -> float:
    """Return 0 for equal data and up to 1 for texts without a common word."""
    if one == other:
        return 0.0
    words, other_words = ([word for text in strings_in(data) for word in text.split()] for data in (one, other))
    return 0.02 + 0.98 * (1 - SequenceMatcher(None, words, other_words, autojunk=False).quick_ratio())


# The search


class Nearest(NamedTuple):
    """Be what a search found.

    :param records: the nearest records, the nearest first.
    :param distance: how far the nearest one is from the request.
    :param searched: how many records there are.
    :param in_scope: whether anything at all is recorded in the request's scope path.
    """

    records: Sequence[Record] = ()
    distance: float = 0.0
    searched: int = 0
    in_scope: bool = False


def nearest(kind: str, asked: dict[str, Data], sample: str | None, source: Source) -> Nearest:
    """Return the records nearest to a request."""
    probes = _probes(asked)
    scope = _bytes((sample or "").partition("#")[0] + "#")
    if sample:
        probes += [scope, _bytes(sample)]
    searched, in_scope = 0, False

    def found_in(part: bytes) -> set[bytes]:
        return {probe for probe in probes if probe in part}

    found_in_shared = lru_cache(4096)(found_in)  # a text to which many records refer is searched once

    def held(row: tuple[Sequence[bytes], object]) -> int:
        """Return how many probes a record holds."""
        nonlocal searched, in_scope
        own, *shared = row[0]
        there = found_in(own).union(*map(found_in_shared, shared))
        searched, in_scope = searched + 1, in_scope or scope in there
        return len(there)

    found = []
    for _, read in nlargest(READ, source.rows, key=held):
        with suppress(CacheError):
            record = read()
            if record.kind == kind:
                found.append((distance(asked, sample, record), record))
    found.sort(key=lambda each: each[0])
    return Nearest([record for _, record in found], found[0][0] if found else 0.0, searched, in_scope)


def _probes(asked: dict[str, Data]) -> list[bytes]:
    """Return pieces of what was said: of the last text the most, and from its whole length."""
    *before, last = list(dict.fromkeys(strings_in(conversation(asked)))) or [""]
    asked_last, earlier = _pieces(last), [piece for text in before for piece in _pieces(text)]
    chosen = _spread(asked_last, PROBES * 2 // 3)
    return list(dict.fromkeys(map(_bytes, chosen + _spread(earlier, PROBES - len(chosen)))))


def _spread(pieces: list[str], most: int) -> list[str]:
    """Return some of the pieces, at equal distances."""
    return pieces[:: max(1, -(-len(pieces) // most))]


def _pieces(text: str) -> list[str]:
    pieces = []
    for run in PIECE.findall(text):
        pieces += [run[at : at + PROBE_CHARACTERS] for at in range(0, len(run), PROBE_CHARACTERS)]
        if len(text) <= SHORT_CHARACTERS:
            pieces += run.split(" ")
    return [piece for piece in pieces if len(piece) > 3]


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "replace")
