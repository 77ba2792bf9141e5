"""An answer as it arrives: iterate over its text, then read its reply."""

from __future__ import annotations

from typing import TYPE_CHECKING
from weakref import proxy

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Generator
    from types import TracebackType

    from ..types import Reply

__all__ = ["AsyncStream", "Stream"]


class Stream:
    """Be a streamed answer: ``for text in stream: …``, then ``stream.reply``; a context manager.

    Leaving it early closes its connection, and nothing is stored. Once a first chunk has come it counts as a call, not
    as an error, in usage and budgets alike, for a model answered: with the tokens that the server reported until then,
    else with those of the prompt and of what came, as they are counted here.

    :param begin: makes the generator of the pieces, at the first of them.
    :param unbegun: is called where the stream is closed before that.
    :ivar reply: the :class:`Reply`, or ``None`` before the end and after a failure.
    """

    def __init__(self, begin: Callable[[Stream], Generator[str, None, None]], unbegun: Callable[[], None]) -> None:
        self.reply: Reply | None = None
        self._begin = begin
        self._unbegun: Callable[[], None] | None = unbegun
        self._pieces: Generator[str, None, None] | None = None

    def __iter__(self) -> Stream:
        return self

    def __next__(self) -> str:
        if self._pieces is None:
            # weakly: a stream that is dropped half-way is then closed at once, and not when garbage is collected
            self._pieces, self._unbegun = self._begin(proxy(self)), None
        return next(self._pieces)

    def close(self) -> None:
        """Close the connection, if the answer has not ended."""
        if self._pieces is None:
            self._pieces = _nothing()
        if self._unbegun is not None:
            self._unbegun()
            self._unbegun = None
        self._pieces.close()

    def __enter__(self) -> Stream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class AsyncStream:
    """Be a streamed answer: ``async for text in stream: …``, as :class:`Stream`; an asynchronous context manager.

    :param begin: makes the generator of the pieces, at the first of them.
    :param unbegun: is called where the stream is closed before that.
    :ivar reply: the :class:`Reply`, or ``None`` before the end and after a failure.
    """

    def __init__(self, begin: Callable[[AsyncStream], AsyncGenerator[str, None]], unbegun: Callable[[], None]) -> None:
        self.reply: Reply | None = None
        self._begin = begin
        self._unbegun: Callable[[], None] | None = unbegun
        self._pieces: AsyncGenerator[str, None] | None = None

    def __aiter__(self) -> AsyncStream:
        return self

    async def __anext__(self) -> str:
        if self._pieces is None:
            # weakly: a stream that is dropped half-way is then closed at once, and not when garbage is collected
            self._pieces, self._unbegun = self._begin(proxy(self)), None
        return await anext(self._pieces)

    async def aclose(self) -> None:
        """Close the connection, if the answer has not ended."""
        if self._pieces is None:
            self._pieces = _anothing()
        if self._unbegun is not None:
            self._unbegun()
            self._unbegun = None
        await self._pieces.aclose()

    async def __aenter__(self) -> AsyncStream:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()


def _nothing() -> Generator[str, None, None]:
    yield from ()


async def _anothing() -> AsyncGenerator[str, None]:
    nothing: tuple[str, ...] = ()
    for piece in nothing:
        yield piece
