"""One request on its way: sent to an endpoint, checked, counted, or passed on to another endpoint."""

from __future__ import annotations

import copy
import time
from contextlib import closing
from typing import TYPE_CHECKING, Any

from ..config.values import MASK
from ..errors import APIError, RequestTimeoutError
from ..failures import UnrecordedAnswer
from ..models.prices import tier_of
from ..notices import logger
from ..secrets import SHORTEST_SECRET, masked
from ..values import Received, Response, TokenUsage, choices_of, http_as_chat, text_of
from ..values.checks import check_chat, check_embeddings, check_fits, is_cut_by_context_window
from ..values.chunks import Assembler, says_something, text_in
from .attempt import EndpointFailures
from .effects import END, Piece, close, emit, next_of, opened, send
from .estimates import tokens_used
from .permit import Permit
from .windows import Background

if TYPE_CHECKING:
    from ..config.endpoints import Endpoint
    from .attempt import RetryPolicy
    from .calls import Call

log = logger()


class Exchange:
    """Sends one request, in as many attempts as are made.

    :param call: the call that it is for; of a batch of embeddings, one whose body asks for all.
    :param stream: emit the text as it comes.
    :param must_fit_window: an answer that the context window cut is an error, so it need not fit
        its ``response_format``.
    """

    def __init__(
        self,
        call: Call,
        policy: RetryPolicy,
        *,
        stream: bool = False,
        must_fit_window: bool = False,
    ) -> None:
        self.call = call
        self.policy = policy
        self.stream = stream
        self.must_fit_window = must_fit_window
        self.request = call.request
        self.client = call.client
        self.pool = call.client.pool(call.request.model)
        self.body: dict[str, Any] = {}
        self.background: Background | None = None
        if call.request.kind != "http":
            maker = call.client if call.transport is None else call.transport
            self.request = maker.sent(call.request, self.pool.capabilities, stream)
            if stream:
                # One that nobody reads is counted where it is collected: perhaps amid the import of prices.
                self.pool.price(0)
            # Parameters that turn out to be unsupported are taken out of it.
            self.body = dict(self.request.body)
            self.request = self.request._replace(body=self.body)
            if self.request.wire == "background":
                self.background = Background(call, policy.time_left)
        # Of the current attempt: the chunks of a streamed answer so far, and the whole answer.
        self.assembler: Assembler | None = None
        self.response: Any = None
        self.reader_has_text = False

    async def attempt(self, number: int) -> tuple[Any, Received | None]:
        """Send the request to one endpoint after the other until one answers or the attempt fails;
        return the response, and how it was received; the record and ``None`` if another process
        recorded the answer meanwhile.

        :param number: of the attempt, from 1 on.
        """
        if number > 1:
            self.call.add_usage(retries=1)
        failures = EndpointFailures(self.call, self.pool, self.policy, self.body)
        background = self.background
        is_noted = background is not None and self.call.shared_store is not None
        key = self.call.request.cache_key if is_noted else None
        while True:
            begun_at = None if background is None else await background.begin()
            permit = Permit(
                self.pool, self.policy.time_left, calls_only=not self.call.asks_model, key=key
            )
            with closing(permit):
                endpoint = await permit.acquire(self.request, begun_at)
                sent_at = time.monotonic()
                try:
                    await self._send(endpoint, permit)
                except BaseException as error:
                    self._count_failure(endpoint, permit, error)
                    if not isinstance(error, APIError):
                        raise
                    error.endpoint = endpoint.name
                    error.args = tuple(_without_key(each, endpoint) for each in error.args)
                    if failures.can_go_on(endpoint, error, reader_has_text=self.reader_has_text):
                        continue
                    raise
                seconds = time.monotonic() - sent_at
            if background is not None and self.response is None:
                if background.record is not None:
                    return background.record, None
                continue
            log.debug("%s: %s answered in %.2f s", self.call.label, endpoint.name, seconds)
            request_id = getattr(self.response, "request_id", None)
            host = self.client.host(endpoint)
            _, service_tier = self._used(self.response)
            return self.response, Received(endpoint.name, host, seconds, request_id, service_tier)

    async def _send(self, endpoint: Endpoint, permit: Permit) -> None:
        """Send the request once, check what comes, and count it in limits and budgets."""
        self.assembler = None
        self.response = None
        if self.request.kind == "http":
            answer = await send(self.call.transport, self.request, self.policy.time_left())
            self.response = answer if isinstance(answer, dict) else await self._pass_on(answer)
        else:
            await self._receive(endpoint, permit)
            if self.response is None:
                return
        tokens, service_tier = self._used(self.response)
        permit.use(tokens, endpoint.name, service_tier=service_tier)
        await permit.settle()
        if self.stream and self.assembler is None:
            message = choices_of(self.response)[0]["message"]
            await emit(Piece(text_of(message.get("content")) or ""))

    async def _receive(self, endpoint: Endpoint, permit: Permit) -> None:
        """Send the request once, and check what comes; no response comes if another process was
        faster, or the server forgot it.
        """
        body = copy.deepcopy(self.body)  # a transport may change what it is given
        request = self.request._replace(body=body, headers=dict(self.request.headers))
        transport = self.call.transport_of(endpoint)
        timeout = self._timeout()
        chunks = None
        if self.stream:
            chunks = opened(transport, request, timeout)
            if chunks is None:  # the transport does not stream
                body.pop("stream_options", None)
        if self.background is not None:
            response = await self.background.response(endpoint, request, permit)
            if response is None:
                return
            try:
                self.response = transport.answer_in(response)
                self._check()
            except APIError:
                await self.background.delete()
                raise
            return
        if chunks is None:
            self.response = await send(transport, request, timeout)
        else:
            self.response = await self._read_stream(chunks)
        self._check()

    async def _pass_on(self, pieces: Any) -> Any:
        """Emit the pieces of an answer that is recorded as it is, and return what is recorded of it.

        :param pieces: an iterator or asynchronous iterator, whose last item is what is recorded.
        """
        try:
            while isinstance(piece := await next_of(pieces, self.policy.time_left()), bytes):
                self.reader_has_text = True
                await emit(Piece("", piece))
        finally:
            await close(pieces)
        return piece

    def _used(self, response: Any) -> tuple[TokenUsage, str | None]:
        """Return the tokens that a response reports, and the tier or window in which it was made."""
        if self.request.kind == "http":
            response = http_as_chat(response["body"])
        window = None if self.background is None else self.background.window
        return TokenUsage.of(response), tier_of(response, window)

    def _check(self) -> None:
        """Raise an error if the answer is incomplete or does not fit its ``response_format``."""
        if self.request.kind == "embedding":
            check_embeddings(self.response, len(self.body["input"]))
            return
        check_chat(self.response)
        if self.request.expected is None:
            return
        if self.must_fit_window and is_cut_by_context_window(self.response, self.request):
            return
        check_fits(self.request, self.response)

    def _count_failure(self, endpoint: Endpoint, permit: Permit, error: BaseException) -> None:
        """Count what an attempt used that failed, or whose reader left.

        The server reports it with the answer. For a part of a stream it is counted here, because
        most servers report at the end.
        """
        tokens, service_tier = TokenUsage(), None
        is_unrecorded = isinstance(error, UnrecordedAnswer)
        if isinstance(self.response, dict):
            tokens, service_tier = self._used(self.response)
        elif self.assembler is not None:
            partial = self.assembler.partial_response()
            service_tier = tier_of(partial)
            tokens = tokens_used(partial, self.request, self.pool.capabilities)
        elif not is_unrecorded:
            return
        # A call whose reader left was answered. One that failed was not: it counts only as far as
        # the server reports tokens, which it may bill.
        was_answered = is_unrecorded or not isinstance(error, APIError)
        if not was_answered and tokens.input_tokens is None:
            return
        calls = 1 if was_answered else 0
        permit.use(tokens, endpoint.name, service_tier=service_tier, calls=calls)
        self.call.count_answer(tokens, endpoint.name, service_tier=service_tier, calls=calls)

    async def _read_stream(self, chunks: Any) -> Any:
        """Return the whole of a streamed answer, which is emitted as it comes.

        Chunks that tell the reader nothing are held back until one does: until then the call can be
        tried again.
        """
        assembler = Assembler()
        head = whole = Response({})
        pending: list[Piece] = []
        has_content = text_in if self.call.transport is None else says_something
        try:
            while (chunk := await next_of(chunks, self._timeout())) is not END:
                if isinstance(chunk, Response):
                    # the headers before the first chunk, or the whole answer after the last one
                    head, whole = (head, chunk) if chunk else (chunk, whole)
                    continue
                text = assembler.add(chunk)
                self.assembler = assembler
                pending.append(Piece(text, chunk))
                if self.reader_has_text or has_content(chunk):
                    self.reader_has_text = True
                    while pending:
                        await emit(pending.pop(0))
            response = Response(whole or assembler.response(), head.request_id)
            for piece in pending:  # of an answer without text
                await emit(piece)
        except GeneratorExit:  # nobody runs this call any more: it cannot await
            raise
        except BaseException:
            await close(chunks)
            raise
        await close(chunks)
        return response

    def _timeout(self) -> float | None:
        """Return the seconds that an attempt, or the wait for the next chunk, may take.

        :raises RequestTimeoutError: if the call's deadline has passed.
        """
        timeout = self.call.options.timeout
        seconds_left = self.policy.time_left()
        if seconds_left is None:
            return timeout
        if seconds_left <= 0:
            raise RequestTimeoutError("the call's deadline passed")
        return seconds_left if timeout is None else min(seconds_left, timeout)


def _without_key(text: Any, endpoint: Endpoint) -> Any:
    """Return a part of an error without credentials, since a server may repeat them."""
    if not isinstance(text, str):
        return text
    key = endpoint.key()
    if isinstance(key, str) and len(key) >= SHORTEST_SECRET:
        text = text.replace(key, MASK)
    return masked(text)
