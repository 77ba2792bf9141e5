"""The records nearest to a request that has none, found among a hundred thousand within a second.

A record is not unpickled to be judged. Pieces of the request's texts, its probes, are sought in the bytes of many
records at once. Only the records that hold the most of them are read and compared.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import Counter
from heapq import nsmallest
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..types import Data, Record

__all__ = ["Found", "Nearest", "Source", "conversation", "holding", "nearest", "said", "split_sample"]

PIECE = re.compile(r"[^\x00-\x1f'\"\\]{4,}")  # what JSON, Python's repr and pickles write alike
PROBE_CHARACTERS = 32
SHORT_CHARACTERS = 200  # of a text that is searched by pairs of words as well
PROBES = 12
TELLING = 0.6  # a probe that more of the first records hold tells nothing
PAGE = 500  # records
READ = 300  # records that are read and compared
SCANNED = 200_000  # records that are searched through in one source: the last ones
FIELD = 1.0  # a parameter that differs
MESSAGE, MESSAGES = 0.8, 1.6  # a message more or less, and however many
LAST_MESSAGE = 2.5  # times what another message counts: it is the question
OTHER_SCOPE, OTHER_DRAW = 0.6, 0.2


# What is searched


class Source(Protocol):
    """Be a collection of records, each in its place, a whole number."""

    def name(self) -> str:
        """Return what messages call it."""

    def count(self) -> int:
        """Return how many records it has."""

    def last(self) -> int:
        """Return the last place."""

    def holding(self, probes: list[bytes], after: int, size: int) -> list[tuple[int, int]]:
        """Return the next places after one, at most ``size``, and which probes each holds, as the bits of a number."""

    def record(self, place: int) -> Record | None:
        """Return the record in a place, or ``None`` where it cannot be read."""


def holding(data: list[bytes], probes: list[bytes]) -> list[int]:
    """Search many pieces of data at once: a search costs a call, and skips the faster the more there is to skip."""
    joined, ends = b"".join(data), list(accumulate(map(len, data)))
    masks = [0] * len(data)
    for bit, probe in enumerate(probes):
        at = joined.find(probe)
        while at >= 0:
            index = bisect_right(ends, at)
            if at + len(probe) <= ends[index]:
                masks[index] |= 1 << bit
                at = joined.find(probe, ends[index])
            else:
                at = joined.find(probe, at + 1)
    return masks


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


def conversation(asked: dict[str, Data]) -> list[Data]:
    """Return a request's messages; an embedding's text or a function's arguments count as one."""
    messages = asked.get("messages")
    if isinstance(messages, list):
        return messages
    return [{name: asked[name]} for name in ("input", "arguments") if name in asked]


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
    return fields + _of_samples(sample, record.sample) + _of_messages(conversation(asked), conversation(recorded))


def _of_samples(one: str | None, other: str | None) -> float:
    if one == other:
        return 0.0
    path, draw = split_sample(one)
    other_path, other_draw = split_sample(other)
    if path != other_path:
        same = len(set((path or "").split("/")) & set((other_path or "").split("/")))
        return OTHER_SCOPE - min(same, 3) / 10 + (0.05 if draw != other_draw else 0.0)
    far = abs(int(draw) - int(other_draw)) if draw.isdecimal() and other_draw.isdecimal() else 100
    return OTHER_DRAW + min(far, 100) / 1000


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
    words, other_words = _words(one), _words(other)
    common = sum((words & other_words).values())
    return 0.02 + 0.98 * (1 - 2 * common / max(1, words.total() + other_words.total()))


def _words(data: Data) -> Counter[str]:
    return Counter(word for text in strings_in(data) for word in text.split())


# The search


class Found(NamedTuple):
    """Be a record and how far it is from the request; 0 is the request itself."""

    distance: float
    record: Record


class Nearest(NamedTuple):
    """Be what a search found.

    :param found: the nearest records, the nearest first.
    :param in_scope: whether anything at all is recorded in the request's scope path.
    """

    found: list[Found]
    in_scope: bool


def nearest(kind: str, asked: dict[str, Data], sample: str | None, source: Source) -> Nearest:
    """Return the records nearest to a request."""
    places, in_scope = _places(source, _probes(asked), sample)
    records = [record for place in places if (record := source.record(place)) is not None and record.kind == kind]
    found = [Found(distance(asked, sample, record), record) for record in records]
    return Nearest(sorted(found, key=lambda each: each.distance), in_scope)


def _probes(asked: dict[str, Data]) -> list[bytes]:
    """Return pieces of what was said: of the last text the most, and of each from its whole length."""
    *before, last = list(dict.fromkeys(strings_in(conversation(asked)))) or [""]
    probes: dict[bytes, None] = {}
    for text in (last, *sorted(before, key=len, reverse=True)):
        pieces = _pieces(text)
        room = max(0, PROBES - len(probes)) // 2 + 1
        probes |= dict.fromkeys(_bytes(piece) for piece in pieces[:: max(1, -(-len(pieces) // room))])
    return list(probes)[:PROBES]


def _pieces(text: str) -> list[str]:
    pieces = []
    for match in PIECE.finditer(text):
        run = match[0]
        pieces += [run[at : at + PROBE_CHARACTERS] for at in range(0, len(run), PROBE_CHARACTERS)]
        if len(text) <= SHORT_CHARACTERS:
            words = run.split(" ")
            pieces += [" ".join(pair) for pair in pairwise(words)] + words
    return [piece for piece in pieces if len(piece) > 3]


def _places(source: Source, probes: list[bytes], sample: str | None) -> tuple[list[int], bool]:
    """Return the places of the records that hold the most probes, and whether any is of the scope."""
    after = source.last() - SCANNED if source.count() > SCANNED else -1
    first = [mask for _, mask in source.holding(probes, after, PAGE)]
    held = [sum(mask >> bit & 1 for mask in first) for bit in range(len(probes))]
    probes = [probe for probe, count in zip(probes, held, strict=True) if count <= TELLING * len(first)]
    of_scope = 1 << len(probes)
    if sample:
        probes += [_bytes(sample.partition("#")[0] + "#"), _bytes(sample)]
    found = list(_pages(source, probes, after))
    best = nsmallest(READ, ((-mask.bit_count(), place) for place, mask in found))
    return [place for _, place in best], any(mask & of_scope for _, mask in found)


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "replace")


def _pages(source: Source, probes: list[bytes], after: int) -> Iterator[tuple[int, int]]:
    """Yield places of records, each with the probes that it holds."""
    while (found := source.holding(probes, after, PAGE)) and found[-1][0] > after:  # rows of a damaged tree may not be
        after = found[-1][0]
        yield from found
