"""Published answers and exchanges of other recorders as responses of a chat, checked like a server's answers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from ...apis.chunks import DONE, Assembler
from ...apis.message import message_text, object_in, objects_in
from ...apis.shapes import chat_of, choices_of, read_choices, served_model
from ...clients.api_errors import http_library, raise_reported
from ...config.settings import DEFAULT_MODEL
from ...core import threads
from ...core.calls import Call
from ...core.effects import Next, Open, Send
from ...core.kinds import check_chat
from ...core.seams import Response
from ...errors import ContentFilterError
from ...keys.plain_data import recordable
from ...keys.request import Data
from ...programs import connections
from ...programs.answering import calls_of
from ...programs.recorder import ProgramClient
from ...programs.requests import SDK_HEADERS, is_of_model_sdk, request_to_record
from ...programs.transport import ProgramTransport
from ...stores.days import creation_time
from ...stores.record import Received, Record
from ...stores.records.readable import unreadable
from ...support.display import as_json, shortened
from ...support.request_origin import LLMCALL, sent_by

if TYPE_CHECKING:
    import httpx


CODING = "content-encoding"
GZIP = b"\x1f\x8b"  # begins compressed data
EVENTS = (b"data:", b"event:", b":")  # begin a stream of events
# The headers with a request's kind and a body's encoding.
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


def records_of(exchange: Mapping[str, object], client: ProgramClient) -> list[Record]:
    """Return the records that a recording has of an exchange, outside any scope; of embeddings, one per text.

    :param exchange: a ``request`` and its ``response``, in the form of VCR's cassettes.
    :param client: one with :data:`OVERRIDES`.
    :raises LLMCallError, TypeError, ValueError: if no program's recording has the request, or the answer
        is an error, or not whole.
    """
    # What llmcall sends takes no draw; the import counts these.
    with sent_by(LLMCALL):
        records = threads.run(_recorded(exchange, client))
    return [record.replace(api_type=None, host=None, version=None) for record in records]


async def _recorded(exchange: Mapping[str, Data], client: ProgramClient) -> list[Record]:
    http = _request(exchange["request"])
    response = _response(object_in(exchange.get("response")))
    url = http.url
    address = connections.address_of(url.scheme, url.host, url.port)
    is_models = connections.is_models(address, {connections.OLLAMA})
    to_record = await request_to_record(
        http, (), is_models_host=is_models or is_of_model_sdk(http.headers)
    )
    if to_record is None:
        raise ValueError(
            f"{http.method} {url.host}{url.path} would not be recorded: it is not JSON posted to a model, or is "
            "JSON nested too deeply"
        )
    transport = ProgramTransport(http_library(), to_record, lambda _: response)
    calls = {call.request.cache_key: call for call in calls_of(transport, client)}
    different = [*calls.values()]  # identical texts have one record
    kind = different[0].kind
    call = kind.joined(different)
    answer = await _answer(transport, call)
    kind.check(call.request, answer, must_fit_window=False)
    return kind.records(different, answer, Received("", "", 0.0, None, None))


def _request(message: Mapping[str, object]) -> httpx.Request:
    library = http_library()
    headers, content = _message(message)
    uri = str(message.get("uri") or message.get("url"))  # the latter: go-vcr's
    method = str(message.get("method") or "POST")
    try:
        request: httpx.Request = library.Request(method, uri, headers=headers, content=content)
    except library.InvalidURL as error:
        raise ValueError(f"its request has the uri {uri!r:.99}: {error}") from error
    return request


def _response(message: Mapping[str, Data]) -> httpx.Response:
    library = http_library()
    headers, content = _message(message)
    codes = (message.get(name) for name in ("status_code", "code"))  # the latter: go-vcr's
    status = object_in(message.get("status")).get("code") or next(filter(None, codes), 200)
    if not str(status).isdecimal():
        raise ValueError(f"its response has the status {status!r:.99}")
    try:
        response: httpx.Response = library.Response(
            int(str(status)), headers=headers, content=content
        )
        is_unread = CODING in headers and response.content == content
    except library.DecodingError as error:
        raise ValueError(f"its response is not {headers[CODING]}, or damaged") from error
    if is_unread:
        raise ValueError(
            f"its response is compressed by {headers[CODING]}: install brotli (br) or zstandard (zstd), and import "
            "it again"
        )
    return response


async def _answer(transport: ProgramTransport, call: Call) -> Response:
    """Return the whole answer to a call; the stream of a chat is assembled."""
    chunks = await Open(transport, call.request, None) if call.is_streamed else None
    if chunks is None:
        return await Send(transport, call.request, None)
    assembler, whole = Assembler(), Response({})
    while (chunk := await Next(chunks, None)) is not None:
        if chunk is DONE:
            assembler.is_done = True
        elif isinstance(chunk, Response):
            whole = chunk
        elif not isinstance(chunk, bytes):
            assembler.add(chunk)
    return whole or Response(assembler.response())


def _message(message: Mapping[str, object]) -> tuple[dict[str, str], bytes]:
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


def _content(message: Mapping[str, object]) -> bytes:
    """Return a body in the forms that VCR's versions, serializers and stubs give it."""
    if "parsed_body" in message:  # pydantic-ai's serializer
        return json.dumps(message["parsed_body"]).encode()
    body = message.get("body", message.get("content"))  # the latter: httpx's in VCR 4 and 5
    if isinstance(body, dict) and "string" in body:
        body = body["string"]
    if isinstance(body, (dict, list)):
        body = json.dumps(body)
    return body if isinstance(body, bytes) else str("" if body is None else body).encode()


ASSISTANT = "assistant"
CHAT = "chat.completion"
BATCH = "batch"  # the tier of a batch's answers, which do not name it
MAX_QUOTE_CHARACTERS = 100  # of a text in a message
# The fields with a turn's contents
CONTENTS = ("content", "tool_calls", "function_call", "refusal", "audio")


# By the field that holds the answer of an API, the fields of which that API's answer has one, too: the first alone may
# occur in JSON that a model wrote.
ANSWERS = {
    "choices": frozenset({"object", "usage", "model", "created"}),
    "output": frozenset({"object", "status"}),
    "content": frozenset({"stop_reason"}),
    "candidates": frozenset({"usageMetadata", "modelVersion", "responseId", "promptFeedback"}),
    "message": frozenset({"done"}),
    "response": frozenset({"done"}),
    "steps": frozenset({"status", "object"}),
}


def is_placeholder(turn: Mapping[str, object]) -> bool:
    """Return whether a turn of the assistant is empty, so that its response fills it."""
    return not any(turn.get(name) for name in CONTENTS)


def chat_with(turn: Mapping[str, object]) -> dict[str, object]:
    """Return the response of a chat whose answer is a turn."""
    choice = {"index": 0, "message": {**turn, "role": ASSISTANT}, "finish_reason": None}
    return {"object": CHAT, "choices": [choice]}


def turn_response(
    turn: Mapping[str, object], response: object
) -> tuple[dict[str, Data], Mapping[str, Data]]:
    """Return the response to record for a turn of the assistant, and the answer as its API gave it.

    :param response: the whole answer, of any API.
    :raises APIError: if the answer is an error, empty, filtered or broken off.
    :raises TypeError, ValueError: if it cannot be read, or does not match the turn.
    """
    if response is None:
        raise ValueError("it has no response")
    raw: object = recordable(response, "its response", surrogates=True)
    if not isinstance(raw, dict):
        raise TypeError(f"its response is {type(response).__name__}; it must be a dict")
    raise_reported(raw)
    if reason := object_in(raw.get("promptFeedback")).get("blockReason"):
        raise ContentFilterError(f"the provider blocked the prompt (blockReason {reason})")
    recorded = _as_recorded(raw)
    check_chat(recorded)
    if problem := unreadable(Record(None, "chat", None, {"messages": []}, recorded)):
        raise ValueError(problem)
    texts = [message_text(choice["message"]).strip() for choice in choices_of(recorded)]
    text = message_text(turn).strip()
    if text not in texts and not is_placeholder(turn):
        raise ValueError(
            f"its response does not match: the turn is {_quoted(text)}, the response {_quoted(texts[0])}"
        )
    return recorded, raw


def _as_recorded(raw: dict[str, Data]) -> dict[str, Data]:
    """Return an answer as a chat records it: Messages API, Gemini and Ollama answers become chat completions."""
    if any("message" not in choice for choice in objects_in(raw.get("choices"))):
        return converted(raw)
    is_recorded = "choices" in raw or isinstance(raw.get("output"), list)
    if is_recorded or not any(read_choices(raw)):
        return raw
    created = creation_time(raw)
    fields = {"model": served_model(raw), "created": created and int(created)}
    return {**{name: fields[name] for name in fields if fields[name]}, **chat_of(raw)}


def is_chat(data: object) -> bool:
    """Return whether data is a list of messages."""
    return isinstance(data, list) and len(data) == sum("role" in item for item in objects_in(data))


def is_raw_answer(value: object) -> bool:
    """Return whether data is the whole answer, or an error, of a known API, and not a model's answer in JSON."""
    data = object_in(value)
    error = data.get("error")
    choices = objects_in(data.get("choices"))
    return (
        any(name in data and not others.isdisjoint(data) for name, others in ANSWERS.items())
        or any("message" in choice for choice in choices)
        or "blockReason" in object_in(data.get("promptFeedback"))
        or "message" in object_in(error)
        or (isinstance(error, str) and len(data) == 1)
    )


def split_choices(
    response: Mapping[str, object], cost: float | None
) -> list[tuple[dict[str, Data], float | None]]:
    """Return a response per choice, with its cost. The first has the usage and cost of all, since no server
    splits them.
    """
    choices = response.get("choices")
    if not isinstance(choices, list) or len(choices) < 2:
        return [(dict(response), cost)]
    without_usage = {name: value for name, value in response.items() if name != "usage"}
    draws = [{**without_usage, "choices": [{**choice, "index": 0}]} for choice in choices]
    draws[0] = {**response, "choices": draws[0]["choices"]}
    return [
        (draw, cost if number == 0 or cost is None else 0.0) for number, draw in enumerate(draws)
    ]


def _quoted(text: str) -> str:
    return as_json(shortened(text, MAX_QUOTE_CHARACTERS))


def converted(completion: Mapping[str, object]) -> dict[str, Data]:
    """Return a legacy completion as the response of a chat, marked ``"converted": true``."""
    choices = [
        {
            "index": choice.get("index", 0),
            "message": {"role": ASSISTANT, "content": choice.get("text")},
            "finish_reason": choice.get("finish_reason"),
        }
        for choice in objects_in(completion.get("choices"))
    ]
    return {**completion, "object": CHAT, "choices": choices, "converted": True}
