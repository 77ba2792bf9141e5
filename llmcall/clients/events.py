"""The events of a streamed answer: bytes as the network cuts them, into the chunks that they carry."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..responses.event_stream import LineReader
from ..responses.sizes import LARGEST, too_large
from .failures import answered

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["EventDecoder"]


FIELDS = ("", "data", "event", "id", "retry")  # what a line of an event begins with; nothing: a comment


class EventDecoder:
    """Decode server-sent events (HTML standard, section 9.2) of which each ``data:`` line is a JSON chunk.

    A server that does not stream sends its answer, or its error, as a whole instead.

    :ivar done: whether ``[DONE]`` has come.
    :ivar hidden: keys that are taken out of each line.
    """

    def __init__(self) -> None:
        self.done = False
        self.hidden: list[bytes] = []
        self._lines = LineReader()
        self._size = 0
        self._begun = False
        self._whole: list[str] = []

    def feed(self, data: bytes) -> Iterator[dict[str, Any]]:
        """Yield the chunks that are complete with this data.

        :raises ServiceError: where one is not a JSON object, or the stream is too large.
        :raises APIError: where one reports an error.
        """
        self._size += len(data)
        if self._size > LARGEST:
            raise too_large(LARGEST)
        return self._chunks(self._lines.feed(data))

    def close(self) -> Iterator[dict[str, Any]]:
        """Yield the chunk of the last line where no line end closed it, or of an answer that was sent as a whole.

        :raises ServiceError: where what was sent is neither events nor JSON.
        :raises APIError: where it reports an error.
        """
        yield from self._chunks(self._lines.close())
        if self._whole and not self._begun:
            yield _as_chunk(answered("\n".join(self._whole).encode(), "answer"))

    def _chunks(self, lines: Iterable[str]) -> Iterator[dict[str, Any]]:
        for line in lines:
            for key in self.hidden:
                line = line.replace(key.decode(), "…")
            name, _, data = line.partition(":")
            if name not in FIELDS and not self._begun:
                self._whole.append(line)
            if name != "data" or self.done:
                continue
            self._begun = True
            if data.strip() == "[DONE]":
                self.done = True
            elif data.strip():
                yield answered(data, "chunk in the stream")


def _as_chunk(response: dict[str, Any]) -> dict[str, Any]:
    """Return a whole response as the one chunk of a stream; where it is none, as it is."""
    choices = response.get("choices")
    if not isinstance(choices, list):
        return response
    return {**response, "choices": [_as_piece(choice) for choice in choices]}


def _as_piece(choice: Any) -> Any:
    if not isinstance(choice, dict):
        return choice
    return {"delta" if name == "message" else name: value for name, value in choice.items()}
