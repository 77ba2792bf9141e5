"""New keys for a recording under changed settings, and a check of its keys.

Requests that differ only in what a normalizer leaves out become the same request. In a scope they become
draws, numbered in the order of the calls, as a run under these settings numbers them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from ...config import resolve as config
from ...config.settings import Settings
from ...keys.http_identity import under_settings
from ...keys.keys import key_of
from ...keys.plain_data import is_same
from ...keys.request import Data
from ...support.display import printable
from ..notes import known_header_notes, known_notes
from ..record import NumberedDraw, Record, draw_of
from ..records.answers import Conflict, combine
from ..records.header import Header
from ..records.keyed_settings import NAMESPACES, namespaces_of
from ..records.reader import RecordFile, Records


class Rekeyed(NamedTuple):
    """A recording under the current settings.

    :param header: the header, with the settings of the new keys.
    :param records: in the order of the calls.
    :param conflicts: the requests that have two answers now.
    :param changed: the number of records with a new key.
    :param joined: the number of records left out because others hold the same answer.
    """

    header: Header
    records: Sequence[Record]
    conflicts: list[Conflict]
    changed: int
    joined: int


def rekeyed(recording: RecordFile, on_conflict: str) -> Rekeyed:
    """Return a recording under the current settings.

    Its own normalizers and aliases stay, because the texts and names that they replaced are gone.

    :param on_conflict: see :func:`.combine`.
    """
    header = recording.header._replace(settings=_merged_settings(recording.header.settings))
    if header.run is not None and "cache_normalize" in header.settings:
        normalizers = header.settings["cache_normalize"]
        header = header._replace(run={**header.run, "normalizers": normalizers})
    settings = _settings_with(header.settings)
    records = list(recording)
    requests = [under_settings(record.request, settings) for record in records]
    samples = _renumbered_samples(records, requests)
    renamed = [
        record.replace(
            cache_key=key_of(record.kind, request, sample), request=request, sample=sample
        )
        for record, request, sample in zip(records, requests, samples, strict=True)
    ]
    combined = combine(Records.of(renamed), Records.of([]), on_conflict)
    return Rekeyed(
        header=header,
        records=combined.records,
        conflicts=list(combined.conflicts()),
        changed=sum(
            old.cache_key != new.cache_key for old, new in zip(records, renamed, strict=True)
        ),
        joined=len(records) - len(combined.records),
    )


def _settings_with(header: Mapping[str, Data]) -> Settings:
    """Return the current settings with a header's normalizers and aliases."""
    normalizers = tuple(header.get("cache_normalize") or ())
    with config.configured(cache_normalize=normalizers, aliases=header.get("aliases", {})):
        return config.settings()


def _merged_settings(recorded: Mapping[str, Data]) -> dict[str, Data]:
    """Return a header's settings, joined with the current ones that decide keys."""
    current = config.without_code()
    normalizers = [*(recorded.get("cache_normalize") or ()), *current.cache_normalize]
    merged = {
        **recorded,
        "cache_normalize": list(dict.fromkeys(normalizers)),
        "aliases": {**recorded.get("aliases", {}), **current.aliases},
        "cache_namespace": current.cache_namespace,
        NAMESPACES: namespaces_of(config.settings()),
    }
    return {name: value for name, value in merged.items() if value not in (None, [], {}, "")}


def _renumbered_samples(
    records: Sequence[Record], requests: Sequence[Mapping[str, Data]]
) -> list[str | None]:
    """Return the sample of each record. If two draws have the same number, all get new numbers."""
    samples = [record.sample for record in records]
    draws: dict[str, list[int]] = {}  # by request and scope: positions of records
    for position, (record, request) in enumerate(zip(records, requests, strict=True)):
        if (record.sample or "").partition("#")[2].isdecimal():
            draws.setdefault(key_of(record.kind, request, record.scope), []).append(position)
    for positions in draws.values():
        if len({samples[position] for position in positions}) < len(positions):
            for number, position in enumerate(positions):
                samples[position] = f"{records[position].scope}#{number}"
    return samples


INCOMPLETE = (
    "the recording is incomplete: its run was interrupted, or it was left open, so it lacks the calls that "
    "would have followed. Run the program again in the mode 'once', which continues it"
)
KEPT_NOTE = "note %r, and keeps it unchanged"


class Finding(NamedTuple):
    """A problem of a record in a file, or of the file.

    :param about: ``"key"``, ``"draws"`` or ``"note"``; ``"complete"`` of the file.
    :param record: the record's number in the file, from 1; 0 for the file.
    :param sample: its scope path and draw; empty outside any scope.
    :param words: the problem.
    """

    about: str
    record: int
    sample: str
    words: str

    def __str__(self) -> str:
        if not self.record:
            return self.words
        sample = f" ({printable(self.sample)})" if self.sample else ""
        return f"record {self.record}{sample}: {self.words}"


def findings(file: RecordFile) -> Iterator[Finding]:
    """Yield that a recording is incomplete, notes of the header that nobody here knows, the records whose key does
    not match the header or with such a note, then those that follow a missing draw.
    """
    if not file.header.is_complete:
        yield Finding("complete", 0, "", INCOMPLETE)
    for name in sorted(file.header.notes.keys() - known_header_notes().keys()):
        yield Finding(
            "note", 0, "", f"this llmcall does not know the header's {KEPT_NOTE % name[:40]}"
        )
    settings = _settings_with(file.header.settings)
    later: list[tuple[int, str, NumberedDraw]] = []  # draws, each with the one before it
    for number, record in enumerate(file.records(), 1):
        sample = record.sample or ""
        request = under_settings(record.request, settings)
        request.pop("namespace", None)
        if "namespace" in record.request:
            request["namespace"] = record.request["namespace"]
        if not is_same(request, record.request):
            words = "under the header's settings its request has another key, so no call finds it"
            yield Finding("key", number, sample, words)
        for name in sorted(record.notes.keys() - known_notes().keys()):
            words = f"this llmcall does not know its {KEPT_NOTE % name[:40]}"
            yield Finding("note", number, sample, words)
        draw = None if sample.endswith("#0") else draw_of(record)
        if draw is not None and draw.number:
            later.append((number, sample, draw._replace(number=draw.number - 1)))
    # A second time, so that a file whose draws are all the first is not held in memory.
    missing = {before for *_, before in later}
    missing.difference_update(map(draw_of, file.records() if missing else ()))
    for number, sample, before in later:
        if before in missing:
            words = f"the draw before it, #{before.number}, is missing"
            yield Finding("draws", number, sample, words)
