"""The chunks of a streamed body of chat completions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..values import EventStreamDecoder
from .api_errors import parsed_response, refuse_reported

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


class ChunkReader(EventStreamDecoder):
    """Read the chunks of a streamed body. A server that does not stream sends its answer or error
    as a whole.
    """

    def __init__(self) -> None:
        super().__init__()
        self._has_events = False
        self._other_lines: list[str] = []

    def feed(self, data: bytes) -> Iterator[dict[str, Any]]:
        """Yield the chunks that this data completes."""
        return self._chunks_in(super().feed(data))

    def close(self) -> Iterator[dict[str, Any]]:
        """Yield the chunks that the end of the body completes."""
        yield from self._chunks_in(super().close())
        if self._other_lines and not self._has_events:
            yield from self._whole(parsed_response("\n".join(self._other_lines).encode()))

    def _chunks_in(self, events: Iterable[dict[str, Any] | str]) -> Iterator[dict[str, Any]]:
        for event in events:
            if isinstance(event, dict):
                self._has_events = True
                yield from self._read(event)
            elif not self._has_events:
                self._other_lines.append(event)

    def _read(self, event: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """Yield the chunks that an event is."""
        yield refuse_reported(event)

    def _whole(self, response: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """Yield the chunks that a whole response is: one, unless it is no answer of a chat."""
        choices = response.get("choices")
        if not isinstance(choices, list) or not all(isinstance(choice, dict) for choice in choices):
            yield response
            return
        pieces = [
            {"delta" if name == "message" else name: value for name, value in each.items()}
            for each in choices
        ]
        yield {**response, "choices": pieces}
