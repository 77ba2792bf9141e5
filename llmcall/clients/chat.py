"""Chat Completions: streamed events and complete answers, read as chunks."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from ..apis.bodies import EventStream, events_in, read_object
from ..apis.chunks import DONE, chunks_of
from ..core.kinds import check_chat
from ..keys.request import Data
from .api_errors import raise_reported, reported_failure, reports_error

if TYPE_CHECKING:
    Reader = Callable[[dict[str, Data]], Iterator[dict[str, Data]]]

AT_DONE = (DONE,)


def chunks_of_event(event: dict[str, Data]) -> Iterator[dict[str, Data]]:
    """Yield the chunks that one event carries.

    :raises APIError: if it reports an error; OpenRouter's holds the text so far, too.
    """
    if reports_error(event):
        raise reported_failure(event)
    yield event


def chunks_of_answer(answer: dict[str, Data]) -> Iterator[dict[str, Data]]:
    """Yield a complete answer as chunks."""
    check_chat(answer)
    return chunks_of(answer)


async def streamed_chunks(
    data: AsyncIterator[bytes],
    of_event: Reader = chunks_of_event,
    of_answer: Reader = chunks_of_answer,
    at_done: Sequence[dict[str, Data]] = AT_DONE,
) -> AsyncGenerator[dict[str, Data], None]:
    """Yield the chunks of a streamed answer.

    A server that does not stream sends the answer, or an error, in one piece.

    :param data: the body, in pieces.
    :param of_event, of_answer: read an event, and a whole answer, of the API.
    :param at_done: the chunks that ``[DONE]``, or the end of a whole answer, carries.
    :raises APIError: if the answer is malformed, or reports an error.
    """
    stream = EventStream()
    has_events, other_lines = False, []
    async for event in events_in(data, stream):
        if isinstance(event, str):
            other_lines.append(event)
            continue
        has_events = True
        for chunk in of_event(event):
            yield chunk
    is_whole_answer = bool(other_lines) and not has_events
    if is_whole_answer:
        answer = read_object("\n".join(other_lines).encode(), "answer")
        for chunk in of_answer(raise_reported(answer)):
            yield chunk
    if stream.done or is_whole_answer:
        for chunk in at_done:
            yield chunk
