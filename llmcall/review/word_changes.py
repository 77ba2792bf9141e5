"""The words in which two texts differ, as ``git diff --word-diff`` shows them."""

from __future__ import annotations

import re
from functools import lru_cache

from ..differences.words import Passage, passages, pieces
from ..display.formatting import as_json, one_line, shortened
from ..display.printable import printable

TEXT_CHARACTERS = 60  # characters of a text in a line
CHANGES_SHOWN = 3
WORD = re.compile(r"\w")
WORD_AT_END = re.compile(r"\S*\w\S*\s*\Z")
WORD_AT_START = re.compile(r"\s*\S+")


@lru_cache(maxsize=4096)  # an edited prompt is often the same for all actors
def word_changes(before: str, after: str) -> str:
    """Return where two texts differ, as ``git diff --word-diff`` shows it: ``[-before-]
    {+after+}``.

    If only blanks or marks differ, the words next to them are shown as well.
    """
    changes = []
    changed = passages(before, after)
    previous_ends = [0, *(passage.end for passage in changed)]
    next_begins = [*(passage.begin for passage in changed[1:]), len(before)]
    for passage, begin, end in zip(
        changed[:CHANGES_SHOWN], previous_ends, next_begins, strict=False
    ):
        gone, new = (one_line(piece, TEXT_CHARACTERS) for piece in pieces(passage, before, after))
        if not WORD.search(gone + new):
            around = pieces(_with_words(passage, before, begin, end), before, after)
            gone, new = (shortened(piece, TEXT_CHARACTERS) for piece in around)
        marked = [f"[-{printable(gone)}-]"] if gone.strip() else []
        marked += [f"{{+{printable(new)}+}}"] if new.strip() else []
        changes.append(" ".join(marked))
    if not any(changes):  # nothing but blanks
        return f"[-{as_json(before)}-] {{+{as_json(after)}+}}"
    return " … ".join(filter(None, changes))


def _with_words(passage: Passage, before: str, begin: int, end: int) -> Passage:
    """Return a passage with the words next to it in both texts.

    :param begin: the end of the passage ahead of it; what follows is the same in both texts.
    :param end: the beginning of the next passage.
    """
    ahead = WORD_AT_END.search(before[begin : passage.begin])
    behind = WORD_AT_START.match(before[passage.end : end])
    left = len(ahead[0]) if ahead else 0
    right = len(behind[0]) if behind else 0
    return Passage(
        passage.begin - left,
        passage.end + right,
        passage.asked_begin - left,
        passage.asked_end + right,
    )
