"""One recorded answer."""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import NamedTuple

from .._version import __version__
from ..additions import additions
from ..apis.message import as_text, message_text
from ..apis.shapes import (
    body_messages,
    choices_of,
    joined_text,
    read_choices,
    served_model,
    upstream_provider,
)
from ..apis.token_usage import TokenUsage, spent_words
from ..keys.keys import key_of
from ..keys.request import Data, Request
from ..support.display import html_message, one_line, printable
from ..support.lazy_names import pattern
from .days import Days, day_created, day_of
from .notes import NO_NOTES, Notes

# The fields that contain the question if a request has no messages.
QUESTIONS = ("input", "arguments", "body")
# llmcall's own api_types
SERVER_API_TYPES = frozenset({"azure", "ollama", "openai", *additions("clients")})
REPR_CHARACTERS = 60  # characters of a text in a repr
FIELDS = (
    *("cache_key", "kind", "sample", "request", "response", "cost"),
    *("api_type", "host", "version", "stored_at", "caller", "arms"),
)
SLOT_OF = {"cache_key": "_cache_key", "request": "_request", "days": "noted_days"}


class GotFrom(enum.Flag):
    """The sources of a cassette's new record. The disk cache is one beside another where a server was called, or
    a function ran, but another run was quicker.
    """

    SERVER = enum.auto()
    CACHE = enum.auto()
    FUNCTION = enum.auto()
    GIVEN = enum.auto()  # no model gave it, and no function


class Received(NamedTuple):
    """A server's answer to this call, as received: its latency, identifier and cost.

    :param latency: seconds from sending to the end of the answer.
    :param request_id: the server's identifier of the request, or ``None``.
    :param cost: USD, or ``None`` if unknown.
    """

    endpoint: str
    host: str
    latency: float
    request_id: str | None
    cost: float | None


class Record:
    """One recorded answer. A record does not change: :meth:`replace` returns a changed copy.

    :param cache_key: the request's key, 64 hexadecimal digits; ``None`` computes it at first read.
    :param kind: ``"chat"``, ``"embedding"``, ``"function"`` or ``"http"``.
    :param sample: the draw (``"trial-3/lisa#0"``), or ``None``.
    :param request: everything that is hashed, or a function that returns it at first read.
    :param response: the response as the API gave it (an embedding: its float32 bytes under
        ``"embedding"``).
    :param cost: USD at the time of the call, for the whole usage in the response; ``None`` if a price was
        unknown.
    :param api_type: the client's API type, e.g. ``"openai"``.
    :param host: the host that answered, without credentials.
    :param version: the version of llmcall that stored it.
    :param stored_at: seconds since the epoch, or ``None`` outside a cache.
    :param caller: the task or thread that sent it, if several sent the same.
    :param arms: the names of the arms that used it.
    :param notes: by name, what features say of the answer, such as ``form``, the template that asked, and
        ``unread``, whether it could not read the answer. Records that differ only in this are equal.
    :param days: when its model gave the answer, or the answers of its file; ``None`` if unknown.
        Records that differ only in this are equal.
    :param received: how this call received the answer; ``None`` if the answer was recorded before.
        Copies drop it.
    :param header_notes: by name, what features say of all answers of its file, such as ``imported``, the source of
        published ones. Records that differ only in this are equal.
    :ivar noted_days: the days passed in; :attr:`days` may derive them.

    >>> client = llmcall.client()
    >>> client.send_message("Good morning!", max_tokens=16).content
    'Good morning!'
    >>> record = client.cache.get(client.build_request("Good morning!", max_tokens=16))
    >>> record.kind, record.prompt, record.answer
    ('chat', 'Good morning!', 'Good morning!')
    """

    __slots__ = (
        *(name for name in FIELDS if name not in ("cache_key", "request")),
        "_cache_key",
        "_model_answer",
        "_request",
        "header_notes",
        "noted_days",
        "notes",
        "received",
    )

    def __init__(
        self,
        cache_key: str | None,
        kind: str,
        sample: str | None,
        request: dict[str, Data] | Callable[[], dict[str, Data]],
        response: dict[str, Data],
        cost: float | None = None,
        api_type: str | None = None,
        host: str | None = None,
        version: str | None = None,
        stored_at: float | None = None,
        caller: str | None = None,
        arms: tuple[str, ...] = (),
        days: Days | None = None,
        header_notes: Notes = NO_NOTES,
        notes: Notes = NO_NOTES,
    ) -> None:
        self._cache_key = cache_key
        self._model_answer: Mapping[str, Data] | None = None
        self.noted_days = days
        self.received: Received | None = None
        self.header_notes = header_notes
        self.kind = kind
        self.sample = sample
        self._request = request
        self.response = response
        self.cost = cost
        self.api_type = api_type
        self.host = host
        self.version = version
        self.stored_at = stored_at
        self.caller = caller
        self.arms = arms
        self.notes = notes

    @property
    def cache_key(self) -> str:
        """Return the request's key, 64 hexadecimal digits."""
        if self._cache_key is None:
            self._cache_key = key_of(self.kind, self.request, self.sample)
        return self._cache_key

    @property
    def request(self) -> dict[str, Data]:
        """Return everything that is hashed.

        :raises CacheCorruptError: if a cache holds anything but plain data there.
        """
        request = self._request
        if not isinstance(request, dict):
            request = self._request = request()
        return request

    @property
    def is_hit(self) -> bool:
        """Return whether this call found the answer recorded."""
        return self.received is None

    @property
    def scope(self) -> str:
        """Return the scope path; empty outside any scope."""
        return (self.sample or "").partition("#")[0]

    @property
    def usage(self) -> TokenUsage:
        """Return the tokens that the server reported for a model's answer."""
        return TokenUsage() if self.given else TokenUsage.of(self.model_answer)

    @property
    def prompt(self) -> str:
        """Return the question: a chat's last message, an embedding's text, a function's arguments,
        or a body.
        """
        messages = self.request.get("messages")
        if messages:
            return message_text(messages[-1])
        if self.kind == "http" and self.model_answer:
            *_, last = ({"content": ""}, *body_messages(self.request.get("body")))
            text = joined_text(last["content"])
            if text:
                return text
        for name in QUESTIONS:
            if name in self.request:
                return as_text(self.request[name])
        return as_text(self.request)

    @property
    def answer(self) -> str:
        """Return the answer's text: all choices if there are several, an embedding's length, a
        function's value, or an HTTP response.
        """
        text = "\n\n".join(message_text(choice["message"]) for choice in self.choices)
        if text or (self.kind == "chat" and self.choices):
            return text
        embedding = self.response.get("embedding")
        if isinstance(embedding, bytes):
            return f"{len(embedding) // 4} numbers"
        return as_text(self.response.get("value", self.response))

    @property
    def model(self) -> str | None:
        """Return the requested model, or ``None``."""
        return requested_model(self.kind, self.request)

    @property
    def given(self) -> str:
        """Return the word for an answer that no model gave, such as ``"overridden"``; empty for a model's."""
        words = additions("given")
        if words.keys().isdisjoint(self.notes):
            return ""
        return next(str(word) for name, word in words.items() if name in self.notes)

    @property
    def served(self) -> str | None:
        """Return the model that answered, by the server's name for it, or ``None`` if no model did."""
        return None if self.given else served_model(self.model_answer)

    @property
    def provider(self) -> str | None:
        """Return the provider that answered behind a gateway, or ``None`` if the response names none."""
        return None if self.given else upstream_provider(self.model_answer) or None

    @property
    def days(self) -> Days | None:
        """Return the days on which its model gave the answer, or the answers of its file; ``None``
        if they are unknown.
        """
        if self.noted_days is not None:
            return self.noted_days
        day = None if self.given else day_created(self.model_answer)
        # A cache knows when it stored the record. That is the day of the answer if llmcall called a server
        # for it.
        if day is None and self.stored_at is not None and self.is_from_server:
            day = day_of(self.stored_at)
        return None if day is None else self.answered_on(day)

    @property
    def is_from_server(self) -> bool:
        """Return whether the process that made the record called a server. Other records come from files,
        or from a custom client.
        """
        return self.api_type in SERVER_API_TYPES or (
            self.kind == "http" and self.version is not None
        )

    def answered_on(self, day: str) -> Days:
        """Return one day as the days of this answer, with its host."""
        fingerprint = self.model_answer.get("system_fingerprint")
        fingerprints: tuple[str, ...] = ()
        if isinstance(fingerprint, str) and fingerprint:
            fingerprints = (fingerprint.encode(errors="replace").decode(),)  # no lone surrogates
        hosts = (self.host,) if self.host and self.is_from_server else ()
        providers = (self.provider,) if self.provider else ()
        return Days(day, day, fingerprints, hosts, providers)

    @property
    def finish_reason(self) -> str | None:
        """Return why the answer ended, in its API's words (``stop``, ``length`` …); several choices give
        each reason once.
        """
        reasons = [choice.get("finish_reason") for choice in self.choices]
        return ", ".join(dict.fromkeys(filter(None, reasons))) or None

    @property
    def refusal(self) -> str | None:
        """Return the text of the model's refusal, of all choices, or ``None``."""
        messages = [choice["message"] for choice in self.choices]
        refusals = [message.get("refusal") for message in messages]
        return "\n\n".join(filter(None, refusals)) or None

    @property
    def choices(self) -> list[dict[str, Data]]:
        """Return the choices of a model's answer in the shape of chat completions, or an empty list."""
        if self.kind != "http":
            return choices_of(self.response)
        return list(read_choices(self.model_answer))

    @property
    def model_answer(self) -> Mapping[str, Data]:
        """Return the model's response. A raw HTTP record gives its API's unstreamed response, or an empty
        dict if no model answered.
        """
        if self.kind != "http":
            return self.response
        if self._model_answer is None:
            self._model_answer = model_answer_in(self.request, self.response)
        return self._model_answer

    def with_arms(self, names: Iterable[str]) -> Record:
        """Return the record with the names of further arms that used it."""
        arms = tuple(dict.fromkeys((*self.arms, *names)))
        return self if arms == self.arms else self.replace(arms=arms)

    def as_dict(self) -> dict[str, Data]:
        """Return the fields by name."""
        return {name: getattr(self, name) for name in FIELDS}

    def copy(self, received: Received | None = None) -> Record:
        """Return a copy that shares no mutable data. The request is copied at first read, since a replay
        needs only the answer.

        :param received: how the caller received the answer; ``None`` makes it a recorded one.
        """
        record = self._shallow_copy()
        record._request = partial(_copied_request, self)
        record.response = _copied(self.response)
        record._model_answer = None
        record.received = received
        return record

    def replace(self, **changes: object) -> Record:
        """Return another record with some fields changed, and its days noted."""
        if not changes.keys().isdisjoint(("kind", "sample", "request")):  # these make the key
            _ = self.cache_key  # computed from the old fields
        record = self._shallow_copy()
        record.noted_days = self.days
        record._model_answer = record.received = None
        for name, value in changes.items():
            setattr(record, SLOT_OF.get(name, name), value)
        return record

    def _shallow_copy(self) -> Record:
        record = Record.__new__(Record)
        for name in Record.__slots__:
            setattr(record, name, getattr(self, name))
        return record

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Record) and self.as_dict() == other.as_dict()

    def __hash__(self) -> int:
        return hash(self.cache_key)

    def __repr__(self) -> str:
        prompt, answer = (
            printable(one_line(text, REPR_CHARACTERS)) for text in (self.prompt, self.answer)
        )
        return (
            f"Record({self.kind!r}, sample={self.sample!r}, prompt={prompt!r}, answer={answer!r})"
        )

    def _repr_html_(self) -> str:
        model = self.model or self.request.get("function") or self.kind
        notes = (str(model), self.sample or "", *spent_words(self.usage, self.cost))
        return html_message(self.prompt, ("asked",)) + html_message(self.answer, notes)


class NumberedDraw(NamedTuple):
    """One of the draws of a request in a scope.

    :param request_key: the request's key outside any scope.
    """

    scope: str
    request_key: str
    number: int


def draw_of(record: Record) -> NumberedDraw | None:
    """Return which draw a record is; ``None`` if it has no number."""
    number = (record.sample or "").partition("#")[2]
    if not number.isdecimal():
        return None
    return NumberedDraw(record.scope, key_of(record.kind, record.request, None), int(number))


def scope_of(record: Record) -> str | None:
    """Return the scope path of a record, or ``None`` outside any scope."""
    return None if record.sample is None else record.scope


def sorted_scopes(paths: Iterable[str | None]) -> list[str | None]:
    """Return scope paths in the order of a file: what is outside any scope first."""
    return sorted(paths, key=lambda path: (path is not None, (path or "").split("/")))


def _copied_request(record: Record) -> dict[str, Data]:
    copied: dict[str, Data] = _copied(record.request)
    return copied


def _copied(data: Data) -> Data:
    if type(data) is dict:
        return {name: _copied(item) for name, item in data.items()}
    return [_copied(item) for item in data] if type(data) is list else data


def make_record(
    request: Request,
    response: Mapping[str, Data],
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
        request=dict(request.hashed),
        response=dict(response),
        cost=cost,
        api_type=api_type,
        host=host,
        version=__version__,
    )


# Raw HTTP records


# The ends of the paths at which a model answers, where the host is known.
MODEL_PATHS = (
    *("/chat/completions", "/completions", "/embeddings", "/responses", "/decisions"),
    *("/interactions", "/v1/messages"),
)
MODEL_IN_PATH = pattern(r"/models/([^/:]+):")


def requested_model(kind: str, request: Mapping[str, Data]) -> str | None:
    """Return the model that a request names, or ``None``."""
    body = request.get("body") if kind == "http" else request
    model = (body.get("model") or body.get("agent")) if isinstance(body, dict) else None
    if kind == "http" and model is None:  # Gemini's API names it in the path
        named = MODEL_IN_PATH.search(str(request.get("path")))
        model = named[1] if named else None
    return model if isinstance(model, str) and model else None


def model_answer_in(request: Mapping[str, Data], response: Mapping[str, Data]) -> dict[str, Data]:
    """Return a model's answer in a raw HTTP record, or an empty dict.

    The answer is a model's if the request went to a known API's path, or if the answer reports tokens.
    """
    value = response.get("value")
    body = value.get("body") if isinstance(value, dict) else None
    if not isinstance(body, str):
        return {}
    from ..apis.bodies import answer_in  # few records need it

    answer = answer_in(body)
    path = str(request.get("path")).rstrip("/")
    is_at_model = "host" not in request or path.endswith(MODEL_PATHS)
    return answer if is_at_model or TokenUsage.of(answer) != TokenUsage() else {}
