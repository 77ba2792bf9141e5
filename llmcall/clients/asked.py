"""One call as its arguments describe it, before it is looked up or sent."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, NamedTuple

from ..cache import record_of
from ..current import current_cassette
from ..retry import RetryPolicy

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..cassettes import Cassette
    from ..config import Settings
    from ..scopes import Draw
    from ..types import Record, Request
    from .options import Options

__all__ = ["Asked", "open_tape", "policy_of", "reader_of"]


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
    tape: tuple[Cassette, int] | None = None

    def give_back(self) -> None:
        """Make the draw's number free again."""
        if self.drawn is not None:
            self.drawn.give_back()

    def storing(self, mode: str) -> str:
        """Return how the disk cache stores: under a cassette that is written anew, in place of what is there.

        :param mode: the disk cache's.
        """
        return "rewrite" if self.tape and self.tape[0].mode == "rewrite" and mode != "off" else mode

    def record(self, found: Record) -> None:
        """Put the answer on the cassette; a fallback's as its own record, and one that points to it."""
        if self.tape is None:
            return
        tape, place = self.tape
        if found.cache_key != self.request.cache_key:
            tape.add(record_of(self.request, {"fallback": found.cache_key}), place)
        tape.add(found, place)


def open_tape() -> tuple[Cassette, int] | None:
    """Return the open cassette and the next place in it."""
    tape = current_cassette()
    return None if tape is None else (tape, tape.place())


def reader_of(response_format: Any) -> Callable[[str], Any] | None:
    """Return what reads an answer as the type that was given as ``response_format``, or ``None`` where it was none."""
    if response_format is None or isinstance(response_format, dict):
        return None
    from functools import partial

    from ..outputs import read_structured

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
