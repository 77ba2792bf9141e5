"""Options that a prompt lists under letters: listing them, finding them again, and reading an answer."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from string import ascii_uppercase
from typing import Any
from unicodedata import normalize

from .json_texts import without_reasoning

INSTRUCTION = "Answer with one letter only."

_QUOTES = "\"'`“”„‟‘’‚‛«»‹›「」"
_OPENING = r" \t\r\n(\[（" + re.escape(_QUOTES)
_AROUND = " \t\r\n\ufeff\u200b.,:;!?…。！？()[]（）" + _QUOTES
# A letter before text, unless it begins an abbreviation ("E.g.", "D.C.").
_LETTER_BEFORE_TEXT = re.compile(rf"[{_OPENING}]*([A-Za-z])[.):](?![A-Za-z]\.)")


def listing(texts: Sequence[str]) -> str:
    """Return options as a prompt lists them, each on a line with its letter."""
    lines = zip(ascii_uppercase, texts, strict=False)
    return "\n".join(f"{letter}. {text}" for letter, text in lines)


def listed_options(messages: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the options that the last question of a conversation lists, in its order, or an empty list.
    A correction of an answer belongs to the question before it.
    """
    prompts = [str(message.get("content")) for message in messages if message.get("role") == "user"]
    if not prompts or not prompts[-1].endswith(INSTRUCTION):
        return []
    for prompt in reversed(prompts):
        lines = prompt.removesuffix(INSTRUCTION).rstrip("\n").rpartition("\n\n")[2].split("\n")
        texts = [line[3:] for line in lines]
        if len(texts) > 1 and "\n".join(lines) == listing(texts):
            return texts
    return []


def named_option(messages: Sequence[Mapping[str, Any]], answer: str) -> str | None:
    """Return the text of the option that an answer names, or ``None``. The order of the options in the
    conversation's question decides what a letter means.
    """
    options = listed_options(messages)
    position = option_position(without_reasoning(answer), options)
    return None if position is None else options[position]


def option_position(text: str, texts: Sequence[str]) -> int | None:
    """Return the position, from 0, of the option that an answer names, or ``None``.

    An answer is the letter alone, the letter with ``.``, ``)`` or ``:`` and any text, or an option's
    whole text.

    :param texts: the options in the order in which they were listed.
    """
    position = letter_position(text)
    if position is not None and position < len(texts):
        return position
    answer = folded_text(text)
    return next((index for index, text in enumerate(texts) if folded_text(text) == answer), None)


def folded_text(text: str) -> str:
    """Return a text composed, in one case, and without quotes and marks around it."""
    words = " ".join(normalize("NFC", text).replace("’", "'").split())
    return (words.strip(_AROUND) or words).casefold()


def letter_position(text: str) -> int | None:
    """Return the position in the alphabet, from 0, of the letter in an answer, or ``None``."""
    letter = text.strip(_AROUND)
    if len(letter) != 1 or not letter.isascii() or not letter.isalpha():
        match = _LETTER_BEFORE_TEXT.match(text)
        if match is None:
            return None
        letter = match[1]
    return ascii_uppercase.index(letter.upper())
