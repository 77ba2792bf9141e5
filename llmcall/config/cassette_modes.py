"""The modes of cassettes: the one table of what each does."""

from __future__ import annotations

from typing import NamedTuple


class Mode(NamedTuple):
    """What a mode of cassettes does.

    :param words: for the help of commands.
    :param reads: ``False`` if it requests everything again, past the file and the disk cache, and replaces both.
    :param records: ``True`` if it makes a file, and continues an incomplete one.
    :param adds: ``True`` if it also adds to a complete one.
    :param moves_unused: ``True`` if records that a run did not use go to the disk cache.
    """

    words: str
    reads: bool = True
    records: bool = True
    adds: bool = True
    moves_unused: bool = False


MODES = {
    "none": Mode("only replay", records=False, adds=False),
    "once": Mode("record if there is no complete file, else replay", adds=False),
    "new": Mode("add missing answers"),
    "update": Mode("also move unused records to the cache", moves_unused=True),
    "rewrite": Mode("record everything again", reads=False),
}
ALIASES = {"replay": "none"}
HELP = "; ".join(f"{name}: {mode.words}" for name, mode in MODES.items())
