"""The phrases of an answer: what stands between punctuation."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import zip_longest

_TAG = re.compile(r"<([^<>\n]*)>")
_INLINE_TAG = re.compile(r"</?(?:b|i|u|em|strong|code|mark|span|sub|sup)>", re.IGNORECASE)
# The end of a number's tag or box with a unit or scale behind it; a new sentence is none.
_END_BEFORE_UNIT = re.compile(
    r"""(\d[ \t.*`]*) <(?:/[^<>\n]*|\|end[^<>\n]*\|)> (?:[ \t$*~`]|\\[ ,;:!\]])*
    (?= \\?[%‰°^] | (?![A-Z][a-z]|I\b)[^\W\d_] )""",
    re.VERBOSE,
)
# "(dis)agree" is neither of its two words.
_BRACKET_IN_WORD = re.compile(r"\(([A-Za-z][a-z]+)\)(?=[a-z])")
_QUANTITY = r"(?:[-−–+]?(?:[$€£¥₹][ \t]?)?\.?\d)"  # "> 5" and "<$5" are no answers, nor marks
_LINE_MARK = re.compile(  # of a list, a heading or a quotation
    rf"^[ \t]*(?:[*#]+[ \t]+|>[ \t]+(?!{_QUANTITY}))+", re.MULTILINE
)
_OPENING_BRACKETS = "([{"
# What an actor does, before he speaks: "*smiles* Yes"
_STAGE_DIRECTION = re.compile(
    r"""^[ \t]*\*
    (?! [^*\n]* (?i: \b(?:no|not|never|nor|neither|hardly|anything|except|but)\b | n['’]t\b) )
    ([^*\n]+) \*[ \t]+(?=[A-Z])""",
    re.MULTILINE | re.VERBOSE,
)
_SPACED_QUOTES = re.compile(r"«\s+|(?<=\S)\s+»")
# What opens before a word, or closes behind one: "3 * 3" and "2**2" have no emphasis.
_MARK = r"*`\"“”„«»"
_EMPHASIS = re.compile(
    rf"(?<![\w{_MARK}])[{_MARK}]+(?=[^\s{_MARK}])|(?<=[^\s{_MARK}])[{_MARK}]+(?![\w{_MARK}])"
)
# A stop before a digit may belong to an abbreviation ("approx. 5"), and a dash may be a minus sign.
_BETWEEN_PHRASES = re.compile(
    rf"""( \n | (?<=\S)[ \t]+[-–][ \t]+(?=[^\W\d_])
      | (?<![.,;:!…])(?:[,;:!…]|\.(?![ \t]+\d)|(?<=[^\W\d_]{{4}})(?<![Aa]pprox)(?<![Ss]ept)\.)
        [.,;:!…]*(?![\w.,;:!…])
      | —(?!\d) | [-=]> | [<>](?!=?\s?{_QUANTITY}) )""",
    re.VERBOSE,
)
_BRACKETS = re.compile(r"(?=[(\[{])|[)\]}]")
_AROUND_PHRASE = " \t\r\ufeff\u200b'‘’_:"
# Marks of other scripts, as their Latin twins; what sets the direction of writing is left out.
_LATIN_MARKS: dict[str, str] = {
    **dict.fromkeys("。．｡۔।॥", ". "),
    **dict.fromkeys("，、،", ", "),
    **dict.fromkeys("；؛", "; "),
    **dict.fromkeys("！", "! "),
    **dict.fromkeys("？؟", "? "),
    "：": ": ",
    **dict(zip("（）［］｛｝", "()[]{}", strict=True)),
    **dict.fromkeys("「」『』【】《》〈〉", '"'),
    **dict.fromkeys("¡¿\u200e\u200f\u061c\u2066\u2067\u2068\u2069", ""),
}
_TO_LATIN_MARKS = str.maketrans(_LATIN_MARKS)
_BLANKS = " \t\r\n\ufeff\u200b"
MOST_LAYERS = 8  # more than a model writes; each is looked through for the next one
_STOPS = ".!…,:;"
_PAIRS = {
    "**": "**",
    **{mark: mark for mark in "*_`\"'"},
    "“": "”",
    "‘": "’",
    "«": "»",
    "„": "“",
    "(": ")",
    "[": "]",
}
_LEADING_MARK = re.compile(rf"^(?:#+|>)\s+(?!{_QUANTITY})")  # of a heading or a quotation
# Words that introduce an answer and change nothing about it.
_LEAD_IN = re.compile(
    r"""\A(?:(?:so|therefore|thus|hence|overall)\s+)?
    (?: (?:(?:the|my|final|correct|right|best|overall)\s+)*
        (?: answer(?:\s+(?:is|would\s+be))?
          | (?:option|choice|rating|score|decision|verdict|sentiment|mood|result|total|price|value|number|estimate
            |guess)\s+(?:is|would\s+be))
      | i(?:\s+would|'d|’d)?\s+
        (?:choose|pick|select|say|pay|estimate|guess|go\s+with|vote(?:\s+for)?|rate\s+(?:it|this)(?:\s+an?)?)
    )(?:\s+|$)""",
    re.IGNORECASE | re.VERBOSE,
)


def with_latin_marks(text: str) -> str:
    """Return a text with the marks of other scripts as their Latin twins."""
    return text.translate(_TO_LATIN_MARKS)


def peeled(text: str) -> Iterator[str]:
    """Yield a text, then the text without one layer after another of what stands around it: quotes,
    brackets and Markdown marks in pairs, and the stops at its end.

    So "C#" and "A*" keep their marks.
    """
    text = text.strip(_BLANKS)
    for _ in range(MOST_LAYERS):
        yield text
        inside = _inside(text)
        if inside == text:
            return
        text = inside


def _inside(text: str) -> str:
    """Return a text without the outermost layer around it; the text itself if there is none."""
    for opening, closing in _PAIRS.items():
        is_wrapped = text.startswith(opening) and text.endswith(closing)
        inside = text[len(opening) : -len(closing)].strip(_BLANKS)
        if is_wrapped and inside.strip(opening):  # "***" may be three stars
            return inside
    has_closing_bracket = text.endswith(")") and "(" not in text
    stops = f"{_STOPS})" if has_closing_bracket else _STOPS
    return _LEADING_MARK.sub("", text.rstrip(stops + _BLANKS) or text)


def without_marks(text: str) -> str:
    """Return a text without Markdown's marks; tags become lines of their own.

    Emphasis and quotes belong to the sentence around them: "not **true**" becomes "not true".
    """
    text = _END_BEFORE_UNIT.sub(r"\1 ", _INLINE_TAG.sub("*", text))
    text = _BRACKET_IN_WORD.sub(r"\1/", _TAG.sub(r"\n\1\n", text))
    text = text.replace('":', '": ')  # JSON without blanks
    text = _SPACED_QUOTES.sub('"', text)
    text = _STAGE_DIRECTION.sub(r"\1\n", text)
    return _EMPHASIS.sub("", _LINE_MARK.sub("", text))


def phrases(text: str) -> list[str]:
    """Return the phrases between punctuation in a text without marks, and without words that
    introduce an answer ("The answer is …").

    What stands in brackets behind other words keeps its bracket.

    :param text: of :func:`without_marks`.
    """
    found: list[str] = []
    before = ""  # of the words on the line, since a colon
    parts = _BETWEEN_PHRASES.split(text)  # sentences, and the stops between them
    for sentence, stop in zip_longest(parts[::2], parts[1::2], fillvalue=""):
        for piece in _BRACKETS.split(sentence):
            words = piece if before else piece.lstrip(_OPENING_BRACKETS)
            phrase = _LEAD_IN.sub("", words.strip(_AROUND_PHRASE), count=1)
            if phrase:
                found.append(phrase)
            is_lead_in = bool(piece.strip()) and not phrase
            before = "" if is_lead_in else before or phrase
        if stop.endswith(("\n", ":", ">")):
            before = ""
    return found


def phrases_with_digits(text: str) -> list[str]:
    """Return the phrases of an answer that hold a digit."""
    return [phrase for phrase in phrases(without_marks(text)) if re.search(r"\d", phrase)]


def without_bracket(phrase: str) -> str:
    """Return a phrase without the bracket that it keeps if it stands behind other words."""
    return phrase.lstrip(_OPENING_BRACKETS)
