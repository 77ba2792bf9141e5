"""What a call's caller gets: the assistant's message, or the call's failure."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

from ..apis.message import RETURNED_REASONING, message_of, message_text, reasoning_in
from ..apis.shapes import choices_of
from ..apis.token_usage import TokenUsage, spent_words
from ..config.values import without_password
from ..errors import APIError, CacheCorruptError, OutputError, ServiceError
from ..keys.keys import short_key
from ..keys.request import Data
from ..stores.record import Record
from ..support.display import html_message, sentence
from ..support.failures import note_inside
from ..support.notices import logger
from ..support.tracebacks import hide_own_frames

if TYPE_CHECKING:
    from ..answers.expected import Expected
    from .calls import Call


class Reply(dict[str, Data]):
    """The assistant's message: a dict of ``role``, ``content``, ``tool_calls`` and ``refusal``.

    If the request had tools, it also holds the model's ``reasoning_content`` and ``reasoning_details`` where the
    server gave them: DeepSeek and OpenRouter want them back. ``.raw`` has everything.

    Everything else about the answer is an attribute. ``str(reply)`` is its text, also in f-strings.
    ``messages.append(reply)`` and ``json.dumps(reply)`` work as for any message.

    :ivar raw: the response as the API gave it.
    :ivar cached: ``True`` if the answer came from a record or from an identical call in flight.
    :ivar cache_key: the request's key.
    :ivar sample: the draw (``"trial-3/lisa#0"``), or ``None``.
    :ivar cost: USD when it was made, by the whole usage that the response reports; ``None`` if a price is
        unknown.
    :ivar latency: seconds from sending to the end of the answer; 0.0 if the answer is cached.
    :ivar endpoint: the name of the endpoint that answered, or ``None`` if the answer is cached.
    :ivar request_id: the server's identifier of the request, or ``None``.

    >>> reply = llmcall.client().send_message("Good morning!", max_tokens=16)
    >>> dict(reply)
    {'role': 'assistant', 'content': 'Good morning!'}
    >>> reply.finish_reason, reply.cost
    ('stop', 0.0)
    """

    __slots__ = (
        "_expected",
        "cache_key",
        "cached",
        "cost",
        "endpoint",
        "latency",
        "raw",
        "request_id",
        "sample",
    )

    raw: dict[str, Data]
    cached: bool
    cache_key: str
    sample: str | None
    cost: float | None
    latency: float
    endpoint: str | None
    request_id: str | None
    _expected: Expected | None

    @classmethod
    def of(cls, record: Record, expected: Expected | None = None) -> Reply:
        """Return the reply that a record holds.

        :param expected: reads the text as the class that ``response_format`` was.
        """
        choice = choices_of(record.response)[0]
        reply = cls(message_of(choice))
        if (reasoning := reasoning_in(choice)) and record.request.get("tools"):
            reply.update(reasoning)
        reply.raw = record.response
        reply.cache_key = record.cache_key
        reply.sample = record.sample
        reply.cost = record.cost
        received = record.received
        reply.cached = record.is_hit
        reply.latency = 0.0 if received is None else received.latency
        reply.endpoint = None if received is None else received.endpoint
        reply.request_id = None if received is None else received.request_id
        reply._expected = expected
        return reply

    def __str__(self) -> str:
        return message_text(self)

    @property
    def content(self) -> str | None:
        """Return the answer's text, or ``None``."""
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
        return choices_of(self.raw)[0].get("finish_reason")

    @property
    def model(self) -> str | None:
        """Return the model's name as the server gave it."""
        return self.raw.get("model")

    @property
    def logprobs(self) -> Data:
        """Return the log probabilities as the API gave them, or ``None``; ask for them with
        ``logprobs=True, top_logprobs=5``.
        """
        return choices_of(self.raw)[0].get("logprobs")

    @property
    def usage(self) -> TokenUsage:
        """Return the tokens that the server reported."""
        return TokenUsage.of(self.raw)

    @property
    def choices(self) -> list[dict[str, Data]]:
        """Return all messages as replies hold them; there are several if ``n`` is above 1.

        Each has the log probabilities as ``"logprobs"`` if the API gave them.
        """
        messages = []
        for choice in choices_of(self.raw):
            message = message_of(choice)
            if choice.get("logprobs") is not None:
                message["logprobs"] = copy.deepcopy(choice["logprobs"])
            if self.keys() & RETURNED_REASONING:
                message |= reasoning_in(choice)
            messages.append(message)
        return messages

    def _repr_html_(self) -> str:
        notes = (
            self.model or "",
            *spent_words(self.usage, self.cost),
            "replayed" if self.cached else "",
        )
        return html_message(message_text(self), notes)

    @property
    def parsed(self) -> Any:
        """Return the answer as the type given as ``response_format``; ``None`` without
        one, and if the model refused or only called a tool.

        :raises OutputError: if the answer does not fit that type.
        """
        expected = self._expected
        if (
            expected is None
            or not expected.is_class
            or not self.content
            or self.refusal is not None
        ):
            return None
        return expected.read(self.content)


# What a call's caller gets


def reply_in(record: Record, call: Call) -> Reply | Any:
    """Return a chat's answer in the caller's form: a reply, or what ``response_format`` parses. If parsing
    fails, ``on_error`` decides.

    :raises CacheCorruptError: if the record does not contain a model's answer.
    :raises ServiceError: if it cannot be parsed, and its caller wants the error raised.
    """
    try:
        reply = Reply.of(record, call.request.expected)
    except (LookupError, TypeError, AttributeError) as error:
        key = short_key(record.cache_key)
        raise CacheCorruptError(
            f"the record {key}… does not contain a model's answer. To request it again, run "
            f"'llmcall cache delete {key}', or remove its line from the cassette"
        ) from error
    expected = call.request.expected
    if not call.options.enable_pydantic_model_return or expected is None or not expected.is_class:
        return reply
    try:
        return reply.parsed
    except OutputError as error:  # it was cut off, or comes with a tool call
        misfit = ServiceError(f"the answer does not fit its response_format: {error}")
        misfit.remedy = "Raise max_tokens if it was cut off"
        return handle_failure(misfit, call)


def handle_failure(error: APIError, call: Call) -> APIError | None:
    """Raise, log or return an API failure, as the caller wants. A stream has no value to return, so it raises
    the error.

    :returns: the error if the caller wants it as the value, or ``None`` if it was logged.
    """
    on_error, model, site = call.options.on_error, call.request.model, call.site
    # if that is unknown, all of them
    failed = [it for it in site.endpoints if it.name == error.endpoint] or site.endpoints
    addresses = {without_password(endpoint.address) or site.host(endpoint) for endpoint in failed}
    address = ", ".join(sorted(address.partition("?")[0] for address in addresses))
    if on_error == "raise" or (on_error == "return" and call.is_streamed):
        note = f"model {model} at {address}. {error.remedy}"
        # Python 3.10 has no notes; an error that several calls share is raised more than once.
        if hasattr(error, "add_note") and note not in getattr(error, "__notes__", ()):
            error.add_note(note)
        raise error
    if on_error == "return":
        return error
    failure = sentence(f"{call.label} at {address} failed: {error}")
    result = "The stream's reply is" if call.is_streamed else "The call returns"
    line = f'{failure} {error.remedy}. {result} None. Pass on_error="raise" to get the exception instead'
    logger().error("%s", line)
    return None


def note_failure(error: BaseException, call: Call) -> None:
    """Report a call that ended without an answer, and release its draw."""
    call.release_draw()  # before a listener, which may raise
    note_inside(error)
    hide_own_frames(error)
    call.notify("failed", error)
