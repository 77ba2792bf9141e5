"""What in a text changes from run to run, and what would mend it."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple

from ..requests.keys import NORMALIZERS
from ..text import printable
from .passages import pieces, shortened

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from .passages import Passage

__all__ = ["holds", "volatile"]

NEAR = 200  # characters around a change in which a date or a path may begin
PIECE = 48  # characters of a piece that a message shows
LONGEST = 200_000  # characters of a text whose lists are sorted
SAME_NUMBER = 1e-6  # relative: what two ways of writing or adding up one number differ by at most
MANY_DIGITS = 6  # after the point: more than a person writes into a prompt
RECORDED = "@llmcall.recorded"

_MONTH = r"(?:Jan|Feb|Mar|Apr|May|June?|July?|Aug|Sept?|Oct|Nov|Dec)(?:uary|ruary|ch|il|ust|tember|ober|ember)?\.?"
_DAY = r"(?:Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)day"
_ORDINAL = r"\d{1,2}(?:st|nd|rd|th|\.)?"
DATE = rf"(?:{_DAY},? )?(?:{_ORDINAL} (?:of )?{_MONTH}|{_MONTH} {_ORDINAL})(?!\w)(?:,? \d{{4}})?"
SECONDS = r"\b1[5-9]\d{8}(?:\d{3})?(?:\.\d+)?\b"
IDENTIFIER = r"\b(?=[0-9a-z]*\d)(?=[0-9a-z]*[a-z])[0-9a-z]{12,64}\b"


class Kind(NamedTuple):
    """Be a kind of text that changes from run to run.

    :param what: what it is, in words.
    :param normalize: what ``[Cache] NORMALIZE`` is to be set to, with the word before it.
    :param otherwise: another way to mend it.
    """

    what: str
    pattern: re.Pattern[str]
    normalize: str
    otherwise: str


KINDS = (
    Kind("a date or time", NORMALIZERS["times"], "= times", f"tell the time by a function under {RECORDED}"),
    Kind("a UUID", NORMALIZERS["uuids"], "= uuids", f"make it in a function under {RECORDED}"),
    Kind("an object's address in memory", NORMALIZERS["addresses"], "= addresses", "give the class a __repr__"),
    Kind("a temporary path", NORMALIZERS["temporary_paths"], "= temporary_paths", "keep the path out of the prompt"),
    Kind(
        "a date in words",
        re.compile(rf"\b(?:{DATE}|{_DAY}\b)"),
        "to a regular expression of it",
        f"tell it by a function under {RECORDED}",
    ),
    Kind("a time in seconds", re.compile(SECONDS), f"= {SECONDS}", f"tell the time by a function under {RECORDED}"),
    Kind("an identifier", re.compile(IDENTIFIER), f"= {IDENTIFIER}", f"make it in a function under {RECORDED}"),
)
GROUP = re.compile(r"([\[{(])([^\[\]{}()]*)[\]})]")
NUMPY = re.compile(r"\bnp\.(?:float|int|str_|bool_?)\d*\(([^()]*)\)")
NUMBER = re.compile(r"[-+]?\d+\.?\d*(?:[eE][-+]?\d+)?")


def volatile(recorded: str, asked: str, found: Sequence[Passage]) -> list[str]:
    """Return sentences that name what changes from run to run between two texts, and the remedy.

    :param found: where the texts differ.
    """
    if recorded == asked:
        return []
    reordered = _reordered(recorded, asked)
    if reordered:
        return [reordered]
    if NUMPY.sub(r"\1", recorded) == NUMPY.sub(r"\1", asked):
        version = "2" if "np." in asked else "1"
        return [f"a number is written as NumPy {version} writes it: format it, as in f'{{float(x):.6g}}'"]
    sentences: dict[str, None] = {}
    for passage in found:
        sentences |= dict.fromkeys(_of_passage(passage, recorded, asked))
    return list(sentences)


def holds(text: str) -> str:
    """Return a clause that says what a new text holds that will change again, or nothing."""
    for kind in KINDS:
        if kind.pattern.search(text):
            return f", and holds {kind.what}, which changes from run to run ([Cache] NORMALIZE {kind.normalize})"
    return ""


def _of_passage(passage: Passage, recorded: str, asked: str) -> list[str]:
    one, other = pieces(passage, recorded, asked)
    kinds = _kinds(passage, recorded, asked)
    if kinds:
        return [
            f"{kind.what} differs (recorded {_short(left)}, asked {_short(right)}), which changes from run to run: "
            f"set [Cache] NORMALIZE {kind.normalize} and record again, or {kind.otherwise}"
            for kind, (left, right) in kinds.items()
        ]
    if NUMBER.fullmatch(one) and NUMBER.fullmatch(other):
        return _of_numbers(one, other)
    return []


def _short(text: str) -> str:
    return shortened(printable(text.strip()), PIECE)


def _kinds(passage: Passage, recorded: str, asked: str) -> dict[Kind, tuple[str, str]]:
    """Return the kind that a passage lies within, or those that together make its two pieces equal.

    With each stands what was recorded and what was asked.
    """
    for kind in KINDS:
        one = _around(kind, recorded, passage.begin, passage.end)
        other = _around(kind, asked, passage.asked_begin, passage.asked_end)
        if one and other:
            return {kind: (one, other)}
    one, other = pieces(passage, recorded, asked)
    used = {}
    for kind in KINDS:
        left, right = kind.pattern.search(one), kind.pattern.search(other)
        if left and right:
            used[kind] = (left[0], right[0])
            one, other = kind.pattern.sub("", one), kind.pattern.sub("", other)
    return used if one == other else {}


def _around(kind: Kind, text: str, begin: int, end: int) -> str:
    """Return the match in which a part of a text lies, sought not far around it, or nothing."""
    start = max(0, begin - NEAR)
    for match in kind.pattern.finditer(text[start : end + NEAR]):
        if start + match.start() <= begin < end <= start + match.end():
            return match[0]
    return ""


def _of_numbers(one: str, other: str) -> list[str]:
    left, right = float(one), float(other)
    if abs(left - right) <= SAME_NUMBER * max(abs(left), abs(right)):
        return [
            f"the same number is written with other digits (recorded {one}, asked {other}), as another version of "
            "Python or of a library computes or writes it: format it, as in f'{x:.6g}'"
        ]
    if min(_decimals(one), _decimals(other)) >= MANY_DIGITS:
        return [
            f"a number of many digits differs (recorded {one}, asked {other}): where it is drawn at random or "
            f"measured, put the function that gives it under {RECORDED}"
        ]
    return []


def _decimals(number: str) -> int:
    return len(re.split("[eE]", number.partition(".")[2])[0])


def _reordered(recorded: str, asked: str) -> str:
    """Return a sentence where the texts have the same items in another order, else nothing."""
    if len(recorded) != len(asked) or len(asked) > LONGEST:
        return ""
    if _sorted_groups(recorded) == _sorted_groups(asked):
        kind, items = _first_reordered(recorded, asked)
        begin = f"{kind} is written in another order ({_short(items)})"
        if kind == "a dict":
            return f"{begin}: write it in one order, as by json.dumps(…, sort_keys=True)"
        if kind == "a set":
            return f"{begin}: the order of a set changes from run to run; write sorted(…) into the text"
        return f"{begin}: sort it, or put the function that gives it under {RECORDED}"
    if Counter(re.findall(r"\w+|\S", recorded)) == Counter(re.findall(r"\w+|\S", asked)):
        return (
            "the same words stand in another order: where they come from a set or a folder, whose order changes from "
            f"run to run, write sorted(…) into the text, or put the function that gives them under {RECORDED}"
        )
    return ""


def _sorted_groups(text: str) -> str:
    """Return a text in which the items in all brackets are sorted, from the inside outwards."""
    before = ""
    while before != text:
        before = text
        text = GROUP.sub(_sorted_group, text)
    return text


def _sorted_group(match: re.Match[str]) -> str:
    return f"⟨{match[1]}{','.join(sorted(item.strip() for item in match[2].split(',')))}⟩"


def _groups(text: str) -> Iterator[Any]:
    return GROUP.finditer(text)


def _first_reordered(recorded: str, asked: str) -> tuple[str, str]:
    """Return what the first differing brackets hold, in words, and their text as asked."""
    for one, other in zip(_groups(recorded), _groups(asked), strict=False):
        if one[0] != other[0]:
            names = {"[": "a list", "(": "a tuple", "{": "a dict" if ":" in other[2] else "a set"}
            return names[other[1]], other[0]
    return "a list", "nested"
