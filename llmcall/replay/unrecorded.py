"""Calls that failed for good: a failure is not recorded, so a run that had one is not replayed as it was."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Failures", "process_failures"]

NAMED = 5  # scopes that a warning lists


class Failures:
    """Gather the calls of one run that failed for good, for a warning at its end."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._scopes: dict[str, int] = {}
        self._first = ""

    def add(self, scope: str, what: str) -> None:
        """Take in a call that failed for good.

        :param scope: its scope path; empty outside any.
        :param what: the call and its error, in words that hold no secret.
        """
        with self._lock:
            self._first = self._first or what
            self._scopes[scope] = self._scopes.get(scope, 0) + 1

    def take(self) -> tuple[dict[str, int], str]:
        """Return how many there were in each scope, and the first in words, and begin anew."""
        with self._lock:
            scopes, first = self._scopes, self._first
            self._scopes, self._first = {}, ""
        return scopes, first

    def warn(self, replay: str) -> None:
        """Log one warning where there was any, and begin anew.

        :param replay: what will not go as this run did.
        """
        scopes, first = self.take()
        if scopes:
            count = sum(scopes.values())
            import logging

            logging.getLogger("llmcall").warning(
                "%d %s failed for good (%s; the first: %s). A failure is not recorded, so a %s will not go as this "
                "run did: run it again, and only what is missing is asked",
                count, "call" if count == 1 else "calls", _listed(scopes.items()), first, replay,
            )  # fmt: skip

    def forget(self) -> None:
        """Begin anew without a warning."""
        self.take()


def _listed(scopes: Iterable[tuple[str, int]]) -> str:
    counted = sorted(scopes)
    named = [f"{count} in scope {scope!r}" if scope else f"{count} outside any scope" for scope, count in counted]
    return ", ".join(named[:NAMED]) + (f" and {len(named) - NAMED} scopes more" if len(named) > NAMED else "")


class _ProcessFailures(Failures):
    """Gather those of the whole process, and warn when it ends."""

    def __init__(self) -> None:
        super().__init__()
        self._registered = False

    def add(self, scope: str, what: str) -> None:
        """Take in a call that failed for good; see :meth:`Failures.add`."""
        if not self._registered:
            import atexit
            import logging  # its own end comes after ours, if it is imported before

            self._registered = bool(logging)
            atexit.register(self.warn, "replay")
        super().add(scope, what)


process_failures = _ProcessFailures()
