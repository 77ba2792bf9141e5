"""What in a text does not matter to the key: times, identifiers, addresses, temporary paths, a user's own patterns."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from ..errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["NORMALIZERS", "normalizer"]

# What each named normalizer takes out of a text, and what it leaves in its place.
NORMALIZERS = {
    "times": re.compile(
        r"\b\d{4}-\d{2}-\d{2}(?:[T ]\d{2}:\d{2}(?::\d{2}(?:[.,]\d+)?)?(?: ?(?:Z|[+-]\d{2}:?\d{2}))?)?\b"
        r"|\b\d{1,2}:\d{2}(?::\d{2}(?:[.,]\d+)?)?(?: ?[AaPp]\.?[Mm]\b\.?)?"
    ),
    "uuids": re.compile(r"\b[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\b"),
    "addresses": re.compile(r"\b0x[0-9a-fA-F]{4,16}\b"),
    "temporary_paths": re.compile(
        r"(?:/private)?(?:/var/folders/[^/\s]+/[^/\s]+/T|/var/tmp|/tmp|[A-Za-z]:\\[^\s\"']{0,260}?\\Temp)[/\\][^\s\"',;)\]}]+"
    ),
}


def normalizer(names: Sequence[str]) -> Callable[[str], str] | None:
    """Return what replaces the parts of a text that do not matter, or ``None`` where there is nothing to replace.

    :param names: ``times``, ``uuids``, ``addresses``, ``temporary_paths``, or regular expressions.
    :raises ConfigError: where an expression is none.
    """
    if not names:
        return None
    patterns = [(NORMALIZERS.get(name) or _compiled(name), name if name in NORMALIZERS else "…") for name in names]

    def normalize(text: str) -> str:
        """Replace each match by its name."""
        for pattern, name in patterns:
            text = pattern.sub(f"<{name}>".replace("\\", r"\\"), text)
        return text

    return normalize


def _compiled(expression: str) -> re.Pattern[str]:
    try:
        return re.compile(expression)
    except re.error as error:
        known = ", ".join(NORMALIZERS)
        raise ConfigError(
            f"[Cache] NORMALIZE: {expression!r} is neither one of {known} nor a regular expression: {error}"
        ) from error
