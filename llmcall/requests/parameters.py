"""The parameters of a call: checked by name, as they enter the key, and as they are sent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from .plain_data import plain

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..config.settings import Settings
    from ..models.capabilities import Capabilities

__all__ = [
    "UNCHECKED", "UNKEYED", "asked_parameters", "check_names", "configured_parameters", "expected_answer",
    "given_parameters",
]  # fmt: skip

# Parameters that [OpenAI] gives a default to.
CONFIGURED = ("temperature", "max_tokens", "top_p", "frequency_penalty", "presence_penalty", "reasoning_effort")
# Parameters that change who pays, who may ask or what is logged, not what is answered.
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
    from ..models import capabilities as models

    table = models.EMBEDDING_PARAMETERS | {"model"} if embedding else models.CHAT_PARAMETERS | KNOWN
    for name in params.keys() - table - ACCEPTED:
        raise TypeError(_unknown(name, table))


def _unknown(name: str, known: frozenset[str]) -> str:
    from difflib import get_close_matches

    if name in ("stream", "stream_options"):
        return f"{name!r} is not an argument of this method; use stream_message() to stream"
    near = get_close_matches(name, sorted(known), 1)
    hint = f"; did you mean {near[0]!r}?" if near else "."
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
