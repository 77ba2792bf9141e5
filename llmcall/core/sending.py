"""One request on its way, in as many attempts as it takes: its answer read, stored and counted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial

from ..apis.chunks import DONE, Assembler
from ..config.endpoints import Endpoint
from ..errors import APIError, RequestTimeoutError, ServiceError
from ..keys.request import Data
from ..stores.record import Received, Record
from ..support.failures import UnrecordedAnswer
from ..support.notices import logger
from .callbacks import Reading, plain_answer
from .calls import Call
from .effects import Chunks, Emit, Next, Piece, Write
from .seams import Gate, Response, Used

DEBUG = 10  # logging's, which takes 3 ms to import: a replay sends nothing


class Exchange:
    """One request, sent in as many attempts as it takes.

    :param call: its call; for a batch of embeddings, the call that stands for all.
    :param calls: those that it answers.
    :param must_fit_window: ``True`` if an answer cut off by the context window is an error.
    :ivar held_back: the last pieces of a streamed answer, which its reader gets once the answer is stored.
    :ivar is_read: ``True`` if the reader of a stream has read some of the answer.
    """

    def __init__(self, call: Call, calls: Sequence[Call], *, must_fit_window: bool) -> None:
        self.call = call
        self._calls = calls
        self.must_fit_window = must_fit_window
        request = call.kind.to_send(call)
        # Unsupported parameters are removed from this body.
        self.body = dict(request.body)
        self.request = request._replace(body=self.body)
        self.was_unanswered = False  # whether an attempt was sent and not answered in time
        self.held_back: Sequence[Piece] = ()
        self.is_read = False

    async def emit_rest(self) -> None:
        """Emit what was held back."""
        for piece in self.held_back:
            await Emit(piece, self.call.progress)

    async def store_and_count(
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
                answer = self.call.kind.usage_in(response)
                used = gate.usage_of(answer, endpoint, is_part=False)
            finally:
                gate.settle(used.tokens, used.cost, calls=1)
        finally:
            try:
                received = Received(endpoint.name, host, seconds, response.request_id, used.cost)
                stored = await Write(self.call, partial(self._store, response, received))
            finally:
                self._count(used, calls=1)
        if self.call.is_counted:
            self.call.note(recorded=1)
        if self.call.is_counted and (log := logger()).isEnabledFor(DEBUG):
            log.debug("%s: %s answered in %.2f s", self.call.label, endpoint.name, seconds)
        return stored

    def _store(self, response: Response, received: Received) -> list[Record]:
        """Record an answer. Return the records that count, with this call's receipt: a quicker process's
        answer counts instead, unless this one is a stream's.
        """
        stored = []
        for call, record in zip(
            self._calls, self.call.kind.records(self._calls, response, received), strict=True
        ):
            kept = call.store.add(record)  # no other code has it yet
            kept.received = received
            stored.append(kept)
        for call, record in zip(self._calls, stored, strict=True):
            call.notify("stored", record)
        return stored

    def bound_timeouts(self, error: RequestTimeoutError, seconds: float) -> None:
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
                f"{error}; waited {seconds:.3g} s of {name}={limit:g} ({name.upper()} in [OpenAI])",
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

    def count_failure(
        self,
        error: BaseException,
        response: Response | None,
        assembler: Assembler,
        gate: Gate,
        endpoint: Endpoint,
    ) -> None:
        """Count what a failed or abandoned send used.

        The server reports this with the answer. For part of a stream, it is counted here, because
        most servers report it only at the end.
        """
        is_unrecorded = isinstance(error, UnrecordedAnswer)
        answer: Mapping[str, Data] = {}
        if response is not None:
            answer = self.call.kind.usage_in(response)
        elif assembler.chunk_count:
            answer = assembler.partial_response()
        elif not is_unrecorded:
            return
        # A call whose reader left was answered. One that failed was not: it counts only if
        # the server reports tokens, which it may bill.
        was_answered = is_unrecorded or not isinstance(error, APIError)
        used = gate.usage_of(
            answer, endpoint, is_part=response is None and bool(assembler.chunk_count)
        )
        if was_answered or used.tokens.input_tokens is not None:
            calls = 1 if was_answered else 0
            gate.settle(used.tokens, used.cost, calls)
            self._count(used, calls)

    async def read_stream(self, chunks: Chunks, gate: Gate, assembler: Assembler) -> Response:
        """Return the whole of a streamed answer, and emit it as it arrives.

        Chunks without content are held back until the first one with content: until then, the call can be
        retried.

        :param assembler: gets the chunks.
        """
        call, source = self.call, chunks.name
        head = whole = Response({})
        self.held_back = pending = list[Piece]()
        has_begun = False
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
                        self.is_read = True
                        await Emit(Piece("", chunk), call.progress)
                        continue
                    if chunk is DONE:
                        assembler.is_done = True
                        continue
                    with naming_source(call, source, head):
                        text = assembler.add(chunk)
                    pending.append(Piece(text, chunk))
                    if self.is_read or call.kind.begins_answer(chunk):
                        self.is_read = True
                        while pending:
                            await Emit(pending.pop(0), call.progress)
                with naming_source(call, source, head):
                    answer: Mapping[str, Data] = whole or assembler.response()
                if call.request.kind == "chat":
                    answer = plain_answer(answer, source)
                return Response(answer, head.request_id, status_code=head.status_code)
        except APIError as error:
            error.note(is_read=self.is_read)
            raise


def note_sent(call: Call) -> None:
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
def naming_source(call: Call, source: str, response: Response) -> Iterator[None]:
    """Name the source of a failed answer that did not come from a server.

    :param response: the answer, or the head of a stream.
    """
    try:
        yield
    except ServiceError as error:
        if response.status_code is None and not call.kind.has_own_transport:
            error.remedy = f"Check {source}"
        raise
