"""Parameters of a call: checked, in the form that enters the key, and in the form that is sent."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from ..config.settings import Settings
from ..models.catalog import Capabilities, parameters_of
from ..support.arguments import nearest
from ..support.secrets import (
    refuse_named_credentials,
    without_credentials,
    without_query_credentials,
)
from ..support.tracebacks import mistake
from .plain_data import plain, with_article
from .request import Data, UncheckedFormat

EFFORT = "reasoning_effort"
# The parameters that [OpenAI] sets defaults for and that enter the key.
CONFIGURED = ("temperature", "max_tokens", "top_p", "frequency_penalty", "presence_penalty", EFFORT)
# The parameters that it sets defaults for and that do not enter the key.
CONFIGURED_UNKEYED = ("service_tier",)
# Fields of a body that decide about payment, access or retention, but not the answer. Gemini
# names the tier in its own way.
UNKEYED_FIELDS = frozenset(
    {
        *("user", "metadata", "store", "safety_identifier", "service_tier", "serviceTier"),
        *("prompt_cache_key", "prompt_cache_options", "prompt_cache_retention"),
    }
)
# The fields that make a request. An extra body does not replace them, and they are sent even if the server
# reports them as unsupported.
ESSENTIAL_FIELDS = ("model", "messages", "input")
# Parameters about the sending of a request; a field of a body with such a name is an ordinary field.
NOT_IN_BODY = frozenset({"extra_body", "extra_headers", "extra_query"})
# The fields of a body that are not parameters of send_message or get_embedding.
OTHER_FIELDS = {
    "chat": ("messages", "stream", "stream_options"),
    "embedding": ("input", "encoding_format"),
}
# Lists that mean nothing when they are empty; several servers refuse them then.
EMPTY_UNSENT = ("stop", "tools", "functions")
# Accepted from TinyTroupe's scripts, and not sent.
ACCEPTED_UNSENT = frozenset({"echo", "enable_pydantic_model_return"})


# The expected kinds of arguments: in words, then as types of plain data. Other parameters are not checked,
# since servers differ.
NUMBER, WHOLE_NUMBER, OBJECT = ("a number", int, float), ("a whole number", int), ("a dict", dict)
SWITCH = ("True or False", bool)
KINDS: dict[str, tuple[object, ...]] = {
    "temperature": NUMBER,
    "top_p": NUMBER,
    "frequency_penalty": NUMBER,
    "presence_penalty": NUMBER,
    "max_tokens": WHOLE_NUMBER,
    "max_completion_tokens": WHOLE_NUMBER,
    "seed": WHOLE_NUMBER,
    "n": WHOLE_NUMBER,
    "dimensions": WHOLE_NUMBER,
    "reasoning_effort": ("a string", str),
    "service_tier": ("a string", str),
    "stop": ("a string or a list of strings", str, list),
    "tools": ("a list of dicts and functions", list),
    "tool_choice": ("a string or a dict", str, dict),
    "extra_body": OBJECT,
    "extra_headers": OBJECT,
    "extra_query": OBJECT,
    "timeout": NUMBER,
    "deadline": NUMBER,
    "waiting_time": NUMBER,
    "exponential_backoff_factor": NUMBER,
    "max_attempts": WHOLE_NUMBER,
    "sample": ("a string or a whole number", str, int),
    "cache": SWITCH,
    "dedent_messages": SWITCH,
    "enable_pydantic_model_return": SWITCH,
}


def refuse_unknown(names: Collection[str], table: Collection[str]) -> None:
    """Refuse parameters that the API lacks.

    :param names: the parameters that it lacks; some of them are accepted and not sent.
    :param table: the parameters that it has.
    """
    for name in names:
        if name in ACCEPTED_UNSENT:
            continue
        if name in ("stream", "stream_options"):
            raise mistake(
                f"{name!r} is not an argument of this method; use stream_message() to stream"
            )
        hint = nearest(name, sorted(table)) or "."
        remedy = f"Put parameters that only your server knows into extra_body={{{name!r}: …}}"
        raise mistake(f"unknown parameter {name!r}{hint} {remedy}")


def configured_parameters(settings: Settings) -> dict[str, Data]:
    """Return the parameters from the settings."""
    names = (*CONFIGURED, *CONFIGURED_UNKEYED)
    return checked_parameters({name: getattr(settings, name) for name in names})


def checked_parameters(params: Mapping[str, object], kind: str = "chat") -> dict[str, Data]:
    """Return parameters as plain data; ``None`` means not set.

    :param kind: ``"chat"`` or ``"embedding"``.
    :raises TypeError: for a value that is not plain data, and for a parameter that the API lacks.
    :raises ValueError: if ``max_tokens`` and ``max_completion_tokens`` differ.
    """
    table = parameters_of(kind)
    if not params.keys() <= table:
        # None means not given, also for a parameter that only chats have.
        known = {*parameters_of("chat"), *OTHER_FIELDS["chat"]}
        not_given = {name for name in known & params.keys() if params[name] is None}
        refuse_unknown(params.keys() - table - not_given, table)
    parameters = {
        name: _parameter_value(name, value)
        for name, value in params.items()
        if value is not None and name not in ACCEPTED_UNSENT
    }
    limit = parameters.pop("max_completion_tokens", None)
    if limit is not None and parameters.setdefault("max_tokens", limit) != limit:
        raise ValueError(
            "max_tokens and max_completion_tokens are the same parameter; give only one of them"
        )
    for name in EMPTY_UNSENT:
        if parameters.get(name) == []:
            del parameters[name]
    return parameters


def _parameter_value(name: str, value: object) -> object:
    if isinstance(value, UncheckedFormat):
        return value.parameter
    if name == "response_format" and not isinstance(value, dict):
        from . import schemas

        return schemas.class_format(value)
    if name == "tools" and isinstance(value, (list, tuple)):
        from . import schemas

        value = [tool if isinstance(tool, dict) else schemas.function_tool(tool) for tool in value]
    if name == "logit_bias" and isinstance(value, Mapping):  # tokens are numbers, and names in JSON
        value = {str(token) if type(token) is int else token: bias for token, bias in value.items()}
    return checked_argument(name, value)


def checked_argument(name: str, value: object) -> object:
    """Return the value of an argument as plain data.

    :raises TypeError: if it has the wrong type.
    """
    data = plain(value, name)
    kind = KINDS.get(name)
    if kind is not None and type(data) not in kind:
        actual = repr(data) if isinstance(data, (bool, int, float)) else with_article(data)
        raise TypeError(f"{name} is {actual}; it must be {kind[0]}")
    return data


def parameters_in(body: Mapping[str, object], kind: str = "chat") -> dict[str, Data]:
    """Return the parameters of ``send_message`` or ``get_embedding`` that give the same request as a body.

    :param kind: ``"chat"`` or ``"embedding"``.
    """
    names = parameters_of(kind) - NOT_IN_BODY
    fields = {name: value for name, value in body.items() if name not in OTHER_FIELDS[kind]}
    beyond_api = {name: value for name, value in fields.items() if name not in names}
    known = {name: value for name, value in fields.items() if name in names}
    return {**known, "extra_body": beyond_api or None}


def without_unkeyed(body: Mapping[str, object]) -> dict[str, Data]:
    """Return a model's body, or parameters with their ``extra_body``, without the fields that do not enter
    the key.
    """
    keyed = {name: value for name, value in body.items() if name not in UNKEYED_FIELDS}
    extra = keyed.get("extra_body")
    if isinstance(extra, dict) and not UNKEYED_FIELDS.isdisjoint(extra):
        keyed["extra_body"] = without_unkeyed(extra)
        if not keyed["extra_body"]:
            del keyed["extra_body"]
    return keyed


def keyed_parameters(parameters: Mapping[str, object], allow: Sequence[str]) -> dict[str, Data]:
    """Return the parameters that enter the key, in one form for equal parameters.

    :param allow: regular expressions; a value that one of them matches completely is not a credential.
    :raises CacheError: if the name of a field that the API does not define suggests a credential; names
        the field.
    """
    keyed = without_unkeyed(parameters)
    keyed.pop("extra_headers", None)
    if keyed.get("n") == 1:
        del keyed["n"]
    if isinstance(keyed.get("stop"), str):
        keyed["stop"] = [keyed["stop"]]
    if "extra_body" in keyed:
        keyed["extra_body"] = without_credentials(keyed["extra_body"])
        refuse_named_credentials(keyed["extra_body"], allow, "extra_body")
    if "extra_query" in keyed:
        query = keyed.pop("extra_query").items()
        # Azure Functions take their key in "code".
        if keyed_query := dict(without_query_credentials(query, "extra_query", also=("code",))):
            keyed["extra_query"] = keyed_query
    if "tools" in keyed:
        keyed["tools"] = [
            tool if _is_function(tool) else without_credentials(tool) for tool in keyed["tools"]
        ]
        for index, tool in enumerate(keyed["tools"]):
            if not _is_function(tool):
                refuse_named_credentials(tool, allow, f"tools[{index}]")
    return keyed


def _is_function(tool: dict[str, object]) -> bool:
    """Return whether a tool is a function; its schema holds no credential."""
    return bool(tool.get("type", "function") == "function")


def with_effort(fields: Mapping[str, Data], effort: Mapping[str, Data]) -> dict[str, Data]:
    """Return the fields of a chat, with a model's own effort unless they name one."""
    is_named = EFFORT in fields or EFFORT in fields.get("extra_body", ())
    return {**fields} if is_named else {**fields, **effort}


def sent_body(body: Mapping[str, Data], capabilities: Capabilities) -> dict[str, Data]:
    """Return the body to send, with the model's name for the token limit, and without parameters that the
    model refuses.
    """
    if capabilities.embedding:
        return dict(body)
    refused_names = capabilities.refused(body.get("reasoning_effort"))
    sent = {name: value for name, value in body.items() if name not in refused_names}
    if capabilities.max_completion_tokens and "max_tokens" in sent:
        sent["max_completion_tokens"] = sent.pop("max_tokens")
    return sent
