"""The warning for a forgotten scope: outside any, equal requests share one answer."""

from __future__ import annotations

from typing import Any

from ..notices import warn_once
from ..system import process_lock
from ..types import Request

_lock = process_lock(__name__)
# The answers that were given to a request, each by the path of its cassette or cache and its key;
# None once the warning is out.
_given: set[tuple[object, str]] | None = set()


def warn_of_shared_answers(request: Request, store: Any) -> None:
    """Warn once in a process if two requests outside any scope get one answer, except at a temperature
    of 0.

    :param request: a request that gets a recorded answer, or that of a call under way.
    :param store: the cassette or cache that keeps the answer.
    """
    global _given
    if request.sample is not None or request.asked.get("temperature") == 0:
        return
    answer = store.path, request.cache_key
    with _lock:
        if _given is None:
            return
        if answer not in _given:
            _given.add(answer)
            return
        _given = None
    warn_once(
        "outside any scope, all equal requests share one answer. For separate answers, open a scope for each actor "
        "(with llmcall.scope(name): …) or number the draws (sample=1, sample=2)",
        about=warn_of_shared_answers,
    )


def forget_given_answers() -> None:
    """Forget which answers were given to a request."""
    global _given
    with _lock:
        _given = set()
