"""The reports of a cassette when it closes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...config import resolve as config
from ...support.display.formatting import counted
from ...support.failures import Failures, process_failures
from ..record import GotFrom

if TYPE_CHECKING:
    from pathlib import Path

    from .owner import Owner
    from .tape import Tape

FROM_CACHE = (
    "from an earlier run, or from an equal call of this one"  # the cache does not know which
)
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
        self, path: Path, mode: str, owner: Owner, tape: Tape, unused: int, *, advice: str
    ) -> None:
        """Report unused records, answers of an earlier run, and failed calls.

        :param unused: the number of unused records.
        :param advice: how to record what failed calls left missing.
        """
        if unused:
            self.unused = self._unused_words(unused, mode, drops=tape.drops_unused)
            owner.report(path, self.unused)
        supplied = tape.count(GotFrom.CACHE)
        if supplied and owner.knows_use:
            source = f"came from the disk cache: {FROM_CACHE}"
            owner.report(path, f"{counted(supplied, 'answer')} {source}; {OTHER_REPEAT}")
        self._failures.warn(advice, place=f"{path}: ")

    def _unused_words(self, count: int, mode: str, *, drops: bool) -> str:
        words = f"{counted(count, 'record')} {'was' if count == 1 else 'were'} not used; "
        if mode != "update":
            return f"{words}the mode 'update' moves such records to the disk cache"
        if drops:
            return f"{words}moved to the disk cache {config.settings().cache_path}"
        why = (
            "a call failed, ended early or was refused"
            if self.has_failures()
            else "no call was made"
        )
        return f"{words}the file keeps such records, because {why}"
