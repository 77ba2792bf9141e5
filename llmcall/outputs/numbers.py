"""The one number that an answer gives."""

from __future__ import annotations

import re

from ..errors import OutputError
from .phrases import phrases_with_digits, with_latin_marks, without_bracket

_PLAIN = str.maketrans({"−": "-", "\u00a0": " ", "\u2009": " ", "\u202f": " "})
_NUMBER = re.compile(
    r"""
    (?P<sign>[-+]?) (?:[$€£¥₹]\ ?)?
    (?P<digits> [1-9][0-9]{0,2} (?P<separator>[,_\ ]) [0-9]{3} (?:(?P=separator)[0-9]{3})* | [0-9]+ | (?=\.[0-9]) )
    (?P<fraction>\.[0-9]+)? (?P<exponent>[eE][-+]?[0-9]+)? (?:\ ?[$€£¥₹])?
    """,
    re.VERBOSE,
)


_THOUSANDS = re.compile(r"(?<![\d.,])[1-9][0-9]{0,2}\.[0-9]{3}(?!\d|[.,]\d)")


def number(text: str) -> int | float:
    """Return the one number in a text.

    :param text: the answer.
    :returns: an ``int`` if the number is written without fraction and exponent, else a finite
        ``float``.
    :raises OutputError: if there is no number, if there are different ones, or if other text is
        attached to it.
    """
    text = with_latin_marks(text).translate(_PLAIN)
    if not re.search(r"\d", text):
        raise OutputError("it holds no number in digits")
    with_digits = phrases_with_digits(text)
    if all(phrase != without_bracket(phrase) for phrase in with_digits):
        raise OutputError("its number stands in brackets behind other words")
    values = [_value(without_bracket(phrase)) for phrase in with_digits]
    if any(value != values[0] for value in values):
        raise OutputError(
            "it holds different numbers, "
            + " and ".join(without_bracket(phrase)[:20] for phrase in with_digits[:3])
        )
    return values[0]


def whole_number(text: str) -> int:
    """Return the one number in a text, which must be whole; ``3.0`` and ``1e3`` are.

    :raises OutputError: as :func:`number` does, for a fraction, and for ``45.000``, which is 45,000 in
        many languages.
    """
    value = number(text)
    refuse_thousands(text, value)
    if isinstance(value, float) and (not value.is_integer() or abs(value) >= 2**53):
        raise OutputError(f"{value!r} is no whole number, or not exactly one")
    return int(value)


def refuse_thousands(text: str, value: float) -> None:
    """Refuse a whole number that was read from a text such as ``45.000``.

    :raises OutputError: if the number's point may separate thousands.
    """
    thousands = _THOUSANDS.search(text)
    if thousands is not None and abs(value) == float(thousands[0]):
        raise OutputError(
            f"{thousands[0]} may be a fraction, or mean {thousands[0].replace('.', '')}; write it without a point"
        )


def _value(phrase: str) -> int | float:
    """Return the number that a phrase is.

    :raises OutputError: if it is anything else, too.
    """
    match = _NUMBER.fullmatch(phrase)
    if match is None:
        raise OutputError(f"{phrase[:40]!r} is not a number by itself")
    integer_text = match["sign"] + re.sub("[,_ ]", "", match["digits"])
    value = float(integer_text + (match["fraction"] or "") + (match["exponent"] or ""))
    if abs(value) == float("inf"):
        raise OutputError("it holds a number too large to read")
    return value if match["fraction"] or match["exponent"] else int(integer_text)
