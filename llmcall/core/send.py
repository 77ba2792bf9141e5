"""One request on its way: sent to an endpoint, checked, stored and counted; or else ``failover.py`` finds another
endpoint.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any

from ..apis.chunks import DONE, Assembler, chunk_text, says_something
from ..apis.masking import mask
from ..apis.message import content_text
from ..apis.shapes import choices_of
from ..errors import APIError, RequestTimeoutError, ServiceError
from ..keys.plain_data import map_texts
from ..stores.record import Received, Record
from ..support.failures import UnrecordedAnswer
from ..support.notices import logger
from ..support.waits import NotAtOnceError, may_block, set_at_once
from .callbacks import (
    Reading,
    next_chunk,
    open_stream,
    plain_answer,
    send,
    sending_method,
    stream_name,
)
from .failover import Failover
from .kinds import KINDS
from .seams import NO_ENDPOINT, Chunk, Gate, Response, Transport, Used
from .waiting import Piece, emit, in_thread

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Mapping

    from ..config.endpoints import Endpoint
    from ..keys.request import Data
    from .calls import Call

log = logger()


class Exchange:
    """One request, sent in as many attempts as it takes.

    :param call: its call; for a batch of embeddings, the call for all.
    :param store: stores an answer, and returns its records.
    :param must_fit_window: an answer that the context window cut is an error.
    """

    def __init__(
        self,
        call: Call,
        store: Callable[[Response, Received], list[Record]],
        *,
        must_fit_window: bool = False,
    ) -> None:
        assert call.progress is not None  # it was begun
        self.call = call
        self._progress = call.progress
        self._store = store
        self.must_fit_window = must_fit_window
        self.kind = KINDS[call.request.kind]
        # A transport of its own knows what to send.
        own = call.transport is not None
        request = call.request if own else call.client.request_to_send(call)
        # Unsupported parameters are removed from this body.
        self.body = dict(request.body)
        self.request = request._replace(body=self.body)
        # Of the current send: its gate, its endpoint, what sends it there, the chunks of a streamed
        # answer so far, and the whole answer.
        self.gate: Gate
        self.endpoint: Endpoint
        self.transport = call.transport
        self.assembler: Assembler | None = None
        self.response: Response | None = None
        self.reader_has_text = False
        self.was_unanswered = False  # whether an attempt was sent and not answered in time
        # The last pieces of a stream, which its reader gets when the answer is stored.
        self.held_back: list[Piece] = []

    async def attempt(self) -> list[Record]:
        """Send the request to one endpoint after the other until one answers or the attempt fails;
        return the stored part of the answer.
        """
        call = self.call
        failover = Failover(call, self.body)
        while True:
            client = call.counted_by
            gate = Gate() if client is None else client.gate(call, self.request)
            async with gate as self.gate:
                endpoint = self.endpoint = await self.gate.acquire()
                # Before anything is paid for: it is a user's method, which may raise.
                host = "" if client is None else client.host(endpoint)
                sent_at = time.monotonic()
                try:
                    await self._send()
                except BaseException as error:
                    self._count_failure(error)
                    if not isinstance(error, APIError):
                        raise
                    failover.bound_wait(error, endpoint)
                    if isinstance(error, RequestTimeoutError):
                        self._bound_timeouts(error, time.monotonic() - sent_at)
                    if endpoint is NO_ENDPOINT:
                        raise
                    error.endpoint = endpoint.name
                    mask(error, [endpoint.key()])
                    has_text = self.reader_has_text
                    if failover.prepare_another_send(
                        error, endpoint, self.gate, self.transport, reader_has_text=has_text
                    ):
                        continue
                    raise
                seconds = time.monotonic() - sent_at
                response = self.response
                assert response is not None
                if response.held is not None:
                    self.endpoint = response.held.endpoint
                    host = call.client.host(self.endpoint)
                return await self._store_and_count(response, host, seconds)

    async def _store_and_count(self, response: Response, host: str, seconds: float) -> list[Record]:
        """Store the whole answer, then count it, and return the stored record.

        A record holds its cost, which is reckoned by another package from what a server says: it may fail in
        ways that nobody thought of, or be interrupted, since the first import takes its time. To store
        first and add the cost later would write each answer twice, and a kill between the two would leave
        a record without its cost. So the cost is tried first, and whatever becomes of that, the answer is
        stored: with an unknown cost, if need be. All else, such as counting and warnings, comes after.
        """
        used = Used()
        try:
            try:
                answer = self.kind.usage_in(response)
                tier = None if response.held is None else response.held.tier
                used = self.gate.reckon(answer, self.endpoint, is_part=False, tier=tier)
            finally:
                self.gate.settle(used.tokens, used.cost, calls=1)
        finally:
            try:
                name, request_id = self.endpoint.name, response.request_id
                received = Received(name, host, seconds, request_id, used.cost)
                stored = await self._stored(response, received)
            finally:
                self._count(used, calls=1)
        if self.call.is_counted and log.isEnabledFor(logging.DEBUG):
            log.debug("%s: %s answered in %.2f s", self.call.label, self.endpoint.name, seconds)
        return stored

    async def _stored(self, response: Response, received: Received) -> list[Record]:
        """Store the answer, and return its records.

        An event loop does it itself: handing it to a thread and back takes several times as long. Only
        while somebody else writes the database, a thread waits for that.
        """
        if not may_block() and not self.call.store.is_on_server:
            set_at_once(True)
            try:
                return self._store(response, received)
            except NotAtOnceError:
                pass
            finally:
                set_at_once(False)
        return await in_thread(self._store, response, received)

    async def _send(self) -> None:
        """Send the request once, and check the response."""
        call = self.call
        self.assembler = self.response = None
        self.held_back = []
        transport, request = call.transport, self.request
        if transport is None:
            transport = call.client.transport_for(call, self.endpoint)
            # A copy, since a user's transport may change its arguments.
            body, headers = map_texts(request.body, str), dict(request.headers)
            request = request._replace(body=body, headers=headers)
        self.transport = transport
        timeout = call.deadline.time_for(call.options.timeout)
        if call.is_counted:
            if self._progress.is_waiting or call.recover():
                call.add_usage(retries=1)
            else:
                call.failures.note_sent()
        self._progress.was_sent, self._progress.is_counted = True, False
        chunks = open_stream(transport, request, timeout) if call.is_streamed else None
        if chunks is not None:
            self.response = await self._read_stream(chunks, transport)
            try:
                self._check(self.response, stream_name(transport))
            except APIError:
                await self.emit_held_back()
                raise
            return
        if call.is_streamed:  # the transport does not stream
            sent: Any = request.body
            sent.pop("stream_options", None)
        self.response = await send(transport, request, timeout)
        try:
            self._check(self.response, sending_method(transport))
        except APIError:
            await release_held(self.response, is_stored=False)
            raise
        if call.is_streamed:
            message = choices_of(self.response)[0]["message"]
            self.held_back.append(Piece(content_text(message.get("content")) or ""))

    def _check(self, response: Response, source: str) -> None:
        """Raise an error if the answer is incomplete or does not fit its ``response_format``."""
        try:
            self.kind.check(self.request, response, must_fit_window=self.must_fit_window)
        except ServiceError as error:
            self._name_source(error, source, response)
            raise

    def _name_source(self, error: ServiceError, source: str, response: Response) -> None:
        """Let the failure of an answer that comes from no server say what returned it.

        :param response: the answer, or the head of a stream.
        """
        if response.status_code is None and self.call.transport is None:
            error.remedy = f"Check {source}: llmcall.testing.check_transport tests what it returns"

    async def emit_held_back(self) -> None:
        """Emit the last pieces of a streamed answer."""
        while self.held_back:
            await emit(self.held_back.pop(0))

    def _bound_timeouts(self, error: RequestTimeoutError, seconds: float) -> None:
        """Let a request that was not answered in time be sent once more, as each may be billed; state the limit.

        :param seconds: how long was waited.
        """
        if error.is_late or error.is_unreachable:  # nothing was sent
            return
        limit = self.call.options.timeout
        if limit is not None:
            error.args = (
                f"{error}; waited {seconds:.3g} s of timeout={limit:g} (TIMEOUT below [OpenAI])",
            )
        error.retryable = error.retryable and not self.was_unanswered
        self.was_unanswered = True

    def _count(self, used: Used, calls: int) -> None:
        """Count the use in usage.

        :param calls: 0 if it is not an answer.
        """
        if not self.call.is_counted:
            return
        self._progress.is_counted = bool(calls)
        if not self.call.asks_model:
            self.call.add_usage(calls=calls)
            return
        tokens, is_embedding = used.tokens, self.request.kind == "embedding"
        self.call.add_usage(
            calls=calls,
            input_tokens=tokens.input_tokens,
            cached_input_tokens=tokens.cached_tokens,
            output_tokens=0 if is_embedding else tokens.output_tokens,
            cost=used.cost,
            **({} if used.priced_by is None else {"priced_by": used.priced_by}),
            served=used.served if calls else None,
        )

    def _count_failure(self, error: BaseException) -> None:
        """Count the use of an attempt that failed, or whose reader left.

        The server reports it with the answer. For a part of a stream it is counted here, because
        most servers report at the end.
        """
        is_unrecorded = isinstance(error, UnrecordedAnswer)
        answer: Mapping[str, Data] = {}
        if self.response is not None:
            answer = self.kind.usage_in(self.response)
        elif self.assembler is not None:
            answer = self.assembler.partial_response()
        elif not is_unrecorded:
            return
        # A call whose reader left was answered. One that failed was not: it counts only as far as
        # the server reports tokens, which it may bill.
        was_answered = is_unrecorded or not isinstance(error, APIError)
        is_part = self.response is None and self.assembler is not None
        used = self.gate.reckon(answer, self.endpoint, is_part=is_part)
        if was_answered or used.tokens.input_tokens is not None:
            calls = 1 if was_answered else 0
            self.gate.settle(used.tokens, used.cost, calls)
            self._count(used, calls)

    async def _read_stream(
        self, chunks: AsyncGenerator[Chunk, None], transport: Transport
    ) -> Response:
        """Return the whole of a streamed answer, which is emitted as it comes.

        Chunks without content are held back until the first one with content: until then the call can be
        tried again.
        """
        call, assembler, source = self.call, Assembler(), stream_name(transport)
        head = whole = Response({})
        pending: list[Piece] = []
        has_begun = False
        has_content = chunk_text if call.transport is None else says_something
        async with Reading(chunks):
            while (
                chunk := await next_chunk(
                    chunks, transport, call.deadline.time_for(call.options.timeout)
                )
            ) is not None:
                if isinstance(chunk, Response):
                    # the headers before the first chunk, or the whole answer after the last one
                    head, whole = (head, chunk) if chunk else (chunk, whole)
                    continue
                if not has_begun:
                    has_begun = True
                    self.gate.answer_began()
                if isinstance(chunk, bytes):  # of an answer that is recorded as it is
                    self.reader_has_text = True
                    await emit(Piece("", chunk))
                    continue
                if chunk is DONE:
                    assembler.is_done = True
                    continue
                try:
                    text = assembler.add(chunk)
                except ServiceError as error:
                    self._name_source(error, source, head)
                    raise
                self.assembler = assembler
                pending.append(Piece(text, chunk))
                if self.reader_has_text or has_content(chunk):
                    self.reader_has_text = True
                    while pending:
                        await emit(pending.pop(0))
            try:
                answer: Mapping[str, Data] = whole or assembler.response()
            except ServiceError as error:
                self._name_source(error, source, head)
                raise
            if call.request.kind == "chat":
                answer = plain_answer(answer, source)
            response = Response(answer, head.request_id, status_code=head.status_code)
            self.held_back = pending  # of an answer without text
        return response


async def release_held(response: Response | None, *, is_stored: bool) -> None:
    """Let the server delete its copy of a response, if it keeps one.

    :param is_stored: whether the response was stored; else it was refused.
    """
    if response is not None and response.held is not None:
        await response.held.release(is_stored=is_stored)
