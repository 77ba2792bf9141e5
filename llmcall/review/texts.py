"""Texts as words, marks and blanks.

Words are compared without regard to case, escapes and the blanks and quotation marks between them.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple

_WIDE = "\u2e80-\U0003ffff"  # scripts that are written without blanks
_ESCAPED = r"\\u[0-9a-fA-F]{4}|\\x[0-9a-fA-F]{2}"
_TOKEN = re.compile(
    r"(?P<blank>\s+|[\"'`´‘’“”«»]|\\[\"'\\/nrtbf])"
    rf"|(?P<word>(?=\w)[{_WIDE}]|(?:[^\W{_WIDE}]+|{_ESCAPED})+(?:(?<=\d)\.\d+)*)"
    r"|.",
    re.DOTALL,
)
_ESCAPE = re.compile(_ESCAPED)


class Text(NamedTuple):
    """A text in tokens: words, marks and blanks; together they are the text.

    :param tokens: as they are written.
    :param blanks: whether each token does not count.
    :param words: as they are compared.
    :param word_tokens: of each word, its number among the tokens.
    :param ranks: of each token, how many words come before it.
    """

    tokens: list[str]
    blanks: list[bool]
    words: tuple[str, ...]
    word_tokens: list[int]
    ranks: list[int]

    def words_before(self, position: int, count: int) -> tuple[str, ...]:
        """Return the last words before a token."""
        end = self.ranks[position]
        return self.words[max(0, end - count) : end]

    def is_word(self, position: int) -> bool:
        """Return whether a token is a word."""
        return self.ranks[position] < self.ranks[position + 1]


@lru_cache(maxsize=4096)
def text_of(text: str) -> Text:
    """Return a text in tokens."""
    tokens: list[str] = []
    blanks: list[bool] = []
    words: list[str] = []
    word_tokens: list[int] = []
    ranks: list[int] = []
    for match in _TOKEN.finditer(text):
        token, kind = match[0], match.lastgroup
        ranks.append(len(words))
        if kind == "word" or (kind is None and _is_symbol(token)):
            word_tokens.append(len(tokens))
            words.append(_compared(token))
        tokens.append(token)
        blanks.append(kind == "blank")
    return Text(tokens, blanks, tuple(words), word_tokens, [*ranks, len(words)])


def padded(words: Iterable[str]) -> str:
    """Return words with blanks between and around them, so that only whole words are found in it."""
    return f" {' '.join(words)} "


@lru_cache(maxsize=4096)
def padded_words_of(text: str) -> str:
    """Return the words of a text, as they are compared; see :func:`padded`."""
    return padded(text_of(text).words)


def _is_symbol(character: str) -> bool:
    """Return whether a character says something by itself, as an emoji does."""
    return not character.isascii() and unicodedata.category(character)[0] not in "PZC"


def _compared(word: str) -> str:
    if "\\" in word:
        decoded = _ESCAPE.sub(lambda match: chr(int(match[0][2:], 16)), word)
        word = decoded.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    word = word.casefold()
    return "null" if word == "none" else word
