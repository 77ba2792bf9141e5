"""The reports of a cassette when it closes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...config import resolve as config
from ...support.display import counted
from ...support.failures import Failures, process_failures
from ...support.notices import warn_once
from ..record import GotFrom
from .replay_log import is_in_turns, named_draws

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from ..record import Record
    from ..records.reader import Selection
    from .owner import Owner
    from .tape import Tape

FROM_CACHE = (
    "from an earlier run, or from an equal call of this one"  # the cache does not know which
)
FURTHER_DRAWS = "further draws of requests that the run made"
OTHER_REPEAT = "for another repeat, use a scope with another name and its own cassette"


class Reports:
    """The reports of a cassette for one time of being open.

    :param failures: the calls that left no record.
    :ivar unused: the sentence about unused records; empty before the end, and without any.
    """

    def __init__(self, failures: Failures) -> None:
        self.unused = ""
        self._failures = failures
        self._refused_before = process_failures.refused

    def has_failures(self) -> bool:
        """Return whether a call failed, ended early or was refused."""
        return process_failures.refused > self._refused_before or bool(self._failures.counts())

    def end(
        self,
        path: Path,
        mode: str,
        owner: Owner,
        tape: Tape,
        unused: Selection | list[Record],
        dropped: int,
        *,
        advice: str,
    ) -> None:
        """Report unused records, answers of an earlier run, and failed calls.

        :param unused: the unused records.
        :param dropped: how many of them the file loses.
        :param advice: how to record what failed calls left missing.
        """
        if unused:
            self.unused = self._unused_words(unused, mode, tape, dropped)
            owner.report(path, self.unused)
        supplied = tape.count(GotFrom.CACHE)
        if supplied and owner.knows_use:
            source = f"came from the disk cache: {FROM_CACHE}"
            owner.report(path, f"{counted(supplied, 'answer')} {source}; {OTHER_REPEAT}")
        self._failures.warn(advice, place=f"{path}: ")

    def _unused_words(
        self, unused: Selection | list[Record], mode: str, tape: Tape, dropped: int
    ) -> str:
        words = (
            f"{counted(len(unused), 'record')} {'was' if len(unused) == 1 else 'were'} not used; "
        )
        if tape.drops_unused:
            moved = dropped, f"moved to the disk cache {config.settings().cache_path}"
            kept = len(unused) - dropped, f"kept, {FURTHER_DRAWS}"
            return words + ", ".join(
                outcome if number == len(unused) else f"{number:,} {outcome}"
                for number, outcome in (moved, kept)
                if number
            )
        if all(map(tape.log.is_of_run, unused)):
            return f"{words}the mode 'update' keeps such records, {FURTHER_DRAWS}"
        if mode != "update":
            return f"{words}the mode 'update' moves such records to the disk cache"
        why = (
            "a call failed, ended early or was refused"
            if self.has_failures()
            else "no call was made"
        )
        return f"{words}the file keeps such records, because {why}"


def warn_of_turns(records: Iterable[Record], tape: Tape) -> None:
    """Warn once of identical requests for which callers asked in turns, if this run recorded one of them.

    :param records: those that the file will have.
    """
    scopes: dict[str, set[str]] = {}  # scope path → callers
    for (scope, _), draws in named_draws(records).items():
        if is_in_turns(draws) and any(tape.has_gained(draw.cache_key) for draw in draws.values()):
            scopes.setdefault(scope, set()).update(draw.caller for draw in draws.values())
    for scope, callers in scopes.items():
        warn_once(
            f"identical requests came from {len(callers)} {_kind_of(callers)} in scope {scope!r}; if they take work "
            "from a queue, a replay may swap their answers: name the actors (--actor)",
            about="requests in turns",
        )


def _kind_of(callers: Iterable[str]) -> str:
    """Return what callers are, by the last segments of their names."""
    kinds = {caller.rpartition("/")[2].partition(" ")[0] for caller in callers}
    words = {"thread": "threads", "task": "tasks", "process": "processes", "work": "pool jobs"}
    return words.get(kinds.pop(), "callers") if len(kinds) == 1 else "callers"
