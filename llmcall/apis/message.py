"""The message of a chat (its text, its parts and its tool calls), and objects in the JSON data of answers."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from hashlib import sha256

from ..support.data import Data

# The model's reasoning, which DeepSeek (and Moonshot) and OpenRouter want back in a conversation with tools.
RETURNED_REASONING = ("reasoning_content", "reasoning_details")
# Fields of a message that hold an answer beside its text (openai 3.51, ChatCompletionMessage; ``images``:
# OpenRouter's guide "Image generation", Gemini's OpenAI address).
ANSWER_FIELDS = ("tool_calls", "refusal", "function_call", "audio", "images")
# Fields and types of parts that hold a model's thoughts (OpenRouter, Ollama, vLLM; DeepSeek; Mistral).
REASONING = ("reasoning", "reasoning_content", "thinking")


def message_of(choice: Mapping[str, Data]) -> dict[str, Data]:
    """Return a choice's message in the form that a reply holds."""
    received = choice["message"]
    content = received.get("content")
    message = {
        "role": received.get("role") or "assistant",
        "content": content_text(content) if isinstance(content, (list, dict)) else content,
    }
    for name in ("tool_calls", "refusal"):
        if received.get(name):
            # A copy, since the reply belongs to the caller, and the response stays unchanged.
            message[name] = copy.deepcopy(received[name])
    return message


def reasoning_in(choice: Mapping[str, Data]) -> dict[str, Data]:
    """Return the reasoning fields of a choice's message that later requests with tools must repeat, empty
    texts included.
    """
    received = choice["message"]
    return {
        name: copy.deepcopy(received[name])
        for name in RETURNED_REASONING
        if received.get(name) is not None
    }


def message_text(message: Mapping[str, Data]) -> str:
    """Return a message's text, refusal or audio transcript, with its images and tool calls below."""
    content, images = content_and_images(message)
    text = content or message.get("refusal") or transcript_of(message) or ""
    lines = [as_text(text), *map(image_name, images)]
    function_calls = filter(None, [message.get("function_call")])  # of an older API
    for call in (*(message.get("tool_calls") or ()), *function_calls):
        tool = call.get("function") or call.get("custom") or call
        arguments = tool.get("arguments") or tool.get("input") or ""
        lines.append(tool_call_text(tool.get("name"), arguments))
    return "\n".join(lines).strip()


def transcript_of(message: Mapping[str, object]) -> str | None:
    """Return the transcript of a message's audio, or ``None``."""
    audio = message.get("audio")
    transcript = audio.get("transcript") if isinstance(audio, dict) else None
    return transcript if isinstance(transcript, str) and transcript else None


def images_in(message: Mapping[str, Data]) -> list[dict[str, Data]]:
    """Return the images of an answer, from their own field or, as vLLM-Omni has them, from its content.
    Images of prompts do not count.
    """
    parts = objects_in(message.get("content")) if message.get("role") in (None, "assistant") else []
    return [
        *objects_in(message.get("images")),
        *(part for part in parts if part.get("type") == "image_url"),
    ]


def content_and_images(message: Mapping[str, Data]) -> tuple[Data, list[dict[str, Data]]]:
    """Return a message's content without the images of an answer, and these."""
    content, images = message.get("content"), images_in(message)
    if isinstance(content, list) and images:
        content = [part for part in content if part not in images]
    return content, images


def image_name(image: Mapping[str, Data]) -> str:
    """Return a name for an image of an answer, by its digest: different images have different names."""
    text = json.dumps(image, sort_keys=True)
    return f"[image {sha256(text.encode()).hexdigest()[:8]}]"


def tool_call_text(name: object, arguments: object) -> str:
    """Return a tool call as text."""
    return f"{name}({as_text(arguments)})"


def as_text(value: object) -> str:
    """Return a text unchanged, and other data as JSON."""
    if isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False, default=repr)


def has_only_text(message: object) -> bool:
    """Return whether a message has a role and a text and nothing else, like most messages."""
    return type(message) is dict and len(message) == 2 and type(message.get("content")) is str


def is_part(part: object) -> bool:
    """Return whether data can be a part of a message's content: it has a type, and a text part has a
    text.
    """
    if not isinstance(part, dict):
        return False
    required_field = "text" if part.get("type") == "text" else "type"
    return isinstance(part.get(required_field), str)


def unreadable_message(message: Data) -> str | None:
    """Return why a message cannot be read, or ``None``."""
    if not isinstance(message, dict):
        return "is not an object"
    content = message.get("content")
    if type(content) is str and len(message) == 2:
        return None  # a role and a text, like most messages
    if not _is_content(content):
        return "has a content that is neither text nor a list of parts"
    if not isinstance(message.get("refusal") or "", str):
        return "has a refusal that is not a string"
    calls = message.get("tool_calls") or []
    if not isinstance(calls, list):
        return "has tool_calls that are not a list"
    if not all(map(_is_call, (*calls, {"function": message.get("function_call")}))):
        return "has a tool call that is not an object"
    return None


def _is_content(content: object) -> bool:
    """Return whether data can be the content of a message: a text, a list of parts, nothing, or an object (Cloudflare's
    structured answers).
    """
    if isinstance(content, list):
        return all(map(is_part, content))
    return content is None or isinstance(content, (str, dict))


def _is_call(call: Data) -> bool:
    return isinstance(call, dict) and all(
        isinstance(call.get(name) or {}, dict) for name in ("function", "custom")
    )


def content_text(content: object) -> str | None:
    """Return the text of a message's content; of a list of parts, the text parts joined; of an object, its JSON."""
    if isinstance(content, dict):
        return json.dumps(content, ensure_ascii=False) if content else None
    if isinstance(content, list):
        return "".join(part["text"] for part in content if part["type"] == "text") or None
    return content if isinstance(content, str) else None


def holds_answer(message: Mapping[str, Data]) -> bool:
    """Return whether a message holds a text, a tool call, a refusal, an image or audio."""
    is_filled = any(map(message.get, ANSWER_FIELDS))
    return bool(is_filled or content_text(message.get("content")) or images_in(message))


def place_of_reasoning(message: Mapping[str, Data], response: Mapping[str, Data]) -> str | None:
    """Return the field, or the type of the parts or items, that holds an answer's thoughts; ``None`` without any.

    :param response: the message's, which may be of the Responses API.
    """
    parts = objects_in(message.get("content"))
    filled = {part.get("type") for part in parts if part.get(str(part.get("type")))}
    for item in objects_in(response.get("output")):
        if item.get("summary") or item.get("content"):
            filled.add(item.get("type"))
    return next((name for name in REASONING if message.get(name) or name in filled), None)


def objects_in(value: object) -> list[dict[str, Data]]:
    """Return the objects in a list, or an empty list for anything else."""
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def object_in(value: object) -> dict[str, object]:
    """Return an object, or an empty one for anything else."""
    return value if isinstance(value, dict) else {}
