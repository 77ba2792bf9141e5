"""The events of a streamed answer: bytes as the network cuts them, into the chunks that they carry."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from ..answers.event_stream import LineReader
from ..errors import ServiceError
from .failures import failure_in

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

        :raises ServiceError: where one is not JSON.
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
                yield _parsed(data)


def _parsed(data: str) -> dict[str, Any]:
    try:
        chunk = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ServiceError(f"a malformed chunk in the stream: {data[:200]!r}") from error
    if not isinstance(chunk, dict):
        raise ServiceError(f"a malformed chunk in the stream: {data[:200]!r}")
    if isinstance(chunk.get("error"), (dict, str)) and not chunk.get("choices"):
        raise failure_in(chunk)
    return chunk
