"""One request to a model, and its texts and messages."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from ..apis.shapes import body_messages
from ..support.data import Data as Data
from ..support.display import printable


class Request(NamedTuple):
    """One request to a model, with its identity and the body to send.

    :param kind: ``"chat"``, ``"embedding"``, ``"function"`` or ``"http"``.
    :param model: the model's name after aliases.
    :param hashed: everything that is hashed, apart from kind and sample; normalized plain data.
    :param body: the body to send, with the original messages and images.
    :param headers: extra HTTP headers; not part of the key.
    :param sample: the draw (``"trial-3/lisa#0"``), or ``None``.
    :param cache_key: the SHA-256 of everything that identifies the request, in hexadecimal digits.
    :param expected: the form, from ``response_format``, that an answer must have to be stored, or
        ``None``; not part of the key.
    :param wire: the API that a chat goes to: ``"chat"`` (chat completions) or ``"responses"``; the body is
        one of chat completions in either case. Not part of the key.

    >>> with llmcall.scope("trial-1"):
    ...     request = llmcall.client().build_request("Good morning!", max_tokens=16)
    >>> request.sample, request.messages
    ('trial-1#0', [{'role': 'user', 'content': 'Good morning!'}])
    """

    kind: str
    model: str
    hashed: Mapping[str, Data]
    body: Mapping[str, Data]
    headers: Mapping[str, str]
    sample: str | None
    cache_key: str
    expected: Any = None
    wire: str = "chat"

    @property
    def messages(self) -> list[Data]:
        """Return the messages to send; an embedding has none."""
        return list(self.body.get("messages", ()))

    def __repr__(self) -> str:
        return (
            f"Request(kind={self.kind!r}, model={self.model!r}, sample={self.sample!r}, "
            f"cache_key={self.cache_key!r})"
        )


class UncheckedFormat:
    """A ``response_format`` whose answers the caller checks: unfitting ones are recorded, too.

    :param parameter: the parameter as plain data; it is shared by all calls with a type, so do not change
        it.
    """

    __slots__ = ("parameter",)

    def __init__(self, parameter: dict[str, Data]) -> None:
        self.parameter = parameter


def title_of(kind: str, request: Mapping[str, Data]) -> str:
    """Return the name of a request's model or function, or a raw HTTP request's method and path."""
    if kind == "http":
        return printable(f"{request.get('method')} {request.get('path')}")
    field = "function" if kind == "function" else "model"
    return printable(str(request.get(field, "?")))


def messages_of(request: Mapping[str, Data]) -> list[Data]:
    """Return a request's messages; an embedding's text or a function's arguments count as one."""
    body = request.get("body")  # of another API
    if isinstance(body, dict):
        return list(body_messages(body))
    messages = request.get("messages")
    if isinstance(messages, list):
        return messages
    return [{name: request[name]} for name in ("input", "arguments") if name in request]


def text_with_placeholders(message: Data) -> str:
    """Return a message's text, with the types of images and sounds in brackets."""
    content = message.get("content", message) if isinstance(message, dict) else message
    if not isinstance(content, list):
        return next(strings_in(content), "")
    parts = [part if isinstance(part, dict) else {} for part in content]
    return " ".join(str(part.get("text", f"[{part.get('type')}]")) for part in parts)


def system_text(request: Mapping[str, Data]) -> str:
    """Return a request's first system message as a text; empty without one."""
    systems = (
        text_with_placeholders(message)
        for message in messages_of(request)
        if isinstance(message, dict) and message.get("role") in ("system", "developer")
    )
    return next(filter(None, systems), "")


def naming_system_text(scope: str, request: Mapping[str, Data]) -> str:
    """Return the system message that names an actor's scope, as with ``actor="system"``, or an empty
    text.
    """
    text = system_text(request)
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
    return text if text and scope.endswith(f"-{digest[:8]}") else ""


def strings_in(data: Data) -> Iterator[str]:
    """Yield the texts in plain data in order, without field names."""
    if isinstance(data, str):
        yield data
    elif isinstance(data, dict):
        for item in data.values():
            yield from strings_in(item)
    elif isinstance(data, list):
        for item in data:
            yield from strings_in(item)
