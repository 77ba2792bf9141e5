"""The one value that an answer in words gives: yes or no, a ``Literal``, an ``Enum``, a number.

The value must be the answer, or one of its phrases between punctuation, Markdown or quotes, as in "Yes, I would." or
"Answer: **7**". What only a sentence says ("I would not buy it", "about 5 million") is refused, and so is an answer
that names another option as well: asking again is cheaper than a wrong reading.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from ..errors import OutputError
from ..requests.schemas import label_of, labels

__all__ = ["bare", "choice", "number", "verdict", "whole_number"]

_WRAPPING = " \t\r\n\ufeff\u200b*_`~\"'“”‘’«»„.!,:;#>()[]"
_VERDICTS = {"yes": True, "true": True, "no": False, "false": False}
_QUESTION = re.compile(r"(?<![^.!?\n])[^.!?\n]*\?")  # sought from a sentence's beginning alone
_BETWEEN_PHRASES = re.compile(r"\n|[.,;:!…]+(?![\w.,;:!…])|—|[()\[\]{}<>\"“”„«»*`#]+")
_DASH = re.compile(r"\s[-–]+\s")  # between words; before a number it may be a minus sign
_AROUND_PHRASE = " \t\r\ufeff\u200b'‘’_"
_LEAD_IN = re.compile(r"(?:(?:the|my|final)\s+)*answer(?:\s+is)?\s+", re.IGNORECASE)


def bare(text: str) -> str:
    """Return a text without the quotes, Markdown marks, brackets and stops around it."""
    return text.strip(_WRAPPING)


def _phrases(text: str) -> list[str]:
    """Return what stands between punctuation in a text, without what leads to the answer ("The answer is …")."""
    found = (_LEAD_IN.sub("", phrase.strip(_AROUND_PHRASE), count=1) for phrase in _BETWEEN_PHRASES.split(text))
    return [phrase for phrase in found if phrase]


def verdict(text: str) -> bool:
    """Read yes or no, also true or false.

    :raises OutputError: for an answer that gives neither, or both.
    """
    return _VERDICTS[_only(text, {word: [word] for word in _VERDICTS}, _VERDICTS)]


def choice(text: str, output_type: Any) -> Any:
    """Read the one option that an answer names, in any case; an ``Enum``'s member also by its name or value.

    :raises OutputError: for an answer that names none, or several.
    """
    options = labels(output_type)
    spellings = _spellings(options, output_type)
    for whole in (text.strip(), bare(text)):
        named = [whole] if whole in options else spellings.get(_normal(whole), [])
        if len(named) == 1:
            return options[named[0]]
    return options[_only(text, spellings, options)]


def _only(text: str, spellings: Mapping[str, list[str]], options: Mapping[str, Any]) -> str:
    """Return the label of the one option that a phrase of a text is, where the text names no other."""

    def meant(words: str) -> list[str]:
        """Return the labels that some words may mean."""
        return [words] if words in options else spellings.get(_normal(words.strip("-– ")), [])

    text = _DASH.sub("\n", _QUESTION.sub("", text))
    given = {options[label]: label for phrase in _phrases(text) for label in meant(phrase)}
    named = {options[label]: label for match in _pattern(tuple(spellings)).finditer(text) for label in meant(match[0])}
    if len(given) > 1 or (given and named.keys() - given.keys()):
        raise OutputError(f"it names more than one option: {', '.join({**given, **named}.values())}")
    if not given:
        raise OutputError("it gives none of the options by itself")
    return next(iter(given.values()))


def _normal(text: str) -> str:
    return re.sub(r"(?<=\w)[\s_-]+(?=\w)", " ", text.replace("’", "'")).strip().lower()


def _spellings(options: Mapping[str, Any], output_type: Any) -> dict[str, list[str]]:
    """Map each spelling, in lower case, to the labels that it may mean: more than one where only case tells."""
    spellings: dict[str, list[str]] = {}
    for option in options:
        spellings.setdefault(_normal(option), []).append(option)
    for name, member in getattr(output_type, "__members__", {}).items():
        for other in (name, str(member.value)):
            spellings.setdefault(_normal(other), [label_of(member)])
    return spellings


@lru_cache(maxsize=64)
def _pattern(spellings: tuple[str, ...]) -> re.Pattern[str]:
    """Compile a search for whole words; the longest spelling comes first, so that "very good" is not "good"."""
    longest_first = sorted(filter(None, spellings), key=lambda spelling: (-len(spelling), spelling))
    words = "|".join(map(_word, longest_first)) or "(?!)"
    return re.compile(rf"(?<![^\W_])(?<![^\W_]-)(?:{words})(?![^\W_]|-[^\W_])", re.IGNORECASE)


def _word(spelling: str) -> str:
    if len(spelling) == 1:
        return f"(?-i:{re.escape(spelling.upper())})"  # "a" is an article
    return r"[\s_-]+".join(map(re.escape, spelling.split(" ")))


_PLAIN = str.maketrans({"−": "-", "\u00a0": " ", "\u2009": " ", "\u202f": " "})
_MAX_DIGITS = 4000  # Python refuses to convert more than 4,300 (sys.int_info.default_max_str_digits)
_NUMBER = re.compile(
    r"""
    (?P<sign>[-+]?) (?:[$€£¥₹]\ ?)? (?P<second_sign>[-+]?)
    (?P<digits> [1-9][0-9]{0,2} (?P<separator>[,_\ ]) [0-9]{3} (?:(?P=separator)[0-9]{3})* | [0-9]+ | (?=\.[0-9]) )
    (?P<fraction>\.[0-9]+)? (?P<exponent>[eE][-+]?[0-9]+)? (?:\ ?[$€£¥₹])?
    """,
    re.VERBOSE,
)


def number(text: str) -> int | float:
    """Return the one number in a text.

    :param text: the answer.
    :returns: an ``int`` where the number is written without fraction and exponent, else a finite ``float``.
    :raises OutputError: where there is none, more than one, or one that does not stand by itself.
    """
    text = text.translate(_PLAIN)
    if not re.search(r"\d", text):
        raise OutputError("it holds no number in digits")
    with_digits = [phrase for phrase in _phrases(text) if re.search(r"\d", phrase)]
    values = [_value(phrase) for phrase in with_digits]
    if any(value != values[0] for value in values):
        raise OutputError(f"it holds different numbers, {' and '.join(phrase[:20] for phrase in with_digits[:3])}")
    return values[0]


def whole_number(text: str) -> int:
    """Return the one number in a text, which must be whole; ``3.0`` and ``1e3`` are.

    :raises OutputError: as :func:`number` does, and for a fraction.
    """
    value = number(text)
    if isinstance(value, float) and (not value.is_integer() or abs(value) >= 2**53):
        raise OutputError(f"{value!r} is no whole number, or not exactly one")
    return int(value)


def _value(phrase: str) -> int | float:
    match = _NUMBER.fullmatch(phrase)
    if match is None or (match["sign"] and match["second_sign"]):
        raise OutputError(f"{phrase[:40]!r} is not a number by itself")
    digits = re.sub("[,_ ]", "", match["digits"])
    if len(digits) > _MAX_DIGITS:
        raise OutputError(f"it holds a number of {len(digits)} digits")
    signed = (match["sign"] or match["second_sign"]) + digits
    if not match["fraction"] and not match["exponent"]:
        return int(signed)
    value = float(signed + (match["fraction"] or "") + (match["exponent"] or ""))
    if value in (float("inf"), float("-inf")):
        raise OutputError("it holds a number too large to read")
    return value
