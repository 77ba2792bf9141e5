"""Server-sent events, decoded."""

from __future__ import annotations

import codecs
import io
from typing import TYPE_CHECKING, Any

from ..errors import ServiceError
from ..surrogates import joined_surrogates
from .body import SURROGATE_ESCAPE, check_size, read_object, without_halves

if TYPE_CHECKING:
    from collections.abc import Iterator


NOT_DATA = (":", "event:", "id:", "retry:")  # comments, and the fields that carry no data


class EventStreamDecoder:
    """Decode server-sent events (HTML standard, section 9.2) whose data are JSON objects.

    A ``data:`` line that is a whole object counts at once: some servers leave out the blank line that
    ends an event. A line outside any event is passed on as it is: some servers send an answer or an
    error as a whole. Some servers cut a text inside a character: an event that ends in one half waits
    for the other, which may never come.

    :ivar done: whether ``[DONE]`` arrived; anything after it is ignored.
    """

    def __init__(self) -> None:
        self.done = False
        self._newlines = io.IncrementalNewlineDecoder(
            codecs.getincrementaldecoder("utf-8-sig")("replace"), True
        )
        self._line_pieces: list[str] = []  # the pieces of the last line, which has not ended
        self._data_lines: list[str] = []  # of the event that has not ended
        self._waiting: list[dict[str, Any]] = []  # events from the first with half a character on
        self._halves: dict[tuple[str, ...], tuple[Any, Any]] = {}  # by path: where such a text is
        self._size = 0

    def feed(self, data: bytes) -> Iterator[dict[str, Any] | str]:
        """Yield the events, and the other lines that are not empty, that are complete with this
        data.

        :raises ServiceError: if an event is not a JSON object, or the stream is larger than
            ``LARGEST``.
        """
        self._size += len(data)
        check_size(self._size)
        return self._events(self._newlines.decode(data))

    def close(self) -> Iterator[dict[str, Any] | str]:
        """Yield what the end of the stream completes, as :meth:`feed`."""
        yield from self._events(self._newlines.decode(b"", final=True) + "\n\n")
        yield from self._release()

    def _events(self, text: str) -> Iterator[dict[str, Any] | str]:
        first, *rest = text.split("\n")
        self._line_pieces.append(first)
        for piece in rest:
            line = "".join(self._line_pieces)
            self._line_pieces = [piece]
            if self.done or line.startswith(NOT_DATA):
                continue
            data = line.removeprefix("data:")
            self.done = data != line and data.strip().lower() == "[done]"
            if not line or self.done:
                yield from self._event(has_ended=True)
                if self.done:
                    yield from self._release()
            elif data == line:
                yield line
            else:
                self._data_lines.append(data)
                # one attempt is enough: an object with more data behind it is none
                if len(self._data_lines) == 1:
                    yield from self._event(has_ended=False)

    def _event(self, *, has_ended: bool) -> Iterator[dict[str, Any]]:
        """Yield the object that the data are, if they are one, and what waited for it."""
        data = "\n".join(self._data_lines)
        event = None
        if data.strip():
            try:
                event = read_object(data, "chunk in the stream", keep_halves=True)
            except ServiceError:
                if has_ended:
                    raise
                return
        self._data_lines.clear()
        if event is None:
            return
        if not self._waiting and not SURROGATE_ESCAPE.search(data):
            yield event
            return
        self._waiting.append(event)
        self._join_halves(event)
        if not self._halves:
            yield from self._release()

    def _join_halves(self, event: dict[str, Any]) -> None:
        """Move the halves with which earlier texts end to the texts that go on from them."""
        for path, holder, name in _texts(event):
            if path in self._halves:
                earlier, earlier_name = self._halves.pop(path)
                text = earlier[earlier_name]
                earlier[earlier_name] = text[:-1]
                holder[name] = joined_surrogates(text[-1] + holder[name])
            if "\ud800" <= holder[name][-1:] <= "\udbff":
                self._halves[path] = (holder, name)

    def _release(self) -> Iterator[dict[str, Any]]:
        """Yield the events that waited."""
        waiting, self._waiting = self._waiting, []
        self._halves.clear()
        yield from map(without_halves, waiting)


def _texts(event: dict[str, Any]) -> Iterator[tuple[tuple[str, ...], Any, Any]]:
    """Yield for each text in an event its path, the object or list that holds it, and its name or
    position there.

    The index of a choice or a tool call stands in the path, not its position. Log probabilities are
    left out: their tokens are no pieces of one text.
    """
    holders: list[tuple[tuple[str, ...], Any]] = [((), event)]
    for path, holder in holders:  # which grow on the way
        for name, value in holder.items() if isinstance(holder, dict) else enumerate(holder):
            if isinstance(value, str):
                yield (*path, str(name)), holder, name
            elif isinstance(value, (dict, list)) and name != "logprobs":
                place = value.get("index", name) if isinstance(value, dict) else name
                holders.append(((*path, str(place)), value))
