"""The events of a streamed answer: bytes as the network cuts them, into the chunks that they carry."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..answers.event_stream import LineReader
from .failures import answered

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["EventDecoder"]


class EventDecoder:
    """Decode server-sent events (HTML standard, section 9.2) of which each ``data:`` line is a JSON chunk.

    :ivar done: whether ``[DONE]`` has come.
    """

    def __init__(self) -> None:
        self.done = False
        self._lines = LineReader()

    def feed(self, data: bytes) -> Iterator[dict[str, Any]]:
        """Yield the chunks that are complete with this data.

        :raises ServiceError: where one is not a JSON object.
        :raises APIError: where one reports an error.
        """
        return self._chunks(self._lines.feed(data))

    def close(self) -> Iterator[dict[str, Any]]:
        """Yield the chunk of the last line where no line end closed it."""
        return self._chunks(self._lines.close())

    def _chunks(self, lines: Iterable[str]) -> Iterator[dict[str, Any]]:
        for line in lines:
            name, _, data = line.partition(":")
            if name != "data" or self.done:
                continue
            if data.strip() == "[DONE]":
                self.done = True
            elif data.strip():
                yield answered(data, "chunk in the stream")
