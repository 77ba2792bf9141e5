"""What a program asks for: its HTTP request, and the call of llmcall that asks for the same."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from ..models.catalog import parameters_of
from ..notices import warn_once

CHAT = "/chat/completions"
EMBEDDINGS = "/embeddings"
KNOWN_PATHS = (CHAT, EMBEDDINGS, "/responses", "/v1/messages", "/completions", "/models")
# parameters that say how a request is sent; a field of the body with such a name is a field
NO_FIELDS = frozenset({"extra_body", "extra_headers", "extra_query"})
FREE_PATHS = ("/moderations", "/count_tokens", "/input_tokens")
SDK_HEADER = "x-stainless-lang"  # of each request by the openai SDK (3.51), and by anthropic's
DEPLOYMENT = re.compile(r"/openai/deployments/([^/]+)/")


class ProgramRequest(NamedTuple):
    """Hold one request of a program, as ``actor=`` gets it.

    :param method: ``"POST"``, ``"GET"`` ….
    :param url: the whole address.
    :param headers: names in lower case.
    :param body: the parsed JSON body, or ``None`` where it is none.

    >>> def who(request: llmcall.ProgramRequest) -> str | None:
    ...     return request.headers.get("x-actor") or request.body["messages"][0]["content"]
    >>> http_client = llmcall.http_client(actor=who)
    """

    method: str
    url: str
    headers: Mapping[str, str]
    body: Any


def asked_of(
    request: Any, content: bytes, hosts: Collection[str] | None
) -> tuple[str, Any, dict[str, Any]] | None:
    """Return the method, the body and the arguments of the call that a request asks for; ``None``
    where it passes.

    :param hosts: whose requests are recorded besides the known ones; without it, those of all are.
    """
    url, headers = request.url, request.headers
    path = url.path.rstrip("/")
    if not (
        path.endswith(KNOWN_PATHS) or SDK_HEADER in headers or hosts is None or url.host in hosts
    ):
        return None
    if request.method == "GET":
        return "exchange", None, _exchanged(request, None)
    body = None
    if request.method == "POST" and "json" in headers.get("content-type", ""):
        with contextlib.suppress(ValueError):
            body = json.loads(content)
    if body is None:
        warn_once(
            f"{request.method} {url.path} is sent and not recorded, since only GET and the POST of JSON are: a replay "
            "sends it, too"
        )
        return None
    if isinstance(body, dict) and path.endswith(CHAT) and isinstance(body.get("messages"), list):
        method = "stream_message" if body.get("stream") else "send_message"
        parameters = _parameters("chat", body, "messages", "stream", "stream_options")
        return (
            method,
            body,
            _arguments(request, path, parameters, current_messages=body["messages"]),
        )
    if isinstance(body, dict) and path.endswith(EMBEDDINGS) and _is_text(body.get("input")):
        parameters = _parameters("embedding", body, "input", "encoding_format")
        return "get_embedding", body, _arguments(request, path, parameters, text=body["input"])
    return "exchange", body, _exchanged(request, body)


def _exchanged(request: Any, body: Any) -> dict[str, Any]:
    """Return what identifies a request that is recorded as it is."""
    url = request.url
    path = url.path.rstrip("/")
    is_known = path.endswith(KNOWN_PATHS) or SDK_HEADER in request.headers
    return {
        "is_model": is_known and not path.endswith(FREE_PATHS),
        "method": request.method,
        "host": url.host if url.port is None else f"{url.host}:{url.port}",
        "path": url.raw_path.decode().partition("?")[0],
        "query": [*url.params.multi_items()],
        "body": body,
    }


def _arguments(request: Any, path: str, parameters: dict[str, Any], **asked: Any) -> dict[str, Any]:
    """Return the arguments of a call: also the model that the address names, and the client's own
    time.
    """
    deployment = DEPLOYMENT.search(path)
    named = {"model": deployment[1]} if deployment else {}
    seconds = (request.extensions.get("timeout") or {}).get("read")
    return {**named, **parameters, "timeout": seconds, "on_error": "raise", **asked}


def _is_text(value: Any) -> bool:
    if isinstance(value, list):
        return bool(value) and all(isinstance(each, str) for each in value)
    return isinstance(value, str)


def _parameters(kind: str, body: Mapping[str, Any], *left_out: str) -> dict[str, Any]:
    """Return the parameters of ``send_message``, or of ``get_embedding``, that ask for the same.

    :param left_out: the fields that are no parameters of these.
    """
    known = parameters_of(kind) - NO_FIELDS
    parameters = {name: value for name, value in body.items() if name not in left_out}
    beyond = {name: parameters.pop(name) for name in [*parameters] if name not in known}
    return {**parameters, "extra_body": beyond} if beyond else parameters
