"""The messages and parameters of a call: checked, as they enter its key, and as they are sent."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from ..config.values import nearest
from .keys import a, map_texts, plain

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..config.settings import Settings
    from ..models.catalog import Capabilities

__all__ = [
    "KNOWN", "ROLES", "UNCHECKED", "UNKEYED", "asked_messages", "asked_parameters", "check_messages", "check_names",
    "configured_parameters", "expected_answer", "given_parameters", "sent_body",
]  # fmt: skip

# Messages

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
        checked.append(_checked_message(message, f"messages[{index}]"))
    if dedent:
        import textwrap

        for message in checked:
            if "content" in message:
                message["content"] = map_texts(message["content"], textwrap.dedent)
    return checked


def _checked_message(message: Any, place: str) -> dict[str, Any]:
    if not isinstance(message, Mapping):
        raise TypeError(f"{place} is {a(message)}; it must be a dict with role and content")
    role = message.get("role")
    if not isinstance(role, str) or role not in ROLES:
        raise ValueError(f"{place}.role is {role!r}; it must be one of {', '.join(sorted(ROLES))}")
    _check_content(message, place)
    name = message.get("name")
    if name is not None and not isinstance(name, str):
        raise TypeError(f"{place}.name is {a(name)}; it must be a string")
    return plain(message, place)  # type: ignore[no-any-return]


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


def asked_messages(messages: list[dict[str, Any]], normalize: Callable[[str], str] | None) -> list[dict[str, Any]]:
    """Return the messages as they enter the key: no ``None`` fields, media by digest, texts normalised.

    :param messages: what :func:`check_messages` returned; not changed.
    :param normalize: what replaces the parts of a text that do not matter, or ``None``.
    """
    asked = []
    for message in messages:
        if normalize is not None or len(message) != PLAIN_FIELDS or type(message.get("content")) is not str:
            message = {name: value for name, value in message.items() if value is not None}
            parts = message.get("content")
            if isinstance(parts, list):
                message["content"] = [part if part["type"] == "text" else _digested(part) for part in parts]
            if normalize is not None:
                message = map_texts(message, partial(_normalized, normalize), kept=("role", "type"))
        asked.append(message)
    return asked


def _normalized(normalize: Callable[[str], str], text: str) -> str:
    return text if DIGEST.match(text) else normalize(text)


def _digested(part: dict[str, Any]) -> Any:
    """Replace the base64 of data URLs and of ``input_audio`` by the digest of their bytes."""
    audio = part.get("input_audio")
    if isinstance(audio, dict) and isinstance(audio.get("data"), str):
        part = {**part, "input_audio": {**audio, "data": _digest_of(audio["data"]) or audio["data"]}}
    return map_texts(part, _digested_url)


def _digested_url(text: str) -> str:
    head = DATA_URL.match(text)
    digest = head and _digest_of(text[head.end() :])
    return f"data:{head[1].lower()}{head[2]};{digest}" if head and digest else text


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


# Parameters

# Those that [OpenAI] gives a default to.
CONFIGURED = ("temperature", "max_tokens", "top_p", "frequency_penalty", "presence_penalty", "reasoning_effort")
# Those that change who pays, who may ask or what is logged, not what is answered.
UNKEYED = frozenset(
    {
        "user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key", "extra_headers",
        "extra_query",
    }
)  # fmt: skip
# Accepted for the sake of older scripts, and not sent.
ACCEPTED = frozenset({"echo", "enable_pydantic_model_return"})
# Parameters that are an argument of their own; a checked signature keeps them out of ``**params``.
KNOWN = frozenset(
    {
        "model", "temperature", "max_tokens", "max_completion_tokens", "top_p", "frequency_penalty", "presence_penalty",
        "stop", "seed", "n", "response_format", "tools", "tool_choice", "reasoning_effort", "extra_body",
        "extra_headers",
    }
)  # fmt: skip


# In a response_format: whoever gives it reads the answers himself, those that do not fit included.
UNCHECKED = "unchecked"


class Kind(NamedTuple):
    """Be what a parameter takes.

    :param words: how a message says so.
    :param types: of the plain data that it is made into.
    :param item: what each of several is.
    """

    words: str
    types: tuple[type, ...]
    item: Kind | None = None


ANY = Kind("plain data", (dict, list, str, int, float, bool, type(None)))
NUMBER = Kind("a number", (int, float))
WHOLE = Kind("a whole number", (int,))
TEXT = Kind("a string", (str,))
OBJECT = Kind("a dict", (dict,))
TOOL = Kind("a dict or a function", (dict,))
# What the arguments of the methods take: the API would refuse anything else, or a server make of it what it likes.
KINDS = {
    "temperature": NUMBER, "top_p": NUMBER, "frequency_penalty": NUMBER, "presence_penalty": NUMBER,
    "max_tokens": WHOLE, "max_completion_tokens": WHOLE, "seed": WHOLE, "n": WHOLE, "dimensions": WHOLE,
    "reasoning_effort": TEXT, "stop": Kind("a string or a list of strings", (str, list), TEXT),
    "tools": Kind("a list of dicts and functions", (list,), TOOL),
    "tool_choice": Kind("a string or a dict", (str, dict)), "extra_body": OBJECT, "extra_headers": OBJECT,
}  # fmt: skip


def check_names(params: Mapping[str, Any], *, embedding: bool = False) -> None:
    """Refuse the name of a parameter that the API does not have.

    :raises TypeError: naming the parameter, the nearest known one, and ``extra_body``.
    """
    if params.keys() <= KNOWN and not embedding:
        return
    from ..models.catalog import parameters_of

    table = parameters_of("embedding") | {"model"} if embedding else parameters_of("chat") | KNOWN
    for name in params.keys() - table - ACCEPTED:
        raise TypeError(_unknown(name, table))


def _unknown(name: str, known: frozenset[str]) -> str:
    if name in ("stream", "stream_options"):
        return f"{name!r} is not an argument of this method; use stream_message() to stream"
    hint = nearest(name, sorted(known)) or "."
    return f"unknown parameter {name!r}{hint} What a server has beyond the API goes into extra_body={{{name!r}: …}}"


def configured_parameters(settings: Settings) -> dict[str, Any]:
    """Return the parameters that the settings give a default to."""
    return given_parameters({name: getattr(settings, name) for name in CONFIGURED})


def given_parameters(params: Mapping[str, Any]) -> dict[str, Any]:
    """Return parameters as plain data, without those that are ``None``, which means not given.

    :raises TypeError: for a value that is not plain data.
    :raises ValueError: where ``max_tokens`` and ``max_completion_tokens`` disagree.
    """
    given = {name: _value(name, value) for name, value in params.items() if value is not None and name not in ACCEPTED}
    limit = given.pop("max_completion_tokens", None)
    if limit is not None and given.setdefault("max_tokens", limit) != limit:
        raise ValueError("max_tokens and max_completion_tokens are one parameter; give one of them")
    if given.get("stop") == []:
        del given["stop"]
    return given


def _value(name: str, value: Any) -> Any:
    if name == "response_format" and not isinstance(value, dict):
        from . import schemas

        return schemas.format_of(value)
    if name == "response_format" and UNCHECKED in value:  # made once for a type, of plain data
        return {key: item for key, item in value.items() if key != UNCHECKED}
    if name == "tools" and isinstance(value, (list, tuple)):
        value = [_described(tool) for tool in value]
    return _checked(plain(value, name), name, KINDS.get(name, ANY))


def _described(tool: Any) -> Any:
    if isinstance(tool, dict) or not callable(tool):
        return tool
    from . import schemas

    return schemas.tool_of(tool)


def _checked(value: Any, place: str, kind: Kind) -> Any:
    """Return plain data that is of a kind.

    :raises TypeError: where it is of another.
    """
    if type(value) not in kind.types:
        what = f"{value!r}" if isinstance(value, (bool, int, float)) else f"a {type(value).__name__}"
        raise TypeError(f"{place} is {what}; it must be {kind.words}")
    for index, item in enumerate(value if kind.item is not None and isinstance(value, list) else ()):
        _checked(item, f"{place}[{index}]", kind.item or ANY)
    return value


def expected_answer(response_format: Any) -> Any:
    """Return what an answer has to fit to be stored: a class, a strict JSON schema, or ``None`` where nothing is.

    :param response_format: as the caller gave it.
    """
    if not isinstance(response_format, dict):
        return response_format
    described = response_format.get("json_schema")
    if UNCHECKED in response_format or not isinstance(described, dict):
        return None
    return described.get("schema") if described.get("strict") is True else None


def asked_parameters(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters that enter the key, each in the one form that all its spellings share."""
    asked = {name: value for name, value in given.items() if name not in UNKEYED}
    if asked.get("n") == 1:
        del asked["n"]
    if isinstance(asked.get("stop"), str):
        asked["stop"] = [asked["stop"]]
    return asked


def sent_body(body: Mapping[str, Any], capabilities: Capabilities) -> dict[str, Any]:
    """Return what is sent: the model's own spelling of the token limit, without what the model refuses."""
    if capabilities.embedding:
        return dict(body)
    refused = capabilities.refused(body.get("reasoning_effort"))
    sent = {name: value for name, value in body.items() if name not in refused}
    if capabilities.max_completion_tokens and "max_tokens" in sent:
        sent["max_completion_tokens"] = sent.pop("max_tokens")
    return sent
