"""One request on its way: sent to an endpoint of the pool, checked, counted, passed on to another."""

from __future__ import annotations

import copy
import time
from contextlib import closing
from typing import TYPE_CHECKING, Any

from .. import responses
from ..errors import (
    APIError,
    AuthenticationError,
    InvalidRequestError,
    QuotaExceededError,
    RateLimitError,
    RequestTimeoutError,
)
from ..notices import logger, warn_once
from ..types import Response, Sent, TokenUsage
from .drivers import END, Close, Do, Emit, Next, Open, Send
from .flights import handed_to_reader
from .limits import LEFT_OUT, Admission, estimate, quotas_in, tokens_used

if TYPE_CHECKING:
    from ..config.settings import Endpoint
    from ..responses import Assembler
    from .drivers import Flow
    from .limits import Pool
    from .prepared_call import ModelCall
    from .retry import RetryPolicy

log = logger()
REST = 1.0  # seconds that an endpoint rests after a 429 that named no time


UNSUPPORTED = frozenset({"unsupported_parameter", "unsupported_value"})


class Exchange:
    """Send one request, in as many attempts as the policy allows.

    :param call: the call that it is for; of several embeddings, the first, which asks for all.
    :param stream: whether the text is handed on as it comes.
    :param wants_room: whether an answer that the context window cut is an error: there is a larger
        one to try.
    """

    def __init__(
        self,
        call: ModelCall,
        policy: RetryPolicy,
        stream: bool = False,
        wants_room: bool = False,
    ) -> None:
        self.call, self.client, self.policy = call, call.client, policy
        self.stream, self.wants_room = stream, wants_room
        self.pool: Pool = self.client.pool(call.request.model)
        # loses what turns out to be unsupported
        self.body: dict[str, Any] = self.client.sent_body(call.request, self.pool.known, stream)
        self.request = call.request._replace(body=self.body)
        self.partial: Assembler | None = None  # what came of a streamed answer
        self.whole: Any = None  # the answer, once all of it has come
        self.is_told = False  # whether the reader of a stream has some of it

    def attempt(self, number: int) -> Flow[Sent]:
        """Send to one endpoint after the other until one answers or refuses."""
        if number > 1:
            self.call.add_usage(retries=1)
        refused: set[str] = set()
        while True:
            with closing(
                Admission(self.pool, self.policy.time_left, is_streamed=self.stream)
            ) as admission:
                endpoint = yield from admission.acquire(self.request)
                sent_at = time.monotonic()
                try:
                    response = yield from self._response(endpoint, admission)
                except BaseException as error:
                    self._bill(endpoint, admission, error)
                    if not isinstance(error, APIError):
                        raise
                    error.endpoint = endpoint.name
                    if not self._recover(endpoint, error, refused):
                        raise
                else:
                    seconds = time.monotonic() - sent_at
                    log.debug("%s: %s answered in %.2f s", self.call.label, endpoint.name, seconds)
                    return Sent(response, endpoint.name, self.client.host(endpoint), seconds)

    def _response(self, endpoint: Endpoint, admission: Admission) -> Flow[Any]:
        """Send it once, and check what comes."""
        self.partial = self.whole = None
        body = copy.deepcopy(self.body)  # a transport may change what it is given
        request = self.request._replace(body=body, headers=dict(self.request.headers))
        timeout, transport, chunks = self._seconds(), self.client.transport_of(endpoint), None
        if self.stream:
            chunks = yield Open(transport, request, timeout)
            if chunks is None:
                body.pop("stream_options", None)
        response = (
            (yield Send(transport, request, timeout))
            if chunks is None
            else (yield from self._assembled(chunks))
        )
        self.whole = response
        if request.kind == "chat":
            responses.check_chat(response)
            if request.expected is not None and not (
                self.wants_room and responses.is_cut(response, request)
            ):
                responses.check_fits(request, response)
        else:
            responses.check_embeddings(response, len(self.body["input"]))
        if headers := getattr(response, "headers", None):
            self.pool.set_quotas(endpoint, quotas_in(headers))
        is_limited = (
            admission.reservation is not None
            or self.pool.settings.limits_tokens_per_minute is not None
        )
        used = (
            tokens_used(response, self.request, self.pool.known)
            if is_limited
            else TokenUsage.of(response)
        )
        admission.use(used, endpoint.name)
        if TokenUsage.of(response).input_tokens is None:
            admission.keep_reservation()
        if admission.reservation is not None and not admission.reservation.is_near:
            yield Do(admission.reservation.close)
        if self.stream and chunks is None:
            yield Emit("".join(responses.text_pieces(response)))
        return response

    def _bill(self, endpoint: Endpoint, admission: Admission, error: BaseException) -> None:
        """Count what an attempt used that ends without an answer, or whose reader leaves: what came
        is billed.

        It is what the server reported; of a part of a stream, as most servers report at the end,
        else what is counted here.
        """
        if isinstance(self.whole, dict):
            used = TokenUsage.of(self.whole)
        elif self.partial is not None:
            used = tokens_used(self.partial.begun(), self.request, self.pool.known)
        else:
            return
        calls = 0 if isinstance(error, APIError) else 1
        if not calls and used.input_tokens is None:
            return
        if not admission.answered:
            admission.use(used, endpoint.name, calls=calls)
        self.call.count_answer(used, endpoint.name, calls=calls)

    def _assembled(self, chunks: Any) -> Flow[Any]:
        """Return the whole of a streamed answer, which is handed on as it comes.

        What says nothing to the reader is held back until something does: until then the call can
        be tried again.
        """
        assembler, head, collected = responses.Assembler(), Response({}), False
        held: list[Emit] = []
        says = responses.says_something if self.client.streams_chunks else responses.text_in
        try:
            while (chunk := (yield Next(chunks, self._seconds()))) is not END:
                if isinstance(chunk, Response) and not chunk:  # what came before the first chunk
                    head = chunk
                    continue
                text = assembler.add(chunk)
                self.partial = assembler
                held.append(Emit(text, assembler.latest))
                if self.is_told or says(assembler.latest):
                    self.is_told = True
                    with handed_to_reader(self.call):
                        yield from held
                    held.clear()
        except (
            GeneratorExit
        ):  # the garbage collector found a cycle, whose parts it ends in any order: chunks too
            collected = True
            raise
        finally:
            if not collected:
                yield Close(chunks)
        response = Response(assembler.response(), head.request_id, head.headers)
        yield from held  # of an answer without a word
        return response

    def _seconds(self) -> float | None:
        """Return the seconds that an attempt, or the wait for the next chunk, may take: not more
        than the call has.
        """
        given = self.call.options.timeout
        timeout = self.call.settings.timeout if given is None else given
        left = self.policy.time_left()
        if left is not None and left <= 0:
            raise RequestTimeoutError("the call's deadline passed")
        return left if timeout is None else timeout if left is None else min(left, timeout)

    def _recover(self, endpoint: Endpoint, error: APIError, refused: set[str]) -> bool:
        """Return whether the attempt can go on: with another endpoint, a fresh token, or without a
        parameter.

        :param endpoint: the one that refused.
        :param refused: which endpoints refused in this attempt, and how; grows. None may do so
            twice in the same way.
        """
        if self.is_told:
            error.retryable = False  # the reader has the first half already
        if isinstance(error, RateLimitError) and not isinstance(error, QuotaExceededError):
            return self._passed_on(endpoint, error, refused)
        if self.is_told:
            return False
        if isinstance(error, AuthenticationError):
            # A function gives the key: api_key=, azure_ad_token_provider= or Entra ID.
            renewable = getattr(self.client.transport_of(endpoint), "renewable", False)
            if renewable and error.status_code == 401 and f"401 {endpoint.name}" not in refused:
                refused.add(f"401 {endpoint.name}")
                return True
            remains = self.pool.leave_out(endpoint, time.monotonic())
            if remains:
                log.warning(
                    "endpoint %s refused its key and is left out for %.0f minutes: %s",
                    endpoint.name, LEFT_OUT / 60, error,
                )  # fmt: skip
            return remains
        return isinstance(error, InvalidRequestError) and _drop_unsupported(self.body, error)

    def _passed_on(self, endpoint: Endpoint, error: APIError, refused: set[str]) -> bool:
        """Let an endpoint rest; return whether another one, or the first that has rested, is asked
        in its place.

        It rests for the seconds that it asked for, else for some, in which another may be asked.
        Where it asked for none, but said what is left of its limits, it rests until there is enough
        for the call, which does not come back before either.
        """
        now, has_others, seconds = time.monotonic(), len(self.pool.endpoints) > 1, error.retry_after
        if seconds is None:
            seconds = REST if has_others else self.policy.waiting_time
            if error.quotas:
                needed = estimate(self.request.kind, self.body, self.pool.known)
                refill = self.pool.set_quotas(endpoint, error.quotas, needed)
                seconds, error.retry_after = max(seconds, refill), refill or None
        another = self.pool.rest(endpoint, now + seconds)
        if not error.retryable:
            return False  # a stream's reader has the first half already
        if another and f"429 {endpoint.name}" not in refused:
            refused.add(f"429 {endpoint.name}")
            kind = type(error).__name__
            warn_once(
                f"{self.call.label}: endpoint {endpoint.name} rests for {seconds:.2f} s ({kind}: {error}); another is "
                "asked, and whenever it rests again",
                about=("rests", endpoint.name),
            )
            return True
        if has_others:
            error.retry_after = self.pool.free_after(now)
        return False


def _drop_unsupported(body: dict[str, Any], error: APIError) -> bool:
    """Take the parameter that the API says it does not support out of the body; say so."""
    if "stream_options" in str(error) and body.pop("stream_options", None):
        return True  # an older server; the usage is then unknown
    name = error.param
    if (
        error.code not in UNSUPPORTED
        or not isinstance(name, str)
        or name in ("model", "messages", "input")
    ):
        return False
    if name == "max_tokens" and name in body and "max_completion_tokens" not in body:
        body["max_completion_tokens"] = body.pop(name)
        return True
    if body.pop(name, None) is None:
        return False
    model = body.get("model")
    warn_once(
        f"{model} does not support {name}, which is dropped: {error}",
        about=("unsupported", model, name),
    )
    return True
