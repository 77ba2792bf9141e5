"""The contents of a stored request: its title, its messages and their texts."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping

from ..apis.http_requests import messages_asked
from ..support.display import printable
from .request import Data


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
        return list(messages_asked(body))
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
