"""Messages as given, checked and copied; and messages as they enter a key."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from .plain_data import a, map_leaves, plain

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["ROLES", "asked_messages", "check_messages"]

# The roles of the chat completions API (openai 3.51, ChatCompletionMessageParam).
ROLES = frozenset({"system", "developer", "user", "assistant", "tool", "function"})
PLAIN_FIELDS = 2  # of a message with a role and a text
DATA_URL = re.compile(r"data:([^,;]*)((?:;[^,;]*)*?);base64,")
# What stands in place of media; it is no text, so nothing in it is normalised.
DIGEST = re.compile(r"(?:data:[^,]*;)?sha256,[0-9a-f]{64}$")


def check_messages(messages: Any, *, dedent: bool = False) -> list[dict[str, Any]]:
    """Return a checked copy of the messages of a call.

    :param messages: a list of ``{"role", "content"}`` dicts, or one string, which means one user message.
    :param dedent: remove the common indentation of every text.
    :raises TypeError: where something has the wrong type, naming the message and the field.
    :raises ValueError: where a role or a content is missing or unknown, naming them likewise.
    """
    if isinstance(messages, str):
        messages = [{"role": "user", "content": messages}]
    elif not isinstance(messages, (list, tuple)):
        raise TypeError(f"messages is {a(messages)}; it must be a list of messages, or one string")
    if not messages:
        raise ValueError("messages is empty; at least one message is needed")
    checked = []
    for index, message in enumerate(messages):
        if type(message) is dict and len(message) == PLAIN_FIELDS:
            role, content = message.get("role"), message.get("content")
            if type(role) is str and role in ROLES and type(content) is str:  # as most are
                checked.append({"role": role, "content": content})
                continue
        checked.append(_checked(message, f"messages[{index}]"))
    for message in checked if dedent else ():
        if message.get("content"):
            message["content"] = _dedented(message["content"])
    return checked


def _checked(message: Any, place: str) -> dict[str, Any]:
    if not isinstance(message, Mapping):
        raise TypeError(f"{place} is {a(message)}; it must be a dict with role and content")
    _check_role(message.get("role"), place)
    _check_content(message, place)
    name = message.get("name")
    if name is not None and not isinstance(name, str):
        raise TypeError(f"{place}.name is {a(name)}; it must be a string")
    return plain(message, place)  # type: ignore[no-any-return]


def _check_role(role: Any, place: str) -> None:
    known = f"it must be one of {', '.join(sorted(ROLES))}"
    if role is None:
        raise ValueError(f"{place} has no role; {known}")
    if not isinstance(role, str):
        raise TypeError(f"{place}.role is {a(role)}; it must be a string")
    if role not in ROLES:
        raise ValueError(f"{place}.role is {role!r}; {known}")


def _check_content(message: Mapping[str, Any], place: str) -> None:
    content = message.get("content")
    if content is None:
        if message["role"] not in ("assistant", "function"):
            raise ValueError(f"{place} has no content; a {message['role']} message needs one")
    elif isinstance(content, (list, tuple)):
        if not content:
            raise ValueError(f"{place}.content is empty; at least one part is needed")
        for index, part in enumerate(content):
            _check_part(part, f"{place}.content[{index}]")
    elif not isinstance(content, str):
        raise TypeError(f"{place}.content is {a(content)}; it must be a string or a list of parts")


def _check_part(part: Any, place: str) -> None:
    if not isinstance(part, Mapping):
        raise TypeError(f"{place} is {a(part)}; a part must be a dict with a type")
    if not isinstance(part.get("type"), str):
        raise ValueError(f"{place} has no type, such as 'text' or 'image_url'")
    if part["type"] == "text" and not isinstance(part.get("text"), str):
        raise TypeError(f"{place}.text is {a(part.get('text'))}; it must be a string")


def _dedented(content: Any) -> Any:
    from textwrap import dedent

    if isinstance(content, list):
        return [{**part, "text": dedent(part["text"])} if part["type"] == "text" else part for part in content]
    return dedent(content) if isinstance(content, str) else content


def asked_messages(messages: list[dict[str, Any]], normalize: Callable[[str], str] | None) -> list[dict[str, Any]]:
    """Return the messages as they enter the key: no ``None`` fields, media by digest, texts normalised.

    :param messages: what :func:`check_messages` returned; not changed.
    :param normalize: what replaces the parts of a text that do not matter, or ``None``.
    """
    return [_asked(message, normalize) for message in messages]


def _asked(message: dict[str, Any], normalize: Callable[[str], str] | None) -> dict[str, Any]:
    if normalize is None and len(message) == PLAIN_FIELDS and type(message.get("content")) is str:
        return message
    asked = {name: value for name, value in message.items() if value is not None}
    if isinstance(asked.get("content"), list):
        asked["content"] = [part if part["type"] == "text" else _digested(part) for part in asked["content"]]
    return asked if normalize is None else _normalized(asked, normalize)


def _normalized(value: Any, normalize: Callable[[str], str]) -> Any:
    if isinstance(value, dict):
        return {
            name: item if name in ("role", "type") else _normalized(item, normalize) for name, item in value.items()
        }
    if isinstance(value, list):
        return [_normalized(item, normalize) for item in value]
    return normalize(value) if isinstance(value, str) and not DIGEST.match(value) else value


def _digested(part: dict[str, Any]) -> Any:
    """Replace the base64 of data URLs and of ``input_audio`` by the digest of their bytes."""
    audio = part.get("input_audio")
    if isinstance(audio, dict) and isinstance(audio.get("data"), str):
        part = {**part, "input_audio": {**audio, "data": _digest_of(audio["data"]) or audio["data"]}}
    return map_leaves(part, _digested_url)


def _digested_url(leaf: Any) -> Any:
    head = DATA_URL.match(leaf) if isinstance(leaf, str) else None
    digest = head and _digest_of(leaf[head.end() :])
    return f"data:{head[1].lower()}{head[2]};{digest}" if head and digest else leaf


def _digest_of(text: str) -> str | None:
    """Return ``sha256,<hex>`` of base64's bytes, however it is padded or wrapped; ``None`` where it is not base64."""
    import base64
    import hashlib

    packed = "".join(text.split()).rstrip("=")
    try:
        content = base64.b64decode(packed + "=" * (-len(packed) % 4), validate=True)
    except ValueError:
        return None
    return "sha256," + hashlib.sha256(content).hexdigest()
