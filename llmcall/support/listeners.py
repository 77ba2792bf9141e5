"""Listeners: all that hears of the calls of a process, in one list.

The road of a call names no feature: usage, the report of failures, warnings, an arm's records, a test's
guard and a packing's log are listeners. An answer is stored before any of them hears of it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from .sender import LLMCALL, sent_by


class Listener:
    """Hears of calls and cassettes; a subclass overrides what it needs.

    A :class:`~llmcall.CacheMissError` that ``asks`` raises refuses the call, and what ``opens`` raises refuses
    the cassette. What another package's listener sends is nobody's record.
    """

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if cls.__module__.partition(".")[0] != __name__.partition(".")[0]:
            for name in vars(cls).keys() & vars(Listener).keys():
                if not name.startswith("_"):
                    setattr(cls, name, _sending_for_llmcall(vars(cls)[name]))

    def opens(self, cassette: Any) -> None:
        """A cassette opens; it has not read its file yet."""

    def closed(self, cassette: Any) -> None:
        """A cassette closed; it is not written yet."""

    def asks(self, call: Any) -> None:
        """A call has no recorded answer, and asks; recorded functions are left out."""

    def stored(self, call: Any, record: Any) -> None:
        """A call was answered, and the answer that counts is stored. This may run in an event loop."""

    def used(self, call: Any, amounts: dict[str, Any]) -> None:
        """A call used something, by column of :class:`~llmcall.types.Usage`; ``None`` is unknown."""

    def replayed(self, call: Any, record: Any, saved: float | None) -> None:
        """A call got a recorded answer, or several for the texts of embeddings; they cost ``saved`` USD."""

    def answered(self, call: Any, record: Any) -> None:
        """A record answers a call: a new one, or one that was recorded (``record.is_hit``)."""

    def failed(self, call: Any, error: BaseException, *, stream: bool) -> None:
        """A call ended without an answer: it failed, or its caller left."""

    def refused(self, call: Any, error: Exception) -> None:
        """A call may not ask, or not get what is recorded."""

    def under_way(self) -> list[Any]:
        """A report is made: return an :class:`~llmcall.traffic.usage.UnderWay` for each endpoint of which
        it says how many calls run.
        """
        return []

    def unrecorded(self, scope: str, words: str, reason: str) -> None:
        """A call left no record, so a replay will differ from this run."""


def _sending_for_llmcall(method: Callable[..., Any]) -> Callable[..., Any]:
    """Return a method in which llmcall sends. Only other packages' pay for that: a hit hears of it, too."""

    @functools.wraps(method)
    def called(*args: Any, **kwargs: Any) -> Any:
        with sent_by(LLMCALL):
            return method(*args, **kwargs)

    return called


listeners: list[Listener] = []
