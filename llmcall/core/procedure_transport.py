"""A transport that is written once, as procedures, and serves threads and event loops."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from typing import TYPE_CHECKING

from . import loops, threads
from .effects import Timed
from .seams import AsyncTransport, Chunk

if TYPE_CHECKING:
    from ..keys.request import Data, Request


class ProcedureTransport(AsyncTransport):
    """A transport whose :meth:`response` and :meth:`chunks` await effects."""

    @abstractmethod
    async def response(self, request: Request, timeout: float | None) -> Mapping[str, Data]:
        """Return the response."""

    def chunks(
        self, request: Request, timeout: float | None, timed: Timed
    ) -> AsyncGenerator[Chunk, None] | None:
        """Yield the chunks of an answer; ``None`` if it does not stream.

        :param timed: has the deadline of the next chunk, where nothing else ends the wait for it.
        """
        return None

    def send(self, request: Request, timeout: float | None) -> Mapping[str, Data]:
        """Return the response, in this thread."""
        return threads.run(self.response(request, timeout))

    async def asend(self, request: Request, timeout: float | None) -> Mapping[str, Data]:
        """Return the response, in the running event loop."""
        return await loops.run(self.response(request, timeout))

    def stream(self, request: Request, timeout: float | None) -> Iterator[Chunk] | None:
        """Yield the chunks of an answer, in this thread."""
        timed = Timed()
        chunks = self.chunks(request, timeout, timed)
        return None if chunks is None else threads.Each(chunks, timed)

    def astream(self, request: Request, timeout: float | None) -> AsyncIterator[Chunk] | None:
        """Yield the chunks of an answer, in the running event loop."""
        chunks = self.chunks(request, timeout, Timed())
        return None if chunks is None else loops.each(chunks)
