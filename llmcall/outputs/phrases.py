"""The phrases of an answer: what stands between punctuation, Markdown and quotes."""

from __future__ import annotations

import re

_WRAPPING = " \t\r\n\ufeff\u200b*_`~\"'“”‘’«»„.!,:;#>()[]"
_TAG = re.compile(r"<(/?[a-z][^<>]*)>", re.IGNORECASE)
_BETWEEN_PHRASES = re.compile(
    r"""\n|[.,;:!…]+(?![\w.,;:!…])|—|[()\[\]{}"“”„«»*`#]+
      | [<>]+(?![<>=\s]*[-+$€£¥₹]*\.?\d)  # "<5" is less than five
    """,
    re.VERBOSE,
)
_AROUND_PHRASE = " \t\r\ufeff\u200b'‘’_:"
_LEAD_IN = re.compile(r"(?:(?:the|my|final)\s+)*answer(?:\s+is)?\s+", re.IGNORECASE)


def bare(text: str) -> str:
    """Return a text without the quotes, Markdown marks, brackets and stops around it."""
    return text.strip(_WRAPPING)


def phrases(text: str) -> list[str]:
    """Return the phrases between punctuation in a text, without words that introduce an answer
    ("The answer is …").
    """
    without_lead_in = [
        _LEAD_IN.sub("", phrase.strip(_AROUND_PHRASE), count=1)
        for phrase in _BETWEEN_PHRASES.split(_TAG.sub(r"\n\1\n", text))
    ]
    return [phrase for phrase in without_lead_in if phrase]
