"""An assistant message as the answer of an API: its smallest valid response, whole or as a stream."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ...apis.chunks import chunks_of
from ...apis.message import content_text, holds_answer, unreadable_message
from ...errors import ArgumentError
from ...keys.plain_data import plain
from ...keys.request import Data, Request
from ...stores.http_records import requested_model
from ...support.surrogates import check_unicode

Message = dict[str, Any]
Event = tuple[str, dict[str, Data]]  # its name, or an empty text, and its data
IDENTIFIER = "llmcall_override"  # stands where an API gives an answer a name of its own
# A server that reports nothing; readers of records take zeros beside a text for no report.
NO_TOKENS = {"input_tokens": 0, "output_tokens": 0}


def message_of(answer: object, place: str) -> Message:
    """Return an answer as an assistant message.

    :param answer: its text, or the message as Chat Completions has it.
    :param place: what messages call the answer.
    :raises TypeError: if it is neither.
    :raises ValueError: if it holds no text, tool call or refusal, or one that cannot be read.
    """
    if isinstance(answer, str):
        answer = {"content": answer}
    if not isinstance(answer, Mapping):
        raise TypeError(
            f"{place} is {type(answer).__name__}; it must be text or an assistant message (a dict)"
        )
    fields: Message = plain(dict(answer), place)
    check_unicode(json.dumps(fields, ensure_ascii=False), place)
    if fields.get("role", "assistant") != "assistant":
        raise ArgumentError(f"{place} has the role {fields['role']!r}; it must be 'assistant'")
    if problem := unreadable_message(fields):
        raise ArgumentError(f"{place} {problem}")
    calls = [_tool_call(call, number, place) for number, call in enumerate(_calls_in(fields))]
    message = {"content": None, **fields, "role": "assistant"}
    if calls:
        message["tool_calls"] = calls
    if not holds_answer(message):
        raise ArgumentError(f"{place} is empty; give it text or tool_calls")
    return message


def _calls_in(message: Message) -> list[Message]:
    return message.get("tool_calls") or []


def _tool_call(call: Message, number: int, place: str) -> Message:
    """Return a tool call with an id and a type, and with its arguments as the text that the API sends."""
    function = call.get("function")
    if function is None:  # of another type, as it is
        return call
    if not isinstance(function.get("name"), str):
        raise ArgumentError(f"{place} has a tool call whose function has no name")
    arguments = function.get("arguments") or "{}"
    text = arguments if isinstance(arguments, str) else json.dumps(arguments)
    try:
        json.loads(text)
    except ValueError:
        raise ArgumentError(
            f"{place} has a tool call whose arguments are not JSON: {text!r:.80}"
        ) from None
    called = {**function, "arguments": text}
    return {"id": f"call_{IDENTIFIER}_{number}", "type": "function", **call, "function": called}


def response_of(request: Request, message: Message) -> dict[str, Data]:
    """Return the response to a request that holds a message, as it is recorded.

    :raises ValueError: if the request's API is not known to answer in text.
    """
    if request.kind == "chat":
        model, count = str(request.hashed["model"]), request.hashed.get("n") or 1
        return _chat(model, message, int(count))
    answer = None
    if request.kind == "http" and isinstance(body := request.hashed.get("body"), dict):
        path = str(request.hashed.get("path")).rstrip("/")
        is_streamed = bool(body.get("stream")) or path.endswith(":streamGenerateContent")
        model = requested_model("http", request.hashed) or ""
        answer = _whole_or_streamed(path, model, message, is_streamed=is_streamed)
    if answer is None:
        raise ArgumentError(
            f"an override cannot answer {_name_of(request)}: it answers only requests of Chat Completions, Responses, "
            "Messages and Gemini"
        )
    media_type, text = answer
    return {"value": {"content_type": media_type, "body": text}}


def _name_of(request: Request) -> str:
    if request.kind != "http":
        return f"the {request.kind} {request.hashed.get('function', '')}".rstrip()
    return f"{request.hashed.get('method')} {request.hashed.get('path')}"


def _whole_or_streamed(
    path: str, model: str, message: Message, *, is_streamed: bool
) -> tuple[str, str] | None:
    """Return the media type and the body of an API's response; ``None`` for an unknown API.

    :param path: the end of the request's path.
    """
    for end, (whole, events) in APIS.items():
        if end in path if end.startswith("/models/") else path.endswith(end):
            response = whole(model, message)
            if not is_streamed:
                return "application/json", json.dumps(response, ensure_ascii=False)
            return "text/event-stream", "".join(map(_event_text, events(response)))
    return None


def _event_text(event: Event) -> str:
    name, data = event
    text = f"data: {json.dumps(data, ensure_ascii=False) if data else '[DONE]'}\n\n"
    return f"event: {name}\n{text}" if name else text


# Chat Completions, and the completions before them


def _chat(model: str, message: Message, count: int = 1) -> dict[str, Data]:
    end = "tool_calls" if _calls_in(message) else "stop"
    choices = [
        {"index": index, "message": dict(message), "finish_reason": end} for index in range(count)
    ]
    usage = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
    return {"model": model, "choices": choices, "usage": usage}


def _named_chat(model: str, message: Message) -> dict[str, Data]:
    return {"id": IDENTIFIER, "object": "chat.completion", "created": 0, **_chat(model, message)}


def _chat_events(response: Mapping[str, Data]) -> Iterator[Event]:
    for chunk in chunks_of(response):
        yield "", dict(chunk)
    yield "", {}


def _completion(model: str, message: Message) -> dict[str, Data]:
    text = content_text(message["content"]) or ""
    choice = {"index": 0, "text": text, "logprobs": None, "finish_reason": "stop"}
    usage = _chat(model, message)["usage"]
    return {
        "id": IDENTIFIER,
        "object": "text_completion",
        "created": 0,
        "model": model,
        "choices": [choice],
        "usage": usage,
    }


def _completion_events(response: dict[str, Data]) -> Iterator[Event]:
    yield "", response
    yield "", {}


# Responses


def _responses(model: str, message: Message) -> dict[str, Data]:
    output: list[dict[str, Data]] = []
    refusal, text = message.get("refusal"), content_text(message["content"])
    parts: list[dict[str, Data]] = []
    if text:
        parts.append({"type": "output_text", "text": text, "annotations": []})
    if refusal:
        parts.append({"type": "refusal", "refusal": refusal})
    if parts:
        output.append(
            {
                "id": f"msg_{IDENTIFIER}",
                "type": "message",
                "role": "assistant",
                "status": "completed",
                "content": parts,
            }
        )
    for call in _calls_in(message):
        function = call["function"]
        output.append(
            {
                "id": f"fc_{call['id']}",
                "type": "function_call",
                "call_id": call["id"],
                "name": function["name"],
                "arguments": function["arguments"],
                "status": "completed",
            }
        )
    usage = {
        **NO_TOKENS,
        "total_tokens": 0,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens_details": {"reasoning_tokens": 0},
    }
    return {
        "id": f"resp_{IDENTIFIER}",
        "object": "response",
        "created_at": 0,
        "model": model,
        "status": "completed",
        "output": output,
        "usage": usage,
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
    }


def _responses_events(response: dict[str, Data]) -> Iterator[Event]:
    begun = {**response, "status": "in_progress", "output": [], "usage": None}
    events: list[tuple[str, dict[str, Data]]] = [("response.created", {"response": begun})]
    for index, item in enumerate(response["output"]):
        place = {"output_index": index, "item_id": item["id"]}
        is_call = item["type"] == "function_call"
        empty: dict[str, Data] = {"arguments": ""} if is_call else {"content": []}
        begun_item = {**item, **empty, "status": "in_progress"}
        events.append(("response.output_item.added", {"output_index": index, "item": begun_item}))
        if is_call:
            arguments = item["arguments"]
            call = "response.function_call_arguments"
            events.append((f"{call}.delta", {**place, "delta": arguments}))
            done = {**place, "name": item["name"], "arguments": arguments}
            events.append((f"{call}.done", done))
        for number, part in enumerate(() if is_call else item["content"]):
            in_part = {**place, "content_index": number}
            field = "text" if part["type"] == "output_text" else "refusal"
            name = f"response.{part['type']}"
            begun_part = {"part": {**part, field: ""}}
            logprobs: dict[str, Data] = {"logprobs": []} if field == "text" else {}
            events += [
                ("response.content_part.added", {**in_part, **begun_part}),
                (f"{name}.delta", {**in_part, "delta": part[field], **logprobs}),
                (f"{name}.done", {**in_part, field: part[field], **logprobs}),
                ("response.content_part.done", {**in_part, "part": part}),
            ]
        events.append(("response.output_item.done", {"output_index": index, "item": item}))
    events.append(("response.completed", {"response": response}))
    for number, (name, data) in enumerate(events):
        yield name, {"type": name, "sequence_number": number, **data}


# Messages


def _messages(model: str, message: Message) -> dict[str, Data]:
    text = content_text(message["content"]) or message.get("refusal")
    content: list[dict[str, Data]] = [{"type": "text", "text": text}] if text else []
    for call in _calls_in(message):
        function = call["function"]
        arguments = json.loads(function["arguments"])
        content.append(
            {"type": "tool_use", "id": call["id"], "name": function["name"], "input": arguments}
        )
    end = "tool_use" if _calls_in(message) else "end_turn"
    return {
        "id": f"msg_{IDENTIFIER}",
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": content,
        "stop_reason": end,
        "stop_sequence": None,
        "usage": NO_TOKENS,
    }


def _messages_events(response: dict[str, Data]) -> Iterator[Event]:
    begun = {**response, "content": [], "stop_reason": None}
    events: list[dict[str, Data]] = [{"type": "message_start", "message": begun}]
    for index, block in enumerate(response["content"]):
        empty: dict[str, Data]
        if block["type"] == "text":
            empty, delta = {"text": ""}, {"type": "text_delta", "text": block["text"]}
        else:
            empty = {"input": {}}
            delta = {"type": "input_json_delta", "partial_json": json.dumps(block["input"])}
        events += [
            {"type": "content_block_start", "index": index, "content_block": {**block, **empty}},
            {"type": "content_block_delta", "index": index, "delta": delta},
            {"type": "content_block_stop", "index": index},
        ]
    ending = {"stop_reason": response["stop_reason"], "stop_sequence": None}
    events.append({"type": "message_delta", "delta": ending, "usage": {"output_tokens": 0}})
    events.append({"type": "message_stop"})
    for event in events:
        yield str(event["type"]), event


# Gemini


def _gemini(model: str, message: Message) -> dict[str, Data]:
    text = content_text(message["content"]) or message.get("refusal")
    parts: list[dict[str, Data]] = [{"text": text}] if text else []
    for call in _calls_in(message):
        function = call["function"]
        called = {"name": function["name"], "args": json.loads(function["arguments"])}
        parts.append({"functionCall": called})
    content = {"role": "model", "parts": parts}
    candidate = {"content": content, "finishReason": "STOP", "index": 0}
    usage = {"promptTokenCount": 0, "candidatesTokenCount": 0, "totalTokenCount": 0}
    return {"candidates": [candidate], "usageMetadata": usage, "modelVersion": model}


def _gemini_events(response: dict[str, Data]) -> Iterator[Event]:
    yield "", response


Whole = Callable[[str, Message], dict[str, Data]]
Events = Callable[[dict[str, Data]], Iterator[Event]]
# By the end of the path (Gemini's names the model after its beginning): the whole response, and its events.
APIS: dict[str, tuple[Whole, Events]] = {
    "/chat/completions": (_named_chat, _chat_events),
    "/completions": (_completion, _completion_events),
    "/responses": (_responses, _responses_events),
    "/messages": (_messages, _messages_events),
    "/models/": (_gemini, _gemini_events),
}
