"""Characters that a server cuts in two, so that each half comes in an event of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..surrogates import joined_surrogates
from .body import SURROGATE_ESCAPE, without_halves

if TYPE_CHECKING:
    from collections.abc import Iterator


class SplitCharacters:
    """Joins the halves of characters. An event that ends in one half waits for the other, which may
    never come, and later events wait behind it.
    """

    def __init__(self) -> None:
        self._waiting: list[dict[str, Any]] = []
        # By a text's path: the object or list that holds it, and its name or position there.
        self._first_halves: dict[tuple[str, ...], tuple[Any, Any]] = {}

    def feed(self, event: dict[str, Any], data: str) -> Iterator[dict[str, Any]]:
        """Yield the events that are whole with this one.

        :param data: its JSON: only an escape can be half a character.
        """
        if not self._waiting and not SURROGATE_ESCAPE.search(data):
            yield event
            return
        self._waiting.append(event)
        for path, holder, name in _texts(event):
            if path in self._first_halves:
                earlier, earlier_name = self._first_halves.pop(path)
                text = earlier[earlier_name]
                earlier[earlier_name] = text[:-1]
                holder[name] = joined_surrogates(text[-1] + holder[name])
            if "\ud800" <= holder[name][-1:] <= "\udbff":
                self._first_halves[path] = (holder, name)
        if not self._first_halves:
            yield from self.close()

    def close(self) -> Iterator[dict[str, Any]]:
        """Yield the events that waited, with U+FFFD for each half that is left."""
        waiting, self._waiting = self._waiting, []
        self._first_halves.clear()
        yield from map(without_halves, waiting)


def _texts(event: dict[str, Any]) -> Iterator[tuple[tuple[str, ...], Any, Any]]:
    """Yield for each text in an event its path, the object or list that holds it, and its name or
    position there.

    The path has the index of a choice or a tool call in place of its position. Log probabilities are
    left out: their tokens are no pieces of one text.
    """
    holders: list[tuple[tuple[str, ...], Any]] = [((), event)]
    for path, holder in holders:  # which grow on the way
        for name, value in holder.items() if isinstance(holder, dict) else enumerate(holder):
            if isinstance(value, str):
                yield (*path, str(name)), holder, name
            elif isinstance(value, (dict, list)) and name != "logprobs":
                part = value.get("index", name) if isinstance(value, dict) else name
                holders.append(((*path, str(part)), value))
