"""Fields in which two requests differ."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from ...keys.plain_data import is_same
from ...keys.request import Data, text_with_placeholders
from ...support.display import as_json, printable, shortened
from ...support.secrets import masked
from .words import differing, first_changes, word_changes

CONTENTS = ("messages", "input", "arguments")  # the other fields are parameters
CONTEXT = 30  # characters around a change
LONGEST_VALUE = 80  # characters of a value
LONGEST_WHOLE = 40  # characters of a parameter that is shown whole


class Difference(NamedTuple):
    """One field in which a request differs from a record.

    :param place: the field, such as ``temperature`` or ``messages[1].content``.
    :param recorded: the record's value, or ``None`` if the record lacks the field.
    :param asked: the request's value, likewise.
    :param role: the message's role, if the field belongs to a message.
    """

    place: str
    recorded: Data
    asked: Data
    role: str = ""

    @property
    def field(self) -> str:
        """Return the name of the request's top-level field."""
        return re.split(r"[.\[]", self.place)[0]

    def texts(self) -> tuple[str, str] | None:
        """Return both values if they are texts that are shown word by word."""
        recorded, asked = self.recorded, self.asked
        longest = LONGEST_WHOLE if not self.role and self.field not in CONTENTS else 0
        if not (isinstance(recorded, str) and isinstance(asked, str)):
            return None
        return (recorded, asked) if max(len(recorded), len(asked)) > longest else None

    def changed_words(self) -> list[str]:
        """Return the first words that changed, as ``[-before-] {+after+}``; none in what is shown whole."""
        texts = self.texts()
        return [change.words for change in first_changes(*texts, CONTEXT)[0]] if texts else []

    def __str__(self) -> str:
        name = f"{self.place} ({self.role})" if self.role else self.place
        if texts := self.texts():
            return f"{name}: {word_changes(*texts, CONTEXT)}"
        sides = [
            f"not {side}" if value is None else f"{side} {shown_value(value, LONGEST_VALUE)}"
            for side, value in (("recorded", self.recorded), ("asked", self.asked))
        ]
        return f"{name}: {', '.join(sides)}"

    def __repr__(self) -> str:
        recorded, asked = (
            shown_value(self.recorded, LONGEST_WHOLE),
            shown_value(self.asked, LONGEST_WHOLE),
        )
        return f"Difference({self.place!r}: {recorded} → {asked})"


def shown_value(value: Data, width: int) -> str:
    """Return a value on one line, without credentials.

    :param width: the most characters.
    """
    if isinstance(value, dict) and "role" in value:
        value = text_with_placeholders(value)
    text = value if isinstance(value, str) else as_json(value)
    text = shortened(printable(masked(text)), width - 2)
    return f'"{text}"' if isinstance(value, str) else text


def differences(recorded: Mapping[str, Data], asked: Mapping[str, Data]) -> tuple[Difference, ...]:
    """Return the fields in which two requests differ: parameters first, the model foremost.

    :param recorded: a record's request.
    :param asked: the other request.
    """

    def order(name: str) -> tuple[bool, bool, str]:
        return name in CONTENTS, name != "model", name

    differing_fields: list[Difference] = []
    for name in sorted(recorded.keys() | asked.keys(), key=order):
        differing_fields += _compared(name, recorded.get(name), asked.get(name), "")
    return tuple(differing_fields)


def _compared(path: str, recorded: Data, asked: Data, role: str) -> Iterator[Difference]:
    if is_same(recorded, asked):
        return
    role = role or _role(recorded) or _role(asked)
    if isinstance(recorded, dict) and isinstance(asked, dict):
        for name in sorted(recorded.keys() | asked.keys()):
            yield from _compared(f"{path}.{name}", recorded.get(name), asked.get(name), role)
    elif isinstance(recorded, list) and isinstance(asked, list):
        for index, recorded_item, asked_item in _aligned(recorded, asked):
            yield from _compared(f"{path}[{index}]", recorded_item, asked_item, role)
    else:
        yield Difference(path, recorded, asked, role)


def _role(item: Data) -> str:
    """Return the role of a message; empty for other data."""
    return str(item["role"]) if isinstance(item, dict) and "role" in item else ""


def _aligned(recorded: Sequence[Data], asked: Sequence[Data]) -> Iterator[tuple[int, Data, Data]]:
    """Yield the index, the recorded and the asked item of each pair that differs; a missing item is
    ``None``.

    The index is the request's, or the record's if only the record has the item.
    """
    texts, asked_texts = (list(map(canonical_text, side)) for side in (recorded, asked))
    for begin, end, asked_begin, asked_end in differing(texts, asked_texts):
        removed, added = end - begin, asked_end - asked_begin
        # Items are paired from the end: a conversation grows before its last message.
        for back in range(max(removed, added), 0, -1):
            recorded_item = recorded[end - back] if back <= removed else None
            if back <= added:
                yield asked_end - back, recorded_item, asked[asked_end - back]
            else:
                yield end - back, recorded_item, None


def canonical_text(data: Data) -> str:
    """Return plain data as a text that is the same for equal data."""
    return json.dumps(data, sort_keys=True, default=repr)
