"""Calls that left no record, reported in the log when the run ends."""

from __future__ import annotations

import functools
import sys
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple

from ..errors import APIError, BudgetExceededError, CacheMissError, LLMCallError, ScopeError
from .display import OUTSIDE_ANY_SCOPE, counted, natural
from .listeners import listeners
from .notices import notice
from .system import after_fork_in_child, at_exit

# Why a call left no record, in words that follow "1 call".
FAILED = "failed"
ABANDONED = "ended before the whole answer arrived"
MISSED = "had no recorded answer and raised CacheMissError"
UNSCOPED = "had no clear scope and raised ScopeError"
OVER_BUDGET = "had no budget left and raised BudgetExceededError"
REFUSED = (MISSED, UNSCOPED)
REASONS: dict[type[LLMCallError], str] = {
    APIError: FAILED,
    CacheMissError: MISSED,
    ScopeError: UNSCOPED,
    BudgetExceededError: OVER_BUDGET,
}

FIX = "Fix the cause and rerun"
NOTHING_WRITTEN = f"Nothing was written. {FIX}"
RUN_AGAIN = FIX + "{how}; only missing answers are requested"
MOST_SCOPES = 5  # that a warning lists


class UnrecordedAnswer(APIError):
    """A carrier of an unrecordable answer to the program; it is not a failure."""


class UnrecordedResult(LLMCallError):
    """A carrier of a recorded function's result in which a call failed; it is unrecorded, and not a failure.

    :param value: the result.
    """

    def __init__(self, message: str = "", value: object = None) -> None:
        super().__init__(message)
        self.value = value


_failed_inside: ContextVar[list[LLMCallError] | None] = ContextVar(
    "llmcall_failed_inside", default=None
)


@contextmanager
def failed_inside() -> Iterator[list[LLMCallError]]:
    """Provide the errors of the calls that fail in a block, with what inherits its context."""
    failed: list[LLMCallError] = []
    before = _failed_inside.set(failed)
    try:
        yield failed
    finally:
        _failed_inside.reset(before)


def note_inside(error: BaseException) -> None:
    """Note a call's error for the block of :func:`failed_inside` around it."""
    failed = _failed_inside.get()
    if failed is not None and isinstance(error, LLMCallError):
        failed.append(error)


def is_abandoned(error: BaseException) -> bool:
    """Return whether an exception means that nobody waits for the answer: its reader left, or the
    call was cancelled.
    """
    return not isinstance(error, (Exception, KeyboardInterrupt))


def is_failure(error: BaseException) -> bool:
    """Return whether an exception means that a call failed: the API's, or one that is not llmcall's, such
    as a function's own.
    """
    is_own = isinstance(error, LLMCallError) and not isinstance(error, APIError)
    is_own = is_own or isinstance(error, UnrecordedAnswer)
    return isinstance(error, Exception) and not is_own


class Progress:
    """The progress of a call.

    :ivar was_sent: whether it was sent to a model.
    :ivar is_counted: whether usage counts it as answered.
    """

    __slots__ = ("is_counted", "was_sent")

    def __init__(self) -> None:
        self.was_sent = False
        self.is_counted = False

    @property
    def is_waiting(self) -> bool:
        """Return whether it was sent, and is not answered."""
        return self.was_sent and not self.is_counted


class UnrecordedCall(NamedTuple):
    """A call that left no record.

    :param scope: its scope path; empty outside any scope.
    :param description: the call and its error, in words without secrets.
    :param was_sent: whether the request was sent; ``None`` if it never would be.
    """

    scope: str
    description: str
    was_sent: bool | None


class Failures:
    """The calls of one run that left no record, for a warning at its end, and how many were sent.

    :param whole: counts what is sent, too.
    :ivar asked: how many requests were sent; one that is sent again is a retry.
    :ivar refused: how many calls were refused.
    """

    def __init__(self, whole: Failures | None = None) -> None:
        self.asked = 0
        self.refused = 0
        self._whole = whole
        self._lock = threading.RLock()
        self._by_reason: dict[str, dict[object, UnrecordedCall]] = {}  # by reason and key
        self._reported = Counter[object]()  # calls that were reported, by whether they were sent
        # Calls to models that have not ended, and those that Ctrl-C ended; of streams, with scope and description.
        self._under_way: dict[Progress, tuple[str, str] | None] = {}

    @property
    def unrecorded(self) -> int:
        """Return how many calls were sent and left no record, or have no answer yet."""
        with self._lock:
            waiting = sum(progress.is_waiting for progress in self._under_way)
            return self._count(was_sent=True) + waiting

    @property
    def unsent(self) -> int:
        """Return how many calls failed or were left before they were sent."""
        return self._count(was_sent=False)

    def _count(self, *, was_sent: bool) -> int:
        with self._lock:
            calls = [call for rows in self._by_reason.values() for call in rows.values()]
            return self._reported[was_sent] + sum(call.was_sent is was_sent for call in calls)

    def note_sent(self, number: int = 1) -> None:
        """Count requests that are sent for the first time."""
        with self._lock:
            self.asked += number
        if self._whole is not None:
            self._whole.note_sent(number)

    def take_asked(self) -> int:
        """Return and forget how many requests were sent."""
        with self._lock:
            asked, self.asked = self.asked, 0
            return asked

    def add(
        self,
        scope: str,
        description: str,
        reason: str = FAILED,
        *,
        was_sent: bool | None = None,
        key: object = None,
    ) -> None:
        """Add a call that left no record.

        :param scope: its scope path; empty outside any scope.
        :param description: the call and its error, in words without secrets.
        :param reason: ``FAILED``, ``ABANDONED``, ``MISSED``,
            ``UNSCOPED`` or ``OVER_BUDGET``.
        :param was_sent: whether the request was sent; ``None`` if it never would be.
        :param key: the key of a call that may be made again, or a reference to its error: added twice, it
            counts once, and not at all after :meth:`recover`.
        """
        for listener in listeners:
            listener.unrecorded(scope, description, reason)
        if self is process_failures:
            _warn_at_exit()
        with self._lock:
            calls = self._by_reason.setdefault(reason, {})
            if key not in calls:
                call = UnrecordedCall(scope, description, was_sent)
                calls[object() if key is None else key] = call
                self.refused += reason in REFUSED

    def recover(self, key: object) -> bool:
        """Forget a call that failed: it is made again, or its failure was the answer; return whether one had."""
        with self._lock:
            return self._by_reason.get(FAILED, {}).pop(key, None) is not None

    def count_refused(self) -> None:
        """Count a refused call that its caller knows about."""
        with self._lock:
            self.refused += 1

    def begin(self, progress: Progress, stream: tuple[str, str] | None) -> None:
        """Note that a call to a model begins.

        :param progress: how far it has come, now and later.
        :param stream: the scope path and the description of one that is read piece by piece: it counts as
            ``ABANDONED`` unless :meth:`end` follows.
        """
        if stream is not None and self is process_failures:
            _warn_at_exit()
        with self._lock:
            self._under_way[progress] = stream

    def end(self, progress: Progress, error: BaseException | None = None) -> None:
        """Note that a call to a model ended; only the first time counts.

        :param progress: of :meth:`begin`.
        :param error: with which it ended. A call that Ctrl-C ended still counts as sent.
        """
        if isinstance(error, KeyboardInterrupt):
            with self._lock:
                self._under_way[progress] = None  # without a warning: the user did it
            return
        self._end(progress, is_early=error is not None and is_abandoned(error))

    def _end(self, progress: Progress, *, is_early: bool) -> None:
        with self._lock:
            stream = self._under_way.pop(progress, None)
            if is_early and stream is not None:
                self.add(*stream, ABANDONED, was_sent=progress.was_sent)

    def take(self) -> list[tuple[str, list[UnrecordedCall]]]:
        """Return and forget what was added: for each reason, its calls."""
        with self._lock:
            by_reason = self._by_reason
            self._forget(*by_reason)
        return [
            (reason, [*calls.values()])
            for reason, calls in sorted(by_reason.items(), reverse=True)
            if calls
        ]

    def counts(self) -> dict[str, int]:
        """Return the number of calls for each reason; what has not ended counts as ``ABANDONED``."""
        with self._lock:
            self._abandon_all()
            return {reason: len(calls) for reason, calls in self._by_reason.items() if calls}

    def _abandon_all(self) -> None:
        with self._lock:
            streams = [progress for progress, stream in self._under_way.items() if stream]
            for progress in streams:
                self._end(progress, is_early=True)

    def warn(self, advice: str = RUN_AGAIN.format(how=""), *, place: str = "") -> None:
        """Log and forget what was added, a warning for each reason.

        :param advice: how to record what is missing; a refused call needs another cause fixed.
        :param place: the file that lacks the answers, and a colon; empty for the cache.
        """
        self._abandon_all()
        for reason, calls in self.take():
            number = counted(len(calls), "call")
            scopes = _by_scope(Counter(call.scope for call in calls))
            outcome = (
                f". {FIX}"
                if reason in REFUSED
                else f". A replay will differ from this run. {advice}"
            )
            first = calls[0].description
            notice("%s%s %s (%s)%s. The first: %s", place, number, reason, scopes, outcome, first)

    def forget(self, *reasons: str) -> None:
        """Forget what was added for some reasons, or for all."""
        with self._lock:
            if not reasons or ABANDONED in reasons:
                self._abandon_all()
            self._forget(*(reasons or self._by_reason))

    def _forget(self, *reasons: str) -> None:
        kept = {reason: rows for reason, rows in self._by_reason.items() if reason not in reasons}
        for reason in self._by_reason.keys() - kept:
            self._reported.update(call.was_sent for call in self._by_reason[reason].values())
        self._by_reason = kept


def _by_scope(counts: Mapping[str, int]) -> str:
    """Return numbers of calls by scope path in words."""
    entries = [
        f"{number} in scope {path!r}" if path else f"{number} {OUTSIDE_ANY_SCOPE}"
        for path, number in sorted(counts.items(), key=lambda count: natural(count[0]))
    ]
    text = ", ".join(entries[:MOST_SCOPES])
    more = len(entries) - MOST_SCOPES
    return f"{text} and {counted(more, 'more scope')}" if more > 0 else text


# The calls that no cassette records, until the process ends; docs/explanation/scale.rst has the bytes of each.
process_failures = Failures()


@functools.cache
def _warn_at_exit() -> None:
    at_exit(_warn)


def _warn() -> None:
    """Warn at the end of the process, but not of what its user knows: of a single call whose error has just
    ended it, or of calls that Ctrl-C ended.
    """
    error = getattr(sys, "last_value", None)
    if isinstance(error, KeyboardInterrupt):
        process_failures.forget(ABANDONED)
    for kind, reason in REASONS.items():
        if isinstance(error, kind) and process_failures.counts().get(reason) == 1:
            process_failures.forget(reason)
    process_failures.warn()


def _forget_failures() -> None:
    """Forget, in a forked process, what its parent will report."""
    vars(process_failures).update(vars(Failures()))
    _warn_at_exit.cache_clear()


after_fork_in_child(_forget_failures)
