"""Requests that neither the cassette nor the cache answers."""

from __future__ import annotations

import shlex
from contextlib import suppress
from typing import TYPE_CHECKING

from ...errors import CacheError, CacheMissError

if TYPE_CHECKING:
    from ...config.settings import Settings
    from ...keys.request import Request
    from ..cache.cache import ResponseCache
    from ..misses.report import Miss
    from ..misses.search import Source
    from .cassette import Cassette


def miss_error(
    request: Request,
    *,
    settings: Settings,
    cache: ResponseCache,
    cassette: Cassette | None,
    bypasses_cache: bool = False,
) -> CacheMissError:
    """Return the error for a request that is not recorded and may not be asked. Its explanation is made
    at first read.

    :param settings: the settings that the request was made with.
    :param cache: the disk cache.
    :param cassette: the cassette that is open, or ``None``.
    :param bypasses_cache: whether the call bypasses the disk cache.
    """
    from ..misses.report import cache_remedy, explain, headline

    source = None if bypasses_cache else cache.search_source()
    remedy = cache_remedy(settings, bypasses_cache=bypasses_cache)
    if cassette is not None:
        source = _search_source(cassette)
        remedy = remedy if cassette.may_record else cassette_remedy(cassette)

    def explanation() -> Miss:
        """Explain the miss, and say so if the disk cache has the answer but was not asked."""
        first_cause = ""
        with suppress(CacheError):
            if (bypasses_cache or cassette is not None) and cache.get(
                request, mode="replay"
            ) is not None:
                first_cause = f"the cache {cache.path} has the answer, but was not searched"
        return explain(request, source, settings, remedy, first_cause)

    return CacheMissError(headline(request), explain=explanation)


def _search_source(cassette: Cassette) -> Source:
    """Return the records of a cassette's file as a source for a search."""
    from ..misses.search import Source

    stored = cassette.tape.stored
    state = "" if cassette.is_complete else "whose recording is incomplete"
    if not stored:
        state = "which is empty" if cassette.path.exists() else "which does not exist"
    rekey = f"llmcall cassette rekey {shlex.quote(str(cassette.path))}"
    name = f"the cassette {cassette.path}{state and f', {state}'}"
    return Source(name, stored, rekey, cassette.is_complete, cassette.tape.log.has_used)


def cassette_remedy(cassette: Cassette) -> str:
    """Return how to record missing answers: code or a command, and on the next line its effect."""
    if not cassette.is_of_this_process():
        return "make the call in the process that opened the cassette: a forked process is not recorded"
    mode = cassette.owner.mode_that_adds(cassette.path)
    moves = ", moves unused ones to the disk cache" if mode == "update" else ""
    return (
        f"{cassette.owner.how_to_record(cassette.path, mode)}\nkeeps recorded answers{moves} and asks only for "
        f"missing ones (the mode {cassette.mode!r} allows no calls)"
    )
