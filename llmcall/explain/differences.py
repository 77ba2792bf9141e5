"""What differs between two requests, field by field."""

from __future__ import annotations

import difflib
import json
from typing import TYPE_CHECKING, Any, NamedTuple

from ..text import printable
from .passages import Passage, masked, passages, shortened, shown
from .similarity import said

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from ..types import Data

__all__ = ["Difference", "brief", "differences"]

LAST = ("messages", "input", "arguments")  # the fields that hold what was said; the parameters come before them
SHOWN_PASSAGES = 3
SHORT = 40  # characters of a parameter that is shown whole
INDENT = "  "


class Difference(NamedTuple):
    """Say how one field of a request differs from that of a record.

    :param place: the field, such as ``temperature`` or ``messages[1].content``.
    :param recorded: its value in the record, or ``None`` where it is not there.
    :param asked: its value in the request, likewise.
    :param role: of a message's field, the message's role.
    :param passages: of two texts, where they differ.
    """

    place: str
    recorded: Data
    asked: Data
    role: str = ""
    passages: tuple[Passage, ...] = ()

    def lines(self, width: int) -> list[str]:
        """Return the difference as lines for a terminal.

        :param width: characters of a line.
        """
        name = f"{self.place} ({self.role})" if self.role else self.place
        if not self.passages:
            sides = 1 if self.recorded is None or self.asked is None else 2
            room = max(20, (width - len(name) - len(": recorded , not asked")) // sides)
            return [f"{name}: {_side('recorded', self.recorded, room)}, {_side('asked', self.asked, room)}"]
        lines = [f"{name}:"]
        for passage in self.passages[:SHOWN_PASSAGES]:
            lines += [INDENT + line for line in shown(passage, self.recorded, self.asked, width - len(INDENT))]
        more = len(self.passages) - SHOWN_PASSAGES
        return [*lines, f"{INDENT}… and {more} more"] if more > 0 else lines

    def __str__(self) -> str:
        return "\n".join(self.lines(100))

    def __repr__(self) -> str:
        return f"Difference({self.place!r}: {brief(self.recorded, 40)} → {brief(self.asked, 40)})"


def _side(name: str, value: Data, width: int) -> str:
    return f"not {name}" if value is None else f"{name} {brief(value, width)}"


def brief(value: Data, width: int) -> str:
    """Return a value in one line of at most a width, without credentials."""
    value = said(value) if isinstance(value, dict) and "role" in value else value
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=_of_bytes)
    shortening = shortened(printable(masked(text)), width - 2)
    return f'"{shortening}"' if isinstance(value, str) else shortening


def _of_bytes(value: Any) -> str:
    return f"{len(value)} bytes" if isinstance(value, bytes) else repr(value)


def differences(recorded: Mapping[str, Data], asked: Mapping[str, Data]) -> tuple[Difference, ...]:
    """Return the fields in which a stored request and another one differ: parameters first, then messages."""
    names = sorted(recorded.keys() | asked.keys(), key=lambda name: (name in LAST, name != "model", name))
    return tuple(found for name in names for found in _compared(name, recorded.get(name), asked.get(name), ""))


def _compared(place: str, recorded: Data, asked: Data, role: str) -> Iterator[Difference]:
    if recorded == asked and _written(recorded) == _written(asked):  # True equals 1, and is another value in JSON
        return
    if isinstance(recorded, str) and isinstance(asked, str):
        whole = not role and max(len(recorded), len(asked)) <= SHORT and not place.startswith(LAST)
        yield Difference(place, recorded, asked, role, () if whole else passages(recorded, asked))
    elif isinstance(recorded, dict) and isinstance(asked, dict):
        role = role or _role(recorded, asked)
        for name in sorted(recorded.keys() | asked.keys()):
            yield from _compared(f"{place}.{name}", recorded.get(name), asked.get(name), role)
    elif isinstance(recorded, list) and isinstance(asked, list):
        for index, one, other in _aligned(recorded, asked):
            yield from _compared(f"{place}[{index}]", one, other, role)
    else:
        yield Difference(place, recorded, asked, role or _role(recorded, asked))


def _written(value: Data) -> str:
    return json.dumps(value, sort_keys=True, default=repr)


def _role(*items: Data) -> str:
    return next((str(item["role"]) for item in items if isinstance(item, dict) and "role" in item), "")


def _aligned(recorded: Sequence[Data], asked: Sequence[Data]) -> Iterator[tuple[int, Data, Data]]:
    """Yield index, recorded and asked item of each pair that differs; ``None`` stands for a missing one.

    The index is that in the request, and of an item that only the record has, that in the record.
    """
    one, other = (list(map(_written, items)) for items in (recorded, asked))
    matcher = difflib.SequenceMatcher(None, one, other, autojunk=False)
    for kind, begin, end, asked_begin, asked_end in matcher.get_opcodes():
        if kind == "equal":
            continue
        gone, new = recorded[begin:end], asked[asked_begin:asked_end]
        pairs = min(len(gone), len(new))  # the last ones belong together: a conversation grows before its end
        for index, item in enumerate(gone[: len(gone) - pairs]):
            yield begin + index, item, None
        for index, item in enumerate(new[: len(new) - pairs]):
            yield asked_begin + index, None, item
        for index in range(pairs, 0, -1):
            yield asked_end - index, gone[-index], new[-index]
