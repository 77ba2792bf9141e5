"""The way of a call that no record answers: single flight, retry, admission, transport, validation,
store, usage.

All of it is written as flows: generators that yield effects and do no input or output.
"""

from __future__ import annotations

import copy
import functools
import random
import struct
import time
from concurrent.futures import Future
from contextlib import closing, contextmanager
from marshal import dumps, loads
from typing import TYPE_CHECKING, Any, TypeVar

from .. import responses
from ..errors import (
    APIError,
    AuthenticationError,
    ContextLengthError,
    InvalidRequestError,
    QuotaExceededError,
    RateLimitError,
    RequestTimeoutError,
    ServiceError,
)
from ..models.tokens import count_tokens, shares
from ..notices import logger, warn_once
from ..requests.keys import key_of, ordered
from ..system import after_fork_in_child, process_lock
from ..types import Outcome, Response, Sent, TokenUsage, record_of
from .drivers import (
    END,
    Close,
    Do,
    Emit,
    Next,
    Open,
    Party,
    Send,
    Wait,
    check_stops,
    current_stops,
    look,
)
from .limits import LEFT_OUT, Admission, estimate, quotas_in, tokens_used
from .prepare import RetryPolicy, lookup
from .usage import count

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from tenacity import RetryCallState

    from ..cache.cache import ResponseCache
    from ..config.settings import Endpoint
    from ..responses import Assembler
    from ..types import Record, Request
    from .drivers import Flow
    from .limits import Pool
    from .prepare import PreparedCall

    Key = tuple[ResponseCache, str]  # where the answer goes to, and the request's key
    Outcomes = dict[str, Outcome]  # by the request's key

REST = 1.0  # seconds that an endpoint rests after a 429 that named no time
UNSUPPORTED = frozenset({"unsupported_parameter", "unsupported_value"})
# OpenAI's limits for one request: 2,048 texts (API reference, embeddings, "input") and 300,000
# tokens in all.
TEXTS_PER_BATCH = 2048
BYTES_PER_BATCH = 300_000  # no byte-level tokenizer makes more tokens than a text has bytes
FLOAT32 = 4  # bytes
JITTER = 0.25  # the share of a wait between two attempts that is added at random at most

T = TypeVar("T")
log = logger()
# not the module's own: a simulation's seeded draws must not depend on our retries
_random = random.Random()


def answer(
    call: PreparedCall,
    *,
    stream: bool = False,
    fallback: bool = True,
    whole: bool = False,
    cut: Record | None = None,
) -> Flow[Outcome]:
    """Answer a chat call that is not recorded, by another model where the context is too long.

    :param stream: whether its text is handed on as it comes.
    :param fallback: whether another model may be asked; the first one's record then points to that
        of the other.
    :param whole: whether an answer that the context window cut is an error even from the last
        model.
    :param cut: the recorded answer, which the context window cut; it is not asked for again.
    """
    policy = RetryPolicy.of(call.options, call.resolved.settings)
    named = call.resolved.settings.fallbacks.get(call.request.model, ()) if fallback else ()
    models = [call.client.model_named(name) for name in named]
    current, found, left = call, cut, models
    while True:
        wants_room = bool(left) or whole
        try:
            if found is None:
                # What a stream has told its reader cannot be told again by another model.
                ask = functools.partial(
                    _ask, policy=policy, stream=stream, wants_room=wants_room and not stream
                )
                outcomes = yield from share(
                    [current], ask, policy, current.shared_by, stream=stream
                )
                outcome = outcomes[current.request.cache_key]
            elif wants_room and responses.is_cut(found.response, current.request):
                raise ContextLengthError(
                    "the recorded answer was cut where the context window ended"
                )
            else:
                outcome = Outcome(found)
        except ContextLengthError as error:
            if not left:
                raise
            log.warning(
                "%s: the context is too long (%s); %s is asked instead",
                current.request.model,
                error,
                left[0],
            )
            current, left = call._replace(request=_asked_of(call.request, left[0])), left[1:]
            current, found = yield from look(call.resolved.cache, lookup, current)
            continue
        if outcome.sent is None:
            current.add_usage(cached_calls=1, saved=outcome.record.cost)
        if current is not call:
            pointer = record_of(call.request, {"fallback": current.request.cache_key})
            yield Do(functools.partial(call.store, pointer))
        if call.cassette is not None and outcome.is_kept:
            outcome = outcome._replace(record=call.keep(outcome.record, outcome.source))
        if call.request.expected is None or not call.refuses(outcome.record):
            if stream and outcome.sent is None:
                yield from told(outcome.record)
            return outcome
        # It is that of another caller, who reads it otherwise.
        call, found = yield from look(call.resolved.cache, lookup, call)
        if found is not None:
            call.add_usage(cached_calls=1, saved=found.cost)
            if stream:
                yield from told(found)
            return Outcome(found)
        current, left = call, models


def told(record: Record) -> Flow[None]:
    """Hand a recorded answer to the reader of a stream."""
    for chunk in responses.chunks_of(record.response):
        yield Emit(responses.text_in(chunk), chunk)


def _asked_of(request: Request, model: str) -> Request:
    """Return the same request to another model."""
    asked = {**request.asked, "model": model}
    key = key_of(request.kind, asked, request.sample)
    return request._replace(
        model=model, asked=asked, body={**request.body, "model": model}, cache_key=key
    )


def _ask(
    calls: Sequence[PreparedCall], policy: RetryPolicy, stream: bool, wants_room: bool
) -> Flow[Outcomes]:
    """Ask the model of one call, count and store."""
    (call,) = calls
    sent = yield from repeated(
        policy, call.name, _Exchange(call, policy, stream, wants_room).attempt
    )
    if wants_room and responses.is_cut(sent.response, call.request):
        _count(call, TokenUsage.of(sent.response), sent.endpoint)
        raise ContextLengthError(
            "the answer was cut where the context window ended", endpoint=sent.endpoint
        )
    return {call.request.cache_key: (yield Do(functools.partial(_stored, call, sent)))}


def _stored(call: PreparedCall, sent: Sent) -> Outcome:
    response = ordered(sent.response)  # as a cassette gives it back: a prompt may quote it
    tokens = TokenUsage.of(response)
    cost = _count(call, tokens, sent.endpoint)
    _check_counts(call, response, tokens.input_tokens)
    record = record_of(
        call.request, response, cost=cost, api_type=call.client.api_type, host=sent.host
    )
    return Outcome(call.store(record), sent)


def _count(
    call: PreparedCall, tokens: TokenUsage, endpoint: str | None, calls: int = 1
) -> float | None:
    """Count the tokens of a response, from an endpoint; return the response's USD, or ``None``."""
    price = call.client.pool(call.request.model).price(tokens.input_tokens or 0, endpoint)
    cost: float | None = None if price is None else price.cost(tokens)
    count(call.client.meter, call.request.model, call.scope, {
        "calls": calls,
        "input_tokens": tokens.input_tokens,
        "cached_input_tokens": tokens.cached_tokens,
        "output_tokens": 0 if call.request.kind == "embedding" else tokens.output_tokens,
        "cost": cost,
        **({} if cost is None else {"priced_by": price.source}),
    })  # fmt: skip
    return cost


def _check_counts(call: PreparedCall, response: Any, reported: int | None) -> None:
    """Say so where an answer was cut, a server may have cut the prompt, or gave fewer answers than
    it was asked for.

    :param reported: how many tokens the prompt has by the server.
    """
    request = call.request
    wanted, given = request.asked.get("n", 1), len(response["choices"])
    if given != wanted:
        warn_once(
            f"{request.model} gives {given} of the {wanted} answers that n={wanted} asks for: its server ignores n",
            about=("n", request.model),
        )
    for choice in response["choices"]:
        if choice.get("finish_reason") == "length":
            warn_once(
                f"{request.model}: an answer ended at its token limit (finish_reason 'length') and is kept as it is; "
                "where it is to be longer, set max_tokens higher",
                about=("length", request.model),
            )
    if not reported:
        return
    messages = request.body["messages"]
    text = "".join(
        [message["content"] for message in messages if isinstance(message.get("content"), str)]
    )
    # An English token has about 4.5 bytes, one of other scripts 2 to 3: twice that is suspicious,
    # and worth counting.
    if len(text.encode()) <= reported * (6 if text.isascii() else 3):
        return
    counted = count_tokens(
        messages, request.model, encoding=call.client.capabilities(request.model).encoding
    )
    if reported * 2 < counted:
        warn_once(
            f"{request.model}: the server reports {reported} prompt tokens, and {counted!r} are counted here: the "
            "prompt may have been cut silently, or the server counts otherwise",
            about=("prompt tokens", request.model),
        )


class _Exchange:
    """Send one request, in as many attempts as the policy allows.

    :param call: the call that it is for; of several embeddings, the first, which asks for all.
    :param stream: whether the text is handed on as it comes.
    :param wants_room: whether an answer that the context window cut is an error: there is a larger
        one to try.
    """

    def __init__(
        self,
        call: PreparedCall,
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
                    log.debug("%s: %s answered in %.2f s", self.call.name, endpoint.name, seconds)
                    return Sent(response, endpoint.name, self.client.host(endpoint), seconds)

    def _response(self, endpoint: Endpoint, admission: Admission) -> Flow[Any]:
        """Send it once, and check what comes."""
        self.partial = self.whole = None
        body = loads(dumps(self.body))  # a transport may change what it is given
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
        _count(self.call, used, endpoint.name, calls=calls)

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
                    with _handed(self.call):
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
        timeout = self.call.resolved.settings.timeout if given is None else given
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
                f"{self.call.name}: endpoint {endpoint.name} rests for {seconds:.2f} s ({kind}: {error}); another is "
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


def repeated(policy: RetryPolicy, name: str, act: Callable[[int], Flow[T]]) -> Flow[T]:
    """Act in tenacity's loop until there is a result or the policy ends.

    The last error is raised as it is, its ``attempts`` set; a wait that would pass the deadline is
    not begun.

    :param name: what is tried, for the log.
    :param act: takes the number of the attempt, from 1 on.
    """
    import tenacity

    growing = tenacity.wait_exponential(
        multiplier=policy.waiting_time, exp_base=policy.factor, max=policy.max_waiting_time
    )
    failures: list[APIError] = []
    pauses: list[float] = []  # the seconds after each of them

    def wait(state: RetryCallState) -> float:
        """Return the seconds before the next attempt."""
        return max(
            growing(state) * (1 + JITTER * _random.random()), failures[-1].retry_after or 0.0
        )

    for attempt in tenacity.Retrying(
        sleep=pauses.append,
        wait=wait,
        stop=tenacity.stop_after_attempt(policy.max_attempts),
        retry=lambda state: failures[-1].retryable and not _is_refused_again(failures),
        reraise=True,
    ):
        if pauses:
            yield Wait(Future(), _announced(policy, name, failures[-1], pauses[-1]))
        number = attempt.retry_state.attempt_number
        try:
            return (yield from act(number))
        except APIError as error:
            error.attempts = number
            failures.append(error)
            attempt.retry_state.set_exception((type(error), error, error.__traceback__))
    raise AssertionError("the loop ends with a result, or raises")


def _is_refused_again(failures: Sequence[APIError]) -> bool:
    """Return whether nobody listens at an address of this machine, twice in a row."""
    last = failures[-2:]
    return len(last) == 2 and all(error.is_refused_here for error in last)


def _announced(policy: RetryPolicy, name: str, error: APIError, seconds: float) -> float:
    """Return the seconds before the next attempt; tell of the first failure of its kind at an
    endpoint.

    The others are counted, as retries. Where there is no time for a further attempt, the error is
    raised.
    """
    check_stops(current_stops.get())
    left = policy.time_left()
    if left is not None and seconds > left:
        raise error
    kind, endpoint = type(error).__name__, error.endpoint or "the endpoint"
    told = (
        f"{name}: attempt {error.attempts} of {policy.max_attempts} failed at {endpoint} ({kind}: {error}); "
        f"trying again in {seconds:.2f} s"
    )
    if not warn_once(
        f"{told} (further ones are counted in llmcall.usage())", about=("retry", endpoint, kind)
    ):
        log.debug("%s", told)
    return seconds


def embed(calls: Sequence[PreparedCall]) -> Flow[list[Record]]:
    """Return the records of texts, one call each, asking in batches for those that are not
    recorded.
    """
    if not calls:
        return []
    found: Outcomes = {}
    missing: dict[str, PreparedCall] = {}
    for call in calls:
        _, record = yield from look(call.resolved.cache, lookup, call)
        if record is None:
            missing[call.request.cache_key] = call
        else:
            found[call.request.cache_key] = Outcome(record)
    policy = RetryPolicy.of(calls[0].options, calls[0].resolved.settings)
    split = calls[0].client.splits_batches
    for batch in _batches(missing.values()) if split else filter(None, [[*missing.values()]]):
        outcomes = yield from share(
            batch, functools.partial(_ask_batch, policy=policy), policy, batch[0].shared_by
        )
        for call in batch:
            outcome = outcomes[call.request.cache_key]
            record = call.keep(outcome.record, outcome.source)
            found[call.request.cache_key] = outcome._replace(record=record)
    costs = [outcome.record.cost for outcome in found.values() if outcome.sent is None]
    if costs:
        calls[0].add_usage(
            cached_calls=1, saved=None if None in costs else sum(cost or 0.0 for cost in costs)
        )
    return [found[call.request.cache_key].record for call in calls]


def _ask_batch(calls: Sequence[PreparedCall], policy: RetryPolicy) -> Flow[Outcomes]:
    request, texts = calls[0].request, [call.request.body["input"] for call in calls]
    first = calls[0]._replace(request=request._replace(body={**request.body, "input": texts}))
    sent = yield from repeated(policy, first.name, _Exchange(first, policy).attempt)
    stored = yield Do(functools.partial(_stored_vectors, calls, texts, sent))
    return {record.cache_key: Outcome(record, sent) for record in stored}


def _batches(calls: Iterable[PreparedCall]) -> Iterator[list[PreparedCall]]:
    batch: list[PreparedCall] = []
    size = 0
    for call in calls:
        length = len(call.request.body["input"].encode())
        if batch and (len(batch) == TEXTS_PER_BATCH or size + length > BYTES_PER_BATCH):
            yield batch
            batch, size = [], 0
        batch.append(call)
        size += length
    if batch:
        yield batch


def _stored_vectors(batch: Sequence[PreparedCall], texts: list[str], sent: Sent) -> list[Record]:
    usage = TokenUsage.of(sent.response)
    cost, tokens = _count(batch[0], usage, sent.endpoint), usage.input_tokens
    parts = [None] * len(batch) if tokens is None else shares(tokens, texts)
    vectors = [
        responses.packed_vector(item["embedding"]) for item in _in_order(sent.response["data"])
    ]
    model, wanted, given = (
        batch[0].request.model,
        batch[0].request.asked.get("dimensions"),
        len(vectors[0]) // FLOAT32,
    )
    if wanted not in (None, given):
        warn_once(
            f"{model} gives {given} dimensions, not the {wanted} asked for: its server ignores dimensions",
            about=("dimensions", model),
        )
    records = []
    for call, packed, part in zip(batch, vectors, parts, strict=True):
        response: dict[str, Any] = {"model": sent.response.get("model"), "embedding": packed}
        if part is not None:
            response["usage"] = {"prompt_tokens": part, "total_tokens": part}
        own = cost * part / tokens if cost and part and tokens else cost and 0.0
        record = record_of(
            call.request, response, cost=own, api_type=call.client.api_type, host=sent.host
        )
        records.append(call.store(record))
    return records


def _in_order(data: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the vectors in the order of the texts; servers that number none of them, or all with
    0, keep it.
    """
    indexes = [index if isinstance(index := item.get("index"), int) else 0 for item in data]
    if any(indexes) and sorted(indexes) != list(range(len(data))):
        raise ServiceError(f"a malformed answer: {len(data)} embeddings with the indexes {indexes}")
    return [
        item
        for _, item in sorted(zip(indexes, data, strict=True), key=lambda numbered: numbered[0])
    ]


def vector_of(record: Record) -> list[float]:
    """Return a record's embedding as numbers, each rounded to float32."""
    packed = record.response["embedding"]
    return list(struct.unpack(f"<{len(packed) // FLOAT32}f", packed))


# Single flight: of identical requests under way in one process, one is sent, and all share its
# outcome


class _Flight(Future["Outcome | None"]):
    """Be the outcome of one request under way; ``None`` where the leader left without anything that
    others may share.

    :ivar party: who leads it.
    :ivar is_stream: whether a reader gets the answer as it comes, as fast as he reads.
    :ivar handed_at: the monotonic time since which the reader has a piece and has not asked for the
        next one; ``None`` while he waits for it.
    :ivar followers: how many others wait, or waited, for the outcome.
    """

    followers = 0
    handed_at: float | None = None

    def __init__(self, *, is_stream: bool) -> None:
        super().__init__()
        self.party = Party.here()
        self.is_stream = is_stream

    def followed(self, policy: RetryPolicy) -> Flow[bool]:
        """Wait for the outcome; return whether there may be one, which is not so where whoever
        waits would wait for himself, or for a reader who has left the stream lying.
        """
        while True:
            left = policy.time_left()
            seconds = left
            if self.is_stream:
                seconds = PATIENCE if left is None else min(PATIENCE, left)
            if not (yield Wait(self, seconds, self.party)):
                return False
            if self.done() or (left is not None and left <= (seconds or 0.0)):
                return True
            handed_at = self.handed_at
            if handed_at is not None and time.monotonic() - handed_at >= PATIENCE:
                return False

    def shared(self) -> Outcome | None:
        """Return a copy of what it came to.

        :raises RequestTimeoutError: where it is still under way.
        :raises APIError: the leader's, with a traceback of the follower's own.
        """
        if not self.done():
            raise RequestTimeoutError(
                "the call's deadline passed while an identical call was under way"
            )
        error = self.exception()
        if isinstance(error, APIError):
            raise copy.copy(error) from error.__cause__
        return copy.deepcopy(self.result())


# Seconds after which nobody waits for a stream whose reader does not read on: he may be waiting for
# the one who waits.
PATIENCE = 10.0
_lock = process_lock(__name__)
_flights: dict[Key, _Flight] = {}
after_fork_in_child(_flights.clear)  # which are of the threads that stayed behind


@contextmanager
def _handed(call: PreparedCall) -> Iterator[None]:
    """Note that the reader of a stream has a piece of it, and who that reader is."""
    cache = call.shared_by
    flight = None if cache is None else _flights.get((cache, call.request.cache_key))
    if flight is not None:
        flight.party = Party.here()
        flight.handed_at = time.monotonic()
    yield
    if flight is not None:
        flight.party = Party.here()
        flight.handed_at = None


def share(
    calls: Sequence[PreparedCall],
    ask: Callable[[Sequence[PreparedCall]], Flow[Outcomes]],
    policy: RetryPolicy,
    cache: ResponseCache | None,
    *,
    stream: bool = False,
) -> Flow[Outcomes]:
    """Answer calls that are not recorded: as the leader of each request's flight, or by another
    caller's answer.

    An error of the caller's own deadline, budget or cancellation is not shared: another one takes
    over. So it does where a stream is left, or fails.

    :param calls: of one client, all with the same options.
    :param ask: answers those of them that nobody else does.
    :param cache: where the answers go to; ``None`` where they are not stored, and not shared.
    :param stream: whether what ``ask`` is told is handed on as it comes.
    """
    if cache is None:
        return (yield from ask(calls))
    outcomes: Outcomes = {}
    while left := [call for call in calls if call.request.cache_key not in outcomes]:
        led: dict[str, _Flight] = {}
        followed: list[tuple[PreparedCall, _Flight]] = []
        missing: list[PreparedCall] = []
        shared: APIError | None = None
        try:
            # all at once: of two equal batches, one would else lead some texts and the other the
            # rest
            with _lock:
                for call in left:
                    key = call.request.cache_key
                    other = _flights.get((cache, key))
                    if other is None:
                        led[key] = _flights[cache, key] = _Flight(is_stream=stream)
                        missing.append(call)
                    else:
                        other.followers += 1
                        followed.append((call, other))
            for call in tuple(missing):
                # another one may have stored it meanwhile
                record = yield from look(cache, call.stored)
                if record is not None:
                    outcomes[call.request.cache_key] = Outcome(record)
                    missing.remove(call)
            if missing:
                outcomes |= yield from ask(missing)
        except APIError as error:
            if not stream and not policy.ended(error):
                shared = copy.copy(error)  # a traceback belongs to one
                shared.__cause__ = error.__cause__
            raise
        finally:
            for key, flight in led.items():
                with _lock:
                    _flights.pop((cache, key), None)
                outcome = outcomes.get(key)
                if outcome is None and shared is not None:
                    flight.set_exception(shared)
                else:
                    # A copy of what is already its caller's when the others wake up.
                    told = (
                        Outcome(copy.deepcopy(outcome.record))
                        if outcome is not None and flight.followers
                        else None
                    )
                    flight.set_result(told)
        for call, flight in followed:
            if not (yield from flight.followed(policy)):
                outcomes |= yield from _asked_beside(call, flight, ask)
            elif (outcome := flight.shared()) is not None:
                outcomes[call.request.cache_key] = outcome
    return outcomes


def _asked_beside(
    call: PreparedCall,
    flight: _Flight,
    ask: Callable[[Sequence[PreparedCall]], Flow[Outcomes]],
) -> Flow[Outcomes]:
    """Ask for a call although an equal one is under way, further out in the same thread or task.

    The reader of a stream has the first half of its answer already: it is that which is recorded.
    """
    if not flight.is_stream:
        return (yield from ask([call]))
    warn_once(
        f"{call.name} is asked while an equal stream is read, which cannot be waited for: its answer is not the "
        "recorded one. Read the stream to its end first, or give each of them a scope",
        about=("beside a stream", call.request.cache_key),
    )
    beside = call._replace(options=call.options._replace(cache=False), cassette=None)
    outcomes = yield from ask([beside])
    return {key: outcome._replace(is_kept=False) for key, outcome in outcomes.items()}
