"""Normalizers, which keep parts of a text, such as times, out of a request's key."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_CLOCK = r"\d{1,2}:\d{2}(?::\d{2}(?:[.,]\d+)?)?(?: ?[AaPp]\.?[Mm]\b\.?)?"
_ZONE = r"(?: ?(?:Z|UTC|GMT|[+-]\d{2}:?\d{2})\b)?"
_YEAR = r"(?:19|20)\d{2}\b"
_DAY = r"\d{1,2}(?:st|nd|rd|th)?"
_WEEKDAY = r"(?:(?:Mon|Tue(?:s)?|Wed(?:nes)?|Thu(?:rs)?|Fri|Sat(?:ur)?|Sun)(?:day)?\.?,? )?"
_MONTH = (
    r"(?:Jan(?:uary)?|Feb(?:ruary)?|Mar(?:ch)?|Apr(?:il)?|May|June?|July?|Aug(?:ust)?|Sept?(?:ember)?|Oct(?:ober)?"
    r"|Nov(?:ember)?|Dec(?:ember)?)\.?"
)
# The texts that each named normalizer replaces by its name. A date in words or with slashes needs a year,
# because of "May 3 people enter?".
NORMALIZERS = {
    "times": (
        rf"\b(?:\d{{4}}-\d{{2}}-\d{{2}}|{_WEEKDAY}{_MONTH} {{1,2}}{_DAY},? {_YEAR}"
        rf"|{_WEEKDAY}{_DAY}(?: of|\.)? {_MONTH},? {_YEAR}"
        rf"|\d{{1,2}}(?P<mark>[/.])\d{{1,2}}(?P=mark){_YEAR}|{_YEAR}/\d{{1,2}}/\d{{1,2}})"
        rf"(?:(?:T|,? (?:at )?){_CLOCK}{_ZONE})?(?!\w)"
        # strftime("%c")
        rf"|\b{_WEEKDAY}{_MONTH} {{1,2}}{_DAY},? {_CLOCK}(?: [A-Z]{{3,5}})? {_YEAR}"
        rf"|\b{_CLOCK}"
    ),
    "uuids": r"\b[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\b",
    "addresses": r"\b0x[0-9a-fA-F]{4,16}\b",
    "temporary_paths": (
        r"(?:/private)?(?:/var/folders/[^/\s]+/[^/\s]+/T|/var/tmp|/tmp|[A-Za-z]:\\[^\s\"']{0,260}?\\Temp)[/\\][^\s\"',;)\]}]+"
    ),
}


@lru_cache(maxsize=32)
def normalizer(names: tuple[str, ...]) -> Callable[[str], str] | None:
    """Return the function that replaces the parts of a text that do not matter.

    :param names: names of ``NORMALIZERS``, or regular expressions; the settings check them.
    :returns: the function, or ``None`` without names.
    """
    if not names:
        return None
    patterns = [(re.compile(NORMALIZERS.get(name, name)), replacement(name)) for name in names]

    def normalize(text: str) -> str:
        """Replace each match by its name."""
        for pattern, replaced in patterns:
            text = pattern.sub(replaced, text)
        return text

    return normalize


def replacement(name: str) -> str:
    """Return the text that a normalizer writes instead of a match."""
    return f"<{name}>" if name in NORMALIZERS else "<…>"
