"""An answer as it arrives: iterate over its text, then read its reply."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any
from weakref import proxy

from ..engine.drivers import adrive_stream, drive_stream
from ..errors import short_traceback

if TYPE_CHECKING:
    from ..engine.drivers import Flow
    from ..engine.prepare import PreparedCall
    from ..types import Reply

__all__ = ["AsyncStream", "Stream"]


class Stream:
    """Yield a streamed answer: ``for text in stream: …``, then ``stream.reply``; a context manager.

    Leaving it early closes its connection, and nothing is stored. Once a first chunk has come it counts as a call, not
    as an error, in usage and budgets alike, for a model answered: with the tokens that the server reported until then,
    else with those of the prompt and of what came, as they are counted here.

    :param flow: emits the pieces, and returns the reply.
    :param call: whose draw is given back where the stream is left before its end.
    :ivar reply: the :class:`Reply`, or ``None`` before the end and after a failure.

    >>> with llmcall.client().stream_message("Good morning!", max_tokens=16) as stream:
    ...     print("".join(stream))
    Good morning!
    >>> stream.reply.finish_reason
    'stop'
    """

    def __init__(self, flow: Flow[Any], call: PreparedCall) -> None:
        self.reply: Reply | None = None
        self._call = call
        self._begun = False
        # weakly: a stream that is dropped half-way is then closed at once, and not when garbage is collected
        self._pieces = drive_stream(flow, partial(setattr, proxy(self), "reply"))

    def __iter__(self) -> Stream:
        return self

    def __repr__(self) -> str:
        return _named(self)

    @short_traceback
    def __next__(self) -> str:
        self._begun = True
        return next(self._pieces)

    def close(self) -> None:
        """Close the connection, if the answer has not ended."""
        if not self._begun:
            self._begun = True
            self._call.give_back()
        self._pieces.close()

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class AsyncStream:
    """Yield a streamed answer: ``async for text in stream: …``, as :class:`Stream`; an asynchronous context manager.

    :param flow: emits the pieces, and returns the reply.
    :param call: whose draw is given back where the stream is left before its end.
    :ivar reply: the :class:`Reply`, or ``None`` before the end and after a failure.

    >>> async def greet():
    ...     async with llmcall.client().astream_message("Good morning!", max_tokens=16) as stream:
    ...         return "".join([text async for text in stream])
    >>> import asyncio
    >>> asyncio.run(greet())
    'Good morning!'
    """

    def __init__(self, flow: Flow[Any], call: PreparedCall) -> None:
        self.reply: Reply | None = None
        self._call = call
        self._begun = self._ended = False
        self._pieces = adrive_stream(flow, partial(setattr, proxy(self), "reply"))

    def __aiter__(self) -> AsyncStream:
        return self

    def __repr__(self) -> str:
        return _named(self)

    @short_traceback
    async def __anext__(self) -> str:
        self._begun = True
        try:
            return await anext(self._pieces)
        except BaseException:
            self._ended = True
            raise

    async def aclose(self) -> None:
        """Close the connection, if the answer has not ended."""
        if not self._begun:
            self._call.give_back()
        self._begun = self._ended = True
        await self._pieces.aclose()

    def __del__(self) -> None:
        # Left by ``break``: the event loop closes the generator some time later, when another call may have drawn.
        if self._begun and not self._ended:
            self._call.give_back()

    async def __aenter__(self) -> AsyncStream:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()


def _named(stream: Stream | AsyncStream) -> str:
    state = "ended" if stream.reply is not None else "begun" if stream._begun else "not begun"
    return f"{type(stream).__name__}({state})"
