"""How far a request is from a recorded one."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..types import Data, Record

__all__ = ["conversation", "distance", "said", "split_sample", "strings_in"]

FIELD = 1.0  # a parameter that differs
MESSAGE, MESSAGES = 0.8, 1.6  # a message more or less, and however many
LAST_MESSAGE = 2.5  # times what another message counts: it is the question
OTHER_SCOPE, OTHER_DRAW = 0.6, 0.2


def strings_in(data: Data) -> Iterator[str]:
    """Yield the texts in plain data, names apart, in order."""
    if isinstance(data, str):
        yield data
    elif isinstance(data, dict):
        for item in data.values():
            yield from strings_in(item)
    elif isinstance(data, list):
        for item in data:
            yield from strings_in(item)


def split_sample(sample: str | None) -> tuple[str | None, str]:
    """Return the scope path and the draw of a sample; the path is ``None`` outside any scope."""
    if sample is None:
        return None, ""
    path, _, draw = sample.partition("#")  # a given draw may hold another
    return path, draw


def conversation(asked: dict[str, Data]) -> list[Data]:
    """Return a request's messages; an embedding's text or a function's arguments count as one."""
    messages = asked.get("messages")
    if isinstance(messages, list):
        return messages
    return [{name: asked[name]} for name in ("input", "arguments") if name in asked]


def said(message: Data) -> str:
    """Return the text of a message; an image or a sound is its type in brackets."""
    content = message.get("content", message) if isinstance(message, dict) else message
    if not isinstance(content, list):
        return next(strings_in(content), "")
    parts = [part if isinstance(part, dict) else {} for part in content]
    return " ".join(str(part.get("text", f"[{part.get('type')}]")) for part in parts)


def distance(asked: dict[str, Data], sample: str | None, record: Record) -> float:
    """Return 0 for the request itself, the more the less it has in common with a record."""
    recorded = record.request
    names = (asked.keys() | recorded.keys()) - {"messages", "input", "arguments"}
    fields = FIELD * len([name for name in names if asked.get(name) != recorded.get(name)])
    return fields + _of_samples(sample, record.sample) + _of_messages(conversation(asked), conversation(recorded))


def _of_samples(one: str | None, other: str | None) -> float:
    if one == other:
        return 0.0
    path, draw = split_sample(one)
    other_path, other_draw = split_sample(other)
    if path != other_path:
        same = len(set((path or "").split("/")) & set((other_path or "").split("/")))
        return OTHER_SCOPE - min(same, 3) / 10 + (0.05 if draw != other_draw else 0.0)
    far = abs(int(draw) - int(other_draw)) if draw.isdecimal() and other_draw.isdecimal() else 100
    return OTHER_DRAW + min(far, 100) / 1000


def _of_messages(one: list[Data], other: list[Data]) -> float:
    begin = 0
    while begin < min(len(one), len(other)) and one[begin] == other[begin]:
        begin += 1
    if begin == len(one) == len(other):
        return 0.0
    one, other = one[begin:], other[begin:]
    total = min(MESSAGE * abs(len(one) - len(other)), MESSAGES)
    for back, (left, right) in enumerate(zip(reversed(one), reversed(other), strict=False)):
        total += _of_texts(left, right) * (1.0 if back else LAST_MESSAGE)
    return total


def _of_texts(one: Data, other: Data) -> float:
    """Return 0 for equal data and up to 1 for texts without a common word."""
    if one == other:
        return 0.0
    words, other_words = _words(one), _words(other)
    common = sum((words & other_words).values())
    return 0.02 + 0.98 * (1 - 2 * common / max(1, words.total() + other_words.total()))


def _words(data: Data) -> Counter[str]:
    counted: Counter[str] = Counter()
    for text in strings_in(data):
        counted.update(text.split())
    return counted
