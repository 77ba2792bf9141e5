"""The arguments of calls: a function's by their names; messages and parameters as they enter a key,
and are sent.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..config.values import nearest
from ..models.catalog import parameters_of
from ..secrets import without_credentials
from ..types import is_part
from .keys import a, map_texts, plain

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..config.settings import Settings
    from ..models.catalog import Capabilities

# Functions


class Parameters:
    """Hold the parameters of a function, to tell the arguments of each call by their names.

    :ivar signature: the function's.
    :ivar rest: the name of the parameter for all other keywords, or ``None``.
    :ivar defaults: the others' defaults by name, ``signature.empty`` where there is none.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        import inspect  # takes some milliseconds, which a call need not pay

        self.signature = inspect.signature(function)
        parameters = self.signature.parameters
        self.rest = next(
            (name for name, each in parameters.items() if each.kind is each.VAR_KEYWORD), None
        )
        self.defaults = {
            name: () if each.kind is each.VAR_POSITIONAL else each.default
            for name, each in parameters.items()
            if name != self.rest
        }
        self._names = tuple(parameters)
        self._needed = {
            name for name, default in self.defaults.items() if default is inspect.Parameter.empty
        }
        self._is_plain = all(
            each.kind is each.POSITIONAL_OR_KEYWORD for each in parameters.values()
        )

    def arguments(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Return all arguments of a call, defaults applied.

        :raises TypeError: where the function does not take them.
        """
        if self._is_plain:  # a signature would take five times as long
            placed = dict(zip(self._names, args, strict=False))
            if len(args) == len(placed) == len(self._names) and not kwargs:
                return placed
            given = {**self.defaults, **placed, **kwargs}
            takes = (
                len(args) == len(placed)
                and len(given) == len(self._names)
                and placed.keys().isdisjoint(kwargs)
            )
            if takes and not self._needed.difference(placed, kwargs):
                return given
        bound = self.signature.bind(*args, **kwargs)
        bound.apply_defaults()
        return bound.arguments


# Messages

# The roles of the chat completions API (openai 3.51, ChatCompletionMessageParam).
ROLES = frozenset({"system", "developer", "user", "assistant", "tool", "function"})
PLAIN_FIELDS = 2  # of a message with a role and a text
DATA_URL = re.compile(r"data:([^,;]*)((?:;[^,;]*)*?);base64,")
# What stands in place of media; it is no text, so nothing in it is normalised.
DIGEST = re.compile(r"(?:data:[^,]*;)?sha256,[0-9a-f]{64}$")


def check_messages(messages: Any, *, dedent: bool = False) -> list[dict[str, Any]]:
    """Return a checked copy of the messages of a call.

    :param messages: a list of ``{"role", "content"}`` dicts, or one string, which means one user
        message.
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
    checked: dict[str, Any] = plain(message, place)
    role, content = checked.get("role"), checked.get("content")
    if not isinstance(role, str) or role not in ROLES:
        raise ValueError(f"{place}.role is {role!r}; it must be one of {', '.join(sorted(ROLES))}")
    if content is None and role not in ("assistant", "function"):
        raise ValueError(f"{place} has no content; a {role} message needs one")
    if content is not None and not isinstance(content, (str, list)):
        raise TypeError(f"{place}.content is {a(content)}; it must be a string or a list of parts")
    for index, part in enumerate(content if isinstance(content, list) else ()):
        if not is_part(part):
            needed = "it must be a dict with a type, such as 'image_url', or 'text' and a text"
            raise TypeError(f"{place}.content[{index}] is {part!r:.60}; {needed}")
    return checked


def asked_messages(
    messages: list[dict[str, Any]], normalize: Callable[[str], str] | None
) -> list[dict[str, Any]]:
    """Return the messages as they enter the key: no ``None`` fields, media by digest, texts
    normalised.

    :param messages: what :func:`check_messages` returned; not changed.
    :param normalize: what replaces the parts of a text that do not matter, or ``None``.
    """

    def normalized(text: str) -> str:
        """Return a text without what does not matter."""
        return normalize(text) if normalize and not DIGEST.match(text) else text

    asked = []
    for message in messages:
        if (
            normalize is not None
            or len(message) != PLAIN_FIELDS
            or type(message.get("content")) is not str
        ):
            message = {name: value for name, value in message.items() if value is not None}
            parts = message.get("content")
            if isinstance(parts, list):
                message["content"] = [
                    part if part["type"] == "text" else _digested(part) for part in parts
                ]
            if normalize is not None:
                message = map_texts(message, normalized, kept=("role", "type"))
        asked.append(message)
    return asked


def _digested(part: dict[str, Any]) -> Any:
    """Replace the base64 of data URLs and of ``input_audio`` by the digest of their bytes."""
    audio = part.get("input_audio")
    if isinstance(audio, dict) and isinstance(audio.get("data"), str):
        part = {
            **part,
            "input_audio": {**audio, "data": _digest_of(audio["data"]) or audio["data"]},
        }
    return map_texts(part, _digested_url)


def _digested_url(text: str) -> str:
    head = DATA_URL.match(text)
    digest = head and _digest_of(text[head.end() :])
    return f"data:{head[1].lower()}{head[2]};{digest}" if head and digest else text


def _digest_of(text: str) -> str | None:
    """Return ``sha256,<hex>`` of base64's bytes, however it is padded or wrapped; ``None`` where it
    is not base64.
    """
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
CONFIGURED = (
    "temperature",
    "max_tokens",
    "top_p",
    "frequency_penalty",
    "presence_penalty",
    "reasoning_effort",
)
# Those of them that are in no key.
CONFIGURED_UNKEYED = ("service_tier",)
# Those that change who pays, who may ask or what is logged, not what is answered.
UNKEYED = frozenset(
    {
        "user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key", "extra_headers",
        "extra_query",
    }
)  # fmt: skip
# Accepted for the sake of older scripts, and not sent.
ACCEPTED = frozenset({"echo", "enable_pydantic_model_return"})
# In a response_format: whoever gives it reads the answers himself, those that do not fit included.
UNCHECKED = "unchecked"


# What the arguments of the methods take: in words, and as the plain data that it is made into. A
# server other than OpenAI's may make of anything else what it likes.
NUMBER, WHOLE, OBJECT = ("a number", int, float), ("a whole number", int), ("a dict", dict)
SWITCH = ("True or False", bool)
KINDS: dict[str, tuple[Any, ...]] = {
    "temperature": NUMBER, "top_p": NUMBER, "frequency_penalty": NUMBER, "presence_penalty": NUMBER,
    "max_tokens": WHOLE, "max_completion_tokens": WHOLE, "seed": WHOLE, "n": WHOLE, "dimensions": WHOLE,
    "reasoning_effort": ("a string", str), "service_tier": ("a string", str),
    "stop": ("a string or a list of strings", str, list),
    "tools": ("a list of dicts and functions", list), "tool_choice": ("a string or a dict", str, dict),
    "extra_body": OBJECT, "extra_headers": OBJECT, "timeout": NUMBER, "deadline": NUMBER, "waiting_time": NUMBER,
    "exponential_backoff_factor": NUMBER, "max_attempts": WHOLE, "sample": ("a string or a whole number", str, int),
    "cache": SWITCH, "dedent_messages": SWITCH, "enable_pydantic_model_return": SWITCH,
}  # fmt: skip


def check_names(params: Mapping[str, Any], kind: str = "chat") -> None:
    """Refuse the name of a parameter that the API does not have.

    :raises TypeError: naming the parameter, the nearest known one, and ``extra_body``.
    """
    table = parameters_of(kind)
    for name in params.keys() - table - ACCEPTED:
        if name in ("stream", "stream_options"):
            raise TypeError(
                f"{name!r} is not an argument of this method; use stream_message() to stream"
            )
        hint = nearest(name, sorted(table)) or "."
        beyond = f"What a server has beyond the API goes into extra_body={{{name!r}: …}}"
        raise TypeError(f"unknown parameter {name!r}{hint} {beyond}")


def configured_parameters(settings: Settings) -> dict[str, Any]:
    """Return the parameters that the settings give a default to."""
    names = (*CONFIGURED, *CONFIGURED_UNKEYED)
    return given_parameters({name: getattr(settings, name) for name in names})


def given_parameters(params: Mapping[str, Any]) -> dict[str, Any]:
    """Return parameters as plain data, without those that are ``None``, which means not given.

    :raises TypeError: for a value that is not plain data.
    :raises ValueError: where ``max_tokens`` and ``max_completion_tokens`` disagree.
    """
    given = {
        name: _value(name, value)
        for name, value in params.items()
        if value is not None and name not in ACCEPTED
    }
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
        from . import schemas

        value = [tool if isinstance(tool, dict) else schemas.tool_of(tool) for tool in value]
    return checked(name, value)


def checked(name: str, value: Any) -> Any:
    """Return the value of an argument as plain data.

    :raises TypeError: where it is not what the argument takes.
    """
    found = plain(value, name)
    words, *kinds = KINDS.get(name, ("", type(found)))
    if type(found) not in kinds:
        what = repr(found) if isinstance(found, (bool, int, float)) else a(found)
        raise TypeError(f"{name} is {what}; it must be {words}")
    return found


def expected_answer(response_format: Any) -> Any:
    """Return what an answer has to fit to be stored: a class, the text of a strict JSON schema, or
    ``None``.

    :param response_format: as the caller gave it.
    """
    if not isinstance(response_format, dict):
        return response_format
    described = response_format.get("json_schema")
    if (
        UNCHECKED in response_format
        or not isinstance(described, dict)
        or described.get("strict") is not True
    ):
        return None
    schema = described.get("schema")
    return None if schema is None else json.dumps(plain(schema, "response_format"))


def asked_parameters(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters that enter the key, each in the one form that all its spellings share."""
    asked = {name: value for name, value in given.items() if name not in UNKEYED}
    if asked.get("n") == 1:
        del asked["n"]
    if isinstance(asked.get("stop"), str):
        asked["stop"] = [asked["stop"]]
    if "extra_body" in asked:
        asked["extra_body"] = without_credentials(asked["extra_body"])
    return asked


def sent_body(body: Mapping[str, Any], capabilities: Capabilities) -> dict[str, Any]:
    """Return what is sent: the model's own spelling of the token limit, without what the model
    refuses.
    """
    if capabilities.embedding:
        return dict(body)
    refused = capabilities.refused(body.get("reasoning_effort"))
    sent = {name: value for name, value in body.items() if name not in refused}
    if capabilities.max_completion_tokens and "max_tokens" in sent:
        sent["max_completion_tokens"] = sent.pop("max_tokens")
    return sent
