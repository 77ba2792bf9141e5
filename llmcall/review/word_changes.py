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

    If only blanks or marks differ, the words beside them are shown as well.
    """
    changes = []
    for passage in passages(before, after)[:CHANGES_SHOWN]:
        gone, new = (one_line(piece, TEXT_CHARACTERS) for piece in pieces(passage, before, after))
        if not WORD.search(gone + new):
            around = pieces(_with_words(passage, before), before, after)
            gone, new = (shortened(piece, TEXT_CHARACTERS) for piece in around)
        marked = [f"[-{printable(gone)}-]"] if gone.strip() else []
        marked += [f"{{+{printable(new)}+}}"] if new.strip() else []
        changes.append(" ".join(marked))
    if not any(changes):  # nothing but blanks
        return f"[-{as_json(before)}-] {{+{as_json(after)}+}}"
    return " … ".join(filter(None, changes))


def _with_words(passage: Passage, before: str) -> Passage:
    """Return a passage with the words that stand beside it in both texts."""
    ahead = WORD_AT_END.search(before[: passage.begin])
    behind = WORD_AT_START.match(before[passage.end :])
    left = min(len(ahead[0]) if ahead else 0, passage.asked_begin)
    right = len(behind[0]) if behind else 0
    return Passage(
        passage.begin - left,
        passage.end + right,
        passage.asked_begin - left,
        passage.asked_end + right,
    )
