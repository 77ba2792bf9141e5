"""Messages: checked, and in the form that enters the key.

Servers and programs make new ids of tool calls in each run, so the key numbers them in the order of their first
use."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from ..apis.message import has_only_text, is_part
from ..support.lazy_names import pattern
from .plain_data import map_texts, plain, with_article
from .request import Data

# The fields that refer to a call: of the Responses API, chat completions and the Messages API.
REFERENCES = ("call_id", "tool_call_id", "tool_use_id")
# The ends of the types of calls and results, whose own "id" is such an id.
CALLS = ("_call", "_output", "tool_use")
# The fields of a message that are lists of calls, results and other parts.
PARTS = ("content", "parts", "tool_calls")
# The fields that show a call without such a type: in chat completions, and in Gemini's API.
CALLED = frozenset({"function", "custom", "args"})
ARGUMENTS = ("input", "args")  # the tool's own data
CONVERSATIONS = ("messages", "input", "contents")  # the fields of a body

Number = Callable[[Data], Data]


def numbered_calls(messages: list[object]) -> list[Data]:
    """Return messages with the ids of tool calls replaced by numbers.

    :param messages: messages of any API, or items of the Responses API; not changed.
    """
    if all(map(has_only_text, messages)):
        return messages
    numbers: dict[str, str] = {}

    def number(call_id: object) -> Data:
        if not isinstance(call_id, str):
            return call_id
        return numbers.setdefault(call_id, f"call{len(numbers) + 1:05}")

    return [_numbered_message(message, number) for message in messages]


def numbered_body(body: object) -> Data:
    """Return the body of a request with the tool calls of its conversations numbered."""
    if not isinstance(body, dict):
        return body
    conversations = {
        name: numbered_calls(body[name])
        for name in CONVERSATIONS
        if isinstance(body.get(name), list)
    }
    return {**body, **conversations}


def _numbered_message(message: object, number: Number) -> object:
    if not isinstance(message, dict):
        return message
    parts = {
        name: [_numbered_part(part, number, is_call=name == "tool_calls") for part in message[name]]
        for name in PARTS
        if isinstance(message.get(name), list)
    }
    return {**_numbered(message, number), **parts}


def _numbered_part(part: object, number: Number, *, is_call: bool) -> object:
    """Return a part of a message with its ids numbered; a tool's arguments stay unchanged."""
    if not isinstance(part, dict):
        return part
    if is_call or "type" in part:
        return _numbered(part, number, is_call=is_call)
    # A part of Gemini's API is a single field, whose object has the id.
    return {
        name: _numbered(field, number, is_call=True) if isinstance(field, dict) else field
        for name, field in part.items()
    }


def _numbered(
    data: dict[str, object], number: Number, *, is_call: bool = False
) -> dict[str, object]:
    """Return an object with its own ids numbered.

    :param is_call: ``True`` if it is a call or a result whatever its type.
    """
    is_call = is_call or str(data.get("type")).endswith(CALLS)
    names = ("id", *REFERENCES) if is_call else REFERENCES
    return {**data, **{name: number(data[name]) for name in names if name in data}}


def without_call_ids(answer: object) -> object:
    """Return an answer of any of the APIs without the ids of its tool calls."""
    if isinstance(answer, list):
        return [without_call_ids(item) for item in answer]
    if not isinstance(answer, dict):
        return answer
    is_call = str(answer.get("type")).endswith(CALLS) or not CALLED.isdisjoint(answer)
    omitted = ("id", *REFERENCES) if is_call else REFERENCES
    return {
        name: item if name in ARGUMENTS else without_call_ids(item)
        for name, item in answer.items()
        if name not in omitted
    }


# The roles of the chat completions API (openai 3.51, ChatCompletionMessageParam).
ROLES = frozenset({"system", "developer", "user", "assistant", "tool", "function"})
DATA_URL = pattern(r"data:([^,;]*)((?:;[^,;]*)*?);base64,", re.IGNORECASE)
# The digest that replaces an image or a sound; it is not text, so it is not normalized.
DIGEST = pattern(r"(?:data:[^,]*;)?sha256,[0-9a-f]{64}$")


def checked_messages(
    messages: object, *, dedent: bool = False, normalize: Callable[[str], str] | None = None
) -> tuple[list[dict[str, object]], list[dict[str, object]]]:
    """Return a checked copy of a call's messages, and the form of them that enters the key: without ``None``
    fields, tool calls numbered, images and sounds as digests, texts normalized.

    :param messages: a list of ``{"role", "content"}`` dicts, or one string, which means one user
        message.
    :param dedent: ``True`` to remove the common indentation of each text.
    :param normalize: replaces the parts of a text that do not matter; ``None`` replaces nothing.
    :raises TypeError: if something has the wrong type; names the message and the field.
    :raises ValueError: if a role or a content is missing or unknown; names the message and the field.
    """
    checked, have_only_text = messages_to_send(messages, dedent=dedent)
    keyed = checked
    if not have_only_text:
        keyed = numbered_calls([_keyed_message(message) for message in checked])
    if normalize is not None:
        keyed = normalized_texts(keyed, normalize)
    return checked, keyed


def messages_to_send(
    messages: object, *, dedent: bool = False
) -> tuple[list[dict[str, object]], bool]:
    """Return a checked copy of a call's messages, and whether each is a role and a text alone.

    :raises TypeError, ValueError: as :func:`checked_messages`.
    """
    if isinstance(messages, str):
        messages = [{"role": "user", "content": messages}]
    elif not isinstance(messages, (list, tuple)):
        raise TypeError(
            f"messages is {with_article(messages)}; it must be a list of messages, or one string"
        )
    if not messages:
        raise ValueError("messages is empty; at least one message is needed")
    checked, have_only_text = [], True
    for index, message in enumerate(messages):
        if type(message) is dict and len(message) == 2:
            role, content = message.get("role"), message.get("content")
            if type(role) is str and role in ROLES and type(content) is str:
                checked.append(message.copy())  # a role and a text, like most messages
                continue
        checked.append(_checked_message(message, f"messages[{index}]"))
        have_only_text = False
    if dedent:
        import textwrap

        for message in checked:
            if "content" in message:
                message["content"] = map_texts(message["content"], textwrap.dedent)
    return checked, have_only_text


def _checked_message(message: object, location: str) -> dict[str, object]:
    if not isinstance(message, Mapping):
        raise TypeError(
            f"{location} is {with_article(message)}; it must be a dict with role and content"
        )
    checked: dict[str, Data] = plain(message, location)
    role, content = checked.get("role"), checked.get("content")
    if not isinstance(role, str) or role not in ROLES:
        raise ValueError(
            f"{location}.role is {role!r}; it must be one of {', '.join(sorted(ROLES))}"
        )
    if content is None and role not in ("assistant", "function"):
        raise ValueError(f"{location} has no content; a {role} message needs one")
    if content is not None and not isinstance(content, (str, list)):
        raise TypeError(
            f"{location}.content is {with_article(content)}; it must be a string or a list of parts"
        )
    for index, part in enumerate(content if isinstance(content, list) else ()):
        if not is_part(part):
            requirement = "it must be a dict with a type, such as 'image_url', or 'text' and a text"
            raise TypeError(f"{location}.content[{index}] is {part!r:.60}; {requirement}")
    return checked


def normalized_texts(data: Data, normalize: Callable[[str], str]) -> Data:
    """Return a copy of plain data with its texts normalized; digests, roles and types stay."""

    def normalized(text: str) -> str:
        return text if DIGEST.match(text) else normalize(text)

    return map_texts(data, normalized, unchanged=("role", "type"))


def _keyed_message(message: dict[str, object]) -> dict[str, Data]:
    keyed = {name: value for name, value in message.items() if value is not None}
    parts = keyed.get("content")
    if isinstance(parts, list):
        keyed["content"] = [part if part["type"] == "text" else _digested(part) for part in parts]
    return keyed


def _digested(part: dict[str, object]) -> object:
    """Return a part with digests instead of the base64 of data URLs and of ``input_audio``."""
    audio = part.get("input_audio")
    if isinstance(audio, dict) and isinstance(audio.get("data"), str):
        part = {
            **part,
            "input_audio": {**audio, "data": _base64_digest(audio["data"]) or audio["data"]},
        }
    return map_texts(part, _digested_url)


def _digested_url(text: str) -> str:
    data_url = DATA_URL.match(text)
    digest = data_url and _base64_digest(text[data_url.end() :])
    return f"data:{data_url[1].lower()}{data_url[2]};{digest}" if data_url and digest else text


def _base64_digest(text: str) -> str | None:
    """Return ``sha256,<hex>`` of the bytes in a base64 text with any padding and line breaks, or ``None``
    for another text.
    """
    import base64
    import hashlib

    base64_digits = "".join(text.split()).rstrip("=")
    try:
        content = base64.b64decode(base64_digits + "=" * (-len(base64_digits) % 4), validate=True)
    except ValueError:
        return None
    return "sha256," + hashlib.sha256(content).hexdigest()
