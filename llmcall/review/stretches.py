"""Stretches of words that changed between two texts, and the form of a text in which they are sought."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from itertools import groupby
from typing import NamedTuple

from ..stores.differences import changed_lines, differing, pieces

MIN_CUT_WORDS = 3  # in a quote whose first and last word may be cut
MAX_WORD_PAIRS = 4_000_000  # to compare; all words of a larger passage count as changed
_WORD = re.compile(r"\w+")
_TOKEN = re.compile(r"\w+|[^\w\s]")  # a word or a mark
_ESCAPED = re.compile(r"\\(?:u([0-9a-fA-F]{4})|([nrt])|(.))")  # as JSON writes it into a prompt


class Stretch(NamedTuple):
    """Words that follow one another in a text of one run.

    :param side: the run, 0 or 1.
    """

    side: int
    words: str


@lru_cache(maxsize=4096)  # actors often hear the same
def stretches_of(before: str, after: str) -> frozenset[Stretch]:
    """Return the stretches of changed words, without punctuation, each with its side."""
    stretches = set()
    for lines in changed_lines(before, after):
        one, other = (_TOKEN.findall(_unescaped(text)) for text in pieces(lines, before, after))
        for passage in differing(one, other, most_pairs=MAX_WORD_PAIRS):
            for side, tokens in enumerate(pieces(passage, one, other)):
                runs = groupby(tokens, key=lambda token: bool(_WORD.match(token)))
                stretches |= {
                    Stretch(side, _search_text(list(run))) for is_word, run in runs if is_word
                }
    return frozenset(stretches)


def _unescaped(text: str) -> str:
    """Return a text without JSON's escapes."""
    return _ESCAPED.sub(lambda match: chr(int(match[1], 16)) if match[1] else match[3] or " ", text)


def _search_text(words: list[str]) -> str:
    """Return the text by which a stretch is sought; a long quote may be cut within a word at its ends."""
    return _padded(words) if len(words) < MIN_CUT_WORDS else _padded(words).strip()


def _padded(words: Iterable[str]) -> str:
    """Return words with blanks between and around them, so that a search finds only whole words."""
    return f" {' '.join(words)} ".casefold()


def searchable(text: str) -> str:
    """Return the words of a text, without JSON's escapes, so that a search finds only whole words."""
    return _padded(_WORD.findall(_unescaped(text)))
