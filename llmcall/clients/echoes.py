"""A key that a server repeats in a streamed answer, piece by piece: taken out before anybody sees or records it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .sdk_errors import MASK

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["EchoFilter"]

GROWING = frozenset({"arguments", "content", "input", "reasoning", "reasoning_content", "refusal", "transcript"})
# Characters. A piece that ends like the beginning of a key waits for the next one, but not for so few: "sk-" begins
# every key of OpenAI's, and "s" many a word. So many of a key may be seen before its mask.
HARMLESS = 3


class EchoFilter:
    """Take keys out of the texts that grow in the chunks of an answer, wherever the chunks cut them.

    :param keys: those of the request, longest first, that no answer holds by chance.
    """

    def __init__(self, keys: Iterable[str]) -> None:
        self._keys = list(keys)
        self._texts: dict[tuple[Any, ...], _Text] = {}

    def passed(self, chunk: dict[str, Any]) -> dict[str, Any]:
        """Return a chunk without keys, and without the end of a text that may be the beginning of one."""
        choices = chunk.get("choices")
        if self._keys and isinstance(choices, list):
            for position, choice in enumerate(choices):
                if isinstance(choice, dict):
                    self._pass(choice.get("delta"), (_index(choice, position),))
        return chunk

    def _pass(self, value: Any, path: tuple[Any, ...]) -> None:
        if isinstance(value, list):
            for position, item in enumerate(value):
                self._pass(item, (*path, _index(item, position)))
        if not isinstance(value, dict):
            return
        for name, item in value.items():
            place = (*path, name)
            if name in GROWING and isinstance(item, str):
                value[name] = self._texts.setdefault(place, _Text(self._keys)).add(item)
            else:
                self._pass(item, place)

    def rest(self) -> Iterator[dict[str, Any]]:
        """Yield, when the answer has ended, what was kept back and is no key."""
        for (choice, *path), text in self._texts.items():
            if text.held:
                yield {"choices": [{"index": choice, "delta": _nested(path, text.held)}]}


def _index(item: Any, position: int) -> int:
    index = item.get("index") if isinstance(item, dict) else None
    return index if isinstance(index, int) else position


def _nested(path: list[Any], text: str) -> Any:
    value: Any = text
    for step in reversed(path):
        value = [{"index": step, **value}] if isinstance(step, int) else {step: value}
    return value


class _Text:
    """Be one text as it grows.

    :ivar held: its end, which begins a key and was not passed on.
    """

    def __init__(self, keys: list[str]) -> None:
        self.held = ""
        self._keys = keys
        self._seen = ""  # what was passed on before it, and begins a key too

    def add(self, piece: str) -> str:
        """Take the next piece in, and return what may be passed on."""
        text = self._seen + self.held + piece
        for key in self._keys:
            text = text.replace(key, MASK)
        fresh = text[len(self._seen) :] if text.startswith(self._seen) else text
        begun = max(_begun(text, key) for key in self._keys)
        kept = min(begun, len(fresh)) if begun > HARMLESS else 0
        self._seen = text[len(text) - begun : len(text) - kept]
        passed, self.held = fresh[: len(fresh) - kept], fresh[len(fresh) - kept :]
        return passed


def _begun(text: str, key: str) -> int:
    """Return how many characters of a key a text ends with."""
    start = text.find(key[0], max(0, len(text) - len(key) + 1))
    while start >= 0 and not key.startswith(text[start:]):
        start = text.find(key[0], start + 1)
    return len(text) - start if start >= 0 else 0
