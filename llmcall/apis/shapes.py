"""Whole answers of the known APIs in the shape of chat completions, and the messages in the body of a raw request."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence

from ..support.data import Data
from .interactions import output_parts
from .message import as_text, object_in, objects_in, tool_call_text
from .token_usage import TokenUsage

# The fields of a response that both APIs have.
SHARED_FIELDS = ("id", "model", "service_tier")
TEXTS = ("output_text", "text")  # the types of parts that are texts
# The types of the objects that call a tool.
TOOL_CALLS = (
    *("function_call", "custom_tool_call", "mcp_call"),  # Responses
    *("tool_use", "server_tool_use", "mcp_tool_use"),  # Messages
)
# For calls of the program's own tools: the kind, and the names of the field with the arguments, here and in chats.
PROGRAMS_CALLS = {
    "function_call": ("function", "arguments", "arguments"),
    "custom_tool_call": ("custom", "input", "input"),
    "tool_use": ("function", "input", "arguments"),
}


def as_chat(response: Mapping[str, object]) -> Mapping[str, Data]:
    """Return a response of the Responses API in the shape of chat completions, and any other unchanged."""
    if "choices" in response or not isinstance(response.get("output"), list):
        return response
    return chat_of(response)


def chat_of(response: Mapping[str, object]) -> dict[str, Data]:
    """Return an answer of any API that :func:`read_choices` reads in the shape of chat completions."""
    fields = {name: response[name] for name in SHARED_FIELDS if name in response}
    if isinstance(created := response.get("created_at"), (int, float)):
        fields["created"] = int(created)
    usage = TokenUsage.of(response)
    if usage.input_tokens is not None:
        fields["usage"] = _usage(usage)
    choices = [_as_chat_choice(choice) for choice in read_choices(response)]
    return {**fields, "object": "chat.completion", "choices": choices}


def choices_of(response: Mapping[str, object]) -> list[dict[str, Data]]:
    """Return the choices of a chat's response, of either API, in the shape of chat completions; an empty
    list without an answer.
    """
    return as_chat(response).get("choices") or []


def read_choices(response: Mapping[str, Data]) -> Iterator[dict[str, Data]]:
    """Yield the choices of an answer of the Responses, Messages, Gemini, Interactions, Ollama's or older
    completions API in the shape of chat completions. Tool calls and finish reasons keep their API's words.

    :param response: the unstreamed response, except that a choice may come in pieces of one index.
    """
    if isinstance(output := response.get("output"), list):
        # what a model says before it continues its work is not part of the answer
        items = [item for item in objects_in(output) if item.get("phase") != "commentary"]
        parts = [part for item in items for part in objects_in(item.get("content"))]
        details = object_in(response.get("incomplete_details"))
        yield _choice([*items, *parts], [details.get("reason") or response.get("status")])
    elif isinstance(content := response.get("content"), list):
        yield _choice(objects_in(content), [response.get("stop_reason")])
    elif isinstance(response.get("steps"), list):
        yield _choice(output_parts(response), [response.get("status")])
    elif "done" in response:  # Ollama's own
        message = object_in(response.get("message"))
        text = message.get("content") or response.get("response")
        called = [object_in(call.get("function")) for call in objects_in(message.get("tool_calls"))]
        parts = [{"type": "text", "text": text}, *map(_tool_use, called)]
        yield _choice(parts, [response.get("done_reason")])
    for index, pieces in by_index(response.get("candidates")).items():
        contents = [object_in(piece.get("content")) for piece in pieces]
        parts = [
            _with_type(part) for content in contents for part in objects_in(content.get("parts"))
        ]
        yield _choice(parts, [piece.get("finishReason") for piece in pieces], index)
    for index, pieces in by_index(response.get("choices")).items():
        parts = [{"type": "text", "text": piece.get("text")} for piece in pieces]
        yield _choice(parts, [piece.get("finish_reason") for piece in pieces], index)


def served_model(response: Mapping[str, object]) -> str | None:
    """Return the model that a response names, or ``None``."""
    model = response.get("model") or response.get("modelVersion") or response.get("agent")
    return model if isinstance(model, str) and model else None


def upstream_provider(response: Mapping[str, object]) -> str:
    """Return the provider that answered behind a gateway, such as OpenRouter; empty if the response names none."""
    provider = response.get("provider")
    # A name with a lone surrogate cannot be written.
    return provider.encode(errors="replace").decode() if isinstance(provider, str) else ""


def served_via(response: Mapping[str, object]) -> str | None:
    """Return the model that a response names, and the provider behind a gateway; ``None`` without a model."""
    model, provider = served_model(response), response.get("provider")
    return f"{model} via {provider}" if model and provider and isinstance(provider, str) else model


def by_index(choices: object) -> dict[int, list[dict[str, object]]]:
    """Return the pieces of each choice by index; pieces without an index count as 0."""
    pieces: dict[int, list[dict[str, Data]]] = {}
    for piece in objects_in(choices):
        index = piece.get("index")
        pieces.setdefault(index if isinstance(index, int) else 0, []).append(piece)
    return pieces


def _choice(
    parts: Sequence[Mapping[str, object]], ends: list[object], index: int = 0
) -> dict[str, object]:
    """Return a choice made of parts: texts, refusals and tool calls.

    :param ends: the finish reason in each of its pieces; the last text counts.
    """
    texts = [str(part.get("text") or "") for part in parts if part.get("type") in TEXTS]
    message: dict[str, Data] = {
        "role": "assistant",
        "content": "".join(texts) if texts else None,
        "refusal": "\n\n".join(str(part["refusal"]) for part in parts if part.get("refusal")),
        "tool_calls": [part for part in parts if part.get("type") in TOOL_CALLS],
    }
    message = {name: message[name] for name in message if message[name] or name == "content"}
    end = next((end for end in reversed(ends) if isinstance(end, str) and end), None)
    choice = {"index": index, "message": message, "finish_reason": end}
    if images := list(filter(None, map(_image, parts))):
        message["images"] = images
    logprobs = [token for part in parts for token in objects_in(part.get("logprobs"))]
    return {**choice, "logprobs": {"content": logprobs}} if logprobs else choice


def _image(part: Mapping[str, object]) -> dict[str, object] | None:
    """Return an image in the form of chat completions, or ``None`` for another part: an item of Responses, a content of
    Interactions, a part of Gemini's.
    """
    inline = object_in(part.get("inlineData"))
    if part.get("type") == "image_generation_call":
        data, media_type = part.get("result"), f"image/{part.get('output_format') or 'png'}"
    elif part.get("type") == "image":
        data, media_type = part.get("data"), str(part.get("mime_type"))
    else:
        data, media_type = inline.get("data"), str(inline.get("mimeType"))
    is_image = isinstance(data, str) and data and media_type.startswith("image/")
    if not is_image or part.get("thought"):
        return None
    return {"type": "image_url", "image_url": {"url": f"data:{media_type};base64,{data}"}}


def _with_type(part: Mapping[str, object]) -> dict[str, object]:
    """Return a part of a Gemini answer with a type, which Gemini leaves out."""
    if isinstance(call := part.get("functionCall"), dict):
        return _tool_use(call)
    return {**part, "type": "thought" if part.get("thought") else "text"}


def _tool_use(call: Mapping[str, object]) -> dict[str, object]:
    """Return a tool call of Gemini's or Ollama's as the Messages API has it."""
    return {
        "type": "tool_use",
        "name": call.get("name"),
        "input": call.get("args") or call.get("arguments"),
    }


def _as_chat_choice(choice: Mapping[str, Data]) -> dict[str, Data]:
    """Return another API's choice in the form of chat completions, with only the program's own tool calls."""
    message, end = dict(choice["message"]), choice["finish_reason"]
    calls = [
        _tool_call(call) for call in message.pop("tool_calls", ()) if call["type"] in PROGRAMS_CALLS
    ]
    if calls:
        message["tool_calls"] = calls
    if end in (None, "completed"):
        end = "tool_calls" if calls else "stop"
    elif end == "max_output_tokens":
        end = "length"
    return {**choice, "message": message, "finish_reason": end}


def _tool_call(item: Mapping[str, Data]) -> dict[str, Data]:
    kind, field, argument = PROGRAMS_CALLS[item["type"]]
    value = item.get(field) or ""
    text = value if isinstance(value, str) else json.dumps(value)
    called = {"name": item.get("name"), argument: text}
    return {"id": item.get("call_id") or item.get("id"), "type": kind, kind: called}


def _usage(usage: TokenUsage) -> dict[str, Data]:
    input_tokens, output_tokens = usage.input_tokens or 0, usage.output_tokens or 0
    return {
        "prompt_tokens": input_tokens,
        "completion_tokens": output_tokens,
        "total_tokens": input_tokens + output_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
    }


SYSTEMS = ("system", "instructions", "systemInstruction", "system_instruction")
QUESTIONS = ("messages", "input", "prompt", "contents")
# The fields of a body that hold its texts, in the Responses, Messages, Gemini and completions APIs.
CONTENT_FIELDS = (*SYSTEMS, *QUESTIONS)
# Gemini's names, and the types of an interaction's steps
ROLES = {"model": "assistant", "model_output": "assistant", "thought": "assistant"}
RESULTS = ("_output", "_result")  # the ends of the types of tools' results
CONTENTS = ("content", "summary")  # of a step
MEDIA = ("text", "image", "audio", "video", "document")  # the types of an interaction's contents


def body_messages(body: object) -> Iterator[dict[str, object]]:
    """Yield the messages in a body, each with role and content.

    :param body: the parsed JSON body of a request.
    """
    fields: Mapping[str, Data] = body if isinstance(body, dict) else {}
    for name in SYSTEMS:
        if fields.get(name) is not None:
            yield {"role": "system", "content": _content(fields[name])}
    for name in QUESTIONS:
        content = fields.get(name)
        if isinstance(content, list) and all(isinstance(item, dict) for item in content):
            if content and all(item.get("type") in MEDIA for item in content):
                yield {"role": "user", "content": content}
            else:
                yield from map(_message, content)
        elif isinstance(content, dict) and "parts" in content:
            yield _message(content)
        elif isinstance(content, dict) and content.get("type") in MEDIA:
            yield {"role": "user", "content": [content]}
        elif content is not None:
            yield {"role": "user", "content": as_text(content)}


def joined_text(content: object) -> str:
    """Return the text of a message's content; the texts of its parts are joined by line ends."""
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    texts = [part.get("text") if isinstance(part, dict) else part for part in parts]
    return "\n".join(text for text in texts if isinstance(text, str))


def _message(item: dict[str, object]) -> dict[str, object]:
    kind = str(item.get("type"))
    if isinstance(item.get("role"), str) and "content" in item:
        return item
    if isinstance(item.get("parts"), list):
        role = str(item.get("role") or "user")
        return {"role": ROLES.get(role, role), "content": _content(item)}
    if kind in TOOL_CALLS:
        arguments = item.get("arguments") or item.get("input") or ""
        return {"role": "assistant", "content": tool_call_text(item.get("name"), arguments)}
    if kind.endswith(RESULTS):
        return {"role": "tool", "content": as_text(item.get("output", item.get("result")))}
    for name in CONTENTS:
        if isinstance(item.get(name), list):  # a step of an interaction
            return {"role": ROLES.get(kind, "user"), "content": item[name]}
    return {"role": "user", "content": as_text(item)}


def _content(value: object) -> object:
    """Return a content in the form of the other APIs; Gemini's parts have no type."""
    if not (isinstance(value, dict) and isinstance(value.get("parts"), list)):
        return value
    return [
        {"type": "text", "text": part["text"]}
        if isinstance(part, dict) and isinstance(part.get("text"), str)
        else {"type": "text", "text": as_text(part)}
        for part in value["parts"]
    ]
