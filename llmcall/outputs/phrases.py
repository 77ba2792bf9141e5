"""The phrases of an answer: what stands between punctuation, Markdown and quotes."""

from __future__ import annotations

import re
from collections.abc import Iterator

_WRAPPING = " \t\r\n\ufeff\u200b*_`~\"'“”‘’«»„.!,:;#>()[]"
_TAG = re.compile(r"<([^<>\n]*)>")
_BETWEEN_PHRASES = re.compile(
    r"""\n|[.,;:!…]+(?![\w.,;:!…])|—|[()\[\]{}"“”„«»*`#]+
      | [-=]> | [<>](?!=?\s?[-+]?[$€£¥₹]?\.?\d)  # "<5" is less than five
    """,
    re.VERBOSE,
)
_AROUND_PHRASE = " \t\r\ufeff\u200b'‘’_:"
_BLANKS = " \t\r\n\ufeff\u200b"
MOST_LAYERS = 8  # more than a model writes; each is looked through for the next one
_STOPS = ".!…,:;"
_PAIRS = {
    "**": "**",
    "~~": "~~",
    **{mark: mark for mark in "*_`\"'"},
    "“": "”",
    "‘": "’",
    "«": "»",
    "„": "“",
    "(": ")",
    "[": "]",
}
_LEADING_MARK = re.compile(r"^(?:#+|>)\s+(?!\d)")  # of a heading or a quotation
_LEAD_IN = re.compile(r"(?:(?:the|my|final)\s+)*answer(?:\s+is)?\s+", re.IGNORECASE)


def bare(text: str) -> str:
    """Return a text without the quotes, Markdown marks, brackets and stops around it."""
    return text.strip(_WRAPPING)


def peeled(text: str) -> Iterator[str]:
    """Yield a text, then the text without one layer after another of what stands around it: quotes,
    brackets and Markdown marks in pairs, and the stops at its end.

    So "C#" and "A*" keep what :func:`bare` takes for Markdown.
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


def phrases(text: str) -> list[str]:
    """Return the phrases between punctuation in a text, without words that introduce an answer
    ("The answer is …").
    """
    without_lead_in = [
        _LEAD_IN.sub("", phrase.strip(_AROUND_PHRASE), count=1)
        for phrase in _BETWEEN_PHRASES.split(_TAG.sub(r"\n\1\n", text))
    ]
    return [phrase for phrase in without_lead_in if phrase]
