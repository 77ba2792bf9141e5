"""Colours on a terminal: of words that changed, of a miss's labels, of a check's result."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from functools import partial
from typing import Any

# As git diff --word-diff marks removed and added words, in a miss also on its further lines; the labels of a miss; the
# results of checks
_STYLES: dict[re.Pattern[str], dict[str, Any]] = {
    re.compile(r"\[-(?:.|\n {15})*?-\]"): {"fg": "red"},
    re.compile(r"\{\+(?:.|\n {15})*?\+\}"): {"fg": "green"},
    re.compile(r"(?m)^  (?:asked|scope|looked in|nearest|differs|cause|to record)(?=  )"): {
        "fg": "cyan"
    },
    re.compile(r"(?m)^ok(?=  )"): {"fg": "green"},
    re.compile(r"(?m)^FAIL(?=  )"): {"fg": "red", "bold": True},
    re.compile(r"(?m)^Error(?=: )"): {"fg": "red", "bold": True},
}


def has_colours(*, is_terminal: bool) -> bool:
    """Return whether an output shows colours: a terminal, unless ``NO_COLOR`` or ``TERM=dumb`` says otherwise."""
    is_plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    return is_terminal and not is_plain


def as_warning(text: str) -> str:
    """Return the text of a warning, in which nothing is a control character, with the colour of warnings."""
    return _styled({"fg": "yellow"}, text)


def coloured(text: str) -> str:
    """Return a text of llmcall's, in which nothing is a control character, with colours."""
    for pattern, style in _STYLES.items():
        text = pattern.sub(partial(_styled_match, style), text)
    return text


def _styled_match(style: Mapping[str, Any], match: re.Match[str]) -> str:
    return _styled(style, match[0])


def _styled(style: Mapping[str, Any], text: str) -> str:
    from .libraries import click

    return str(click.style(text, **style))
