"""The contract of transports."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from ..apis.chunks import DONE, Assembler
from ..clients.base import LLMClient
from ..clients.user_transports import as_transport
from ..core import loops, threads
from ..core.callbacks import Reading, aclose, close
from ..core.effects import Blocks, Next, Open, Send
from ..core.kinds import KINDS, Kind
from ..core.seams import AsyncTransport, Response, Sends
from ..core.sending import release_copy
from ..keys.request import Request
from .rule_checks import LONGEST, THREADS, Watch, in_thread, keeping, made, run_in_loop

if TYPE_CHECKING:
    Run = Callable[[Coroutine[Any, Any, Response | None]], Any]

TIMEOUT = 2 * LONGEST  # of an attempt: the watch is earlier, and names the method
QUESTION: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "Hello"}]}


def check_transport(
    make: Callable[[], Sends], request: Request | None = None, *, at_once: bool = True
) -> None:
    """Check that an object keeps the contract of :class:`llmcall.types.Transport`: in threads and event loops,
    whole and streamed, left half-way, at once, and after it was closed.

    :param make: returns a new one, connected to something that answers.
    :param request: the request; by default a chat.
    :param at_once: ``True`` if it serves several calls at the same time; llmcall's own for one call do not.
    :raises AssertionError, LLMCallError: if it breaks a rule, or takes longer than 20 s for one.

    >>> llmcall.testing.check_transport(lambda: llmcall.testing.ScriptedClient(lambda messages: "Yes."))
    """
    question = request or Request("chat", "m", QUESTION, QUESTION, {}, None, "0" * 64)
    watch = Watch()
    check = _TransportCheck(make, question, watch)
    watch.run(lambda: check.all(at_once=at_once))


class _TransportCheck:
    def __init__(self, make: Callable[[], Sends], request: Request, watch: Watch) -> None:
        self._request = request
        self._watch = watch
        self._own = made(make)
        self._transport = as_transport(self._own, LLMClient())

    def all(self, *, at_once: bool) -> None:
        """Check everything, in threads first: at exit, Python waits for the threads of an event loop."""
        for run in (threads.run, run_in_loop):
            self.whole(run)
            self.streamed(run)
            self.left(run)
        if at_once:
            self.at_once()
        self.closed()

    def whole(self, run: Run) -> None:
        """Check that an answer is whole."""
        self._accept(run(self._send()))

    def streamed(self, run: Run) -> None:
        """Check that the chunks of a stream are a whole answer, too."""
        if (response := run(self._read())) is not None:
            self._accept(response)

    def left(self, run: Run) -> None:
        """Check that a stream left half-way is closed, and that the next request is answered."""
        run(self._read(most=1))
        self._accept(run(self._send()))

    def at_once(self) -> None:
        """Check calls from several threads, and from several tasks, at once."""

        async def together() -> list[Response]:
            return await asyncio.gather(*(loops.run(self._send()) for _ in range(THREADS)))

        answers = [in_thread(lambda: threads.run(self._send())) for _ in range(THREADS)]
        for response in [*(answer.result() for answer in answers), *run_in_loop(together())]:
            self._accept(response)

    def closed(self) -> None:
        """Check that it can be closed repeatedly, and that the next request opens connections again."""

        async def closed_in_loop() -> None:
            await self._send()
            with self._watch.over(f"{name}.aclose"):
                await aclose(self._transport)

        name = self._transport.class_name
        self._close()
        with keeping(f"{name}: a send after close opens connections again"):
            self._accept(threads.run(self._send()))
        run_in_loop(closed_in_loop())
        self._close()
        self._close()

    def _close(self) -> None:
        with self._watch.over(f"{self._transport.class_name}.close"):
            close(self._transport)

    async def _send(self) -> Response:
        is_async = isinstance(self._transport, AsyncTransport) and not await Blocks()
        method = "asend" if is_async else "send"
        with self._watch.over(f"{self._transport.class_name}.{method}"):
            response = await Send(self._transport, self._sent(), TIMEOUT)
        await release_copy(response, is_stored=False)
        return response

    async def _read(self, most: int | None = None) -> Response | None:
        with self._watch.over(f"the stream of {self._transport.class_name}"):
            return await self._read_chunks(most)

    async def _read_chunks(self, most: int | None) -> Response | None:
        chunks = await Open(self._transport, self._sent(), TIMEOUT)
        if chunks is None:
            return None
        assembler, whole, count = Assembler(), None, 0
        async with Reading(chunks):
            while (chunk := await Next(chunks, TIMEOUT)) is not None:
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
        """Check that the pipeline takes an answer as a complete one."""
        kind = KINDS.get(self._request.kind, Kind())
        kind.check(self._request, response, must_fit_window=False)
