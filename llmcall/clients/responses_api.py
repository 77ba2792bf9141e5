"""The Responses API: a chat request as its body, its answers and events as chunks."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from ..apis.chunks import chunks_of
from ..core.kinds import check_chat
from ..core.seams import Response
from ..errors import ServiceError
from ..keys.request import Data
from .api_errors import raise_reported, reported_failure

# The response itself ends a stream, not [DONE].
AT_DONE = ()
# Parameters that both APIs have by one name (openai 3.57, ResponseCreateParams).
SAME_NAMES = frozenset(
    {
        "background",
        "metadata",
        "model",
        "moderation",
        "parallel_tool_calls",
        "prompt_cache_key",
        "prompt_cache_options",
        "prompt_cache_retention",
        "safety_identifier",
        "service_tier",
        "store",
        "temperature",
        "top_logprobs",
        "top_p",
        "user",
    }
)
# Fields that the transport takes out, and options that this API does not need.
LEFT_OUT = ("extra_body", "extra_headers", "extra_query", "stream_options")
# Values that change nothing.
WITHOUT_EFFECT: dict[str, tuple[Data, ...]] = {
    "frequency_penalty": (0,),
    "logit_bias": ({},),
    "modalities": (["text"],),
    "n": (1,),
    "presence_penalty": (0,),
}
# The chat names of the parameters that the API's errors name.
CHAT_NAMES = {
    "reasoning.effort": "reasoning_effort",
    "text.format": "response_format",
    "text.verbosity": "verbosity",
    "include": "logprobs",
}
LIMITS = ("max_completion_tokens", "max_tokens")
LEAST_OUTPUT_TOKENS = 16  # of max_output_tokens; OpenAI refuses less
# Fields of the request that a response repeats (openai 3.57, Response).
REPEATED = (SAME_NAMES - {"background", "model", "moderation", "service_tier"}) | {
    "instructions",
    "max_output_tokens",
    "max_tool_calls",
    "previous_response_id",
    "prompt",
    "reasoning",
    "text",
    "tool_choice",
    "tools",
    "truncation",
}


def body_from_chat(body: Mapping[str, Data]) -> dict[str, Data]:
    """Convert the body of a chat completions request for the Responses API.

    :raises ValueError: if this API does not support something that matters; the message names what to change.
    """
    rest = {name: value for name, value in body.items() if name not in SAME_NAMES}
    sent = {name: body[name] for name in body if name in SAME_NAMES}
    messages = rest.pop("messages")
    custom_call_ids = {
        call.get("id")
        for message in messages
        for call in message.get("tool_calls") or ()
        if call.get("type") == "custom"
    }
    sent["input"] = [
        item
        for index, message in enumerate(messages)
        for item in _input_items(message, f"messages[{index}]", custom_call_ids)
    ]
    sent.setdefault("store", False)
    for name in LIMITS:
        if name in rest:
            limit = rest.pop(name)
            is_below = isinstance(limit, int) and 0 < limit < LEAST_OUTPUT_TOKENS
            sent["max_output_tokens"] = LEAST_OUTPUT_TOKENS if is_below else limit
    if "reasoning_effort" in rest:
        sent["reasoning"] = {"effort": rest.pop("reasoning_effort")}
    text = {"verbosity": rest.pop("verbosity")} if "verbosity" in rest else {}
    if "response_format" in rest:
        text["format"] = _flattened(rest.pop("response_format"), "json_schema")
    if text:
        sent["text"] = text
    if "tools" in rest:
        sent["tools"] = [_flat_tool(tool) for tool in rest.pop("tools")]
    if "tool_choice" in rest:
        sent["tool_choice"] = _flat_choice(rest.pop("tool_choice"))
    if rest.pop("logprobs", None):
        sent["include"] = ["message.output_text.logprobs"]
    for name, value in rest.items():
        if name not in LEFT_OUT and value not in WITHOUT_EFFECT.get(name, ()):
            raise _unsupported(f"{name}={value!r:.60}", f"leave {name} out")
    return sent


def chat_name(parameter: Data, body: Mapping[str, Data]) -> Data:
    """Return the chat name of the parameter that an error of the API names."""
    if parameter == "max_output_tokens":
        return next((name for name in LIMITS if name in body), parameter)
    return CHAT_NAMES.get(parameter, parameter)


def without_request(response: Mapping[str, Data]) -> dict[str, Data]:
    """Return a response without the fields that only repeat the request.

    :raises ServiceError: if it is not an answer.
    """
    if not isinstance(response.get("output"), list):
        raise ServiceError(f"a malformed answer without output: {dict(response)!r:.200}")
    if response.get("status") not in ("completed", "incomplete", None):
        raise ServiceError(f"the response has the status {response['status']!r}, and no answer")
    return {name: response[name] for name in response if name not in REPEATED}


def chunks_of_event(event: dict[str, Data]) -> Iterator[dict[str, Data]]:
    """Yield the chunks of one event: a piece of text as a chat's chunk, or the whole response that ends a stream."""
    kind = event.get("type")
    if kind in ("response.output_text.delta", "response.refusal.delta"):
        field = "content" if "text" in kind else "refusal"
        delta = {field: event.get("delta") or ""}
        yield {"choices": [{"index": 0, "delta": delta, "finish_reason": None}]}
    elif kind in ("response.completed", "response.incomplete"):
        yield Response(without_request(event.get("response") or {}))
    elif kind == "response.failed":
        raise_reported(event.get("response") or {})
        raise ServiceError("the response failed, and the server does not say why")
    elif kind == "error":
        raise reported_failure(event)
    else:
        raise_reported(event)


def chunks_of_answer(answer: dict[str, Data]) -> Iterator[dict[str, Data]]:
    """Yield a complete answer as chunks."""
    response = without_request(answer)
    check_chat(response)
    yield from chunks_of(response)
    yield Response(response)


def _unsupported(what: str, remedy: str) -> ValueError:
    return ValueError(
        f"the Responses API does not support {what}: {remedy}, or send the call by chat completions "
        "(API = chat in [OpenAI], or api='chat')"
    )


def _input_items(
    message: Mapping[str, Data], path: str, custom_call_ids: Collection[Data]
) -> Iterator[dict[str, Data]]:
    """Yield one message of a chat as items of the input.

    :param path: the message's path in the request, for errors.
    :param custom_call_ids: the ids of the calls of custom tools, whose results are items of another type.
    """
    role, content = message["role"], message.get("content")
    if role == "function" or message.get("function_call"):
        raise _unsupported(f"the function call in {path}", "use tools")
    if message.get("name"):
        raise _unsupported(f"{path}.name", "put the name into the text")
    if message.get("audio"):
        raise _unsupported(f"{path}.audio", "leave it out")
    if role == "tool":
        call_id = message.get("tool_call_id")
        output = _parts(content, path)
        kind = "custom_tool_call" if call_id in custom_call_ids else "function_call"
        yield {"type": f"{kind}_output", "call_id": call_id, "output": output}
        return
    if role != "assistant":
        yield {"type": "message", "role": role, "content": _parts(content, path)}
        return
    parts = [
        {"type": "output_text", "text": text} for text in _assistant_texts(content, path) if text
    ]
    if message.get("refusal"):
        parts.append({"type": "refusal", "refusal": message["refusal"]})
    if parts:
        yield {"type": "message", "role": role, "content": parts}
    for call in message.get("tool_calls") or ():
        kind = call.get("type") or "function"
        item_type = "custom_tool_call" if kind == "custom" else "function_call"
        yield {"type": item_type, "call_id": call.get("id"), **call.get(kind, {})}


def _assistant_texts(content: Data, path: str) -> list[str]:
    """Return the texts of an assistant's message."""
    if not isinstance(content, list):
        return [content or ""]
    for part in content:
        if part["type"] not in ("text", "refusal"):
            raise _unsupported(f"a part of type {part['type']!r} in {path}", "leave it out")
    return [part.get("text") or part.get("refusal") or "" for part in content]


def _parts(content: Data, path: str) -> Data:
    """Return the content of a message: a text as it is, parts by the names of this API."""
    if not isinstance(content, list):
        return content
    return [_part(part, f"{path}.content[{index}]") for index, part in enumerate(content)]


def _part(part: Mapping[str, Data], path: str) -> dict[str, Data]:
    kind = part["type"]
    rest = {name: value for name, value in part.items() if name not in ("type", kind)}
    if kind == "text":
        return {"type": "input_text", "text": part["text"], **rest}
    if kind == "image_url":
        image = part["image_url"]
        image = {"url": image} if isinstance(image, str) else image
        return {
            "type": "input_image",
            "image_url": image.get("url"),
            "detail": image.get("detail") or "auto",
            **rest,
        }
    if kind == "file":
        return {"type": "input_file", **part["file"], **rest}
    raise _unsupported(f"a part of type {kind!r} in {path}", "leave it out")


def _flattened(outer: Mapping[str, Data], field: str) -> dict[str, Data]:
    """Return an object with an inner object replaced by its fields."""
    inner = outer.get(field)
    rest = {name: value for name, value in outer.items() if name != field}
    return {**rest, **inner} if isinstance(inner, dict) else rest


def _flat_tool(tool: Mapping[str, Data]) -> dict[str, Data]:
    kind = tool.get("type") or "function"
    flat = {"type": kind, **_flattened(tool, kind)}
    if kind == "function":
        # chat completions read a missing "strict" as false, this API as true
        flat = {"parameters": None, "strict": False, **flat}
    if isinstance(flat.get("format"), dict):
        flat["format"] = _flattened(flat["format"], "grammar")  # of a custom tool
    return flat


def _flat_choice(choice: Data) -> Data:
    if not isinstance(choice, dict):
        return choice
    flat = _flattened(choice, choice.get("type", ""))
    if isinstance(flat.get("tools"), list):
        flat["tools"] = [_flattened(tool, tool.get("type", "")) for tool in flat["tools"]]
    return flat
