"""One request on its way: sent to an endpoint, checked, stored and counted. If that fails, ``failover.py`` may find
another endpoint.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

from ..apis.chunks import DONE, Assembler
from ..apis.masking import mask
from ..apis.message import content_text
from ..apis.shapes import choices_of
from ..config.endpoints import Endpoint
from ..errors import APIError, RequestTimeoutError, ServiceError
from ..keys.request import Data
from ..stores.record import Received, Record
from ..support.failures import UnrecordedAnswer
from ..support.notices import logger
from .callbacks import Reading, plain_answer
from .calls import Call
from .effects import Chunks, Emit, Next, Open, Piece, Write
from .failover import Failover
from .seams import NO_ENDPOINT, Gate, Response, Transport, Used

log = logger()


class Sent(NamedTuple):
    """The answer to one send.

    :param response: the whole answer.
    :param held_back: the last pieces of a stream, which its reader gets once the answer is stored.
    :param is_read: whether the reader of a stream has read some of it.
    """

    response: Response
    held_back: Sequence[Piece] = ()
    is_read: bool = False

    async def finish(self, *, is_stored: bool) -> None:
        """Emit what was held back, and let the server delete its copy.

        :param is_stored: whether the answer was stored; if not, it was refused.
        """
        for piece in self.held_back:
            await Emit(piece)
        await release_copy(self.response, is_stored=is_stored)


class Exchange:
    """One request, sent in as many attempts as it takes.

    :param call: its call; for a batch of embeddings, the call that stands for all.
    :param store: stores an answer, and returns its records.
    :param must_fit_window: whether an answer cut off by the context window is an error.
    """

    def __init__(
        self,
        call: Call,
        store: Callable[[Response, Received], list[Record]],
        *,
        must_fit_window: bool = False,
    ) -> None:
        self.call = call
        self._store = store
        self._kind = call.kind
        self.must_fit_window = must_fit_window
        request = call.kind.to_send(call)
        # Unsupported parameters are removed from this body.
        self.body = dict(request.body)
        self.request = request._replace(body=self.body)
        self.was_unanswered = False  # whether an attempt was sent and not answered in time

    async def attempt(self) -> tuple[list[Record], Sent]:
        """Send the request to one endpoint after another until one answers or the attempt fails;
        return the answer's stored records, and the send that got it.
        """
        call = self.call
        failover = Failover(call, self.body)
        while True:
            gate = call.kind.gate(call, self.request)
            async with gate:
                endpoint = await gate.acquire()
                host = "" if endpoint is NO_ENDPOINT else call.site.host(endpoint)
                sent_at, transport = time.monotonic(), None
                try:
                    transport = call.kind.transport(call, endpoint)
                    sent = await self.send_once(gate, endpoint, transport)
                except APIError as error:
                    failover.bound_wait(error, endpoint)
                    if isinstance(error, RequestTimeoutError):
                        self._bound_timeouts(error, time.monotonic() - sent_at)
                    if endpoint is NO_ENDPOINT:
                        raise
                    error.endpoint = endpoint.name
                    mask(error, [endpoint.key()])
                    if failover.prepare_another_send(error, endpoint, gate, transport):
                        continue
                    raise
                seconds, copy = time.monotonic() - sent_at, sent.response.server_copy
                if copy is not None:
                    endpoint, host = copy.endpoint, call.site.host(copy.endpoint)
                response = sent.response
                return await self._store_and_count(response, gate, endpoint, host, seconds), sent

    async def send_once(self, gate: Gate, endpoint: Endpoint, transport: Transport | None) -> Sent:
        """Send the request once, and check the answer; count the send if it fails.

        :param gate: is told when a streamed answer begins, and what a failed send used.
        """
        call, request = self.call, self.call.kind.once(self.request)
        assembler, response = Assembler(), None
        try:
            timeout = call.deadline.time_for(call.options.timeout)
            _note_sent(call)
            chunks = None
            if call.is_streamed:
                assert transport is not None  # of a function, which is never streamed
                chunks = await Open(transport, request, timeout)
            if chunks is not None:
                sent, source = await self._read_stream(chunks, gate, assembler), chunks.name
            else:
                if call.is_streamed:  # the transport does not stream
                    own_body: Any = request.body
                    own_body.pop("stream_options", None)
                sent = Sent(await call.kind.send(transport, request, timeout))
                source = sent.response.source
            response = sent.response
            try:
                with _naming_source(call, source, response):
                    self._kind.check(self.request, response, must_fit_window=self.must_fit_window)
            except APIError as error:
                error.note(is_read=sent.is_read)
                await sent.finish(is_stored=False)
                raise
            if call.is_streamed and not (sent.is_read or sent.held_back):  # it came whole
                message = choices_of(response)[0]["message"]
                return Sent(response, [Piece(content_text(message.get("content")) or "")])
            return sent
        except BaseException as error:
            self._count_failure(error, response, assembler, gate, endpoint)
            raise

    async def _store_and_count(
        self, response: Response, gate: Gate, endpoint: Endpoint, host: str, seconds: float
    ) -> list[Record]:
        """Store the whole answer, then count it, and return the stored record.

        A record holds its cost, which another package calculates from what the server reports. That may fail in
        unforeseen ways, or be interrupted, since the package is slow to import. Storing the answer first and
        adding the cost later would write each answer twice, and a kill in between would leave a record without
        its cost. So the cost comes first, but the answer is stored whatever happens, with an unknown cost if
        need be. Everything else, such as counting and warnings, comes afterwards.
        """
        used = Used()
        try:
            try:
                answer = self._kind.usage_in(response)
                copy = response.server_copy
                tier = None if copy is None else copy.tier
                used = gate.reckon(answer, endpoint, is_part=False, tier=tier)
            finally:
                gate.settle(used.tokens, used.cost, calls=1)
        finally:
            try:
                received = Received(endpoint.name, host, seconds, response.request_id, used.cost)
                stored = await Write(
                    partial(self._store, response, received),
                    is_on_server=self.call.store.is_on_server,
                )
            finally:
                self._count(used, calls=1)
        if self.call.is_counted:
            self.call.note(recorded=1)
        if self.call.is_counted and log.isEnabledFor(logging.DEBUG):
            log.debug("%s: %s answered in %.2f s", self.call.label, endpoint.name, seconds)
        return stored

    def _bound_timeouts(self, error: RequestTimeoutError, seconds: float) -> None:
        """Allow one more send after a first timeout, but no further ones, since each may be billed; state the limit.

        :param seconds: how long the call waited.
        """
        if error.failure.is_late or error.failure.is_unreachable:  # nothing was sent
            return
        options, left = self.call.options, self.call.deadline.time_left()
        name, limit = "timeout", options.timeout
        if left is not None and round(left, 2) <= 0:
            name, limit = "deadline", options.deadline
        if limit is not None:
            error.args = (
                f"{error}; waited {seconds:.3g} s of {name}={limit:g} ({name.upper()} under [OpenAI])",
            )
        error.retryable = error.retryable and not self.was_unanswered
        self.was_unanswered = True

    def _count(self, used: Used, calls: int) -> None:
        """Add what a send used to the usage.

        :param calls: 1, or 0 if it got no answer.
        """
        if not self.call.is_counted:
            return
        assert self.call.progress is not None  # it was begun
        self.call.progress.is_counted = bool(calls)
        if not self.call.kind.calls_model:
            self.call.note(calls=calls)
            return
        tokens, is_embedding = used.tokens, self.request.kind == "embedding"
        self.call.note(
            calls=calls,
            input_tokens=tokens.input_tokens,
            cached_input_tokens=tokens.cached_tokens,
            output_tokens=0 if is_embedding else tokens.output_tokens,
            cost=used.cost,
            **({"priced_by": used.priced_by} if used.priced_by else {}),
            **({"served": used.served} if used.served and calls else {}),
        )

    def _count_failure(
        self,
        error: BaseException,
        response: Response | None,
        assembler: Assembler,
        gate: Gate,
        endpoint: Endpoint,
    ) -> None:
        """Count what a send used that failed, or whose reader left.

        The server reports this with the answer. For part of a stream, it is counted here, because
        most servers report it only at the end.
        """
        is_unrecorded = isinstance(error, UnrecordedAnswer)
        answer: Mapping[str, Data] = {}
        if response is not None:
            answer = self._kind.usage_in(response)
        elif assembler.chunk_count:
            answer = assembler.partial_response()
        elif not is_unrecorded:
            return
        # A call whose reader left was answered. One that failed was not: it counts only if
        # the server reports tokens, which it may bill.
        was_answered = is_unrecorded or not isinstance(error, APIError)
        used = gate.reckon(
            answer, endpoint, is_part=response is None and bool(assembler.chunk_count)
        )
        if was_answered or used.tokens.input_tokens is not None:
            calls = 1 if was_answered else 0
            gate.settle(used.tokens, used.cost, calls)
            self._count(used, calls)

    async def _read_stream(
        self,
        chunks: Chunks,
        gate: Gate,
        assembler: Assembler,
    ) -> Sent:
        """Return the whole of a streamed answer, and emit it as it arrives.

        Chunks without content are held back until the first one with content: until then, the call can be
        retried.

        :param assembler: gets the chunks.
        """
        call, source = self.call, chunks.name
        head = whole = Response({})
        pending: list[Piece] = []
        has_begun = is_read = False
        try:
            async with Reading(chunks):
                while (
                    chunk := await Next(chunks, call.deadline.time_for(call.options.timeout))
                ) is not None:
                    if isinstance(chunk, Response):
                        # the headers before the first chunk, or the whole answer after the last one
                        head, whole = (head, chunk) if chunk else (chunk, whole)
                        continue
                    if not has_begun:
                        has_begun = True
                        gate.answer_began()
                    if isinstance(chunk, bytes):  # of an answer that is recorded verbatim
                        is_read = True
                        await Emit(Piece("", chunk))
                        continue
                    if chunk is DONE:
                        assembler.is_done = True
                        continue
                    with _naming_source(call, source, head):
                        text = assembler.add(chunk)
                    pending.append(Piece(text, chunk))
                    if is_read or call.kind.begins_answer(chunk):
                        is_read = True
                        while pending:
                            await Emit(pending.pop(0))
                with _naming_source(call, source, head):
                    answer: Mapping[str, Data] = whole or assembler.response()
                if call.request.kind == "chat":
                    answer = plain_answer(answer, source)
                response = Response(answer, head.request_id, status_code=head.status_code)
        except APIError as error:
            error.note(is_read=is_read)
            raise
        return Sent(response, pending, is_read)


def _note_sent(call: Call) -> None:
    """Count a send, or a retry."""
    progress = call.progress
    assert progress is not None  # it was begun
    if call.is_counted:
        is_again = progress.was_sent and not progress.is_counted
        if is_again or call.take_back_failure():
            call.note(retries=1)
        else:
            call.note(asked=1)
    progress.was_sent, progress.is_counted = True, False


@contextmanager
def _naming_source(call: Call, source: str, response: Response) -> Iterator[None]:
    """Name the source of a failed answer that did not come from a server.

    :param response: the answer, or the head of a stream.
    """
    try:
        yield
    except ServiceError as error:
        if response.status_code is None and not call.kind.has_own_transport:
            error.remedy = f"Check {source}: llmcall.testing.check_transport tests what it returns"
        raise


async def release_copy(response: Response | None, *, is_stored: bool) -> None:
    """Let the server delete its copy of a response, if it keeps one.

    :param is_stored: whether the response was stored; if not, it was refused.
    """
    if response is not None and response.server_copy is not None:
        await response.server_copy.release(is_stored=is_stored)
