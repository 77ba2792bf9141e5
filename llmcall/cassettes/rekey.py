"""A recording whose requests are written as the current settings ask them: with new keys.

Requests that differed only in what a normalizer leaves out are the same request then. In a scope they
are draws, numbered in the order of the calls, as a run under these settings numbers them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from ..config import resolve as config
from ..records.answers import same_answer
from ..records.header import NAMESPACES, header_of
from ..requests.keys import key_of
from ..requests.rekeying import under_settings
from ..types import Record

Conflict = tuple[Record, Record]  # two answers to one request


class Rekeyed(NamedTuple):
    """What a recording holds under the current settings.

    :param settings: of its header.
    :param run: the options of its run, in the header, or ``None``.
    :param records: in the order of the calls.
    :param conflicts: the requests that have two answers now.
    :param changed: how many records have another key.
    :param drawn: how many of them have another draw.
    :param joined: how many records were left out, since others hold the same answer.
    """

    settings: dict[str, Any]
    run: dict[str, Any] | None
    records: list[Record]
    conflicts: list[Conflict]
    changed: int
    drawn: int
    joined: int


def rekeyed(
    settings: Mapping[str, Any],
    run: Mapping[str, Any] | None,
    records: Sequence[Record],
    choice: str = "keep",
    name_of: Callable[[Any], str | None] | None = None,
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
    header, options = _settings_now(settings), dict(run) if run is not None else None
    names = tuple(header.get("cache_normalize", ()))
    if options is not None and names:
        options["normalizers"] = list(names)
    with config.configured(cache_normalize=names, aliases=header.get("aliases", {})):
        present = config.settings()
        renewed = [(record, under_settings(record.request, present)) for record in records]
    samples = _samples(renewed, [_path(*each, name_of) for each in renewed])
    found: dict[str, Record] = {}
    keys: dict[str, str] = {}
    conflicts = []
    drawn = joined = 0
    for (record, request), sample in zip(renewed, samples, strict=True):
        key = keys[record.cache_key] = key_of(record.kind, request, sample)
        drawn += _draw(sample) != _draw(record.sample)
        new = record.replace(cache_key=key, request=request, sample=sample)
        earlier = found.setdefault(key, new)
        if earlier is new:
            continue
        joined += 1
        if not same_answer(earlier, new):
            conflicts.append((earlier, new))
            if choice == "replace":
                found[key] = new
    changed = sum(old != new for old, new in keys.items())
    pointed = [_pointing(record, keys) for record in found.values()]
    return Rekeyed(header, options, pointed, conflicts, changed, drawn, joined)


def _settings_now(recorded: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a header, with what the current ones say of keys."""
    present = header_of()
    normalize = dict.fromkeys([*_names(recorded), *_names(present)])
    said = {
        "cache_normalize": list(normalize),
        "aliases": {**recorded.get("aliases", {}), **present.get("aliases", {})},
        "cache_namespace": present.get("cache_namespace"),
        NAMESPACES: present.get(NAMESPACES),
    }
    merged = {**recorded, **said}
    return {name: value for name, value in merged.items() if value not in (None, [], {}, "")}


def _names(header: Mapping[str, Any]) -> Iterable[str]:
    return header.get("cache_normalize") or ()


def _path(
    record: Record, request: Mapping[str, Any], name_of: Callable[[Any], str | None] | None
) -> str:
    """Return the scope path of a record; the name of its actor may come of its request."""
    above, slash, last = record.scope.rpartition("/")
    if name_of is None or last != name_of(_body(record.request)):
        return record.scope
    return f"{above}{slash}{name_of(_body(request))}"


def _body(request: Mapping[str, Any]) -> Any:
    return request.get("body", request)


def _samples(
    renewed: Sequence[tuple[Record, Mapping[str, Any]]], paths: Sequence[str]
) -> list[str | None]:
    """Return the sample of each record: if two draws have one number, all get new numbers.

    :param renewed: each record, and its request under the current settings.
    :param paths: the scope path of each.
    """
    samples = [
        record.sample if record.sample is None else f"{path}{record.sample[len(record.scope) :]}"
        for (record, _), path in zip(renewed, paths, strict=True)
    ]
    draws: dict[str, list[int]] = {}
    for number, (record, request) in enumerate(renewed):
        _, mark, draw = (record.sample or "").partition("#")
        if mark and draw.isdecimal():
            draws.setdefault(key_of(record.kind, request, paths[number]), []).append(number)
    for numbers in draws.values():
        if len({samples[number] for number in numbers}) < len(numbers):
            for position, number in enumerate(numbers):
                samples[number] = f"{paths[number]}#{position}"
    return samples


def _draw(sample: str | None) -> str:
    return (sample or "").partition("#")[2]


def _pointing(record: Record, keys: Mapping[str, str]) -> Record:
    """Return a record that points to the new key of its answer, if it points to one."""
    target = record.response.get("fallback") if record.kind == "chat" else None
    new = keys.get(str(target))
    return record if new is None else record.replace(response={"fallback": new})
