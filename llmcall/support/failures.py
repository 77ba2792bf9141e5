"""Calls that left no record. The log reports them when the run ends."""

from __future__ import annotations

import functools
import sys
import threading
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

from ..errors import APIError, BudgetExceededError, CacheMissError, LLMCallError, ScopeError
from .display import OUTSIDE_ANY_SCOPE, counted, natural
from .listeners import notify
from .notices import notice
from .system import after_fork_in_child, at_exit
from .waits import Progress

# Why a call left no record, in words that follow "1 call".
FAILED = "failed"
ABANDONED = "ended before the whole answer arrived"
MISSED = "had no recorded answer and raised CacheMissError"
UNSCOPED = "raised ScopeError"
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
    """An answer that cannot be recorded, on its way to the program. It is not a failure."""


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
    """Yield the errors of calls that fail in a block or in contexts derived from it."""
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
    """Return whether an exception means that nothing awaits the answer: its reader left, or the call was
    cancelled.
    """
    return not isinstance(error, (Exception, KeyboardInterrupt))


def is_failure(error: BaseException) -> bool:
    """Return whether an exception means that a call failed: an API error, or any error from outside llmcall,
    such as a function's own.
    """
    is_own = isinstance(error, LLMCallError) and not isinstance(error, APIError)
    is_own = is_own or isinstance(error, UnrecordedAnswer)
    return isinstance(error, Exception) and not is_own


class Counts:
    """The outcomes of the calls of a run or cassette: sums of known amounts by column, and how many are unknown.

    Beside the columns of :class:`~llmcall.types.Usage`, these are ``asked`` (sent for the first time; one that is
    sent again is a retry), ``recorded`` (of these), ``unsent`` and ``refused``.
    """

    def __init__(self) -> None:
        self.sums = Counter[str]()
        self.unknown = Counter[str]()

    def add(self, model: str, scope: str, amounts: Mapping[str, Any], arm: str) -> None:
        """Add amounts; the caller holds the lock."""
        for name, amount in amounts.items():
            if amount is None:
                self.unknown[name] += 1
            elif not isinstance(amount, str):
                self.sums[name] += amount


class UnrecordedCall(NamedTuple):
    """A call that left no record.

    :param scope: its scope path; empty outside any scope.
    :param description: the call and its error, in words without secrets.
    """

    scope: str
    description: str


problems: list[str] = []  # what ``llmcall run`` exits with 1 for, beside its failures


def report_problem(words: str) -> None:
    """Report what makes a run fail though all its calls have answers."""
    problems.append(words)
    notice("%s", words)


class Failures:
    """The calls of one run that left no record, for a warning at its end.

    :ivar is_used: ``True`` if it ever heard of a call: one that failed, or a stream.
    """

    def __init__(self) -> None:
        self.is_used = False
        self._lock = threading.RLock()
        # by reason and key; a stream is abandoned until it ends
        self._calls: defaultdict[str, dict[object, UnrecordedCall]] = defaultdict(dict)

    def add(
        self, scope: str, description: str, reason: str = FAILED, *, key: object = None
    ) -> None:
        """Add a call that left no record.

        :param scope: its scope path; empty outside any scope.
        :param description: the call and its error, in words without secrets.
        :param reason: ``FAILED``, ``ABANDONED``, ``MISSED``,
            ``UNSCOPED`` or ``OVER_BUDGET``.
        :param key: the key of a call that may be made again, or a reference to its error: added twice, it
            counts once, and not at all after :meth:`take_back`.
        """
        notify("unrecorded", scope, description, reason)
        if self is process_failures:
            _warn_at_exit()
        self.is_used = True
        with self._lock:
            calls = self._calls[reason]
            if key not in calls:
                calls[object() if key is None else key] = UnrecordedCall(scope, description)

    def take_back(self, key: object) -> bool:
        """Forget a call that failed, since it is made again; return whether there was one."""
        with self._lock:
            return self._calls[FAILED].pop(key, None) is not None

    def begin(self, progress: Progress, scope: str, description: str) -> None:
        """Note that a stream begins: it counts as ``ABANDONED`` unless :meth:`end` follows."""
        if self is process_failures:
            _warn_at_exit()
        self.is_used = True
        with self._lock:
            self._calls[ABANDONED][progress] = UnrecordedCall(scope, description)

    def end(self, progress: Progress, error: BaseException | None = None) -> None:
        """Note that a stream ended; only the first time counts.

        :param progress: of :meth:`begin`.
        :param error: with which it ended.
        """
        with self._lock:
            stream = self._calls[ABANDONED].pop(progress, None)
            if stream is not None and error is not None and is_abandoned(error):
                self.add(*stream, ABANDONED)

    def take(self) -> list[tuple[str, list[UnrecordedCall]]]:
        """Return and forget what was added: for each reason, its calls."""
        with self._lock:
            by_reason = sorted(self._calls.items(), reverse=True)
            self._calls.clear()
        return [(reason, [*calls.values()]) for reason, calls in by_reason if calls]

    def counts(self) -> dict[str, int]:
        """Return the number of calls for each reason."""
        with self._lock:
            return {reason: len(calls) for reason, calls in self._calls.items() if calls}

    def warn(self, advice: str = RUN_AGAIN.format(how=""), *, place: str = "") -> None:
        """Log and forget what was added, a warning for each reason.

        :param advice: how to record what is missing; a refused call needs another cause fixed.
        :param place: the file that lacks the answers, and a colon; empty for the cache.
        """
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
            for reason in reasons or [*self._calls]:
                self._calls.pop(reason, None)


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
    """Warn at the end of the process, but not of what the user already knows: a lone call whose error ended
    it, or calls that Ctrl-C ended.
    """
    error = getattr(sys, "last_value", None)
    if isinstance(error, KeyboardInterrupt):
        process_failures.forget(ABANDONED)
    for kind, reason in REASONS.items():
        if isinstance(error, kind) and process_failures.counts().get(reason) == 1:
            process_failures.forget(reason)
    process_failures.warn()


@after_fork_in_child
def _forget_failures() -> None:
    """Forget, in a forked process, what its parent will report."""
    vars(process_failures).update(vars(Failures()))
    _warn_at_exit.cache_clear()
