"""The search for the records nearest to a request.

Unpickling every record would take too long. Pieces of the request's texts, its probes, are looked
for in the bytes of all records, and only the records that contain the most probes are read and
compared. A hundred thousand records take a second or two.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from heapq import nlargest
from operator import itemgetter
from typing import NamedTuple

from ..display.formatting import counted
from ..errors import CacheError
from ..requests.contents import messages_of, strings_in
from ..types import Data, Record, Request
from .distance import distance
from .samples import split_sample

# A run of characters that JSON, Python's repr and pickle all write as they are.
UNESCAPED = re.compile(r"[^\x00-\x1f'\"\\]{4,}")
PROBE_LENGTH = 32  # characters
SHORTEST_PROBE = 4  # characters
SHORT_TEXT = 200  # characters up to which a text's single words are probes as well
MOST_PROBES = 12
MOST_READ = 300  # records that are read and compared
SHARED_TEXTS = 4096  # whose probes are remembered

Row = tuple[Sequence[bytes], Callable[[], Record]]


class Source(NamedTuple):
    """A collection of records to search.

    :param name: its name in messages.
    :param rows: for each record, the bytes to search (its own first, then those that it shares with
        others), and a function that reads it.
    :param find: returns the record of a key, or ``None``.
    :param rekey: the command that gives its records new keys.
    """

    name: str
    rows: Iterable[Row]
    find: Callable[[str], Record | None]
    rekey: str = "llmcall cache rekey"


class SearchResult(NamedTuple):
    """The records that a search found.

    :param looked_in: what was searched, in words.
    :param problem: why nothing could be read; empty if it could.
    :param records: the nearest records, the nearest first.
    :param distance: the nearest record's distance.
    :param is_scope_recorded: whether any record at all is in the request's scope path.
    """

    looked_in: str
    problem: str = ""
    records: Sequence[Record] = ()
    distance: float = 0.0
    is_scope_recorded: bool = False


def search(request: Request, source: Source | None) -> SearchResult:
    """Return the records nearest to a request.

    :param source: where to look, or ``None`` if no record may answer the request.
    """
    if source is None:
        return SearchResult(
            looked_in="nothing",
            problem="cache=False bypasses the disk cache, and no cassette is open",
        )
    probes = _Probes(request)
    try:
        best_rows = nlargest(MOST_READ, probes.with_counts(source.rows), key=itemgetter(0))
    except (CacheError, OSError) as error:
        return SearchResult(looked_in=source.name, problem=str(error))
    candidates: list[tuple[float, Record]] = []
    for _, (_, read) in best_rows:
        # A damaged record cannot be the nearest one.
        with suppress(CacheError):
            record = read()
            if record.kind == request.kind:
                candidates.append((distance(request, record), record))
    candidates.sort(key=lambda candidate: candidate[0])
    return SearchResult(
        looked_in=f"{source.name}: {counted(probes.record_count, 'record')}",
        records=[record for _, record in candidates],
        distance=candidates[0][0] if candidates else 0.0,
        is_scope_recorded=probes.is_scope_recorded,
    )


class _Probes:
    """Pieces of a request that are looked for in the bytes of records.

    :ivar record_count: how many records :meth:`with_counts` searched.
    :ivar is_scope_recorded: whether one of them is in the request's scope path.
    """

    def __init__(self, request: Request) -> None:
        self._pieces = _pieces_of(request.asked)
        path, _ = split_sample(request.sample)
        self._scope = f"{path}#".encode("utf-8", "replace")
        if request.sample:
            self._pieces += [self._scope, request.sample.encode("utf-8", "replace")]
        self.record_count = 0
        self.is_scope_recorded = False
        # Many records may share one long text.
        self._pieces_in_shared = lru_cache(SHARED_TEXTS)(self._pieces_in)

    def with_counts(self, rows: Iterable[Row]) -> Iterator[tuple[int, Row]]:
        """Yield for each record the number of probes that it contains, and its row."""
        for row in rows:
            record_bytes, *shared_bytes = row[0]
            pieces = self._pieces_in(record_bytes).union(*map(self._pieces_in_shared, shared_bytes))
            self.record_count += 1
            if self._scope in pieces:
                self.is_scope_recorded = True
            yield len(pieces), row

    def _pieces_in(self, content: bytes) -> set[bytes]:
        return {piece for piece in self._pieces if piece in content}


def _pieces_of(fields: Mapping[str, Data]) -> list[bytes]:
    """Return pieces from the whole length of a request's texts, two thirds of them from the last."""
    *earlier_texts, last_text = list(dict.fromkeys(strings_in(messages_of(fields)))) or [""]
    last = _spread(_pieces_of_text(last_text), MOST_PROBES * 2 // 3)
    earlier = [piece for text in earlier_texts for piece in _pieces_of_text(text)]
    pieces = last + _spread(earlier, MOST_PROBES - len(last))
    return list(dict.fromkeys(piece.encode("utf-8", "replace") for piece in pieces))


def _spread(pieces: list[str], max_count: int) -> list[str]:
    """Return some of the pieces, at equal distances."""
    step = -(-len(pieces) // max_count)
    return pieces[:: max(1, step)]


def _pieces_of_text(text: str) -> list[str]:
    """Return the pieces of one text."""
    pieces: list[str] = []
    for run in UNESCAPED.findall(text):
        pieces += [run[start : start + PROBE_LENGTH] for start in range(0, len(run), PROBE_LENGTH)]
        if len(text) <= SHORT_TEXT:
            pieces += run.split(" ")
    return [piece for piece in pieces if len(piece) >= SHORTEST_PROBE]
