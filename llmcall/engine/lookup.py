"""The recorded answer of a call: from the cassette, then from the cache."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from ..cassettes.misses import guards, missed
from ..errors import CacheMissError
from ..notices import warn_once
from ..types import FROM_CACHE, Record
from .refusals import note_refused, words

if TYPE_CHECKING:
    from collections.abc import Callable

    from .prepared_call import PreparedCall

MOST_POINTERS = 100  # that lead to one another; no list of fallbacks is so long


def lookup(call: PreparedCall) -> tuple[PreparedCall, Record | None]:
    """Return a call with its recorded answer, or with ``None`` where a call is allowed.

    Past answers that it refuses, the call is the draw that its own one is recorded as.

    :raises CacheMissError: where there is none, and the cassette (where none is open, the mode)
        forbids to ask.
    """
    cassette = call.cassette
    if cassette is not None:
        find = functools.partial(cassette.find, place=call.place)
        record = followed(find(call.request), find)
        if record is not None:
            call.note_replayed(record)
            if call.refuses(record):
                return lookup(call.anew())
            cassette.count_replay()
            return call, record
    record = stored(call)
    if record is None:
        if not cassette.asks if cassette else call.resolved.settings.cache_mode == "replay":
            raise _missed(call)
        for guard in (
            guards if call.request.kind != "function" else ()
        ):  # what a function asks of models is guarded
            guard(call.client, cassette)
        return call, None
    if cassette is None:
        call.note_replayed(record)
    else:
        record = call.keep(record, FROM_CACHE)
    return (
        lookup(call.anew())
        if call.request.expected is not None and call.refuses(record)
        else (call, record)
    )


def stored(call: PreparedCall) -> Record | None:
    """Return the answer that the disk cache holds, or ``None`` if it holds none or may not be
    used.
    """
    if not call.reads_cache:
        return None
    mode = call.resolved.settings.cache_mode
    get = functools.partial(call.resolved.cache.get, mode=mode)
    record = followed(get(call.request), get)
    if record is not None and record.host is not None:
        _check_host(call, record, record.host)
    return record


def _check_host(call: PreparedCall, record: Record, host: str) -> None:
    """Warn once if a model's record comes from another host than those that serve the model now."""
    checked = call.resolved.hosts
    if (call.request.model, host) in checked:
        return
    checked.add((call.request.model, host))
    model = record.request.get("model", "")
    hosts = call.client.hosts(model)
    if host not in hosts:
        warn_once(
            f"answers of {model} recorded from {host} are used for {', '.join(sorted(hosts))}; "
            "[Cache] NAMESPACE keeps servers apart that differ"
        )


_first_miss: list[str] = []


def _missed(call: PreparedCall) -> CacheMissError:
    """Return the error of a request that is not recorded and may not be asked, noted as
    :func:`note_refused` does.

    Where another was missed before in this process, it says so: what a program swallowed may have
    led to this one.
    """
    resolved, name = call.resolved, call.request.model or call.client.name
    error = missed(
        call.request,
        settings=resolved.settings,
        cache=resolved.cache,
        cassette=call.cassette,
        past_cache=call.options.cache is False,
    )
    if _first_miss:
        error.first = _first_miss[0]
    else:
        _first_miss.append(error.args[0])
    note_refused(words(call.request, name), name, call.client.meter, error)
    return error


def followed(record: Record | None, find: Callable[[str], Record | None]) -> Record | None:
    """Return the record that a pointer leads to (or is no pointer itself), ``None`` where it leads
    nowhere.

    :param find: gives the record of a key, or ``None``.
    """
    found = record
    for _ in range(MOST_POINTERS):
        if found is None or "fallback" not in found.response or found.kind != "chat":
            return found
        found = find(str(found.response["fallback"]))
    return None
