"""A program's HTTP requests: which are recorded, and as which call of llmcall."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from ..keys.http_identity import ASKING, OBJECT, api_path
from ..models.catalog import parameters_of

CHAT = "/chat/completions"
EMBEDDINGS = "/embeddings"
CHATS = ("/completions", EMBEDDINGS)  # the ends of the paths of chats, completions and embeddings
SDK_HEADER = "x-stainless-lang"  # sent by the SDKs of openai (3.51) and anthropic
DEPLOYMENT = re.compile(r"/openai/deployments/([^/]+)/")
GEMINI_MODEL = re.compile(r"/models/([^/:]+):")
# Parameters that say how a request is sent. A body's field with such a name is a field.
NO_FIELDS = frozenset({"extra_body", "extra_headers", "extra_query"})


class ProgramRequest(NamedTuple):
    """A program's request, as the function in ``actor=`` gets it.

    :param method: ``"POST"``, ``"GET"`` ….
    :param url: the whole address.
    :param headers: names in lower case.
    :param body: the parsed JSON body; ``None`` if the body is not JSON.

    >>> def who(request: llmcall.types.ProgramRequest) -> str | None:
    ...     return request.headers.get("x-actor") or request.body["messages"][0]["content"]
    >>> http_client = llmcall.http_client(actor=who)
    """

    method: str
    url: str
    headers: Mapping[str, str]
    body: Any

    def __repr__(self) -> str:
        # Headers and query may hold keys.
        return f"ProgramRequest({self.method!r}, {self.url.partition('?')[0]!r})"


class ClientCall(NamedTuple):
    """The call of llmcall's client that a program's request becomes.

    :param kind: a chat ``"send_message"``, a streamed one ``"stream_message"``, ``"get_embedding"``,
        as the methods with these arguments are called; or ``"http_call"``, which is recorded as it is.
    :param body: the parsed JSON body, or ``None``.
    :param arguments: by name.
    """

    kind: str
    body: Any
    arguments: dict[str, Any]


class UnreadableBodyError(ValueError):
    """A request asks a model with a body that is no JSON, so it cannot be recorded."""


def may_be_recorded(request: Any, hosts: Collection[str], *, is_models_host: bool) -> bool:
    """Return whether a request's method and address are those of a request that is recorded.

    :param request: a request of httpx or httpx2.
    :param hosts: hosts whose requests are recorded besides those to models.
    :param is_models_host: whether the host is known to be a model's.
    """
    if request.url.host in hosts or is_of_model(request):
        return True
    is_about_object = OBJECT.search(path_of(request)) is not None
    return is_about_object and (SDK_HEADER in request.headers or is_models_host)


def is_of_model(request: Any) -> bool:
    """Return whether a request has the method and the path of one that asks a model."""
    path = path_of(request)
    return request.method == "POST" and (path.endswith(CHATS) or ASKING.search(path) is not None)


def client_call_of(
    request: Any, content: bytes, hosts: Collection[str], *, is_models_host: bool
) -> ClientCall | None:
    """Return the call that a request becomes, or ``None`` if it is not recorded.

    :param request: a request that may be recorded.
    :param content: its body.
    :param hosts, is_models_host: as of :func:`may_be_recorded`.
    :raises UnreadableBodyError: if it asks a model with a body that is no JSON.
    """
    path, body = path_of(request), _json_body(request, content)
    if not content and (request.method != "POST" or OBJECT.search(path)):
        return http_call_of(request, None)
    if body is None:
        # other hosts may have such paths, too
        if is_of_model(request) and (path.endswith(CHATS) or is_models_host):
            raise UnreadableBodyError
        return None
    if isinstance(body, dict) and path.endswith(CHAT) and isinstance(body.get("messages"), list):
        kind = "stream_message" if body.get("stream") else "send_message"
        parameters = _parameters("chat", body, "messages", "stream", "stream_options")
        parameters["current_messages"] = body["messages"]
        return ClientCall(kind, body, _arguments(request, parameters))
    if isinstance(body, dict) and path.endswith(EMBEDDINGS) and _is_text(body.get("input")):
        parameters = _parameters("embedding", body, "input", "encoding_format")
        parameters["text"] = body["input"]
        return ClientCall("get_embedding", body, _arguments(request, parameters))
    is_known = asks_model(path, body) or request.url.host in hosts
    return http_call_of(request, body) if is_known else None


def http_call_of(request: Any, body: Any) -> ClientCall:
    """Return the call that records a request as it is.

    :param body: the parsed JSON body, or ``None``.
    """
    url = request.url
    arguments = {
        "method": request.method,
        "host": url.host if url.port is None else f"{url.host}:{url.port}",
        "path": url.raw_path.decode().partition("?")[0],
        "query": list(url.params.multi_items()),
        "body": body,
    }
    return ClientCall("http_call", body, arguments)


def asks_model(path: str, body: Any) -> bool:
    """Return whether a request with a body goes to a model.

    :param body: the parsed JSON body.
    """
    return isinstance(body, dict) and (path.endswith(CHATS) or api_path(path, body) is not None)


def path_of(request: Any) -> str:
    """Return the path of a request's address, without a slash at its end."""
    return str(request.url.path).rstrip("/")


def _json_body(request: Any, content: bytes) -> Any:
    """Return the JSON data that a request posts, or ``None``."""
    if request.method != "POST" or "json" not in request.headers.get("content-type", ""):
        return None
    with contextlib.suppress(ValueError):
        return json.loads(content)
    return None


def _arguments(request: Any, parameters: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of a call, with the model that the address names and the timeout that
    the program's client has.
    """
    deployment = DEPLOYMENT.search(path_of(request))
    model = {"model": deployment[1]} if deployment else {}
    timeouts = request.extensions.get("timeout") or {}
    return {**model, "timeout": timeouts.get("read"), "on_error": "raise", **parameters}


def _is_text(value: Any) -> bool:
    if isinstance(value, list):
        return bool(value) and all(isinstance(each, str) for each in value)
    return isinstance(value, str)


def _parameters(kind: str, body: Mapping[str, Any], *left_out: str) -> dict[str, Any]:
    """Return the parameters of ``send_message`` or ``get_embedding`` that ask for the same.

    :param left_out: the fields that are not parameters of these methods.
    """
    parameter_names = parameters_of(kind) - NO_FIELDS
    fields = {name: value for name, value in body.items() if name not in left_out}
    parameters = {name: value for name, value in fields.items() if name in parameter_names}
    extra_fields = {name: value for name, value in fields.items() if name not in parameter_names}
    if extra_fields:
        parameters["extra_body"] = extra_fields
    return parameters
