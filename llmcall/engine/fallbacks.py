"""Fallbacks: when a prompt does not fit a model's context window, a model with a larger one is asked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..errors import ContextLengthError
from ..requests.keys import key_of
from ..types import record_of
from .effects import Do

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ..cache.cache import ResponseCache
    from ..types import Record, Request
    from .effects import Flow
    from .flow import Answer

__all__ = ["asked_of", "followed", "larger", "tried_in_turn"]

MOST_STEPS = 100  # of pointers that lead to one another; no list of fallbacks is so long


def asked_of(request: Request, model: str) -> Request:
    """Return the same request to another model."""
    asked = {**request.asked, "model": model}
    key = key_of(request.kind, asked, request.sample)
    return request._replace(model=model, asked=asked, body={**request.body, "model": model}, cache_key=key)


def larger(models: Sequence[str], window: int | None, window_of: Callable[[str], int | None]) -> list[str]:
    """Return the models whose context window may be larger than a window; an unknown one may."""
    return [model for model in models if not window or (window_of(model) or window + 1) > window]


def tried_in_turn(
    first: Request,
    models: Sequence[str],
    ask: Callable[[Request, bool], Flow[Answer]],
    cache: ResponseCache | None,
    mode: str,
) -> Flow[Answer]:
    """Ask the first request, and while the context is too long the same of the next model.

    :param models: the models to fall back to, in order.
    :param ask: answers a request; its second argument tells whether another model is left to try.
    :param cache: where the first request's record points to the answer's, stored under the model that gave it.
    """
    left = [first, *(asked_of(first, model) for model in models)]
    while True:
        request = left.pop(0)
        try:
            found = yield from ask(request, bool(left))
        except ContextLengthError as error:
            if not left:
                raise
            _log().warning("%s: the context is too long (%s); %s is asked instead", request.model, error, left[0].model)
            continue
        if request is not first and cache is not None:
            yield _pointing(record_of(first, {"fallback": request.cache_key}), cache, mode)
        return found


def _pointing(pointer: Record, cache: ResponseCache, mode: str) -> Do:
    return Do(lambda: cache.store(pointer, mode=mode))


def followed(record: Record | None, find: Callable[[str], Record | None]) -> Record | None:
    """Return the record that a pointer leads to (or is no pointer itself), ``None`` where it leads nowhere.

    :param find: gives the record of a key, or ``None``.
    """
    found = record
    for _ in range(MOST_STEPS):
        if found is None or "fallback" not in found.response or found.kind != "chat":
            return found
        found = find(str(found.response["fallback"]))
    return None


def _log() -> Any:
    import logging

    return logging.getLogger("llmcall")
