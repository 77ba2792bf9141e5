"""Recordings under given settings: their keys made anew, or checked.

Requests that differed only in what a normalizer leaves out are the same request then. In a scope they
are draws, numbered in the order of the calls, as a run under these settings numbers them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from ..config import resolve as config
from ..config.settings import Settings
from ..display.printable import printable
from ..keys.keys import key_of
from ..keys.rekeying import under_settings
from ..records.answers import same_answer
from ..records.header import NAMESPACES, header_of
from ..records.pointers import pointing_to, target_key
from ..records.reader import RecordFile
from ..values import Record

Conflict = tuple[Record, Record]  # two answers to one request
# Returns the scope that the body of a request names, or ``None`` if it names none.
NameOf = Callable[[Any], str | None]


class Rekeyed(NamedTuple):
    """What a recording holds under the current settings.

    :param settings: of its header.
    :param run: the options of its run, in the header, or ``None``.
    :param records: in the order of the calls.
    :param conflicts: the requests that have two answers now.
    :param changed: how many records have another key.
    :param joined: how many records were left out, since others hold the same answer.
    """

    settings: dict[str, Any]
    run: dict[str, Any] | None
    records: list[Record]
    conflicts: list[Conflict]
    changed: int
    joined: int


def rekeyed(
    settings: Mapping[str, Any],
    run: Mapping[str, Any] | None,
    records: Sequence[Record],
    choice: str = "keep",
    name_of: NameOf | None = None,
) -> Rekeyed:
    """Return a recording as the current settings ask its requests.

    Its own normalizers and aliases stay: what they took out of a text, or a name, is gone.

    :param settings: of its header.
    :param run: the options of its run, in the header, or ``None``.
    :param records: in the order of the calls.
    :param choice: at a conflict, ``"keep"`` the first answer, or ``"replace"`` it by the other's.
    :param name_of: returns the scope that the body of a request names, if actors are named by what
        they ask.
    """
    header = _merged_header(settings)
    new_records = _with_new_keys(records, header, name_of)
    new_keys = {old.cache_key: new.cache_key for old, new in zip(records, new_records, strict=True)}
    by_key, conflicts = _by_key(new_records, choice)
    return Rekeyed(
        settings=header,
        run=_merged_run(run, header),
        records=[_with_new_pointer(record, new_keys) for record in by_key.values()],
        conflicts=conflicts,
        changed=sum(old_key != new_key for old_key, new_key in new_keys.items()),
        joined=len(new_records) - len(by_key),
    )


def _with_new_keys(
    records: Sequence[Record], header: Mapping[str, Any], name_of: NameOf | None
) -> list[Record]:
    """Return the records with requests, samples and keys as a header's settings make them."""
    settings = _settings_of(header)
    requests = [under_settings(record.request, settings) for record in records]
    paths = [
        _path(record, request, name_of) for record, request in zip(records, requests, strict=True)
    ]
    samples = _samples(records, requests, paths)
    return [
        record.replace(
            cache_key=key_of(record.kind, request, sample), request=request, sample=sample
        )
        for record, request, sample in zip(records, requests, samples, strict=True)
    ]


def _settings_of(header: Mapping[str, Any]) -> Settings:
    """Return the current settings with a header's normalizers and aliases."""
    normalizers = tuple(_normalizers(header))
    with config.configured(cache_normalize=normalizers, aliases=header.get("aliases", {})):
        return config.settings()


def _by_key(records: Iterable[Record], choice: str) -> tuple[dict[str, Record], list[Conflict]]:
    """Return one record for each key, and the requests that have two answers.

    :param choice: see :func:`rekeyed`.
    """
    by_key: dict[str, Record] = {}
    conflicts = []
    for record in records:
        earlier = by_key.setdefault(record.cache_key, record)
        if same_answer(earlier, record):
            continue
        conflicts.append((earlier, record))
        if choice == "replace":
            by_key[record.cache_key] = record
    return by_key, conflicts


def _merged_header(recorded: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a header, with what the current ones say of keys."""
    current = header_of()
    normalizers = dict.fromkeys([*_normalizers(recorded), *_normalizers(current)])
    merged = {
        **recorded,
        "cache_normalize": list(normalizers),
        "aliases": {**recorded.get("aliases", {}), **current.get("aliases", {})},
        "cache_namespace": current.get("cache_namespace"),
        NAMESPACES: current.get(NAMESPACES),
    }
    return {name: value for name, value in merged.items() if value not in (None, [], {}, "")}


def _merged_run(
    recorded: Mapping[str, Any] | None, header: Mapping[str, Any]
) -> dict[str, Any] | None:
    """Return the options of a run, with the header's normalizers; ``None`` if there was no run."""
    if recorded is None:
        return None
    normalizers = list(_normalizers(header))
    return {**recorded, "normalizers": normalizers} if normalizers else dict(recorded)


def _normalizers(header: Mapping[str, Any]) -> Iterable[str]:
    return header.get("cache_normalize") or ()


def _path(record: Record, request: Mapping[str, Any], name_of: NameOf | None) -> str:
    """Return the scope path of a record; the name of its actor may come of its request."""
    outer_scopes, slash, name = record.scope.rpartition("/")
    if name_of is None or name != name_of(_body(record.request)):
        return record.scope
    return f"{outer_scopes}{slash}{name_of(_body(request))}"


def _body(request: Mapping[str, Any]) -> Any:
    return request.get("body", request)


def _samples(
    records: Sequence[Record], requests: Sequence[Mapping[str, Any]], paths: Sequence[str]
) -> list[str | None]:
    """Return the sample of each record: if two draws have one number, all get new numbers.

    :param requests: the request of each record under the current settings.
    :param paths: the scope path of each.
    """
    samples = [
        record.sample if record.sample is None else f"{path}{record.sample[len(record.scope) :]}"
        for record, path in zip(records, paths, strict=True)
    ]
    draws: dict[str, list[int]] = {}  # by request and scope: positions of records
    for position, (record, request) in enumerate(zip(records, requests, strict=True)):
        if _draw(record.sample).isdecimal():
            request_key = key_of(record.kind, request, paths[position])
            draws.setdefault(request_key, []).append(position)
    for positions in draws.values():
        if len({samples[position] for position in positions}) < len(positions):
            for number, position in enumerate(positions):
                samples[position] = f"{paths[position]}#{number}"
    return samples


def _draw(sample: str | None) -> str:
    return (sample or "").partition("#")[2]


def _with_new_pointer(record: Record, keys: Mapping[str, str]) -> Record:
    """Return a record that points to the new key of its answer, if it points to one."""
    new_key = keys.get(target_key(record) or "")
    return record if new_key is None else record.replace(response=pointing_to(new_key))


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
    settings = _settings_of(header)
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
