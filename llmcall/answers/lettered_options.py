"""Options that a prompt lists under letters: listing them, finding them again, and reading an answer."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from string import ascii_uppercase

from ..keys.schemas import composed
from .json_texts import without_reasoning

INSTRUCTION = "Answer with one letter only."

_QUOTES = "\"'`“”„‟‘’‚‛«»‹›「」"
_AROUND = " \t\r\n\ufeff\u200b.,:;!?…。！？()[]（）" + _QUOTES
_WRAPS = rf"[*_{re.escape(_QUOTES)}]*"  # quotes, and Markdown's bold
_BEFORE = rf"[*_{re.escape(_QUOTES)}\s\ufeff\u200b]*"
_ANSWER = re.compile(rf"{_BEFORE}answer\s*{_WRAPS}:{_BEFORE}", re.IGNORECASE)
# A letter that a line begins with
_LETTER = re.compile(
    rf"{_BEFORE}(?:option\b:?{_BEFORE})?(?P<bracket>[(\[（])?{_BEFORE}(?P<letter>[a-z])(?![^\W_]){_WRAPS}",
    re.IGNORECASE,
)
_BRACKET = re.compile(rf"[)\]）]{_WRAPS}")
# What separates a letter from any text, unless it belongs to an abbreviation ("E.g.", "D.C.")
_DELIMITER = re.compile(r"[.):](?![A-Za-z]\.)|\s+-")
_ABBREVIATION = re.compile(r"\b(?:[A-Za-z]\.){2,}")
_ANSWER_WORD = re.compile(r"\b(?:answer|option|or|and)\b")
# A letter that no hyphen or apostrophe joins to a word
_SINGLE_LETTER = re.compile(r"(?<![\w'])(?<!\w\w-)[A-Za-z](?![\w']|-\w\w)")
# "a", "I", and "A" at the beginning of a sentence, before another word
_SHORT_WORD = re.compile(r"(?:\b[aiI]|(?:^\s*|[.):!?-]\s+)A)(?=\s+[a-z])", re.MULTILINE)


def listing(texts: Sequence[str]) -> str:
    """Return options as a prompt lists them, each on a line with its letter."""
    lines = zip(ascii_uppercase, texts, strict=False)
    return "\n".join(f"{letter}. {text}" for letter, text in lines)


def listed_options(messages: Sequence[Mapping[str, object]]) -> list[str]:
    """Return the options that the last question of a conversation lists, in order; empty without a list.
    Corrections belong to the question before them.
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


def named_option(messages: Sequence[Mapping[str, object]], answer: str) -> str | None:
    """Return the text of the option that an answer names, or ``None``. The order of the options in the
    conversation's question decides what a letter means.
    """
    options = listed_options(messages)
    position = option_position(without_reasoning(answer), options)
    return None if position is None else options[position]


def option_position(text: str, texts: Sequence[str]) -> int | None:
    """Return the position, from 0, of the option that an answer names, or ``None``.

    An answer is an option's whole text, or its letter, alone on the first line or followed by ``.``,
    ``)``, ``:`` or `` -`` and any text. It may be bold, and come after "Option" or "Answer:". The
    rest of the first line must name no other option; the lines below it may discuss them by their
    texts.

    :param texts: the options in the order in which they were listed.
    """
    answer = _composed(text)
    prefix = _ANSWER.match(answer)
    answer = answer if prefix is None else answer[prefix.end() :]
    words = folded_text(answer.strip("*_ \t\r\n"))
    for index, option in enumerate(texts):
        if folded_text(option) == words:
            return index
    found = _letter(answer, texts)
    if found is None:
        return None
    position, rest = found
    return None if position >= len(texts) or _names_another(rest, texts, position) else position


def folded_text(text: str) -> str:
    """Return a text composed, in one case, and without quotes and marks around it."""
    words = " ".join(_composed(text).split())
    return (words.strip(_AROUND) or words).casefold()


def letter_position(text: str) -> int | None:
    """Return the position in the alphabet, from 0, of the letter in an answer, or ``None``."""
    found = _letter(text, ())
    return None if found is None else found[0]


def _letter(text: str, texts: Sequence[str]) -> tuple[int, str] | None:
    """Return the position in the alphabet of the letter that a text begins with, and what follows it."""
    match = _LETTER.match(text)
    if match is None:
        return None
    position = ascii_uppercase.index(match["letter"].upper())
    line, line_end, reasons = text[match.end() :].partition("\n")
    reasons = line_end + reasons
    if not line.strip(_AROUND + "*_"):
        return position, reasons
    if match["bracket"]:
        bracket = _BRACKET.match(line)
        if bracket is None:
            return None
        line = line[bracket.end() :]
        if position < len(texts) and folded_text(line) == folded_text(texts[position]):
            return position, reasons
    delimiter = _DELIMITER.match(line)
    return None if delimiter is None else (position, line[delimiter.end() :] + reasons)


def _names_another(rest: str, texts: Sequence[str], position: int) -> bool:
    """Return whether an answer names another option after the letter of one."""
    folded = {folded_text(option): index for index, option in enumerate(texts)}
    longest_first = sorted(folded, key=len, reverse=True)
    option_texts = "|".join(rf"(?<!\w){re.escape(option)}(?!\w)" for option in longest_first)
    for number, line in enumerate(rest.casefold().split("\n")):
        is_reason = number > 0 and re.search(
            r"\w", _ANSWER_WORD.sub("", re.sub(option_texts, "", line))
        )
        named = {folded[option] for option in re.findall(option_texts, line)}
        if named - {position} and not is_reason:
            return True
    words = _ABBREVIATION.sub("", re.sub(option_texts, "", rest, flags=re.IGNORECASE))
    letters = _SINGLE_LETTER.findall(_SHORT_WORD.sub("", words))
    listed = ascii_uppercase[: len(texts)]
    return any(
        letter.upper() in listed and letter.upper() != listed[position] for letter in letters
    )


def _composed(text: str) -> str:
    """Return a text in its composed form, with straight apostrophes."""
    return composed(text).replace("’", "'")
