"""The one number that an answer in words gives.

Read as English and JSON write numbers: ``1,234.50``, ``1 234``, ``1_000``, ``1e3``, a currency before, a unit after.
Refused, since a number that is guessed is worse than an answer that is asked for again: two different numbers, ranges,
fractions, times, percentages, ordinals, ``5k`` and ``5 million``, a decimal comma (``1,5`` and ``1.234,56``), numbers
in words, negations, and digits that belong to a name (``GPT-4``).
"""

from __future__ import annotations

import re

from ..errors import OutputError

__all__ = ["number", "whole_number"]

_PLAIN = str.maketrans({"−": "-", "’": "'", "\u00a0": " ", "\u2009": " ", "\u202f": " "})
_GROUPS = 40  # of three digits, as in _NUMBER: longer numbers are not read, so that no run of groups takes long
_MAX_DIGITS = 4000  # Python refuses to convert more than 4,300 (sys.int_info.default_max_str_digits)
_NUMBER = re.compile(
    r"""
    (?<![\w.,'+/^×–—-])
    (?P<sign>[-+]?) (?:[$€£¥₹]\ ?)? (?P<second_sign>[-+]?)
    (?P<digits>
        (?: [1-9][0-9]{0,2} (?P<separator>[,_\ ]) [0-9]{3} (?:(?P=separator)[0-9]{3}){0,40} (?![0-9])
          | [0-9]+ (?=[^0-9]|$) )
        (?P<fraction>\.[0-9]+)?
      | \.[0-9]+ )
    (?P<exponent>[eE][-+]?[0-9]+)?
    """,
    re.VERBOSE,
)
_REFUSED_AFTER = re.compile(
    r"""
    \s?[-–—:/*^×÷+=x]\s?[$€£¥₹]?[.0-9] | [.,'_][0-9]     # joined to another number
  | \s?\\?[%‰]  | \s?[¼-¾⅐-⅞²³¹⁰⁴-⁹]                    # not the number itself
  | (?:k|m|b|t|bn|mn|mm|tn|st|nd|rd|th|x|d|am|pm)\b      # ordinals, multiples, times, 3D
  | \s*(?:hundred|thousand|million|billion|trillion|dozen|lakh|crore|grand|per\s?cent|point|and\s+(?:a|one|three))\b
    """,
    re.VERBOSE | re.IGNORECASE,
)
_NEGATION = re.compile(r"\b(?:not|never|cannot|neither|nor|minus|negative)\b|n't\b", re.IGNORECASE)
_LOOSE_DASH = re.compile(r"(?:^|[^\w\s])\s*-\s+$")


def number(text: str) -> int | float:
    """Return the one number in a text.

    :param text: the answer.
    :returns: an ``int`` where the number is written without fraction and exponent, else a finite ``float``.
    :raises OutputError: where there is none, more than one, or one that can be read in two ways.
    """
    text = text.translate(_PLAIN)
    if not re.search(r"\d", text):
        raise OutputError("it holds no number in digits")
    if negation := _NEGATION.search(text):
        raise OutputError(f"the word {negation[0]!r} leaves open which number is meant")
    values = [_value(text, match) for match in _NUMBER.finditer(text)]
    if re.search(r"\d", _NUMBER.sub("", text)) or not values:
        raise OutputError("it holds digits that can be read in more than one way")
    if any(value != values[0] for value in values):
        raise OutputError(f"it holds different numbers, {_listed(values)}")
    return values[0]


def whole_number(text: str) -> int:
    """Return the one number in a text, which must be whole; ``3.0`` and ``1e3`` are.

    :raises OutputError: as :func:`number` does, and for a fraction.
    """
    value = number(text)
    if isinstance(value, float) and (not value.is_integer() or abs(value) >= 2**53):
        raise OutputError(f"{value!r} is no whole number, or not exactly one")
    return int(value)


def _value(text: str, match: re.Match[str]) -> int | float:
    if after := _REFUSED_AFTER.match(text, match.end()):
        shown = text[match.start() : after.end()] + re.split(r"[^\w.,]", text[after.end() : after.end() + 10])[0]
        raise OutputError(f"{shown[-40:]!r} can be read in more than one way")
    if _LOOSE_DASH.search(text[max(0, match.start() - 40) : match.start()]):
        raise OutputError("the dash before the number may be a minus sign")
    if match["sign"] and match["second_sign"]:
        raise OutputError("the number has two signs")
    return _converted(match)


def _converted(match: re.Match[str]) -> int | float:
    if match["separator"] and match["digits"].count(match["separator"]) > _GROUPS:
        raise OutputError("it holds a number of more than 40 groups of digits")
    digits = re.sub("[,_ ]", "", match["digits"])
    if len(digits) > _MAX_DIGITS:
        raise OutputError(f"it holds a number of {len(digits)} digits")
    sign = match["sign"] or match["second_sign"]
    if match["exponent"] or "." in digits:
        value = float(sign + digits + (match["exponent"] or ""))
    else:
        return int(sign + digits)
    if value in (float("inf"), float("-inf")):
        raise OutputError("it holds a number too large to read")
    return value


def _listed(values: list[int | float]) -> str:
    shown = list(dict.fromkeys(str(value)[:20] for value in values))
    return ", ".join(shown[:3]) + (", …" if len(shown) > 3 else "")
