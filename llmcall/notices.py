"""What the user is told in the log: once in a process, or at the end of a run."""

from __future__ import annotations

import functools
import itertools
import threading
import time
from typing import TYPE_CHECKING

from .display.formatting import counted
from .system import after_fork_in_child, at_exit

if TYPE_CHECKING:
    import logging
    from collections.abc import Iterable

_said: dict[object, object] = {}
_kept: dict[str, None] | None = None  # warnings, if they are kept
_counts: dict[object, tuple[float, itertools.count[int]]] = {}  # when each count began
COUNTED_FOR = (
    60.0  # seconds after which what goes on is counted from 1 on again, and so told again in full
)


def warn_once(message: str, *, about: object = None) -> bool:
    """Log a warning to the logger ``llmcall`` unless it was logged before; return whether it was
    not.

    :param message: the whole sentence; it must hold no secret.
    :param about: what is warned of only once, whatever the words; ``None`` means the words
        themselves.
    """
    if told := is_new(message if about is None else about):
        notice("%s", message)
    return told


def notice(message: str, *args: object) -> None:
    """Log a warning to the logger ``llmcall``, and keep it if a command says it at its end.

    :param message: as of ``Logger.warning``, with its arguments; it must hold no secret.
    """
    if _kept is not None:
        _kept[message % args if args else message] = None
    logger().warning(message, *args, stacklevel=2)


def keep_notices() -> None:
    """Keep every warning from now on: a program may take over logging, and hide them."""
    global _kept
    _kept = {}


def kept_notices() -> list[str]:
    """Return each warning that was kept, once, in their order."""
    return list(_kept or ())


def how_often(subject: object) -> int:
    """Count something once more; return how often it was counted within a minute, from 1 on."""
    now = time.monotonic()
    begun, numbers = _counts.setdefault(subject, (now, itertools.count(1)))
    if now - begun >= COUNTED_FOR:
        _, numbers = _counts[subject] = now, itertools.count(1)
    return next(numbers)


def is_new(subject: object) -> bool:
    """Return whether nothing was said of a subject yet: true for one of any threads that ask at
    once.
    """
    mine = object()
    return _said.setdefault(subject, mine) is mine


def forget_notices() -> None:
    """Let everything be said once more, and counted from 1 on."""
    _said.clear()
    _counts.clear()


def logger() -> logging.Logger:
    """Return the logger ``llmcall``."""
    import logging  # costs 4 ms, which a run without notices need not pay

    return logging.getLogger("llmcall")


FAILED = "failed for good"
LEFT = "ended before the whole answer had come"
REFUSED = "had no permission to ask, or no scope"
SENTENCES = {
    FAILED: "A failure is not recorded, so a {replay} will not go as this run did: mend the cause and {again}, and "
    "only what is missing is asked",
    LEFT: "What was not received is not recorded, so a {replay} may not go as this run did: read each answer to its "
    "end and cancel no call, or {again}, and only what is missing is asked",
    REFUSED: "Where the program caught the error it went on without an answer, and did less than it seems",
}
NAMED = 5  # scopes that a warning lists


def is_left(error: BaseException) -> bool:
    """Return whether an exception says that nobody wants the answer any more: its reader left, or
    it was cancelled.
    """
    return not isinstance(error, (Exception, KeyboardInterrupt))


class Failures:
    """Gather the calls of one run that left no record, for a warning at its end.

    :ivar refused: how many calls were refused, those that were told before included.
    """

    def __init__(self) -> None:
        self.refused = 0
        # the garbage collector may end an imap or a stream at any moment
        self._lock = threading.RLock()
        self._found: dict[
            str, tuple[str, dict[str, int]]
        ] = {}  # for each reason, the first, and how many in a scope
        self._begun: dict[object, tuple[str, str]] = {}

    def add(self, scope: str, what: str, why: str = FAILED) -> None:
        """Take in a call that left no record.

        :param scope: its scope path; empty outside any.
        :param what: the call and its error, in words that hold no secret.
        :param why: ``FAILED``, ``LEFT`` or ``REFUSED``.
        """
        if self is process_failures:
            _warn_at_exit()
        with self._lock:
            _, scopes = self._found.setdefault(why, (what, {}))
            scopes[scope] = scopes.get(scope, 0) + 1
        if why == REFUSED:
            self.count_refused()

    def count_refused(self) -> None:
        """Count a refused call of which whoever made it is told."""
        with self._lock:
            self.refused += 1

    def begin(self, scope: str, what: str) -> object:
        """Take in what is read piece by piece, which is told as ``LEFT`` unless it ends before the
        run does.

        :returns: what :meth:`end` knows it by.
        """
        if self is process_failures:
            _warn_at_exit()
        begun = object()
        with self._lock:
            self._begun[begun] = scope, what
        return begun

    def end(self, begun: object, *, left: bool = False) -> None:
        """Forget what was read to its end; take in what was left before."""
        with self._lock:
            found = self._begun.pop(begun, None)
            if left and found is not None:
                self.add(*found, LEFT)

    def take(self) -> list[tuple[str, dict[str, int], str]]:
        """Return, for each reason, how many there were in each scope, and the first in words, and
        begin anew.
        """
        with self._lock:
            found, self._found = self._found, {}
        return [
            (why, scopes, first) for why, (first, scopes) in sorted(found.items(), reverse=True)
        ]

    def counts(self) -> dict[str, int]:
        """Return how many there were for each reason, what has not ended among them."""
        with self._lock:
            self._leave_all()
            return {why: sum(scopes.values()) for why, (_, scopes) in self._found.items()}

    def _leave_all(self) -> None:
        for begun in list(self._begun):
            self.end(begun, left=True)

    def warn(self, replay: str, again: str = "run it again") -> None:
        """Log one warning for each reason that there was, and begin anew.

        :param replay: what will not go as this run did.
        :param again: how what is missing is recorded.
        """
        self._leave_all()
        for why, scopes, first in self.take():
            count = sum(scopes.values())
            notice(
                "%s %s (%s; the first: %s). %s",
                counted(count, "call"), why, _listed(scopes.items()), first,
                SENTENCES[why].format(replay=replay, again=again),
            )  # fmt: skip

    def forget(self, *reasons: str) -> None:
        """Forget what was taken in, or what was for some reasons."""
        reasons = reasons or tuple(SENTENCES)
        with self._lock:
            for why in reasons:
                self._found.pop(why, None)
            if LEFT in reasons:
                self._begun.clear()


def _listed(scopes: Iterable[tuple[str, int]]) -> str:
    counted = sorted(scopes)
    named = [
        f"{count} in scope {scope!r}" if scope else f"{count} outside any scope"
        for scope, count in counted
    ]
    return ", ".join(named[:NAMED]) + (
        f" and {len(named) - NAMED} scopes more" if len(named) > NAMED else ""
    )


process_failures = Failures()  # of the whole process


@functools.cache
def _warn_at_exit() -> None:
    at_exit(lambda: process_failures.warn("replay"))


def _begin_anew() -> None:
    """Leave to its parent, in a forked process, what the parent gathered."""
    vars(process_failures).update(vars(Failures()))
    _warn_at_exit.cache_clear()


after_fork_in_child(_begin_anew)
