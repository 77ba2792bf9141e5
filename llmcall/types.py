"""The values of every call: a request, a record, a reply. All plain data, none of them changed once
made.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from ._version import __version__
from .display.formatting import money, one_line
from .display.notebook import html_message
from .display.printable import printable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Mapping
    from typing import SupportsIndex

ASKED = ("input", "arguments", "body")  # what holds the question of a request that has no messages
SHOWN = 60  # characters of a text in a repr

Data = Any  # JSON-like plain data: dict, list, str, int, float, bool, None, bytes


class TokenUsage(NamedTuple):
    """Hold the tokens of one answer as the server reported them; ``None`` where it did not.

    >>> llmcall.client().send_message("Good morning!", max_tokens=16).usage.output_tokens
    4
    """

    input_tokens: int | None = None
    output_tokens: int | None = None
    cached_tokens: int | None = None
    reasoning_tokens: int | None = None

    @classmethod
    def of(cls, response: Mapping[str, Any]) -> TokenUsage:
        """Read the ``usage`` object of a response; what is no count of tokens is unknown.

        Chat completions and embeddings have one form of it, the Responses and the Messages API
        another. Anthropic counts what its cache holds, or takes in, beside the other input.
        """
        usage = response.get("usage")
        if not isinstance(usage, dict):
            return cls()
        prompt, completion = "prompt_tokens", "completion_tokens"
        if usage.keys() & {"input_tokens", "output_tokens"} and prompt not in usage:
            prompt, completion = "input_tokens", "output_tokens"
        read = _count(usage.get("cache_read_input_tokens"))
        given = _count(usage.get(prompt))
        if given is not None:
            given += (read or 0) + (_count(usage.get("cache_creation_input_tokens")) or 0)
        cached = _detail(usage, f"{prompt}_details", "cached_tokens")
        return cls(
            given,
            _count(usage.get(completion)),
            read if cached is None else cached,
            _detail(usage, f"{completion}_details", "reasoning_tokens"),
        )


def _count(value: Any) -> int | None:
    return value if type(value) is int and value >= 0 else None


def _detail(usage: Mapping[str, Any], name: str, part: str) -> int | None:
    details = usage.get(name)
    return _count(details.get(part)) if isinstance(details, dict) else None


class Request(NamedTuple):
    """Hold one question to a model: what identifies it, and what is sent.

    :param kind: ``"chat"``, ``"embedding"`` or ``"function"``.
    :param model: the model's name after aliases.
    :param asked: the whole of what is hashed, apart from kind and sample; normalised plain data.
    :param body: what is sent to the API; the messages as given, images included.
    :param headers: extra HTTP headers; no part of the key.
    :param sample: which draw this is (``"trial-3/lisa#0"``), or ``None``.
    :param cache_key: the SHA-256 of all that identifies the request, in hexadecimal digits.
    :param expected: what its answer has to fit to be stored: the class that ``response_format``
        was, the text of a strict JSON schema, or ``None``; no part of the key.

    >>> with llmcall.scope("trial-1"):
    ...     request = llmcall.client().build_request("Good morning!", max_tokens=16)
    >>> request.sample, request.messages
    ('trial-1#0', [{'role': 'user', 'content': 'Good morning!'}])
    """

    kind: str
    model: str
    asked: Mapping[str, Data]
    body: Mapping[str, Data]
    headers: Mapping[str, str]
    sample: str | None
    cache_key: str
    expected: Any = None

    @property
    def messages(self) -> list[Data]:
        """Return the messages as they are sent (of an embedding: an empty list)."""
        return list(self.body.get("messages", ()))

    def __repr__(self) -> str:
        return (
            f"Request(kind={self.kind!r}, model={self.model!r}, sample={self.sample!r}, "
            f"cache_key={self.cache_key!r})"
        )


RECORD_FIELDS = (
    "cache_key", "kind", "sample", "request", "response", "cost", "api_type", "host", "version", "stored_at",
    "asker",
)  # fmt: skip


class Record:
    """Hold one recorded answer. Nobody changes one: :meth:`replace` makes another.

    :param cache_key: the request's key, 64 hexadecimal digits.
    :param kind: ``"chat"``, ``"embedding"``, ``"function"`` or ``"http"``.
    :param sample: which draw this is, or ``None``.
    :param request: the whole of what was hashed, or a function that reads it when somebody asks for
        it.
    :param response: the response as the API gave it (an embedding: its float32 bytes under
        ``"embedding"``).
    :param cost: USD when it was made, or ``None`` where the price was unknown.
    :param api_type: which client asked, e.g. ``"openai"``.
    :param host: the host that answered, without credentials.
    :param version: the version of llmcall that stored it.
    :param stored_at: seconds since the epoch, or ``None`` outside a cache.
    :param asker: which task or thread of the program asked, if that was known and tells this record
        from others of the same request.

    >>> client = llmcall.client()
    >>> client.send_message("Good morning!", max_tokens=16).content
    'Good morning!'
    >>> record = client.cache.get(client.build_request("Good morning!", max_tokens=16))
    >>> record.kind, record.prompt, record.answer
    ('chat', 'Good morning!', 'Good morning!')
    """

    __slots__ = (*(name for name in RECORD_FIELDS if name != "request"), "_read_again", "_request")

    def __init__(
        self,
        cache_key: str,
        kind: str,
        sample: str | None,
        request: dict[str, Data] | Callable[[], dict[str, Data]],
        response: dict[str, Data],
        cost: float | None = None,
        api_type: str | None = None,
        host: str | None = None,
        version: str | None = None,
        stored_at: float | None = None,
        asker: str | None = None,
    ) -> None:
        self.cache_key = cache_key
        self.kind = kind
        self.sample = sample
        self._request = request
        self.response = response
        self.cost = cost
        self.api_type = api_type
        self.host = host
        self.version = version
        self.stored_at = stored_at
        self.asker = asker
        self._read_again: Callable[[], dict[str, Data]] | None = (
            None  # the response, where that saves memory
        )

    @property
    def request(self) -> dict[str, Data]:
        """Return the whole of what was hashed.

        :raises CacheCorruptError: where a cache's bytes hold no request, which no call stores.
        """
        request = self._request
        if callable(request):
            request = self._request = request()
        return request

    @property
    def scope(self) -> str:
        """Return the scope path; empty outside any scope."""
        return (self.sample or "").partition("#")[0]

    @property
    def usage(self) -> TokenUsage:
        """Return the tokens that the server reported."""
        return TokenUsage.of(self.response)

    @property
    def prompt(self) -> str:
        """Return what was asked: a chat's last message, an embedding's text, a function's
        arguments, or a body.
        """
        messages = self.request.get("messages")
        if messages:
            return message_text(messages[-1])
        return _shown(
            next((self.request[name] for name in ASKED if name in self.request), self.request)
        )

    @property
    def answer(self) -> str:
        """Return what was answered: of several choices all, of an embedding its length, of a
        function its value.
        """
        choices = self.response.get("choices")
        if choices:
            return "\n\n".join(message_text(choice["message"]) for choice in choices)
        embedding = self.response.get("embedding")
        if isinstance(embedding, bytes):
            return f"{len(embedding) // 4} numbers"
        return _shown(self.response.get("value", self.response))

    @property
    def served(self) -> str | None:
        """Return the model that answered, by the name that the server gave; ``None`` if it gave
        none, or if no model answered.
        """
        model = self.response.get("model")
        return model if isinstance(model, str) and model else None

    @property
    def finish_reason(self) -> str | None:
        """Return why the answer ended: ``stop``, ``length`` …; of several choices each reason once."""
        reasons = [choice.get("finish_reason") for choice in self.response.get("choices") or ()]
        return ", ".join(dict.fromkeys(filter(None, reasons))) or None

    @property
    def refusal(self) -> str | None:
        """Return the text in which the model refused, or ``None``; of several choices all such
        texts.
        """
        messages = [choice["message"] for choice in self.response.get("choices") or ()]
        refusals = [message.get("refusal") for message in messages]
        return "\n\n".join(filter(None, refusals)) or None

    def as_dict(self) -> dict[str, Data]:
        """Return the fields by name."""
        return {name: getattr(self, name) for name in RECORD_FIELDS}

    def replace(self, **changes: Data) -> Record:
        """Return another record with some fields changed."""
        return Record(**{**self.as_dict(), **changes})

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Record) and self.as_dict() == other.as_dict()

    def __hash__(self) -> int:
        return hash(self.cache_key)

    def __repr__(self) -> str:
        asked, answered = (printable(one_line(text, SHOWN)) for text in (self.prompt, self.answer))
        return (
            f"Record({self.kind!r}, sample={self.sample!r}, prompt={asked!r}, answer={answered!r})"
        )

    def _repr_html_(self) -> str:
        model = self.request.get("model") or self.request.get("function") or self.kind
        notes = (str(model), self.sample or "", *_spent(self.usage, self.cost))
        return html_message(self.prompt, ("asked",)) + html_message(self.answer, notes)


def record_of(
    request: Request,
    response: Mapping[str, Any],
    *,
    cost: float | None = None,
    api_type: str | None = None,
    host: str | None = None,
) -> Record:
    """Return the record of a request's answer."""
    return Record(
        cache_key=request.cache_key,
        kind=request.kind,
        sample=request.sample,
        request=dict(request.asked),
        response=dict(response),
        cost=cost,
        api_type=api_type,
        host=host,
        version=__version__,
    )


class Sent(NamedTuple):
    """Hold a response and where it came from.

    :param latency: seconds from sending to the end of the answer.
    """

    response: Any
    endpoint: str
    host: str
    latency: float


# How a cassette gains a record: a server was asked, the disk cache had it, or a recorded function ran.
FROM_SERVER, FROM_CACHE, FROM_FUNCTION = "server", "cache", "function"


class Outcome(NamedTuple):
    """Hold a record, and what was sent for it: ``None`` where another call, or none, was.

    :param is_kept: whether it is recorded: not the answer of a call beside its own stream.
    """

    record: Record
    sent: Sent | None = None
    is_kept: bool = True

    @property
    def source(self) -> str:
        """Return how a cassette that gains the record counts it."""
        return FROM_CACHE if self.sent is None else FROM_SERVER


class Response(dict[str, Any]):
    """Be a response as the API gave it, with what its headers said. A transport may return a plain
    dict as well.

    :ivar request_id: the server's identifier of the request, or ``None``.
    :ivar headers: the response's headers, names in lower case.
    """

    __slots__ = ("headers", "request_id")

    headers: Mapping[str, str]
    request_id: str | None

    def __init__(
        self,
        data: Mapping[str, Data],
        request_id: str | None = None,
        headers: Mapping[str, str] = {},
    ) -> None:
        super().__init__(data)
        self.request_id = request_id
        self.headers = headers


class Transport(Protocol):
    """Send requests to one endpoint.

    ``request.kind`` is ``"chat"`` or ``"embedding"``, ``request.body`` what the API takes
    (``model``, ``messages`` or ``input``, and parameters), ``request.headers`` extra HTTP headers.
    Failures are raised as subclasses of :class:`APIError`; those with ``retryable`` set are tried
    again. ``close()`` is called if there is one.

    >>> class Parrot:
    ...     def send(self, request, timeout):
    ...         return {"choices": [{"message": {"content": request.messages[-1]["content"]}, "finish_reason": "stop"}]}
    >>> parrot = llmcall.LLMClient(transport=Parrot(), model="parrot", cache_mode="off")
    >>> parrot.send_message("Pieces of eight!").content
    'Pieces of eight!'
    """

    def send(self, request: Request, timeout: float | None) -> Mapping[str, Any]:
        """Return the response in the API's form (``{"choices": […], "usage": {…}}``).

        :param timeout: seconds within which the whole response must have been read, or ``None``.
        """
        ...

    def stream(self, request: Request, timeout: float | None) -> Iterator[Mapping[str, Any]]:
        """Yield the chunks of an answer in the API's form. Without it, a streamed answer comes in
        one piece.

        An empty :class:`.Response` before the first of them may tell the request's identifier and
        headers.
        """
        ...


class AsyncTransport(Protocol):
    """Send requests asynchronously; a transport without these methods is run in threads.

    >>> class Parrot:
    ...     def send(self, request, timeout):
    ...         return {"choices": [{"message": {"content": request.messages[-1]["content"]}, "finish_reason": "stop"}]}
    ...     async def asend(self, request, timeout):
    ...         return self.send(request, timeout)
    >>> parrot = llmcall.LLMClient(transport=Parrot(), model="parrot", cache_mode="off")
    >>> import asyncio
    >>> asyncio.run(parrot.asend_message("Pieces of eight!")).content
    'Pieces of eight!'
    """

    async def asend(self, request: Request, timeout: float | None) -> Mapping[str, Any]:
        """Return the response, as :meth:`Transport.send`."""
        ...

    def astream(self, request: Request, timeout: float | None) -> AsyncIterator[Mapping[str, Any]]:
        """Yield the chunks of an answer, as :meth:`Transport.stream`."""
        ...


class Reply(dict[str, Any]):
    """Hold the assistant's message, a dict of ``role``, ``content``, ``tool_calls`` and
    ``refusal``.

    Everything else that is known of the answer is an attribute. ``messages.append(reply)`` and
    ``json.dumps(reply)`` work as they do for any message.

    :ivar cached: whether a record, or an identical call in flight, gave the answer.
    :ivar cache_key: the request's key.
    :ivar sample: which draw it is, or ``None``.
    :ivar cost: USD when it was made, or ``None``.
    :ivar latency: seconds from sending to the end of the answer; 0.0 for a cached one.
    :ivar endpoint: the name of the endpoint that answered, or ``None`` for a cached one.
    :ivar request_id: the server's identifier of the request, likewise.

    >>> reply = llmcall.client().send_message("Good morning!", max_tokens=16)
    >>> dict(reply)
    {'role': 'assistant', 'content': 'Good morning!'}
    >>> reply.finish_reason, reply.cost is None
    ('stop', True)
    """

    __slots__ = (
        "_parse",
        "_raw",
        "cache_key",
        "cached",
        "cost",
        "endpoint",
        "latency",
        "request_id",
        "sample",
    )

    cached: bool
    cache_key: str
    sample: str | None
    cost: float | None
    latency: float
    endpoint: str | None
    request_id: str | None
    _raw: dict[str, Data] | Callable[[], dict[str, Data]]
    _parse: Callable[[str], Any] | None

    @classmethod
    def of(
        cls, record: Record, sent: Sent | None = None, *, parse: Callable[[str], Any] | None = None
    ) -> Reply:
        """Return the reply that a record holds.

        :param sent: what was sent for it; ``None`` where another call, or none, was.
        :param parse: reads the text as the type that ``response_format`` was.
        """
        reply = cls(message_of(record.response["choices"][0]))
        reply._raw, reply._parse = record._read_again or record.response, parse
        reply.cache_key, reply.sample, reply.cost = record.cache_key, record.sample, record.cost
        if sent is None:
            reply.cached, reply.latency, reply.endpoint, reply.request_id = True, 0.0, None, None
        else:
            reply.cached, reply.latency, reply.endpoint = False, sent.latency, sent.endpoint
            reply.request_id = getattr(sent.response, "request_id", None)
        return reply

    def __reduce_ex__(self, protocol: SupportsIndex) -> Any:
        getattr(self, "raw", None)  # is read now: what is pickled holds no function of ours
        return super().__reduce_ex__(protocol)

    @property
    def raw(self) -> dict[str, Data]:
        """Return the response as the API gave it; of a recorded one it is read when somebody asks
        for it.
        """
        raw = self._raw
        if callable(raw):
            raw = self._raw = raw()
        return raw

    @raw.setter
    def raw(self, raw: dict[str, Data]) -> None:
        self._raw = raw

    @property
    def content(self) -> str | None:
        """Return the answer's text, or ``None`` where there is none."""
        return self["content"]  # type: ignore[no-any-return]

    @property
    def tool_calls(self) -> list[Data] | None:
        """Return the tool calls as the API gave them, or ``None``."""
        return self.get("tool_calls")

    @property
    def refusal(self) -> str | None:
        """Return the text in which the model refused, or ``None``."""
        return self.get("refusal")

    @property
    def finish_reason(self) -> str | None:
        """Return why the answer ended: ``stop``, ``length``, ``tool_calls`` …."""
        return self.raw["choices"][0].get("finish_reason")  # type: ignore[no-any-return]

    @property
    def model(self) -> str | None:
        """Return the model's name as the server gave it."""
        return self.raw.get("model")

    @property
    def usage(self) -> TokenUsage:
        """Return the tokens that the server reported."""
        return TokenUsage.of(self.raw)

    @property
    def choices(self) -> list[dict[str, Data]]:
        """Return all messages (several where ``n`` is above 1), in the form of the reply itself."""
        return [message_of(choice) for choice in self.raw["choices"]]

    def _repr_html_(self) -> str:
        notes = (
            self.model or "",
            *_spent(self.usage, self.cost),
            "replayed" if self.cached else "",
        )
        return html_message(message_text(self), notes)

    @property
    def parsed(self) -> Any:
        """Return the answer as the type that ``response_format`` was; ``None`` if it was none, or
        the model refused.

        :raises OutputError: if the answer cannot be read as that type.
        """
        if self._parse is None or self.content is None or self.refusal is not None:
            return None
        return self._parse(self.content)


def message_of(choice: Mapping[str, Any]) -> dict[str, Data]:
    """Return the message of a choice, as a reply holds it."""
    given = choice["message"]
    content = given.get("content")
    message = {
        "role": given.get("role") or "assistant",
        "content": text_of(content) if isinstance(content, list) else content,
    }
    for name in ("tool_calls", "refusal"):
        if given.get(name):
            # a reply is the caller's, the response stays as the API gave it
            from copy import (
                deepcopy,
            )

            message[name] = deepcopy(given[name])
    return message


def message_text(message: Mapping[str, Any]) -> str:
    """Return a message's text and its tool calls."""
    calls = [
        call.get("function") or call.get("custom") or call
        for call in message.get("tool_calls") or ()
    ]
    called = [
        f"{call.get('name')}({call.get('arguments') or call.get('input') or ''})" for call in calls
    ]
    return "\n".join(
        [_shown(message.get("content") or message.get("refusal") or ""), *called]
    ).strip()


def _shown(value: Data) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=repr)


def _spent(usage: TokenUsage, cost: float | None) -> tuple[str, str]:
    """Return tokens and cost in words, as far as they are known."""
    counts = ((usage.input_tokens, "input"), (usage.output_tokens, "output"))
    tokens = ", ".join(f"{count:,} {name}" for count, name in counts if count is not None)
    return f"{tokens} tokens" if tokens else "", "" if cost is None else money(cost)


def is_part(part: Data) -> bool:
    """Return whether something can be a part of a message's content: it has a type and, where that
    is text, a text.
    """
    return isinstance(part, dict) and isinstance(
        part.get("text" if part.get("type") == "text" else "type"), str
    )


def text_of(content: Data) -> str | None:
    """Return the text of a message's content: of a list of parts, that of its text parts."""
    if not isinstance(content, list):
        return content  # type: ignore[no-any-return]
    return "".join(part["text"] for part in content if part["type"] == "text") or None
