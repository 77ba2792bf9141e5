"""The way of a call that no record answers: single flight, admission, retry, transport, validation, store, usage.

All of it is written as flows: generators that yield effects and do no input or output.
"""

from __future__ import annotations

import base64
import functools
import struct
import time
from marshal import dumps, loads
from typing import TYPE_CHECKING, Any

from .. import responses
from ..cassettes.format import ordered
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
from ..models.tokens import shares
from ..notices import logger, warn_once
from ..requests.arguments import sent_body
from ..requests.keys import key_of
from ..types import Outcome, Response, Sent, TokenUsage, record_of
from .drivers import END, Close, Do, Emit, Next, Open, Send, look
from .limits import LEFT_OUT, Admission, Limits, estimate
from .prepare import lookup
from .retry import RetryPolicy, repeated
from .single_flight import share

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from ..config.settings import Endpoint
    from ..types import Record, Request
    from .drivers import Flow
    from .prepare import Client, PreparedCall
    from .single_flight import Outcomes

__all__ = ["answer", "embed", "is_cut", "vector"]

REST = 1.0  # seconds that an endpoint rests after a 429 that named no time
UNSUPPORTED = frozenset({"unsupported_parameter", "unsupported_value"})
# OpenAI's limits for one request: 2,048 texts (API reference, embeddings, "input") and 300,000 tokens in all.
TEXTS_PER_BATCH = 2048
BYTES_PER_BATCH = 300_000  # no byte-level tokenizer makes more tokens than a text has bytes
FLOAT32 = 4  # bytes


def answer(
    call: PreparedCall,
    *,
    stream: bool = False,
    fallback: bool = True,
    whole: bool = False,
    cut: Record | None = None,
) -> Flow[Outcome]:
    """Answer a chat call that is not recorded.

    :param stream: whether its text is handed on as it comes.
    :param fallback: whether another model may be asked where the context is too long.
    :param whole: whether an answer that the context window cut is an error even from the last model.
    :param cut: the recorded answer, which the context window cut; it is not asked for again.
    """
    policy = RetryPolicy.of(call.options, call.settings)
    while True:
        outcome = yield from _with_fallbacks(call, policy, stream, fallback, whole, cut)
        if not call.refuses(outcome.record):
            return outcome
        # It is that of another caller, who reads it otherwise.
        call, record = yield from look(call.resolved.cache, lookup, call)
        if record is not None:
            call.add_usage(cached_calls=1, saved=record.cost)
            return Outcome(record)
        cut = None


def _with_fallbacks(
    call: PreparedCall, policy: RetryPolicy, stream: bool, fallback: bool, whole: bool, cut: Record | None
) -> Flow[Outcome]:
    """Answer a call, by another model where the context is too long; the first one's record then points to it."""
    models = _fallbacks(call.client, call.request.model) if fallback else []
    left = [call, *(call._replace(request=_asked_of(call.request, model)) for model in models)]
    while True:
        current, *left = left
        wants_room = bool(left) or whole
        found = cut
        if current is not call:
            current, found = yield from look(call.resolved.cache, lookup, current)
        try:
            if found is None:
                if left:
                    _check_room(current)
                # What a stream has told its reader cannot be told again by another model.
                outcome = yield from _asked(current, policy, stream, wants_room and not stream)
            elif wants_room and is_cut(found.response, current.request):
                raise ContextLengthError("the recorded answer was cut where the context window ended")
            else:
                outcome = Outcome(found)
        except ContextLengthError as error:
            if not left:
                raise
            logger().warning(
                "%s: the context is too long (%s); %s is asked instead",
                current.request.model, error, left[0].request.model,
            )  # fmt: skip
            continue
        if outcome.sent is None:
            current.add_usage(cached_calls=1, saved=outcome.record.cost)
        if current is not call and call.cache is not None:
            pointer = record_of(call.request, {"fallback": current.request.cache_key})
            yield Do(functools.partial(call.cache.store, pointer, mode=call.storing_mode))
        record = call.keep(outcome.record)
        return outcome if record is outcome.record else Outcome(record)


def _asked_of(request: Request, model: str) -> Request:
    """Return the same request to another model."""
    asked = {**request.asked, "model": model}
    key = key_of(request.kind, asked, request.sample)
    return request._replace(model=model, asked=asked, body={**request.body, "model": model}, cache_key=key)


def _fallbacks(client: Client, model: str) -> list[str]:
    """Return the models whose context window may be larger than a model's; an unknown one may."""
    named = client.resolved.settings.fallbacks.get(model)
    if not named:
        return []
    names = [client.model_named(name) for name in named]
    window = client.capabilities(model).context_window
    if not window:
        return names
    return [name for name in names if (client.capabilities(name).context_window or window + 1) > window]


def is_cut(response: Mapping[str, Any], request: Request) -> bool:
    """Return whether an answer ended at a limit that is not the caller's own."""
    return responses.cut_by_context(response, request.asked.get("max_tokens"))


def _check_room(call: PreparedCall) -> None:
    """Refuse a prompt that is known not to fit, before it is sent, where a larger window is left to try."""
    from ..models.tokens import count_tokens

    request, known = call.request, call.client.capabilities(call.request.model)
    if known.context_window is None:
        return
    counted = count_tokens(request.messages, request.model, encoding=known.encoding)
    if not counted.estimated and counted > known.context_window:
        raise ContextLengthError(
            f"the prompt has {counted} tokens, and {request.model} takes {known.context_window}",
            prompt_tokens=int(counted),
            context_window=known.context_window,
        )


def _asked(call: PreparedCall, policy: RetryPolicy, stream: bool, wants_room: bool) -> Flow[Outcome]:
    """Ask the model of a call, count and store; or share what an identical call is given."""
    key = call.request.cache_key

    def ask(_: Sequence[PreparedCall]) -> Flow[Outcomes]:
        """Ask it."""
        sent = yield from _Exchange(call, call.request, policy, stream, wants_room).send()
        if wants_room and is_cut(sent.response, call.request):
            _count(call, sent.response, sent.endpoint)
            raise ContextLengthError("the answer was cut where the context window ended", endpoint=sent.endpoint)
        return {key: (yield Do(functools.partial(_stored, call, sent)))}

    outcomes: Outcomes = yield from (ask([call]) if stream else share([call], ask, policy))
    return outcomes[key]


def _stored(call: PreparedCall, sent: Sent) -> Outcome:
    response = ordered(sent.response)  # as a cassette gives it back: a prompt may quote it
    cost = _count(call, sent.response, sent.endpoint)
    record = record_of(call.request, response, cost=cost, api_type=call.client.api_type, host=sent.host)
    _check_counts(call, sent.response)
    return Outcome(record if call.cache is None else call.cache.store(record, mode=call.storing_mode), sent)


def _count(call: PreparedCall, response: Any, endpoint: str | None, **amounts: Any) -> float | None:
    """Count a response or its tokens, from an endpoint, and amounts; return the response's USD, or ``None``."""
    request = call.request
    tokens = response if isinstance(response, TokenUsage) else TokenUsage.of(response)
    price = call.client.price(request.model, tokens.input_tokens or 0, endpoint)
    cost = None if price is None else price.cost(tokens)
    if price is not None and cost is not None:
        amounts["priced_by"] = price.source
    call.add_usage(**{
        "calls": 1,
        "input_tokens": tokens.input_tokens,
        "cached_input_tokens": tokens.cached_tokens,
        "output_tokens": 0 if request.kind == "embedding" else tokens.output_tokens,
        "cost": cost,
        **amounts,
    })  # fmt: skip
    return cost


def _check_counts(call: PreparedCall, response: Any) -> None:
    """Say so where a server may have cut the prompt, or gave fewer answers than it was asked for."""
    request, reported = call.request, TokenUsage.of(response).input_tokens
    wanted, given = request.asked.get("n", 1), len(response["choices"])
    if given != wanted:
        warn_once(
            f"{request.model} gives {given} of the {wanted} answers that n={wanted} asks for: its server ignores n",
            about=("n", request.model),
        )
    if not reported or not responses.looks_cut(request.messages, reported):
        return
    from ..models.tokens import count_tokens

    counted = count_tokens(request.messages, request.model, encoding=call.client.capabilities(request.model).encoding)
    if reported * 2 < counted:
        warn_once(
            f"{request.model}: the server reports {reported} prompt tokens, and {counted!r} are counted here: the "
            "prompt may have been cut silently, or the server counts otherwise",
            about=("prompt tokens", request.model),
        )


class _Exchange:
    """Send one request until there is an answer or the policy ends.

    :param call: the call that it is for; of several embeddings, the first.
    :param request: what is asked.
    :param stream: whether the text is handed on as it comes.
    :param wants_room: whether an answer that the context window cut is an error: there is a larger one to try.
    """

    def __init__(
        self, call: PreparedCall, request: Request, policy: RetryPolicy, stream: bool = False, wants_room: bool = False
    ) -> None:
        self.call, self.client, self.policy = call, call.client, policy
        self.stream, self.wants_room = stream, wants_room
        self.known = self.client.capabilities(request.model)
        self.pool = self.client.pool(request.model)
        self.name = f"{request.kind} request {request.cache_key[:12]} to {request.model}"
        self.body = sent_body(request.body, self.known)  # loses what turns out to be unsupported
        if stream:
            self.body["stream_options"] = {"include_usage": True}
        self.request = request._replace(body=self.body)

    def send(self) -> Flow[Sent]:
        """Send it, and return the answer; count what failed."""
        try:
            sent, attempts = yield from repeated(self.policy, self.name, self._attempt)
        except APIError as error:
            self.call.add_usage(errors=1, retries=error.attempts - 1)
            raise
        if attempts > 1:
            self.call.add_usage(retries=attempts - 1)
        return sent

    def _attempt(self, number: int) -> Flow[Sent]:
        """Send to one endpoint after the other until one answers or refuses."""
        refused: set[str] = set()
        price_of = functools.partial(self.client.price, self.request.model)
        settings, time_left = self.call.settings, self.policy.time_left
        limits = Limits(
            settings.limits_max_concurrent_calls, settings.limits_requests_per_minute, settings.limits_tokens_per_minute
        )
        while True:
            with Admission(self.request, self.known, self.pool, limits, price_of, time_left) as admission:
                endpoint = yield from admission.acquire()
                begun = time.monotonic()
                try:
                    response = yield from self._response(endpoint, admission)
                except APIError as error:
                    error.endpoint = endpoint.name
                    if not self._recover(endpoint, error, refused):
                        raise
                except BaseException:
                    used = admission.abandon()
                    if used is not None:  # a model answered, and what it said is billed
                        _count(self.call, used, endpoint.name, retries=number - 1)
                    raise
                else:
                    seconds = time.monotonic() - begun
                    logger().debug("%s: %s answered in %.2f s", self.name, endpoint.name, seconds)
                    return Sent(response, endpoint.name, self.client.host(endpoint), seconds)

    def _response(self, endpoint: Endpoint, admission: Admission) -> Flow[Any]:
        """Send it once, and check what comes."""
        # A transport may change what it is given.
        request = self.request._replace(body=loads(dumps(self.body)), headers=dict(self.request.headers))
        timeout, transport = self._seconds(), self.client.transport_of(endpoint)
        if self.stream:
            chunks = yield Open(transport, request, timeout)
            if chunks is not None:
                return (yield from self._streamed(chunks, admission))
            whole = {name: value for name, value in request.body.items() if name != "stream_options"}
            request = request._replace(body=whole)
        response = yield Send(transport, request, timeout)
        self._check(response, admission)
        yield from admission.settle(response)
        if self.stream:
            from ..responses import text_pieces

            yield Emit("".join(text_pieces(response)))
        return response

    def _streamed(self, chunks: Any, admission: Admission) -> Flow[Any]:
        from ..responses import Assembler

        assembler, begun, head, collected = Assembler(), False, Response({}), False
        try:
            while (chunk := (yield Next(chunks, self._seconds()))) is not END:
                if isinstance(chunk, Response) and not chunk:  # what came before the first chunk
                    head = chunk
                    continue
                text = assembler.add(chunk)
                admission.begun = assembler
                if text:
                    begun = True
                    yield Emit(text)
            response = Response(assembler.response(), head.request_id, head.headers)
            self._check(response, admission)
            yield from admission.settle(response)
        except APIError as error:
            if begun:
                error.retryable = False  # the reader has the first half already
            raise
        except GeneratorExit:  # the garbage collector found a cycle, whose parts it ends in any order: chunks too
            collected = True
            raise
        finally:
            if not collected:
                yield Close(chunks)
        return response

    def _seconds(self) -> float | None:
        """Return the seconds that an attempt, or the wait for the next chunk, may take: not more than the call has."""
        given = self.call.options.timeout
        timeout = self.call.settings.timeout if given is None else given
        left = self.policy.time_left()
        if left is not None and left <= 0:
            raise RequestTimeoutError("the call's deadline passed")
        return left if timeout is None else timeout if left is None else min(left, timeout)

    def _check(self, response: Any, admission: Admission) -> None:
        """Raise where a response is no answer; what it reports as used is billed all the same, and so counted."""
        try:
            if self.request.kind == "chat":
                responses.check_chat(response)
                if not (self.wants_room and is_cut(response, self.request)):
                    responses.check_fits(self.request, response)
            else:
                responses.check_embeddings(response, len(self.body["input"]))
        except APIError:
            if admission.billed(response):
                _count(self.call, response, admission.endpoint, calls=0)
            raise

    def _recover(self, endpoint: Endpoint, error: APIError, refused: set[str]) -> bool:
        """Return whether the attempt can go on: with another endpoint, a fresh token, or without a parameter.

        :param endpoint: the one that refused.
        :param refused: which endpoints refused in this attempt, and how; grows. None may do so twice in the same way.
        """
        if isinstance(error, RateLimitError) and not isinstance(error, QuotaExceededError):
            return self._passed_on(endpoint, error, refused)
        if isinstance(error, AuthenticationError):
            # A function gives the key: api_key=, azure_ad_token_provider= or Entra ID.
            renewable = getattr(self.client.transport_of(endpoint), "renewable", False)
            if renewable and error.status_code == 401 and _is_new(refused, f"401 {endpoint.name}"):
                return True
            remains = self.pool.leave_out(endpoint, time.monotonic())
            if remains:
                logger().warning(
                    "endpoint %s refused its key and is left out for %.0f minutes: %s",
                    endpoint.name, LEFT_OUT / 60, error,
                )  # fmt: skip
            return remains
        return isinstance(error, InvalidRequestError) and _drop_unsupported(self.body, error)

    def _passed_on(self, endpoint: Endpoint, error: APIError, refused: set[str]) -> bool:
        """Let an endpoint rest; return whether another one, or the first that has rested, is asked in its place."""
        now = time.monotonic()
        seconds = self._rest(endpoint, error, now)
        another = self.pool.rest(endpoint, now + seconds)
        if not error.retryable:
            return False  # a stream's reader has the first half already
        if another and _is_new(refused, f"429 {endpoint.name}"):
            kind = type(error).__name__
            warn_once(
                f"{self.name}: endpoint {endpoint.name} rests for {seconds:.2f} s ({kind}: {error}); another is asked, "
                "and whenever it rests again",
                about=("rests", endpoint.name),
            )
            return True
        if len(self.pool.endpoints) > 1:
            error.retry_after = self.pool.free_after(now)
        return False

    def _rest(self, endpoint: Endpoint, error: APIError, now: float) -> float:
        """Return the seconds that an endpoint rests: those it asked for, else some, in which another may be asked.

        Where it asked for none, but said what is left of its limits, it rests until there is enough for the call, which
        does not come back before either.
        """
        if error.retry_after is not None:
            return error.retry_after
        own = REST if len(self.pool.endpoints) > 1 else self.policy.waiting_time
        if not error.quotas:
            return own
        needed = estimate(self.request.kind, self.body, self.known)
        refill = self.pool.set_quotas(endpoint, error.quotas, needed, self.request.model, now)
        error.retry_after = refill or None
        return max(own, refill)


def _is_new(refused: set[str], how: str) -> bool:
    known = how in refused
    refused.add(how)
    return not known


def _drop_unsupported(body: dict[str, Any], error: APIError) -> bool:
    """Take the parameter that the API says it does not support out of the body; say so."""
    if "stream_options" in str(error) and body.pop("stream_options", None):
        return True  # an older server; the usage is then unknown
    name = error.param
    if error.code not in UNSUPPORTED or not isinstance(name, str) or name in ("model", "messages", "input"):
        return False
    if name == "max_tokens" and name in body and "max_completion_tokens" not in body:
        body["max_completion_tokens"] = body.pop(name)
        return True
    if body.pop(name, None) is None:
        return False
    model = body.get("model")
    warn_once(f"{model} does not support {name}, which is dropped: {error}", about=("unsupported", model, name))
    return True


def embed(calls: Sequence[PreparedCall]) -> Flow[list[list[float]]]:
    """Return the vectors of texts, one call each, asking in batches for those that are not recorded."""
    if not calls:
        return []
    records: dict[str, Record] = {}
    hits: list[Record] = []
    missing: dict[str, PreparedCall] = {}
    for call in calls:
        _, record = yield from look(call.resolved.cache, lookup, call)
        if record is None:
            missing[call.request.cache_key] = call
        else:
            records[call.request.cache_key] = record
            hits.append(record)
    policy = RetryPolicy.of(calls[0].options, calls[0].settings)
    for batch in _batches(missing.values()):
        outcomes = yield from share(batch, functools.partial(_ask_batch, policy=policy), policy)
        for call in batch:
            outcome = outcomes[call.request.cache_key]
            records[call.request.cache_key] = call.keep(outcome.record)
            if outcome.sent is None:
                hits.append(outcome.record)
    if hits:
        costs = [record.cost for record in hits]
        calls[0].add_usage(cached_calls=1, saved=None if None in costs else sum(cost or 0.0 for cost in costs))
    return [vector(records[call.request.cache_key]) for call in calls]


def _ask_batch(calls: Sequence[PreparedCall], policy: RetryPolicy) -> Flow[Outcomes]:
    first, texts = calls[0], [call.request.body["input"] for call in calls]
    request = first.request._replace(body={**first.request.body, "input": texts})
    sent = yield from _Exchange(first, request, policy).send()
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
    cost = _count(batch[0], sent.response, sent.endpoint)
    tokens = TokenUsage.of(sent.response).input_tokens
    parts = [None] * len(batch) if tokens is None else shares(tokens, texts)
    vectors = [_packed(item["embedding"]) for item in _in_order(sent.response["data"])]
    _check_dimensions(batch[0].request, len(vectors[0]) // FLOAT32)
    records = []
    for call, packed, part in zip(batch, vectors, parts, strict=True):
        response: dict[str, Any] = {"model": sent.response.get("model"), "embedding": packed}
        if part is not None:
            response["usage"] = {"prompt_tokens": part, "total_tokens": part}
        own = cost * part / tokens if cost and part and tokens else cost and 0.0
        record = record_of(call.request, response, cost=own, api_type=call.client.api_type, host=sent.host)
        records.append(record if call.cache is None else call.cache.store(record, mode=call.storing_mode))
    return records


def _check_dimensions(request: Request, given: int) -> None:
    wanted = request.asked.get("dimensions")
    if wanted is not None and given != wanted:
        warn_once(
            f"{request.model} gives {given} dimensions, not the {wanted} asked for: its server ignores dimensions",
            about=("dimensions", request.model),
        )


def _in_order(data: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the vectors in the order of the texts; servers that number none of them, or all with 0, keep it."""
    indexes = [index if isinstance(index := item.get("index"), int) else 0 for item in data]
    if any(indexes) and sorted(indexes) != list(range(len(data))):
        raise ServiceError(f"a malformed answer: {len(data)} embeddings with the indexes {indexes}")
    return [item for _, item in sorted(zip(indexes, data, strict=True), key=lambda numbered: numbered[0])]


def _packed(embedding: list[float] | str) -> bytes:
    """Return a vector as little-endian float32, whether it came as numbers or as base64 of the same."""
    if isinstance(embedding, str):
        return base64.b64decode(embedding)
    return struct.pack(f"<{len(embedding)}f", *embedding)


def vector(record: Record) -> list[float]:
    """Return a record's embedding as numbers, each rounded to float32."""
    packed = record.response["embedding"]
    return list(struct.unpack(f"<{len(packed) // FLOAT32}f", packed))
