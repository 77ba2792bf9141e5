"""The call that a program's request becomes, and its answer."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

from .. import secrets
from ..blocking import may_block
from ..call.drivers import adrive_stream, drive_stream
from ..call.effects import END
from ..call.embeddings import embed
from ..call.prepare import prepare_chat, prepare_embeddings
from ..clients.openai import OpenAIClient
from ..clients.replies import handle_failure, reply_to
from ..clients.streams import AsyncStream, Stream
from ..keys.http_identity import NOT_COUNTED, api_path, http_identity
from ..keys.plain_data import plain
from ..models.catalog import parameters_of
from ..notices import warn_once
from ..recorded_functions.calls import normalized, prepare_recorded, result_of

if TYPE_CHECKING:
    from collections.abc import Coroutine, Mapping, Sequence

    from ..call.calls import Call
    from ..call.client import ResolvedSettings
    from ..values import Record, Request
    from .requests import RecordedRequest
    from .transport import ProgramTransport

DEPLOYMENT = re.compile(r"/openai/deployments/([^/]+)/")
GEMINI_MODEL = re.compile(r"/models/([^/:]+):")
# Parameters that say how a request is sent. A body's field with such a name is a field.
NO_FIELDS = frozenset({"extra_body", "extra_headers", "extra_query"})
# What of a body is no parameter of a call.
CHAT_FIELDS = ("messages", "stream", "stream_options")
EMBEDDING_FIELDS = ("input", "encoding_format")
LIMIT = "max_completion_tokens"  # another name for max_tokens


class BegunStream(NamedTuple):
    """A streamed answer whose first piece has come.

    :param stream: the stream.
    :param first: the first piece: a chunk of a chat, or bytes.
    :param rest: the pieces after it, as an iterator or asynchronous iterator.
    """

    stream: Any
    first: Any
    rest: Any


class ProgramClient(OpenAIClient):
    """Makes a program's calls to one address, with the credentials and headers of each request."""

    def _resolve(self) -> ResolvedSettings:
        """Return the resolved settings. Of the default parameters, only those given in code apply:
        the program's requests stay its own, without a window.
        """
        resolved = super()._resolve()
        if resolved.settings.window != "none":
            window = resolved.settings.window
            warn_once(f"WINDOW = {window}: a program's calls are sent without a window")
            resolved = resolved._replace(settings=resolved.settings.replace(window="none"))
        overridden = {
            name: value for name, value in resolved.defaults.items() if name in self._overrides
        }
        return resolved._replace(defaults=overridden)

    def with_effort(self, model: str, fields: Mapping[str, Any]) -> dict[str, Any]:
        """Return the fields: a program that names no effort is sent none, so its record names none."""
        return dict(fields)

    def as_asked(self, call: Call, transport: ProgramTransport) -> Call:
        """Return a call that the program's transport sends, with the program's own body: only an alias or
        an override changes a field of it. What is known about the model changes nothing.
        """
        request, body = call.request, transport.recorded.body
        sent = dict(body)
        if body.get("model") is not None or "model" in self._overrides:
            sent["model"] = request.model
        if request.kind == "embedding":
            sent["input"] = request.body["input"]
        else:
            for name, default in self.resolved.defaults.items():
                is_limited = name == "max_tokens" and body.get(LIMIT) is not None
                if body.get(name) is None and not is_limited:
                    sent[name] = default
        return call._replace(transport=transport, request=request._replace(body=sent))

    def sent(self, request: Request, capabilities: object, stream: bool) -> Request:
        """Return the request: its body is the program's."""
        return request


async def answer_to(transport: ProgramTransport, client: ProgramClient) -> Any:
    """Return the answer to a program's request, from the record or by sending it.

    :param transport: sends it.
    :returns: a chat's :class:`Reply`; the records of embeddings; what is recorded of a response; or a
        :class:`BegunStream`. A failure before its first piece is raised here.
    """
    call, flow = _call(transport, client)
    if not transport.recorded.asks_for_stream:
        return await flow
    stream: Any
    if may_block.get():
        stream = Stream(call, flow, drive_stream)
        pieces = stream.chunks()
        first = next(pieces, END)
    else:
        stream = AsyncStream(call, flow, adrive_stream)
        pieces = stream.chunks()
        first = await anext(pieces, END)
    if first is END and transport.recorded.kind == "http":
        return stream.reply  # what is recorded has come as a whole
    return BegunStream(stream, first, pieces)


def _call(
    transport: ProgramTransport, client: ProgramClient
) -> tuple[Call, Coroutine[Any, Any, Any]]:
    """Return the call that a request becomes, and the flow to its answer. Of embeddings, which have a call
    for each text, return the first.
    """
    recorded = transport.recorded
    try:
        if recorded.kind == "chat":
            arguments = _arguments(recorded, "chat", CHAT_FIELDS)
            call = prepare_chat(client, recorded.body["messages"], arguments)
            call = client.as_asked(call, transport)
            return call, reply_to(call, stream=recorded.asks_for_stream)
        if recorded.kind == "embedding":
            arguments = _arguments(recorded, "embedding", EMBEDDING_FIELDS)
            model, texts = arguments.pop("model", None), recorded.body["input"]
            calls = prepare_embeddings(client, texts, model, arguments)
            calls = [client.as_asked(call, transport) for call in calls]
            return calls[0], _records_of(calls)
    except (TypeError, ValueError):
        # llmcall's own client asks no such thing, but the server may take it
        transport.recorded = recorded._replace(kind="http")
    call = prepare_http(transport, client)
    return call, result_of(call)


def _arguments(recorded: RecordedRequest, kind: str, other_fields: Sequence[str]) -> dict[str, Any]:
    """Return the arguments of ``send_message`` or ``get_embedding`` that ask for the same, with the
    timeout that the program's client has.

    :param other_fields: those of the body that are no parameters of these methods.
    """
    fields = {name: value for name, value in recorded.body.items() if name not in other_fields}
    names = parameters_of(kind) - NO_FIELDS
    beyond_api = {name: value for name, value in fields.items() if name not in names}
    deployment = DEPLOYMENT.search(recorded.path)
    return {
        "model": deployment[1] if deployment else None,
        "timeout": (recorded.http.extensions.get("timeout") or {}).get("read"),
        "on_error": "raise",
        **{name: value for name, value in fields.items() if name in names},
        "extra_body": beyond_api or None,
    }


async def _records_of(calls: Sequence[Call]) -> list[Record]:
    """Return the records of texts, one call each."""
    try:
        records = await embed(calls)
    except BaseException as error:
        handle_failure(error, calls[0])
        raise
    for call, record in zip(calls, records, strict=True):
        call.end(record)
    return records


def prepare_http(transport: ProgramTransport, client: ProgramClient) -> Call:
    """Return the call of a request that is recorded as it is; one without a body is sent whenever that is
    allowed.

    Fields of the query and the body that are credentials by their names are neither recorded nor
    part of the key.

    :raises CacheError: for a body with a field that may hold a credential by its name.
    """
    recorded, settings = transport.recorded, client.settings
    http, body, asks_model = recorded.http, recorded.body, recorded.asks_model
    host = http.url.host if http.url.port is None else f"{http.url.host}:{http.url.port}"
    path = http.url.raw_path.decode().partition("?")[0]
    address = f"{http.method} {host}{path}"
    recorded_body = secrets.without_credentials(plain(body, "the body"))
    secrets.refuse_named(recorded_body, settings.cassette_allow, address)
    query = http.url.params.multi_items()
    if api_path(path, body) is not None:
        query = [(name, value) for name, value in query if name not in NOT_COUNTED]
    recorded_query: dict[str, list[str]] = {}
    for name, value in secrets.without_query_credentials(query, address):
        recorded_query.setdefault(name, []).append(value)
    model = ""
    if asks_model:
        in_path = GEMINI_MODEL.search(recorded.path)
        named = in_path[1] if in_path else body.get("model")
        model = named if isinstance(named, str) else ""
    return prepare_recorded(
        "http",
        http_identity(http.method, host, path, recorded_query, normalized(recorded_body, settings)),
        settings,
        transport,
        model=(model or host) if body is not None else "",
        body=body if isinstance(body, dict) else None,
        name=f"{http.method} {path}",
        maker=client if body is not None else None,
        asks_model=asks_model,
        is_live=body is None,
    )
