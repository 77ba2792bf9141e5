"""A sample's two parts, the scope path and the draw, and their words in a report."""

from __future__ import annotations

from ..display.formatting import OUTSIDE_ANY_SCOPE
from ..display.printable import printable


def split_sample(sample: str | None) -> tuple[str, str]:
    """Return a sample's scope path and draw; a draw that the user gave may hold another ``#``."""
    path, _, draw = (sample or "").partition("#")
    return path, draw


def sample_words(kind: str, sample: str | None) -> str:
    """Return a sample in words, such as ``trial/lisa, draw 2``."""
    if kind == "embedding":
        return "shared by all scopes"
    if sample is None:
        return OUTSIDE_ANY_SCOPE
    path, draw = split_sample(sample)
    number = f"draw {draw}" if draw.isdecimal() else f"sample {draw!r}"
    return f"{printable(path) or OUTSIDE_ANY_SCOPE}, {number}"
