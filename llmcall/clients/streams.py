"""Streamed answers, as their readers see them."""

from __future__ import annotations

import warnings
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping
from contextlib import suppress
from contextvars import copy_context
from functools import cache, partial
from inspect import CORO_CREATED, CORO_SUSPENDED, getcoroutinestate
from typing import TYPE_CHECKING, Any
from weakref import WeakSet, proxy

from ..core import threads
from ..keys.request import Data
from ..support.libraries import importing
from ..support.loop_waits import awaited
from ..support.system import after_fork_in_child, at_exit, running_loop

if TYPE_CHECKING:
    from ..core.calls import Call
    from ..core.reply import Reply


class EndedAtExit:
    """A stream that a program may leave half-read: ended at exit, before Python clears the names of llmcall's modules.

    :ivar has_exited: ``True`` if it ended so, and can no longer run its own code.
    """

    has_exited = False

    def __init__(self) -> None:
        _unended.add(self)
        end_streams_at_exit()

    def end_at_exit(self) -> None:
        """End the reading.

        :raises RuntimeError: if a thread or a task is reading.
        :raises ValueError: as above.
        """
        raise NotImplementedError


class _AnyStream(EndedAtExit):
    """The answer of a stream, for both kinds of streams.

    :param call: the call; its draw is released if the reader leaves the stream early.
    :param procedure: emits the answer's pieces, and returns the reply.
    :param drive: runs the procedure, and yields its pieces.
    :ivar request: the request.
    """

    def __init__(
        self, call: Call, procedure: Coroutine[Any, Any, Any], drive: Callable[..., Any]
    ) -> None:
        self.reply: Reply | None = None
        self.request = call.request
        self._call = call
        self._procedure = procedure
        self._is_left = False
        # A weak reference, so that a stream that is dropped half-way is closed at once.
        self._pieces = drive(procedure, partial(setattr, proxy(self), "reply"))
        self._suspend()
        super().__init__()

    def __repr__(self) -> str:
        state = "left" if self._is_left else "open" if self.reply is None else "ended"
        return f"{type(self).__name__}({state})"

    def __del__(self) -> None:
        if self.has_exited:
            return
        _suspended.pop(id(self), None)
        state = getcoroutinestate(self._procedure)
        if state == CORO_CREATED:
            self._procedure.close()  # it was not read
        if state == CORO_SUSPENDED:
            message = f"a stream of {self.request.model} was left unread; open it in a with block"
            warnings.warn(message, ResourceWarning, source=self, stacklevel=2)
        # An event loop closes the generator so late that another call may have drawn.
        self._call.release_draw()

    def _suspend(self) -> None:
        """Keep the stream's procedure alive between two pieces."""
        _suspended[id(self)] = self._procedure, self._pieces

    def _leave(self) -> None:
        """Note that the reader leaves, if the answer has not ended."""
        self._is_left |= getcoroutinestate(self._procedure) in (CORO_CREATED, CORO_SUSPENDED)
        self._call.release_draw()

    def _check_not_left(self) -> None:
        """Refuse to read a stream that was closed early.

        :raises ValueError: if the stream was closed before its end.
        """
        if self._is_left:
            raise ValueError(
                f"the stream of {self.request.model} was closed early, so its answer is incomplete and not recorded: "
                "read it to the end inside its with block"
            )


class Stream(_AnyStream):
    """A streamed answer: ``for text in stream: …``, then ``stream.reply``; a context manager.

    If you leave it early, llmcall closes the connection and stores nothing; reading on raises ``ValueError``. Once
    its first chunk has arrived, usage and budgets count it as a call, not as an error: with the tokens that the
    server had reported, or else with an estimate for the prompt and the text so far.

    :ivar reply: the :class:`Reply`; ``None`` before the end and after a failure.

    >>> with llmcall.client().stream_message("Good morning!", max_tokens=16) as stream:
    ...     print("".join(stream))
    Good morning!
    >>> stream.reply.finish_reason
    'stop'
    """

    def __iter__(self) -> Stream:
        return self

    def __next__(self) -> str:
        self._check_not_left()
        while not (text := next(self._pieces).text):
            pass
        return text  # type: ignore[no-any-return]

    def chunks(self) -> Iterator[Mapping[str, Data]]:
        """Yield the API's chunks instead of the text."""
        self._check_not_left()
        for piece in self._pieces:
            yield piece.chunk

    def close(self) -> None:
        """Close the connection if the answer has not ended."""
        self._leave()
        self._pieces.close()

    def __del__(self) -> None:
        super().__del__()
        if not self.has_exited:
            copy_context().run(self._pieces.close)

    def end_at_exit(self) -> None:
        """Close the connection, as when a reader leaves."""
        self.close()

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class AsyncStream(_AnyStream):
    """A streamed answer: ``async for text in stream: …``; an asynchronous context manager.

    Everything else is as for :class:`Stream`.

    :ivar reply: the :class:`Reply`; ``None`` before the end and after a failure.

    >>> async def greet():
    ...     async with llmcall.client().astream_message("Good morning!", max_tokens=16) as stream:
    ...         return "".join([text async for text in stream])
    >>> import asyncio
    >>> asyncio.run(greet())
    'Good morning!'
    """

    _loop: Any = None  # in which it was read last

    def __aiter__(self) -> AsyncStream:
        return self

    async def __anext__(self) -> str:
        self._check_not_left()
        while not (text := (await self._next_piece()).text):
            pass
        return text  # type: ignore[no-any-return]

    async def chunks(self) -> AsyncIterator[Mapping[str, Data]]:
        """Yield the API's chunks instead of the text."""
        self._check_not_left()
        with suppress(StopAsyncIteration):
            while True:
                yield (await self._next_piece()).chunk

    async def _next_piece(self) -> Any:
        self._loop = running_loop()
        # The task that waits holds it meanwhile: nothing else may, if that task ends with its loop.
        _suspended.pop(id(self), None)
        piece = await anext(self._pieces)
        self._suspend()
        return piece

    def __del__(self) -> None:
        super().__del__()
        if not self.has_exited and self._loop is not None and self._loop.is_closed():
            # the loop would close the pieces, and no longer can
            copy_context().run(self._procedure.close)

    async def aclose(self) -> None:
        """Close the connection if the answer has not ended."""
        self._leave()
        await self._pieces.aclose()

    def end_at_exit(self) -> None:
        """Count what arrived, as for a stream that its reader leaves."""
        # No loop runs for what a connection awaits while it is closed: each further close goes one wait on.
        while getcoroutinestate(self._procedure) in (CORO_CREATED, CORO_SUSPENDED):
            with suppress(Exception):
                self._procedure.close()
        threads.run(awaited(self._pieces.aclose()))

    async def __aenter__(self) -> AsyncStream:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()


_unended: WeakSet[EndedAtExit] = WeakSet()
# What each stream suspends, by the stream's identifier: the garbage collector would close both in any order,
# and a procedure that is closed before its pieces cannot count what arrived.
_suspended: dict[int, tuple[object, object]] = {}


@cache
def end_streams_at_exit() -> None:
    """End the open streams when the process ends, while it can still count and import."""
    # Counting needs it, and it cannot be imported at exit. A process forked meanwhile would wait for it for ever.
    with importing:
        import concurrent.futures.thread  # noqa: F401

    at_exit(end_streams)


def end_streams() -> None:
    """End the open streams, except any that another thread is reading."""
    for stream in list(_unended):
        with suppress(ValueError, RuntimeError):  # "already executing", "already running"
            stream.end_at_exit()
            stream.has_exited = True


# The streams of the parent process are its own.
after_fork_in_child(_unended.clear)
