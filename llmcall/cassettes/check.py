"""Contradictions in a file of records."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any, NamedTuple

from ..config import resolve as config
from ..display.printable import printable
from ..keys.keys import key_of
from ..keys.rekeying import under_settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..records.reader import RecordFile


class Finding(NamedTuple):
    """What does not fit together in a file.

    :param about: ``"key"`` or ``"draws"``.
    :param record: the record's number in the file, from 1.
    :param sample: its scope path and draw; empty outside any scope.
    :param words: what does not fit.
    """

    about: str
    record: int
    sample: str
    words: str

    def __str__(self) -> str:
        sample = f" ({printable(self.sample)})" if self.sample else ""
        return f"record {self.record}{sample}: {self.words}"


def findings(file: RecordFile) -> Iterator[Finding]:
    """Yield the records of a file that no call under its header finds, then those before which a draw
    is missing.
    """
    header: Any = file.settings
    with config.configured(
        cache_normalize=tuple(header.get("cache_normalize", ())), aliases=header.get("aliases", {})
    ):
        settings = config.settings()
    draws: dict[tuple[str, str], set[int]] = defaultdict(set)
    numbered = []
    for number, record in enumerate(file, 1):
        sample = record.sample or ""
        request = under_settings(record.request, settings)
        request.pop("namespace", None)
        if "namespace" in record.request:
            request["namespace"] = record.request["namespace"]
        if key_of(record.kind, request, record.sample) != record.cache_key:
            words = "under the header's settings its request has another key, so no call finds it"
            yield Finding("key", number, sample, words)
        draw = sample.partition("#")[2]
        if draw.isdecimal():
            of_request = record.scope, key_of(record.kind, record.request, None)
            draws[of_request].add(int(draw))
            numbered.append((number, sample, int(draw), of_request))
    for number, sample, draw_number, of_request in numbered:
        if draw_number and draw_number - 1 not in draws[of_request]:
            words = f"the draw before it, #{draw_number - 1}, is missing"
            yield Finding("draws", number, sample, words)
