"""One call as its arguments describe it, before it is looked up or sent."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, NamedTuple

from ..road.flow import Answer
from ..road.retry import RetryPolicy
from ..types import record_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..config.current import Settings
    from ..replay.current import Tape
    from ..replay.scopes import Draw
    from ..types import Request
    from .options import Options

__all__ = ["Asked", "policy_of", "reader_of"]


class Asked(NamedTuple):
    """Hold one call as its arguments describe it.

    :param drawn: the draw that it takes, to be given back where it fails; ``None`` outside any scope.
    :param parse: reads the answer as the type that ``response_format`` was.
    :param tape: the cassette that is open, and the call's place in it.
    """

    request: Request
    options: Options
    drawn: Draw | None = None
    parse: Callable[[str], Any] | None = None
    tape: Tape | None = None

    def give_back(self) -> None:
        """Make the draw's number free again."""
        if self.drawn is not None:
            self.drawn.give_back()

    def end(self) -> None:
        """Note that the call has its answer."""
        if self.drawn is not None:
            self.drawn.end()

    @property
    def scope(self) -> str:
        """Return the scope path of the call, empty outside any scope."""
        return self.request.sample.partition("#")[0] if self.request.sample else ""

    def storing(self, mode: str) -> str:
        """Return how the disk cache stores: under a cassette that is written anew, in place of what is there.

        :param mode: the disk cache's.
        """
        return "rewrite" if self.tape and self.tape.cassette.mode == "rewrite" and mode != "off" else mode

    def kept(self, found: Answer) -> Answer:
        """Put an answer on the cassette, and return the one that counts there: whatever was recorded first.

        A fallback's is a record of its own, and the first request's points to it.
        """
        if self.tape is None or not found.whole:
            return found
        if found.record.cache_key != self.request.cache_key:
            self.tape.keep(record_of(self.request, {"fallback": found.record.cache_key}))
        record = self.tape.keep(found.record)
        return found if record is found.record else Answer(record)


def reader_of(response_format: Any) -> Callable[[str], Any] | None:
    """Return what reads an answer as the type that was given as ``response_format``, or ``None`` where it was none."""
    if response_format is None or isinstance(response_format, dict):
        return None
    from functools import partial

    from ..answers.values import read_structured

    return partial(read_structured, output_type=response_format)


def _first(*values: Any) -> Any:
    return next((value for value in values if value is not None), None)


def policy_of(options: Options, settings: Settings) -> RetryPolicy:
    """Return how often and when a call is tried again; its deadline begins now."""
    deadline = _first(options.deadline, settings.deadline)
    return RetryPolicy(
        _first(options.max_attempts, settings.retry_max_attempts),
        _first(options.waiting_time, settings.retry_waiting_time),
        _first(options.exponential_backoff_factor, settings.retry_exponential_backoff_factor),
        settings.retry_max_waiting_time,
        None if deadline is None else time.monotonic() + deadline,
    )
