"""Calls that left no record, reported in the log when the run ends."""

from __future__ import annotations

import functools
import sys
import threading
from collections import Counter
from collections.abc import Mapping

from ..errors import APIError, BudgetExceededError, CacheMissError, LLMCallError, ScopeError
from .display.formatting import OUTSIDE_ANY_SCOPE, counted, natural
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

ADVICE = {
    FAILED: "Fix the cause and {again}, which asks only for what is missing. Until then, a {replay} differs from "
    "this run",
    ABANDONED: "Read each answer to its end, cancel no call, and {again}: a {replay} that asks for one raises "
    "CacheMissError, or gets the answer of an equal call",
    MISSED: "To record what is missing, run it again with the cassette in the mode 'update' (without a "
    "cassette: with MODE = auto below [Cache]). If your code caught the error, this run is incomplete",
    UNSCOPED: "In your own threads and processes, run the function with llmcall.map or pass llmcall.bind(function). "
    "If your code caught the error, this run is incomplete",
    OVER_BUDGET: "Raise the budget and {again}, which asks only for what is missing: a {replay} raises CacheMissError "
    "there",
}
MOST_SCOPES = 5  # that a warning lists


class UnrecordedAnswer(APIError):
    """Carries an unrecordable answer to the program; it is not a failure."""


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


class Failures:
    """The calls of one run that left no record, for a warning at its end.

    :ivar refused: how many calls were refused, including those that were reported before.
    :ivar unsent: how many of these had no recorded answer or no clear scope; usage counts them as
        errors.
    :ivar unanswered: how many calls that a model was asked for failed or were left, likewise.
    """

    def __init__(self) -> None:
        self.refused = 0
        self.unsent = 0
        self.unanswered = 0
        self._lock = threading.RLock()
        # By reason and key: the scope path, the call in words, and whether it is unanswered.
        self._by_reason: dict[str, dict[object, tuple[str, str, bool]]] = {}
        # Streams that have not ended: scope path and words.
        self._under_way: dict[object, tuple[str, str]] = {}

    def add(
        self,
        scope: str,
        description: str,
        reason: str = FAILED,
        *,
        asks_model: bool = True,
        key: object = None,
    ) -> None:
        """Add a call that left no record.

        :param scope: its scope path; empty outside any scope.
        :param description: the call and its error, in words without secrets.
        :param reason: ``FAILED``, ``ABANDONED``, ``MISSED``,
            ``UNSCOPED`` or ``OVER_BUDGET``.
        :param asks_model: whether a model was asked for it.
        :param key: the key of a call that may be made again, or a reference to its error: added twice, it
            counts once, and not at all after :meth:`recover`.
        """
        for listener in listeners:
            listener.unrecorded(scope, description, reason)
        if self is process_failures:
            _warn_at_exit()
        is_unanswered = asks_model and reason not in REFUSED
        with self._lock:
            calls = self._by_reason.setdefault(reason, {})
            if key in calls:
                return
            calls[object() if key is None else key] = scope, description, is_unanswered
            self.unanswered += is_unanswered
            if reason in REFUSED:
                self.refused += 1
                self.unsent += 1

    def recover(self, key: object) -> None:
        """Forget a call that failed: it was made again and got its answer, or its failure was the answer."""
        with self._lock:
            _, _, was_unanswered = self._by_reason.get(FAILED, {}).pop(key, ("", "", False))
            self.unanswered -= was_unanswered

    def count_refused(self) -> None:
        """Count a refused call that its caller knows about."""
        with self._lock:
            self.refused += 1

    def begin(self, scope: str, description: str) -> object:
        """Note that something is read piece by piece; it counts as ``ABANDONED`` unless :meth:`end`
        follows.

        :returns: the token for :meth:`end`.
        """
        if self is process_failures:
            _warn_at_exit()
        token = object()
        with self._lock:
            self._under_way[token] = scope, description
        return token

    def end(self, token: object, *, is_early: bool = False) -> None:
        """Note that the reading ended; only the first call for a token counts.

        :param token: of :meth:`begin`.
        :param is_early: whether it ended early.
        """
        with self._lock:
            call = self._under_way.pop(token, None)
            if is_early and call is not None:
                self.add(*call, ABANDONED)

    def take(self) -> list[tuple[str, dict[str, int], str]]:
        """Return and forget what was added: for each reason, the number of calls by scope path, and
        the first call in words.
        """
        with self._lock:
            by_reason = self._by_reason
            self._by_reason = {}
        return [
            (reason, Counter(scope for scope, *_ in calls.values()), next(iter(calls.values()))[1])
            for reason, calls in sorted(by_reason.items(), reverse=True)
            if calls
        ]

    def counts(self) -> dict[str, int]:
        """Return the number of calls for each reason; what has not ended counts as ``ABANDONED``."""
        with self._lock:
            self._abandon_all()
            return {reason: len(calls) for reason, calls in self._by_reason.items() if calls}

    def _abandon_all(self) -> None:
        for token in list(self._under_way):
            self.end(token, is_early=True)

    def warn(self, replay: str, again: str = "run it again") -> None:
        """Log and forget what was added, a warning for each reason.

        :param replay: what will differ from this run, to follow "a".
        :param again: how to record what is missing.
        """
        self._abandon_all()
        for reason, counts, first in self.take():
            calls = counted(sum(counts.values()), "call")
            advice = ADVICE[reason].format(replay=replay, again=again)
            notice("%s %s (%s). %s. The first: %s", calls, reason, _by_scope(counts), advice, first)

    def forget(self, *reasons: str) -> None:
        """Forget what was added for some reasons, or for all."""
        with self._lock:
            for reason in reasons or tuple(ADVICE):
                self._by_reason.pop(reason, None)
            if not reasons or ABANDONED in reasons:
                self._under_way.clear()


def _by_scope(counts: Mapping[str, int]) -> str:
    """Return numbers of calls by scope path in words."""
    entries = [
        f"{number} in scope {path!r}" if path else f"{number} {OUTSIDE_ANY_SCOPE}"
        for path, number in sorted(counts.items(), key=lambda count: natural(count[0]))
    ]
    text = ", ".join(entries[:MOST_SCOPES])
    more = len(entries) - MOST_SCOPES
    return f"{text} and {counted(more, 'more scope')}" if more > 0 else text


# The calls that no cassette records, until the process ends; the page of limits has the bytes of each.
process_failures = Failures()


@functools.cache
def _warn_at_exit() -> None:
    at_exit(_warn)


def _warn() -> None:
    """Warn at the end of the process, but not of a single call whose error has just ended it."""
    error = getattr(sys, "last_value", None)
    for kind, reason in REASONS.items():
        if isinstance(error, kind) and process_failures.counts().get(reason) == 1:
            process_failures.forget(reason)
    process_failures.warn("replay")


def _forget_failures() -> None:
    """Forget, in a forked process, what its parent will report."""
    vars(process_failures).update(vars(Failures()))
    _warn_at_exit.cache_clear()


after_fork_in_child(_forget_failures)
