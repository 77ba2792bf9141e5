"""Kinds of calls: how each is sent, checked and recorded. Everything else is the same for all kinds.

A kind joins what is asked (:class:`Chat`, :class:`Embeddings`) and who sends it (:class:`OfClient`,
:class:`OwnTransport`). An answer is accepted if it is complete, neither filtered nor empty, and fits its request;
any other raises an :class:`llmcall.APIError`. Embeddings are requested in batches, and each text gets its own record.
"""

from __future__ import annotations

import base64
import math
import struct
from collections.abc import Awaitable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NoReturn

from ..apis.endings import ending_problem, is_cut
from ..apis.message import content_text, holds_answer, place_of_reasoning, unreadable_message
from ..apis.shapes import choices_of
from ..apis.token_usage import TokenUsage
from ..errors import (
    APIError,
    ContextLengthError,
    EmptyAnswerError,
    InvalidRequestError,
    ServiceError,
)
from ..keys.parameters import sent_body
from ..keys.plain_data import map_texts, recordable
from ..keys.request import Data, Request
from ..stores.record import Received, Record, make_record
from ..stores.records.readable import unreadable
from ..support.display import counted, shortened
from ..support.notices import warn_once
from .seams import Gate, Response, Transport

if TYPE_CHECKING:
    from ..config.endpoints import Endpoint
    from .calls import Call
    from .effects import Piece

# OpenAI's limits for one request (API reference, embeddings, "input"): 2,048 texts, and 300,000
# tokens in all. No byte-level tokenizer makes more tokens than a text has bytes.
TEXTS_PER_BATCH = 2048
BYTES_PER_BATCH = 300_000
FLOAT32 = 4  # bytes
LONGEST_QUOTE = 200  # characters of an answer in a message


class Kind:
    """A kind of calls: how a call is sent, and how its answer is checked, counted and recorded.

    :ivar name: of what is called, if it is not a model.
    :ivar calls_model: ``True`` if a model answers.
    :ivar has_own_transport: ``True`` if something else than a client's transports sends, and makes a failed call again.
    :ivar is_programs: ``True`` if it is a request of a program, which knows no scopes.
    :ivar prefers_calling: ``True`` if it is called anew where that is allowed; see :meth:`calls_anew`.
    """

    name = ""
    calls_model = True
    has_own_transport = False
    is_programs = False
    prefers_calling = False

    def calls_anew(self, call: Call) -> bool:
        """Return whether a call is made though the disk cache has an answer; outside any scope, though a cassette has
        one.
        """
        return self.prefers_calling and call.may_call

    def batches(self, calls: Sequence[Call]) -> Iterator[Sequence[Call]]:
        """Yield the calls of one request each."""
        yield calls

    def joined(self, calls: Sequence[Call]) -> Call:
        """Return one call for all; only embeddings may be several."""
        (call,) = calls
        return call

    def to_send(self, call: Call) -> Request:
        """Return a call's request with the body to send."""
        return call.request

    def gate(self, call: Call, request: Request) -> Gate:
        """Return the gate that a send passes.

        :param request: with the body that is sent.
        """
        return call.site.gate(call, request)

    def transport(self, call: Call, endpoint: Endpoint) -> Transport | None:
        """Return what sends a call to an endpoint; ``None``: the kind itself."""
        return None

    def for_one_send(self, request: Request) -> Request:
        """Return the request that one send gets."""
        return request

    def send(
        self, call: Call, transport: Transport | None, request: Request, timeout: float | None
    ) -> Awaitable[Response]:
        """Send a call's request, and return the response."""
        assert transport is not None
        from .effects import Send  # not needed for a recorded answer

        return Send(transport, request, timeout, call.progress)

    def begins_answer(self, chunk: Mapping[str, Data]) -> bool:
        """Return whether a chunk of a stream has some of the answer, after which the call is not sent again."""
        from ..apis.chunks import says_something  # not needed for a recorded answer

        return says_something(chunk)

    def pieces(self, response: Response) -> Sequence[Piece]:
        """Return what the reader of a stream gets of an answer that came whole."""
        return ()

    def check(self, request: Request, response: Response, *, must_fit_window: bool) -> None:
        """Raise an error if an answer is incomplete or does not fit its ``response_format``.

        :param must_fit_window: ``True`` if an answer that the context window cut is an error.
        """

    def usage_in(self, response: Response) -> Mapping[str, Data]:
        """Return the response that reports the usage, as its API gives it unstreamed."""
        return response

    def records(
        self, calls: Sequence[Call], response: Response, received: Received
    ) -> list[Record]:
        """Return what is recorded of a response, for each of the calls that it answers."""
        raise NotImplementedError


class OfClient(Kind):
    """A call that a client sends, by its transport for an endpoint."""

    def to_send(self, call: Call) -> Request:
        """Return the request without what its model refuses; a stream's body also requests the usage."""
        body = sent_body(call.request.body, call.site.capabilities)
        _report_left_out(call.request.body, body)
        if call.is_streamed:
            body["stream_options"] = {"include_usage": True}
        return call.request._replace(body=body, wire=self.wire(call, body))

    def wire(self, call: Call, body: Mapping[str, Data]) -> str:
        """Return the API that a body goes to."""
        assert call.client is not None  # it sends the call
        return call.client.wire(body, call.site)

    def transport(self, call: Call, endpoint: Endpoint) -> Transport:
        """Return the client's transport for an endpoint."""
        assert call.client is not None  # it sends the call
        return call.client.shared_transport(endpoint)

    def for_one_send(self, request: Request) -> Request:
        """Return a copy, since a user's transport may change its arguments."""
        body, headers = map_texts(request.body, str), dict(request.headers)
        return request._replace(body=body, headers=headers)

    def begins_answer(self, chunk: Mapping[str, Data]) -> bool:
        """Return whether a chunk has text that its reader gets."""
        from ..apis.chunks import chunk_text

        return bool(chunk_text(chunk))


class OwnTransport(Kind):
    """A call with its own transport, which sends the request unchanged.

    :param transport: sends it.
    """

    has_own_transport = True

    def __init__(self, transport: Transport) -> None:
        self.own = transport

    def transport(self, call: Call, endpoint: Endpoint) -> Transport:
        """Return its own transport."""
        return self.own


class Chat(Kind):
    """A chat, streamed or not."""

    def pieces(self, response: Response) -> Sequence[Piece]:
        """Return its text."""
        from .effects import Piece

        return [Piece(content_text(choices_of(response)[0]["message"].get("content")) or "")]

    def check(self, request: Request, response: Response, *, must_fit_window: bool) -> None:
        """Refuse an answer that is not complete, or does not fit."""
        check_chat(response)
        _check_window(request, response, must_fit_window=must_fit_window)
        misfit = None if request.expected is None else request.expected.misfit_in(response)
        if misfit is not None:  # another attempt may help
            _reject(
                ServiceError, f"the answer does not fit its response_format: {misfit}", response
            )

    def records(
        self, calls: Sequence[Call], response: Response, received: Received
    ) -> list[Record]:
        """Return the record of an answer, as a cassette gives it back: a later prompt may quote it."""
        (call,) = calls
        answer: Mapping[str, Data] = response
        if call.request.model != call.request.hashed["model"]:  # a fallback's: it says who answered
            answer = {**answer, "model": answer.get("model") or call.request.model}
        api_type, host = call.site.api_type, received.host
        return [make_record(call.request, answer, cost=received.cost, api_type=api_type, host=host)]


class Embeddings(Kind):
    """Embeddings, one call for each text."""

    def batches(self, calls: Sequence[Call]) -> Iterator[Sequence[Call]]:
        """Yield as many texts as one request may have."""
        batch: list[Call] = []
        size = 0
        for call in calls:
            length = len(call.request.body["input"].encode())
            if batch and (len(batch) == TEXTS_PER_BATCH or size + length > BYTES_PER_BATCH):
                yield batch
                batch = []
                size = 0
            batch.append(call)
            size += length
        yield batch

    def joined(self, calls: Sequence[Call]) -> Call:
        """Return one call for all texts."""
        request = calls[0].request
        body = {**request.body, "input": [call.request.body["input"] for call in calls]}
        return calls[0]._replace(request=request._replace(body=body))

    def check(self, request: Request, response: Response, *, must_fit_window: bool) -> None:
        """Raise an error for an answer without a vector for each text, or with other ones."""
        check_embeddings(response, len(request.body["input"]))
        dimensions = request.body.get("dimensions")
        length = len(_packed_vector(response["data"][0]["embedding"])) // FLOAT32
        if dimensions not in (None, length):  # some servers ignore it
            _reject(
                InvalidRequestError,
                f"dimensions={dimensions}, but the embeddings have {length}; leave it out",
                response,
            )

    def records(
        self, calls: Sequence[Call], response: Response, received: Received
    ) -> list[Record]:
        """Return the records of the texts, each with its share of tokens and cost."""
        from ..models.tokens import shares  # not needed for a recorded answer

        vectors = [_packed_vector(item["embedding"]) for item in ordered_embeddings(response)]
        total, cost = TokenUsage.of(response).input_tokens, received.cost
        texts = [call.request.body["input"] for call in calls]
        tokens_of_texts = [None] * len(calls) if total is None else shares(total, texts)
        records = []
        for call, vector, tokens in zip(calls, vectors, tokens_of_texts, strict=True):
            own_response: dict[str, Data] = {"model": response.get("model"), "embedding": vector}
            if tokens is not None:
                own_response["usage"] = {"prompt_tokens": tokens, "total_tokens": tokens}
            record = make_record(
                call.request,
                own_response,
                cost=cost and (cost * tokens / total if tokens and total else 0.0),
                api_type=call.site.api_type,
                host=received.host,
            )
            records.append(record)
        return records


class ClientChat(OfClient, Chat):
    """A chat of a client."""


class ClientEmbeddings(OfClient, Embeddings):
    """Embeddings of a client."""


KINDS: dict[str, Kind] = {
    "chat": ClientChat(),
    "embedding": ClientEmbeddings(),
}  # that clients send


class ProgramChat(OwnTransport, Chat):
    """A chat of a program."""

    is_programs = True

    def check(self, request: Request, response: Response, *, must_fit_window: bool) -> None:
        """Refuse what no reader of a cassette can read. Every other answer is the program's to judge: also one that was
        filtered, is empty or broke off.
        """
        if problem := unreadable(make_record(request, response)):
            _reject(APIError, problem, response)  # sent again, it would be paid again
        _check_window(request, response, must_fit_window=must_fit_window)


class ProgramEmbeddings(OwnTransport, Embeddings):
    """Embeddings of a program: one request, whatever its size."""

    is_programs = True

    def batches(self, calls: Sequence[Call]) -> Iterator[Sequence[Call]]:
        """Yield all calls."""
        yield calls


class Function(Kind):
    """A recorded function.

    :param name: the function's.
    """

    calls_model = False
    has_own_transport = True

    def __init__(self, name: str) -> None:
        self.name = name

    def gate(self, call: Call, request: Request) -> Gate:
        """Return a gate that admits everything."""
        return Gate()

    def usage_in(self, response: Response) -> Mapping[str, Data]:
        """Return nothing: a function reports no usage."""
        return {}

    def records(
        self, calls: Sequence[Call], response: Response, received: Received
    ) -> list[Record]:
        """Return the record of a result."""
        (call,) = calls
        value = recordable(response["value"], f"{call.name}: the result")
        return [make_record(call.request, {"value": value})]


class Http(OwnTransport):
    """A program's HTTP request, recorded unchanged.

    :param transport: sends it.
    :param name: its method and path.
    :param calls_model: ``True`` if a model answers it.
    :param prefers_calling: use a recorded answer of the disk cache, and outside any scope also of a cassette,
        only where calls are forbidden.
    """

    is_programs = True

    def __init__(
        self, transport: Transport, name: str, *, calls_model: bool, prefers_calling: bool
    ) -> None:
        super().__init__(transport)
        self.name = name
        self.calls_model = calls_model
        self.prefers_calling = prefers_calling

    def gate(self, call: Call, request: Request) -> Gate:
        """Return the client's gate; for a request without a body, a gate that admits everything."""
        return call.site.gate(call, request) if call.is_counted else Gate()

    def usage_in(self, response: Response) -> Mapping[str, Data]:
        """Return the answer of a known API, as that API gives it unstreamed."""
        from ..apis.bodies import answer_in

        return answer_in(response["body"])

    def records(
        self, calls: Sequence[Call], response: Response, received: Received
    ) -> list[Record]:
        """Return the record of a response."""
        (call,) = calls
        value = recordable(dict(response), f"{call.name}: the result")
        host = received.host or None
        return [make_record(call.request, {"value": value}, cost=received.cost, host=host)]


# The values that the API takes for a parameter that is not sent.
NEUTRAL = {"temperature": 1, "top_p": 1, "presence_penalty": 0, "frequency_penalty": 0}


def _report_left_out(requested: Mapping[str, Data], sent: Mapping[str, Data]) -> None:
    """Report once the parameters that are not sent, unless the API takes their values without them."""
    model = requested["model"]
    for name in sorted(requested.keys() - sent.keys() - {"max_tokens"}):
        if requested[name] != NEUTRAL.get(name, ...):
            warn_once(
                f"{model} does not support {name}, so llmcall leaves it out. Changing it changes the request's "
                "key, but not the model's answers",
                about=("unsupported", model, name),
            )


# Embeddings


def check_embeddings(response: Mapping[str, Data], count: int) -> None:
    """Refuse an embeddings response that does not hold one vector of finite numbers per text.

    :param count: how many texts were sent.
    :raises ServiceError: if it is malformed.
    """
    data = _list_in(response, "data")
    if len(data) != count:
        _reject(
            ServiceError,
            f"a malformed answer: {len(data)} embeddings for {counted(count, 'text')}",
            response,
        )
    for item in data:
        try:
            _packed_vector(item["embedding"])
        except (LookupError, TypeError, ValueError, OverflowError, struct.error):
            _reject(
                ServiceError,
                f"a malformed answer: an embedding that is not a vector ({_brief(item)})",
                response,
            )


def _packed_vector(embedding: Data) -> bytes:
    """Return a vector as little-endian float32, whether it came as numbers or as base64.

    :raises TypeError, ValueError, OverflowError, struct.error: if it is not a vector, or holds NaN
        or an infinity.
    """
    if isinstance(embedding, str):
        packed = base64.b64decode(embedding, validate=True)
    else:
        packed = struct.pack(f"<{len(embedding)}f", *embedding)
    if not packed or not math.isfinite(sum(struct.unpack(f"<{len(packed) // FLOAT32}f", packed))):
        raise ValueError("no finite numbers")
    return packed


def ordered_embeddings(response: Mapping[str, Data]) -> list[dict[str, Data]]:
    """Return the embeddings in the order of the texts.

    A server may leave out their numbers, or number all with 0: then they are in order.
    """
    data: list[dict[str, Data]] = response["data"]
    indexes = []
    for item in data:
        index = item.get("index")
        indexes.append(index if isinstance(index, int) else 0)
    if not any(indexes):
        return data
    if sorted(indexes) != list(range(len(data))):
        raise ServiceError(f"a malformed answer: {len(data)} embeddings with the indexes {indexes}")
    by_index = dict(zip(indexes, data, strict=True))
    return [by_index[index] for index in range(len(data))]


def unpacked_vector(record: Record) -> list[float]:
    """Return a record's embedding as numbers, each rounded to float32."""
    packed = record.response["embedding"]
    return list(struct.unpack(f"<{len(packed) // FLOAT32}f", packed))


# Checks


def check_chat(response: Mapping[str, Data]) -> None:
    """Refuse a chat response that holds no complete answer.

    :raises ServiceError: if it is malformed, or broke off, as its ending says.
    :raises ContentFilterError: if the provider filtered the answer.
    :raises EmptyAnswerError: if there is no text, tool call, image or audio.
    """
    is_output = isinstance(response, dict) and isinstance(response.get("output"), list)
    choices = choices_of(response) if is_output else _list_in(response, "choices")
    for choice in choices:
        problem = _problem_of(choice)
        if problem is not None:
            _reject(ServiceError, problem, response)
    for choice in choices:
        if ending := ending_problem(choice.get("finish_reason"), "finish_reason"):
            _reject(*ending, response)
    if not any(holds_answer(choice["message"]) for choice in choices):
        message, remedy = _why_empty(choices[0], response)
        _reject(EmptyAnswerError, message, response, remedy)


def _problem_of(choice: Data) -> str | None:
    """Return the problem with a choice, or ``None`` for a complete message."""
    message = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(message, dict):
        return f"a malformed answer: a choice without a message ({_brief(choice)})"
    if problem := unreadable_message(message):  # as the reader of a cassette says
        return f"a malformed answer: its message {problem} ({_brief(message)})"
    # OpenRouter reports a provider that failed halfway like this, with the half that came.
    if choice.get("finish_reason") == "error" or choice.get("error"):
        return f"the answer broke off: {_brief(choice.get('error') or choice)}"
    return None


def _why_empty(choice: Mapping[str, Data], response: Mapping[str, Data]) -> tuple[str, str]:
    """Return why an answer is empty, and what to do."""
    reason = choice.get("finish_reason")
    reasoning_tokens = TokenUsage.of(response).reasoning_tokens
    if is_cut(reason):
        note = f" ({reasoning_tokens} of them on reasoning)" if reasoning_tokens else ""
        message = f"the answer is empty: the token limit was used up{note} before any text"
        return message, EmptyAnswerError.remedy
    if place := place_of_reasoning(choice["message"], response):
        message = f"the answer is empty: all its text is in {place!r} (finish_reason {reason})"
        return message, "Lower reasoning_effort, or switch the model's thinking off"
    message = f"the answer is empty: neither text nor a tool call (finish_reason {reason})"
    return message, "Send it again, or change the prompt"


def _check_window(request: Request, response: Response, *, must_fit_window: bool) -> None:
    if must_fit_window and is_cut_by_context_window(response, request):
        raise ContextLengthError("the answer was cut where the context window ended")


def is_cut_by_context_window(response: Mapping[str, Data], request: Request) -> bool:
    """Return whether an answer ended at a token limit that the request did not set, which is where
    the context window ends.
    """
    if not any(is_cut(choice.get("finish_reason")) for choice in choices_of(response)):
        return False
    max_tokens = request.hashed.get("max_tokens")
    output_tokens = TokenUsage.of(response).output_tokens
    return max_tokens is None or (output_tokens is not None and output_tokens < max_tokens)


def _list_in(response: object, name: str) -> list[Data]:
    """Return the list of that name in a response; refuse a response without one."""
    if not isinstance(response, dict):
        _reject(ServiceError, f"a malformed answer: {_brief(response)}", response)
    items = response.get(name)
    if not isinstance(items, list) or not items:
        message = f"a malformed answer without {name}: {_brief(response.get('error') or response)}"
        _reject(ServiceError, message, response)
    return items


def _reject(
    error_class: type[APIError], message: str, response: object, remedy: str = ""
) -> NoReturn:
    error = error_class(message)
    if isinstance(response, Response):
        error.status_code, error.request_id = response.status_code, response.request_id
    error.remedy = remedy or error_class.remedy
    raise error


def _brief(value: object) -> str:
    return shortened(value if isinstance(value, str) else repr(value), LONGEST_QUOTE)
