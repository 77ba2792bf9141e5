"""Server-sent events, decoded."""

from __future__ import annotations

import codecs
import io
import itertools
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from ..errors import ServiceError
from .bodies import check_size, read_object

if TYPE_CHECKING:
    from collections.abc import Iterator


NOT_DATA = (":", "event:", "id:", "retry:")  # comments, and the fields that carry no data


class EventStreamDecoder:
    """Decode server-sent events (HTML standard, section 9.2) whose data are JSON objects.

    A ``data:`` line that is a whole object counts at once: some servers leave out the blank line that
    ends an event. A line outside any event is passed on as it is: some servers send an answer or an
    error as a whole.

    :ivar done: whether ``[DONE]`` arrived; anything after it is ignored.
    """

    def __init__(self) -> None:
        self.done = False
        self._newlines = io.IncrementalNewlineDecoder(
            codecs.getincrementaldecoder("utf-8-sig")("replace"), True
        )
        self._line_pieces: list[str] = []  # the pieces of the last line, which has not ended
        self._data_lines: list[str] = []  # of the event that has not ended
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

    def _events(self, text: str) -> Iterator[dict[str, Any] | str]:
        first, *rest = text.split("\n")
        self._line_pieces.append(first)
        for piece in rest:
            line = "".join(self._line_pieces)
            self._line_pieces = [piece]
            if not self.done and not line.startswith(NOT_DATA):
                yield from self._events_of_line(line)

    def _events_of_line(self, line: str) -> Iterator[dict[str, Any] | str]:
        """Yield what a line completes."""
        data = line.removeprefix("data:")
        self.done = data != line and data.strip().lower() == "[done]"
        if not line or self.done:
            if self._data_lines:
                data = "\n".join(self._data_lines)
                self._data_lines.clear()
                yield _object(data)
        elif data == line:
            yield line
        elif data.strip():
            event = None
            if not self._data_lines:
                with suppress(ServiceError):  # the event may have more lines
                    event = _object(data)
            if event is None:
                self._data_lines.append(data)
            else:
                yield event


def _object(data: str) -> dict[str, Any]:
    return read_object(data, "chunk in the stream")


def events_of(body: bytes) -> Iterator[dict[str, Any]]:
    """Yield the events of a whole stream, without its other lines.

    :raises ServiceError: as :meth:`EventStreamDecoder.feed`.
    """
    decoder = EventStreamDecoder()
    for event in itertools.chain(decoder.feed(body), decoder.close()):
        if isinstance(event, dict):
            yield event
