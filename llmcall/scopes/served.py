"""The warning for a forgotten scope."""

from __future__ import annotations

from ..notices import warn_once
from ..system import process_lock
from ..types import Request

_lock = process_lock(__name__)
# The answers that served a request, by the path of their cassette or cache and their key; None
# once the warning is out.
_served: set[tuple[object, str]] | None = set()


def note_served(request: Request, storage_path: object) -> None:
    """Note that a recorded answer, or that of a call under way, served a chat request.

    Warns once in a process if an answer serves two requests outside any scope.

    :param request: the request.
    :param storage_path: the path of the cassette or cache that keeps the answer.
    """
    global _served
    if request.sample is not None or request.asked.get("temperature") == 0:
        return
    answer = storage_path, request.cache_key
    with _lock:
        if _served is None:
            return
        if answer not in _served:
            _served.add(answer)
            return
        _served = None
    warn_once(
        "outside any scope, all identical requests get one answer: if each should get its own, give each actor a "
        "scope (with llmcall.scope(name): …) or each draw a number (sample=1)",
        about=note_served,
    )


def forget_served() -> None:
    """Forget which answers served a request."""
    global _served
    with _lock:
        _served = set()
