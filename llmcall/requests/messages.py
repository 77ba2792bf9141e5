"""Messages as given, checked and copied; and messages as they enter a key."""

from __future__ import annotations

import json.encoder
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["ROLES", "asked_messages", "check_messages", "plain", "plain_messages"]

# The roles of the chat completions API (openai 3.51, ChatCompletionMessageParam).
ROLES = frozenset({"system", "developer", "user", "assistant", "tool", "function"})
DATA_URL = r"data:([^,;]*)((?:;[^,;]*)*?);base64,"
# What stands in place of media; it is no text, so nothing in it is normalised.
DIGEST = r"(?:data:[^,]*;)?sha256,[0-9a-f]{64}$"
PLAIN_FIELDS = 2
LONG = 4000  # characters; a longer system prompt is not remembered
_quoted = json.encoder.encode_basestring
_quoted_again = lru_cache(maxsize=64)(_quoted)  # few system prompts serve many calls


def plain(value: Any, place: str) -> Any:
    """Return a copy of JSON-like data in which a number has one form (1.0 is 1).

    :param value: dicts with string keys, lists, tuples, strings, numbers, booleans and ``None``, nested.
    :param place: how messages name the value, e.g. ``messages[2].content``.
    :raises TypeError: for anything else, naming its place.
    :raises ValueError: for NaN and the infinities, or where the nesting is too deep.
    """
    try:
        return _plain(value, place)
    except RecursionError:
        raise ValueError(f"{place} is nested too deeply") from None


def _plain(value: Any, place: str) -> Any:
    kind = type(value)
    if kind is str or kind is bool or kind is int or value is None:
        return value
    if kind is float:
        return _number(value, place)
    if isinstance(value, Mapping):
        return {_key(name, place): _plain(item, f"{place}.{name}") for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item, f"{place}[{index}]") for index, item in enumerate(value)]
    if isinstance(value, str):
        return str.__str__(value)
    return _plain_number(value, place)


def _plain_number(value: Any, place: str) -> int | float:
    import numbers

    if isinstance(value, numbers.Real):
        return int(value) if isinstance(value, numbers.Integral) else _number(float(value), place)
    raise TypeError(f"{place} is {_a(value)}; it must be plain data (dict, list, str, number, bool or None)")


def _number(value: float, place: str) -> int | float:
    if value != value or value in (float("inf"), float("-inf")):
        raise ValueError(f"{place} is {value}, which JSON cannot hold")
    return int(value) if value == int(value) else value


def _key(name: Any, place: str) -> str:
    if not isinstance(name, str):
        raise TypeError(f"{place} has the key {name!r}; keys must be strings")
    return name


def _a(value: Any) -> str:
    name = type(value).__name__
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def check_messages(messages: Any, *, dedent: bool = False) -> list[dict[str, Any]]:
    """Return a checked copy of the messages of a call.

    :param messages: a list of ``{"role", "content"}`` dicts, or one string, which means one user message.
    :param dedent: remove the common indentation of every text.
    :raises TypeError: where something has the wrong type, naming the message and the field.
    :raises ValueError: where a role or a content is missing or unknown, naming them likewise.
    """
    if isinstance(messages, str):
        messages = ({"role": "user", "content": messages},)
    elif not isinstance(messages, (list, tuple)):
        raise TypeError(f"messages is {_a(messages)}; it must be a list of messages, or one string")
    if not messages:
        raise ValueError("messages is empty; at least one message is needed")
    checked = [_message(message, index) for index, message in enumerate(messages)]
    return _dedented(checked) if dedent else checked


def _message(message: Any, index: int) -> dict[str, Any]:
    if isinstance(message, Mapping):
        role, content = message.get("role"), message.get("content")
        if type(role) is str and role in ROLES and type(content) is str and len(message) == PLAIN_FIELDS:
            return {"role": role, "content": content}
    return _unusual_message(message, f"messages[{index}]")


def _unusual_message(message: Any, place: str) -> dict[str, Any]:
    if not isinstance(message, Mapping):
        raise TypeError(f"{place} is {_a(message)}; it must be a dict with role and content")
    _check_role(message, place)
    _check_content(message, place)
    name = message.get("name")
    if name is not None and not isinstance(name, str):
        raise TypeError(f"{place}.name is {_a(name)}; it must be a string")
    copied: dict[str, Any] = plain(message, place)
    return copied


def _check_role(message: Mapping[str, Any], place: str) -> None:
    role = message.get("role")
    if role is None:
        raise ValueError(f"{place} has no role; it must be one of {', '.join(sorted(ROLES))}")
    if not isinstance(role, str):
        raise TypeError(f"{place}.role is {_a(role)}; it must be a string")
    if role not in ROLES:
        raise ValueError(f"{place}.role is {role!r}; it must be one of {', '.join(sorted(ROLES))}")


def _check_content(message: Mapping[str, Any], place: str) -> None:
    content = message.get("content")
    if content is None:
        if message["role"] not in ("assistant", "function"):
            raise ValueError(f"{place} has no content; a {message['role']} message needs one")
    elif isinstance(content, (list, tuple)):
        if not content:
            raise ValueError(f"{place}.content is empty; at least one part is needed")
        _check_parts(content, f"{place}.content")
    elif not isinstance(content, str):
        raise TypeError(f"{place}.content is {_a(content)}; it must be a string or a list of parts")


def _check_parts(parts: Sequence[Any], place: str) -> None:
    for index, part in enumerate(parts):
        if not isinstance(part, Mapping):
            raise TypeError(f"{place}[{index}] is {_a(part)}; a part must be a dict with a type")
        if not isinstance(part.get("type"), str):
            raise ValueError(f"{place}[{index}] has no type, such as 'text' or 'image_url'")
        if part["type"] == "text" and not isinstance(part.get("text"), str):
            raise TypeError(f"{place}[{index}].text is {_a(part.get('text'))}; it must be a string")


def _dedented(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    import textwrap

    for message in messages:
        content = message.get("content")
        if isinstance(content, str):
            message["content"] = textwrap.dedent(content)
        elif content:
            message["content"] = [
                {**part, "text": textwrap.dedent(part["text"])} if part["type"] == "text" else part for part in content
            ]
    return messages


def plain_messages(messages: Any) -> bytes | None:
    """Return the canonical JSON of messages that hold a role and a text and nothing else; ``None`` for any others.

    It is that of :func:`asked_messages` of :func:`check_messages`, in less time.

    :raises ValueError: where a text holds a lone surrogate.
    """
    if type(messages) is str:
        messages = ({"role": "user", "content": messages},)
    elif type(messages) not in (list, tuple) or not messages:
        return None
    texts = []
    for message in messages:
        if type(message) is not dict or len(message) != PLAIN_FIELDS:
            return None
        role, content = message.get("role"), message.get("content")
        if type(role) is not str or role not in ROLES or type(content) is not str:
            return None
        quoted = _quoted_again(content) if role == "system" and len(content) <= LONG else _quoted(content)
        texts.append(f'{{"content":{quoted},"role":"{role}"}}')
    return f"[{','.join(texts)}]".encode()


def asked_messages(messages: list[dict[str, Any]], normalize: Callable[[str], str] | None) -> list[dict[str, Any]]:
    """Return the messages as they enter the key: no ``None`` fields, media by digest, texts normalised.

    :param messages: what :func:`check_messages` returned; not changed.
    :param normalize: what replaces the parts of a text that do not matter, or ``None``.
    """
    return [_asked_message(message, normalize) for message in messages]


def _asked_message(message: dict[str, Any], normalize: Callable[[str], str] | None) -> dict[str, Any]:
    if normalize is None and len(message) == PLAIN_FIELDS and type(message.get("content")) is str:
        return message
    asked = {name: value for name, value in message.items() if value is not None}
    if isinstance(asked.get("content"), list):
        asked["content"] = [part if part["type"] == "text" else _digested(part) for part in asked["content"]]
    return asked if normalize is None else _normalized(asked, normalize)


def _normalized(value: Any, normalize: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return value if re.match(DIGEST, value) else normalize(value)
    if isinstance(value, dict):
        return {
            name: item if name in ("role", "type") else _normalized(item, normalize) for name, item in value.items()
        }
    return [_normalized(item, normalize) for item in value] if isinstance(value, list) else value


def _digested(value: Any) -> Any:
    """Replace the base64 of data URLs and of ``input_audio`` by the digest of their bytes."""
    if isinstance(value, dict):
        data = value.get("data")
        if "format" in value and isinstance(data, str):
            return {**value, "data": _digest_of(data) or data}
        return {name: _digested(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_digested(item) for item in value]
    return _digested_url(value) if isinstance(value, str) and value.startswith("data:") else value


def _digested_url(url: str) -> str:
    head = re.match(DATA_URL, url)
    digest = _digest_of(url[head.end() :]) if head else None
    return f"data:{head[1].lower()}{head[2]};{digest}" if head and digest else url


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
