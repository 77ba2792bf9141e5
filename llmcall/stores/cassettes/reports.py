"""The owner of a cassette, who opened it and decides what its end does; and the reports when it closes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ...config import resolve as config
from ...config.cassette_modes import MODES
from ...keys.request import Data
from ...support.display import counted
from ...support.notices import notice
from ..record import Record
from .replay_log import NO_CALLS, SortKey
from .tape import Tape

if TYPE_CHECKING:
    from pathlib import Path


MOST_REASONS = 20  # that a warning lists


class Owner:
    """A block of code, a decorator, or cells of a notebook.

    :ivar writes: ``True`` if the file is written when the cassette closes.
    :ivar raises_refusals: ``True`` if the first refused call of a program is raised again then.
    :ivar knows_use: ``True`` if the cassette sees every call, so that unused records can be reported.
    :ivar bypasses_cache: ``True`` if all is requested anew, and new answers replace those in the disk cache.
    :ivar is_settings: ``True`` if ``[Cassette] PATH`` opened it, for the whole process.
    :ivar run: the options of ``llmcall run`` for the file's header; ``None`` for a block.
    :ivar earlier_calls: the first calls of records that this process used before, which come first in the file.
    """

    writes = True
    raises_refusals = True
    knows_use = True
    bypasses_cache = False
    is_settings = False
    run: Mapping[str, Data] | None = None
    earlier_calls: Mapping[str, SortKey] = NO_CALLS

    def place(self) -> str:
        """Return where it has the cassette open, and what to do instead of opening a second one."""
        return "in a block around this one, or in another thread; use one cassette for both, or two files"

    def report(self, path: Path, line: str) -> None:
        """Report what the cassette did, when it closes."""
        notice("%s: %s", path, line)

    def command(self, path: Path) -> str:
        """Return the command that opens the cassette; empty if none does."""
        return ""

    def how_to_record(self, path: Path, mode: str) -> str:
        """Return how the cassette is opened in another mode, as code or a command."""
        return f"llmcall.cassette({str(path)!r}, mode={mode!r})"


class _SettingsOwner(Owner):
    """``[Cassette] PATH``, for the whole process."""

    raises_refusals = False
    is_settings = True

    def place(self) -> str:
        return "as [Cassette] PATH, which records this block too; remove one of the two"

    def how_to_record(self, path: Path, mode: str) -> str:
        return f"LLMCALL_CASSETTE_MODE={mode}"


class CommandOwner(Owner):
    """A command, which reports the use in its own last lines.

    :param name: such as ``llmcall run``.
    :param run: its options.
    """

    def __init__(self, name: str, run: Mapping[str, Data] | None) -> None:
        self.name = name
        self.run = run

    def place(self) -> str:
        return f"by {self.name}, which records this block too; remove one of the two"

    def report(self, path: Path, line: str) -> None:
        pass

    def command(self, path: Path) -> str:
        """Return the command that opens the cassette."""
        import shlex  # only a miss needs it

        return f"{self.name} --cassette {shlex.quote(str(path))}"

    def how_to_record(self, path: Path, mode: str) -> str:
        return f"{self.command(path)} --mode {mode} …"


BLOCK = Owner()
SETTINGS = _SettingsOwner()


FROM_CACHE = (
    "from an earlier run, or from identical calls in this one"  # the cache does not know which
)
FURTHER_DRAWS = "like all further draws of requests that the run made"
REUSED = f"reused from the disk cache, {FROM_CACHE}. For new ones, use another scope name and a new cassette"


MOVED = (
    "may have another caller's answer, since tasks or threads did not make the same requests as in the recording. Give "
    'each an actor (actor="system") or a scope'
)


def unused_words(
    unused: list[Record], mode: str, tape: Tape, dropped: list[Record], *, has_failures: bool
) -> str:
    """Return the sentence about unused records.

    :param dropped: those of them that the file loses.
    :param has_failures: ``True`` if a call failed, ended early or was refused.
    """
    were, them = ("was", "it") if len(unused) == 1 else ("were", "them")
    words = f"{counted(len(unused), 'record')} {were} not used; "
    if tape.drops_unused:
        given = sum(bool(record.given) for record in dropped)
        outcomes = {
            f"moved to the disk cache {config.settings().cache_path}": len(dropped) - given,
            "deleted, because no model gave the answer": given,
            f"kept, {FURTHER_DRAWS}": len(unused) - len(dropped),
        }
        return words + ", ".join(
            outcome if number == len(unused) else f"{number:,} {outcome}"
            for outcome, number in outcomes.items()
            if number
        )
    if not any(True for _ in tape.not_of_run(unused)):
        return f"{words}mode 'update' keeps {them}, {FURTHER_DRAWS}"
    if not MODES[mode].moves_unused:
        return f"{words}mode 'update' moves {them} to the disk cache"
    failed = "a call failed, ended early or was refused"
    return f"{words}the file keeps {them}, because {failed if has_failures else 'no call was made'}"


def left_out_words(reasons: list[str]) -> str:
    """Return the sentences about records that could not be written, each with its place."""
    were = "is" if len(reasons) == 1 else "are"
    shown = reasons[:MOST_REASONS]
    if more := len(reasons) - len(shown):
        shown.append(f"and {counted(more, 'more record')}")
    return (
        f"{counted(len(reasons), 'record')} {were} left out, so the file is incomplete: "
        + "; ".join(shown)
    )
