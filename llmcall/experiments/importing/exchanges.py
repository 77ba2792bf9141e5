"""Recorded HTTP exchanges, replayed through the code that records programs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from functools import cached_property
from typing import TYPE_CHECKING, Any

from ...apis.chunks import DONE, Assembler
from ...apis.objects import object_in
from ...clients.api_errors import http_library
from ...config.settings import DEFAULT_MODEL
from ...core.callbacks import open_stream, send
from ...core.kinds import KINDS
from ...core.seams import Response
from ...programs import connections
from ...programs.answering import calls_of
from ...programs.client import ProgramClient
from ...programs.requests import SDK_HEADERS, is_of_model_sdk, request_to_record
from ...programs.transport import ProgramTransport
from ...stores.record import Received
from ...support.blocking import run_blocking
from ...support.sender import LLMCALL, sent_by

if TYPE_CHECKING:
    from types import ModuleType

    import httpx

    from ...core.calls import Call
    from ...stores.record import Record

CODING = "content-encoding"
GZIP = b"\x1f\x8b"  # begins compressed data
EVENTS = (b"data:", b"event:", b":")  # begin a stream of events
# The headers that say what a request is, and how a body is to be read.
HEADERS = frozenset({"accept", "content-type", CODING, "user-agent", *SDK_HEADERS})
# The keys of an imported file do not depend on settings.
OVERRIDES: dict[str, Any] = {
    "base_url": "https://imported.invalid/v1",
    "model": DEFAULT_MODEL,
    "aliases": {},
    "cache_normalize": (),
    "cache_namespace": "",
}


def is_exchange(entry: object) -> bool:
    """Return whether an entry is a recorded request with its response, in the form of VCR's cassettes."""
    return isinstance(entry, Mapping) and isinstance(entry.get("request"), Mapping)


class Exchanges:
    """Feeds recorded exchanges to the code that records programs."""

    @cached_property
    def _library(self) -> ModuleType:
        library: ModuleType = http_library()  # imports a library that rows do not need
        return library

    @cached_property
    def _client(self) -> ProgramClient:
        return ProgramClient(**OVERRIDES)

    def records_of(self, exchange: Mapping[str, Any]) -> list[Record]:
        """Return the records that a recording has of an exchange, outside any scope; of embeddings, one a text.

        :param exchange: a ``request`` and its ``response``, in the form of VCR's cassettes.
        :raises LLMCallError, TypeError, ValueError: if no program's recording has the request, or the answer
            is an error, or not whole.
        """
        # What llmcall sends takes no draw; the import counts these.
        with sent_by(LLMCALL):
            records = run_blocking(self._recorded(exchange))
        return [record.replace(api_type=None, host=None, version=None) for record in records]

    async def _recorded(self, exchange: Mapping[str, Any]) -> list[Record]:
        http = self._request(exchange["request"])
        response = self._response(object_in(exchange.get("response")))
        url = http.url
        address = connections.address_of(url.scheme, url.host, url.port)
        is_models = connections.is_models(address, {connections.OLLAMA})
        to_record = await request_to_record(
            http, (), is_models_host=is_models or is_of_model_sdk(http.headers)
        )
        if to_record is None:
            raise ValueError(
                f"{http.method} {url.host}{url.path} is nothing that a recording has: no JSON posted to a model, or "
                "JSON nested too deeply"
            )
        transport = ProgramTransport(self._library, to_record, lambda _: response)
        calls = {call.request.cache_key: call for call in calls_of(transport, self._client)}
        different = [*calls.values()]  # equal texts have one record
        kind = KINDS[different[0].request.kind]
        call = kind.joined(different)
        answer = await _answer(transport, call)
        kind.check(call.request, answer, must_fit_window=False)
        return kind.records(different, answer, Received("", "", 0.0, None, None))

    def _request(self, message: Mapping[str, Any]) -> httpx.Request:
        headers, content = _message(message)
        method, uri = str(message.get("method") or "POST"), str(message.get("uri"))
        try:
            request: httpx.Request = self._library.Request(
                method, uri, headers=headers, content=content
            )
        except self._library.InvalidURL as error:
            raise ValueError(f"its request has the uri {uri!r:.99}: {error}") from error
        return request

    def _response(self, message: Mapping[str, Any]) -> httpx.Response:
        headers, content = _message(message)
        status = object_in(message.get("status")).get("code") or message.get("status_code") or 200
        if not str(status).isdecimal():
            raise ValueError(f"its response has the status {status!r:.99}")
        try:
            response: httpx.Response = self._library.Response(
                int(str(status)), headers=headers, content=content
            )
            is_unread = CODING in headers and response.content == content
        except self._library.DecodingError as error:
            raise ValueError(f"its response is not {headers[CODING]}, or damaged") from error
        if is_unread:
            raise ValueError(
                f"its response is compressed by {headers[CODING]}: install brotli (br) or zstandard (zstd), and import "
                "it again"
            )
        return response


async def _answer(transport: ProgramTransport, call: Call) -> Response:
    """Return the whole answer to a call; the stream of a chat is assembled."""
    is_stream = call.request.kind == "chat" and call.is_streamed
    chunks = open_stream(transport, call.request, None) if is_stream else None
    if chunks is None:
        return await send(transport, call.request, None)
    assembler = Assembler()
    async for chunk in chunks:
        if chunk is DONE:
            assembler.is_done = True
        elif not isinstance(chunk, (Response, bytes)):
            assembler.add(chunk)
    return Response(assembler.response())


def _message(message: Mapping[str, Any]) -> tuple[dict[str, str], bytes]:
    """Return the headers that count and the body of a request or a response."""
    headers = {
        str(name).lower(): ", ".join(map(str, value)) if isinstance(value, list) else str(value)
        for name, value in object_in(message.get("headers")).items()
        if str(name).lower() in HEADERS
    }
    content = _content(message)
    with suppress(UnicodeDecodeError):
        content.decode()
        headers.pop(CODING, None)  # some recorders decompress, and keep the header
    if content.startswith(GZIP):  # others take it away, and do not
        headers[CODING] = "gzip"
    if content:
        is_stream = content.lstrip().startswith(EVENTS)
        headers.setdefault("content-type", "text/event-stream" if is_stream else "application/json")
    return headers, content


def _content(message: Mapping[str, Any]) -> bytes:
    """Return a body in the forms that VCR's versions, serializers and stubs give it."""
    if "parsed_body" in message:  # pydantic-ai's serializer
        return json.dumps(message["parsed_body"]).encode()
    body = message.get("body", message.get("content"))  # the latter: httpx's in VCR 4 and 5
    if isinstance(body, dict) and "string" in body:
        body = body["string"]
    if isinstance(body, (dict, list)):
        body = json.dumps(body)
    return body if isinstance(body, bytes) else str("" if body is None else body).encode()
