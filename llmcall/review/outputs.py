"""The first difference between two outputs of a program, and what it looks like."""

from __future__ import annotations

import re
from collections import Counter
from itertools import zip_longest
from typing import NamedTuple

from ..stores.differences import common_ends
from ..support.display import one_line
from ..support.normalizers import normalizer

LONGEST_LINE = 80  # characters of a line in a message
BEFORE = 30  # of these, how many stand before what differs
PART = re.compile(r"\w+|[^\w\s]")
NUMBER = re.compile(r"\d+(?:[.,]\d+)*(?:[eE][+-]?\d+)?")
RECORD_IT = "Let a function with @llmcall.recorded return it, or print it to standard error"
# By normalizer: what the text is, and what to do.
ALIKE = {
    "times": ("a time", RECORD_IT),
    "uuids": ("an id", RECORD_IT),
    "temporary_paths": ("a temporary path", "Print its last part alone"),
    "addresses": ("an address in memory", "Print a name of the object instead"),
}
SET = "a set, whose order depends on the hash seed", "Sort a set, or record with --seed N"
ARRIVAL = (
    "an order of arrival",
    "Collect the results in the order in which they were asked for",
)
CHANCE = (
    "a random number or a time",
    f"Record with --seed N, which fixes random numbers. {RECORD_IT}",
)
NUMBERS = "a time or an id", RECORD_IT


class OutputDifference(NamedTuple):
    """The first lines in which two outputs differ.

    :param number: of the line, from 1.
    :param before: the line of the first output; ``None`` if that has ended.
    :param after: that of the second.
    :param kind: what it looks like, in words; empty if it looks like nothing known.
    :param remedy: what to do about it, in a sentence.
    """

    number: int
    before: str | None
    after: str | None
    kind: str = ""
    remedy: str = ""

    def lines(self, before: str, after: str) -> list[str]:
        """Describe the difference.

        :param before: the name of the first output.
        :param after: that of the second.
        """
        width = max(len(before), len(after)) + 1
        shown = [f"line {self.number:,} of the output differs:"]
        for name, line in ((before, self.before), (after, self.after)):
            text = "(the output has ended)" if line is None else self._shown(line)
            shown.append(f"  {name + ':':{width}} {text}")
        if self.kind:
            shown += [f"It looks like {self.kind}.", f"{self.remedy}."]
        return shown

    def _shown(self, line: str) -> str:
        """Return the part of a line around what differs."""
        same, _ = common_ends(self.before or "", self.after or "")
        begin = max(0, same - BEFORE) if len(line) > LONGEST_LINE else 0
        return f"{'…' if begin else ''}{one_line(line[begin:], LONGEST_LINE)}"


def first_difference(
    before: bytes,
    after: bytes,
    *,
    has_seed: bool = False,
    has_hash_seed: bool = False,
    is_alone: bool = False,
) -> OutputDifference | None:
    """Return the first difference between two outputs, or ``None``.

    :param has_seed: ``True`` if both had the same random numbers and hash seed: then it is no chance and no set.
    :param has_hash_seed: ``True`` if both had the same hash seed alone.
    :param is_alone: ``True`` if a single task or thread made all calls: then no order of arrival can differ.
    """
    if before == after:
        return None
    end = b"\n" if before.endswith(b"\n") and after.endswith(b"\n") else b""
    olds, news = (
        text.removesuffix(end).decode(errors="backslashreplace").split("\n")
        for text in (before, after)
    )
    number, old, new = next(
        (number, old, new)
        for number, (old, new) in enumerate(zip_longest(olds, news), 1)
        if old != new
    )
    kinds = [] if has_seed or has_hash_seed else [SET]
    orders = kinds if is_alone else [ARRIVAL, *kinds]
    found: tuple[str, str] = ("", "")
    if Counter(olds) == Counter(news):
        found = _joined(orders)
    elif old is not None and new is not None:
        found = _kind_of(old, new, orders, has_seed=has_seed)
    return OutputDifference(number, old, new, *found)


def _kind_of(
    old: str, new: str, orders: list[tuple[str, str]], *, has_seed: bool
) -> tuple[str, str]:
    """Return what a changed line looks like, and what to do about it."""
    normalize = normalizer(tuple(ALIKE))
    assert normalize is not None
    if normalize(old) == normalize(new):
        return _joined([ALIKE[name] for name in ALIKE if _holds(name, old)])
    if Counter(PART.findall(old)) == Counter(PART.findall(new)):
        return _joined(orders)
    old, new = normalize(old), normalize(new)
    if NUMBER.sub("0", old) == NUMBER.sub("0", new):
        return NUMBERS if has_seed else CHANCE
    return "", ""


def _holds(name: str, line: str) -> bool:
    """Return whether a line holds what a normalizer replaces."""
    normalize = normalizer((name,))
    return normalize is not None and normalize(line) != line


def _joined(kinds: list[tuple[str, str]]) -> tuple[str, str]:
    """Return what one of several kinds looks like, and what to do about each."""
    if not kinds:
        return "", ""
    return " or ".join(kind for kind, _ in kinds), ". ".join(remedy for _, remedy in kinds)
