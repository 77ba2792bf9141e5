"""The contract of transports."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import TYPE_CHECKING, Any

from ..apis.chunks import DONE, Assembler
from ..clients.base import LLMClient
from ..clients.own import as_transport
from ..core.kinds import KINDS
from ..core.membrane import Reading, aclose, close, next_chunk, open_stream, send
from ..core.seams import Response
from ..core.send import release_held
from ..keys.request import Request
from ..support.blocking import run_blocking
from .rules import LONGEST, THREADS, made, run_in_loop

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..core.seams import Sends

QUESTION: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "Hello"}]}


def check_transport(
    make: Callable[[], Sends], request: Request | None = None, *, at_once: bool = True
) -> None:
    """Check that what sends keeps the contract of :class:`llmcall.types.Transport`: in threads and event loops,
    whole and streamed, left half-way, at once, and after it was closed.

    :param make: returns a new one, connected to something that answers.
    :param request: what it is asked; by default a chat.
    :param at_once: whether it serves several calls at the same time; llmcall's own for one call do not.
    :raises AssertionError, LLMCallError: if it breaks a rule.

    >>> llmcall.testing.check_transport(lambda: llmcall.testing.ScriptedClient(lambda messages: "Yes."))
    """
    asked = request or Request("chat", "m", QUESTION, QUESTION, {}, None, "0" * 64)
    check = _TransportCheck(make, asked)
    check.whole()
    check.streamed()
    check.left()
    if at_once:
        check.at_once()
    check.closed()


class _TransportCheck:
    def __init__(self, make: Callable[[], Sends], request: Request) -> None:
        self._request = request
        self._own = made(make)
        self._transport = as_transport(self._own, LLMClient())

    def whole(self) -> None:
        """An answer is whole, in a thread and in an event loop."""
        for run in (run_blocking, run_in_loop):
            self._accept(run(self._send()))

    def streamed(self) -> None:
        """The chunks of a stream are a whole answer, too."""
        for run in (run_blocking, run_in_loop):
            if (response := run(self._read())) is not None:
                self._accept(response)

    def left(self) -> None:
        """A stream that is left half-way is closed, and the next request is answered."""
        for run in (run_blocking, run_in_loop):
            run(self._read(most=1))
            self._accept(run(self._send()))

    def at_once(self) -> None:
        """Several threads, and several tasks, ask it at the same time."""

        async def together() -> list[Response]:
            return await asyncio.gather(*(self._send() for _ in range(THREADS)))

        with ThreadPoolExecutor(THREADS) as executor:
            asked = [
                executor.submit(copy_context().run, run_blocking, self._send())
                for _ in range(THREADS)
            ]
            for answer in asked:
                self._accept(answer.result())
        for response in run_in_loop(together()):
            self._accept(response)

    def closed(self) -> None:
        """It is closed as often as anybody likes, and the next request opens it again."""

        async def closed_in_loop() -> None:
            await self._send()
            await aclose(self._transport)

        close(self._transport)
        self._accept(run_blocking(self._send()))
        run_in_loop(closed_in_loop())
        close(self._transport)
        close(self._transport)

    async def _send(self) -> Response:
        response = await send(self._transport, self._sent(), LONGEST)
        await release_held(response, is_stored=False)
        return response

    async def _read(self, most: int | None = None) -> Response | None:
        chunks = open_stream(self._transport, self._sent(), LONGEST)
        if chunks is None:
            return None
        assembler, whole, count = Assembler(), None, 0
        async with Reading(chunks):
            while (chunk := await next_chunk(chunks, self._transport, LONGEST)) is not None:
                if isinstance(chunk, Response):
                    whole = chunk or whole
                elif chunk is not DONE and not isinstance(chunk, bytes):
                    assembler.add(chunk)
                count += 1
                if count == most:
                    return None
        return whole or Response(assembler.response())

    def _sent(self) -> Request:
        return self._request._replace(
            body=dict(self._request.body), headers=dict(self._request.headers)
        )

    def _accept(self, response: Response) -> None:
        """Check that the road takes an answer as a complete one."""
        KINDS[self._request.kind].check(self._request, response, must_fit_window=False)
