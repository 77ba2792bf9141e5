"""The records nearest to a request that has none, found among a hundred thousand within a second.

A record is not unpickled to be judged. Pieces of the request's texts, its probes, are sought in the bytes of many
records at once; which ones tell records apart is tried on a few first. Only the records that hold the most telling ones
are read and compared.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

from .similarity import conversation, distance, strings_in

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ..types import Data, Record
    from .sources import Source

__all__ = ["Found", "Nearest", "nearest"]

PIECE = re.compile(r"[^\x00-\x1f'\"\\]{4,}")  # what JSON, Python's repr and pickles write alike
PROBE_CHARACTERS = 32
SHORT_CHARACTERS = 200  # of a text that is searched by pairs of words as well
TRIED, CHOSEN, CHOSEN_ABSENT = 48, 4, 4  # probes
TELLING = 0.6  # a probe that more of the records hold tells nothing
SAMPLED = 4  # stretches of a source on which probes are tried
STRETCH, PAGE = 100, 500  # records
READ = 300  # records that are read and compared
SCANNED = 200_000  # records that are searched through in one source: the last ones


class Found(NamedTuple):
    """Be a record and how far it is from the request; 0 is the request itself."""

    distance: float
    record: Record


class Nearest(NamedTuple):
    """Be what a search found.

    :param found: the nearest records, the nearest first.
    :param in_scope: whether anything at all is recorded in the request's scope path.
    :param searched: how many records were searched through.
    """

    found: list[Found]
    in_scope: bool
    searched: int


def nearest(kind: str, asked: dict[str, Data], sample: str | None, source: Source) -> Nearest:
    """Return the records nearest to a request."""
    places, in_scope, searched = _places(source, _tried(asked), sample)
    records = [record for place in places if (record := source.record(place)) is not None and record.kind == kind]
    found = [Found(distance(asked, sample, record), record) for record in records]
    return Nearest(sorted(found, key=lambda each: each.distance), in_scope, searched)


def _tried(asked: dict[str, Data]) -> list[bytes]:
    """Return pieces of what was said: of the last text the most, and of each from its whole length."""
    *before, last = list(dict.fromkeys(strings_in(conversation(asked)))) or [""]
    probes: dict[bytes, None] = {}
    for text in (last, *sorted(before, key=len, reverse=True)):
        pieces = _pieces(text)
        room = max(0, TRIED - len(probes)) // 2 + 1
        probes |= dict.fromkeys(_bytes(piece) for piece in pieces[:: max(1, -(-len(pieces) // room))])
    return list(probes)[:TRIED]


def _pieces(text: str) -> list[str]:
    pieces = []
    for match in PIECE.finditer(text):
        run = match[0]
        pieces += [run[at : at + PROBE_CHARACTERS] for at in range(0, len(run), PROBE_CHARACTERS)]
        if len(text) <= SHORT_CHARACTERS:
            words = run.split(" ")
            pieces += [" ".join(pair) for pair in pairwise(words)] + words
    return [piece for piece in pieces if len(piece) > 3]


def _places(source: Source, tried: list[bytes], sample: str | None) -> tuple[list[int], bool, int]:
    """Return the places of the records worth reading, whether any is of the scope, and how many were searched."""
    count = source.count()
    after = source.last() - SCANNED if count > SCANNED else -1
    probes = _chosen(_sampled(source, tried, count), tried)
    path = sample.partition("#")[0] if sample else ""
    of_scope = 1 << len(probes)
    if sample:
        probes += [_bytes(f"{path}#"), _bytes(sample)]
    masks: dict[int, list[int]] = {}
    searched = 0
    for found in _pages(source, probes, after):
        searched += len(found)
        for place, mask in found:
            masks.setdefault(mask, []).append(place)
    weights = _weights(masks, len(probes), searched)
    ranked = sorted(masks, key=lambda mask: -sum(weight for bit, weight in enumerate(weights) if mask >> bit & 1))
    return _first(masks, ranked), any(mask & of_scope for mask in masks), searched


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "replace")


def _sampled(source: Source, tried: list[bytes], count: int) -> list[int]:
    """Return how many of some records, spread over a source, hold each probe; at last how many these are."""
    hits = [0] * len(tried)
    read = 0
    last = source.last()
    starts = [-1] if count <= SAMPLED * STRETCH else [last * part // SAMPLED for part in range(SAMPLED)]
    for start in starts:
        found = source.holding(tried, start, STRETCH if len(starts) > 1 else count)
        read += len(found)
        for _, mask in found:
            hits = [before + (mask >> bit & 1) for bit, before in enumerate(hits)]
    return [*hits, read]


def _chosen(hits: list[int], tried: list[bytes]) -> list[bytes]:
    """Return the probes that tell most: the rarest, and some that no tried record holds."""
    *counts, read = hits
    order = sorted(range(len(tried)), key=lambda index: counts[index])
    present = [tried[index] for index in order if 0 < counts[index] <= read * TELLING]
    absent = [tried[index] for index in range(len(tried)) if not counts[index]]
    common = [tried[index] for index in order if counts[index] > read * TELLING]
    spread = absent[:: max(1, -(-len(absent) // CHOSEN_ABSENT))]
    return [*present[:CHOSEN], *spread, *common[: max(0, 2 - len(present))]]


def _pages(source: Source, probes: list[bytes], after: int) -> Iterator[list[tuple[int, int]]]:
    """Yield places of records, each with the probes that it holds."""
    while (found := source.holding(probes, after, PAGE)) and found[-1][0] > after:  # rows of a damaged tree may not be
        after = found[-1][0]
        yield found


def _weights(masks: dict[int, list[int]], bits: int, total: int) -> list[float]:
    """Return what each probe is worth: the more, the fewer records hold it."""
    held: Counter[int] = Counter()
    for mask, places in masks.items():
        for bit in range(bits):
            held[bit] += len(places) if mask >> bit & 1 else 0
    return [math.log((total + 1) / (held[bit] + 0.5)) for bit in range(bits)]


def _first(masks: dict[int, list[int]], ranked: Sequence[int]) -> list[int]:
    """Return places of the best masks, of a crowded one its first, its last, and some between."""
    places: list[int] = []
    for mask in ranked:
        room = READ - len(places)
        if room <= 0:
            break
        crowd: Any = masks[mask]
        places += crowd if len(crowd) <= room else crowd[:: -(-len(crowd) // room)]
    return places
