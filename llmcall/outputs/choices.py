"""The one option that an answer names: of a ``Literal``, an ``Enum``, or yes and no."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

from ..errors import OutputError
from ..requests.schemas import label_of, labels
from .phrases import peeled, phrases, with_latin_marks, without_marks

_VERDICTS = {"yes": True, "true": True, "no": False, "false": False}
# Sought from a sentence's beginning alone; "3.5?" is one question.
_QUESTION = re.compile(r"(?<![^.!?\n])(?!(?<=\d\.)\d)(?:[^.!?\n]|(?<=\d)\.(?=\d))*\?")
_PLAIN = str.maketrans({"’": "'", "−": "-", "–": "-"})
_DASH = re.compile(r"\s[-–]+\s")  # between words
_BULLET = re.compile(r"^[-–]+(?:\s+|(?![-–.\d]))")  # directly before a number it is a minus sign
_LAST_DASH = re.compile(r"(?<!\s)\s+[-–]+$")  # sought from where blanks begin alone
_SPACED_SIGN = re.compile(r"^[-–]\s+(?=\.?\d)")


def choice(text: str, output_type: Any) -> Any:
    """Read the one option that an answer names, in any case; an ``Enum``'s member also by its name
    or value.

    :param output_type: a ``Literal``, an ``Enum``, or ``bool``, whose options are yes and no, true
        and false.
    :raises OutputError: for an answer that names none, or several.
    """
    options = _VERDICTS if output_type is bool else labels(output_type)
    stripped = text.strip()
    if stripped in options:
        return options[stripped]
    spellings = _spellings(options, output_type)
    text = with_latin_marks(text)

    def labels_of(words: str) -> list[str]:
        """Return the labels that some words may mean: "- 1" may be 1 after a bullet, or -1, and "A -"
        may be A or A-.
        """
        if words in options:
            return [words]
        if found := spellings.get(_normal(words)):
            return found
        meanings = (
            _BULLET.sub("", _LAST_DASH.sub("", words)),
            _SPACED_SIGN.sub("-", words),
            _LAST_DASH.sub("-", words),
        )
        found = [label for each in meanings for label in spellings.get(_normal(each), [])]
        return list(dict.fromkeys(found))

    for answer in peeled(text):
        answer_labels = labels_of(answer)
        if len(answer_labels) == 1:
            return options[answer_labels[0]]
    text = _DASH.sub("\n- ", _QUESTION.sub("", text)).translate(_PLAIN)
    plain_text = without_marks(text)
    if not _has_marks(options):
        text = plain_text
    # The label of each option that is a phrase by itself, and of each that is named anywhere.
    phrase_labels = {
        options[label]: label for phrase in phrases(plain_text) for label in labels_of(phrase)
    }
    named_labels = {
        options[label]: label
        for match in _pattern(tuple(spellings)).finditer(text)
        for label in labels_of(match[0])
    }
    if len(phrase_labels) > 1 or (phrase_labels and named_labels.keys() - phrase_labels.keys()):
        all_labels = {**phrase_labels, **named_labels}
        raise OutputError(f"it names more than one option: {', '.join(all_labels.values())}")
    if not phrase_labels:
        raise OutputError("it gives none of the options by itself")
    return options[next(iter(phrase_labels.values()))]


def _has_marks(options: Iterable[str]) -> bool:
    """Return whether an option holds what may be Markdown elsewhere, as "A*" does."""
    return any(option != without_marks(option) for option in options)


def _normal(text: str) -> str:
    """Return a text in lower case, with one space between words, and with plain quotes and signs."""
    text = with_latin_marks(text).translate(_PLAIN)
    return re.sub(r"(?<=\w)[\s_-]+(?=\w)", " ", text).strip().lower()


def _spellings(options: Mapping[str, Any], output_type: Any) -> dict[str, list[str]]:
    """Return the labels that each lower-case spelling may mean: more than one if only case differs."""
    spellings: dict[str, list[str]] = {}
    for option in options:
        spellings.setdefault(_normal(option), []).append(option)
    for name, member in getattr(output_type, "__members__", {}).items():
        for spelling in (name, str(member.value)):
            spellings.setdefault(_normal(spelling), [label_of(member)])
    return spellings


@lru_cache(maxsize=64)
def _pattern(spellings: tuple[str, ...]) -> re.Pattern[str]:
    """Compile a search for whole words; the longest spelling comes first, so that "very good" is
    not "good".
    """
    longest_first = sorted(filter(None, spellings), key=lambda spelling: (-len(spelling), spelling))
    words = "|".join(map(_word, longest_first)) or "(?!)"
    return re.compile(rf"(?<![^\W_])(?<![^\W_]-)(?:{words})(?![^\W_]|-[^\W_])", re.IGNORECASE)


def _word(spelling: str) -> str:
    """Return the pattern of a spelling."""
    if len(spelling) == 1:
        return f"(?-i:{re.escape(spelling.upper())})"  # "a" is an article
    return r"[\s_-]+".join(map(re.escape, spelling.split(" ")))
