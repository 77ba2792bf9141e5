"""Requests through the SDK whose answers are read by hand."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

from .heads import timeouts

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..types import Request

__all__ = ["body_of", "posted"]

PATHS = {"chat": "/chat/completions", "embedding": "/embeddings"}
OWN = ("model", "messages", "input")  # what an extra body does not replace


def posted(
    sdk: Any, request: Request, timeout: float | None, headers: Mapping[str, str], *, asynchronous: bool = False
) -> Any:
    """Send a request and return the SDK's stream, of which the response is read by hand; or what to await for it.

    ``post`` is the SDK's way to any endpoint. It sends what this version of the SDK does not know, does not walk
    through the messages in search of what it would change, and builds no model of the answer: half the time of a call.
    """
    options: dict[str, Any] = {"timeout": timeouts(timeout)}
    if request.headers or headers:
        options["headers"] = {**request.headers, **headers}
    if request.body.get("extra_query") is not None:
        options["params"] = request.body["extra_query"]
    how: dict[str, Any] = {"stream": True, "stream_cls": _stream_class(asynchronous), "cast_to": object}
    return sdk.post(PATHS[request.kind], body=body_of(request), options=options, **how)


def body_of(request: Request) -> dict[str, Any]:
    """Return what is sent as JSON."""
    body = dict(request.body)
    extra = body.pop("extra_body", None)
    body.pop("extra_query", None)
    if extra:
        body = {**body, **extra, **{name: body[name] for name in OWN if name in body}}
    if request.kind == "embedding":
        body.setdefault("encoding_format", "float")
    return body


@lru_cache(maxsize=2)
def _stream_class(asynchronous: bool) -> Any:
    import openai

    return openai.AsyncStream[object] if asynchronous else openai.Stream[object]
