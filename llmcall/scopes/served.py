"""The warning for a forgotten scope."""

from __future__ import annotations

from ..notices import warn_once
from ..system import process_lock
from ..types import Request

_lock = process_lock(__name__)
# The answers that served a request, by the file or folder they are kept in and their key; ``None``
# once one did so twice.
_served: set[tuple[object, str]] | None = set()


def note_served(request: Request, kept_in: object) -> None:
    """Note that an answer served a chat request that did not ask for it.

    Warns, once in a process, if it does so for the second time outside any scope.

    :param request: one that was answered from a record, or by the answer of a call under way.
    :param kept_in: the path of the cassette or cache that keeps the answer.
    """
    global _served
    if request.sample is not None or request.asked.get("temperature") == 0:
        return
    answer = kept_in, request.cache_key
    with _lock:
        if _served is None:
            return
        if answer not in _served:
            _served.add(answer)
            return
        _served = None
    warn_once(
        "outside any scope, one answer serves every identical request, whoever asks: give each actor a "
        "scope (with llmcall.scope(name): …) or each draw a number (sample=1) if each is to have its own answer",
        about=note_served,
    )


def forget_served() -> None:
    """Forget which answers served a request."""
    global _served
    with _lock:
        _served = set()
