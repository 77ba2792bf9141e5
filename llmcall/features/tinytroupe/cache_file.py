"""A reader of TinyTroupe's pickle cache: each entry becomes the record of the same call.

The cache is a dict, in microsoft/TinyTroupe from its first public version to 0.6. Its keys are
``str((model, params))``. Its values are the SDK's ``ChatCompletion`` objects, their
``model_dump()`` (since 0.6), or the response as JSON (from the client for Ollama). Nothing in the
file is imported or run: a placeholder replaces each class or function that the pickle names.
"""

from __future__ import annotations

import ast
import pickle
from collections.abc import Iterator
from typing import Any

from ...config import resolve as config
from ...config.settings import Settings
from ...core.kinds import check_chat
from ...errors import APIError, CacheCorruptError
from ...keys.http_identity import under_settings
from ...keys.keys import key_of
from ...keys.messages import checked_messages
from ...keys.parameters import checked_parameters, keyed_parameters
from ...keys.plain_data import recordable
from ...keys.request import Data
from ...stores.record import Record
from ...stores.records.keyed_settings import namespaces_of
from ...stores.records.packed import UNREADABLE
from ...support.display import one_line
from ...support.normalizers import normalizer
from ...support.notices import notice

PICKLE = b"\x80"  # a pickle of protocol 2 or later; Python's default since 3.0
MAX_REASON_CHARACTERS = 200
MAX_REASONS = 5  # in the warning

# TinyTroupe's parameters that do not affect the answer, or that the API lacks (Ollama's NUM_CTX)
IGNORED_PARAMETERS = ("model", "messages", "options", "timeout", "stream", "num_ctx")
# Fields that the SDK's parse() adds to an answer, with objects of the user's classes
PARSED = ("parsed", "parsed_arguments")


def read_if_pickled(path: str) -> list[Record] | None:
    """Return the records of a pickle cache in the order of the file; warn of unreadable entries. Return ``None`` for a
    file that is no pickle, as its first byte says.

    ``REASONING_EFFORT``, which TinyTroupe did not record, comes from the settings, as do aliases,
    namespace and normalizers: a script that repeats a call under these settings finds its answer. An
    entry gives several records where identical calls may differ in form: one without a ``top_p=0``, and
    one without ``REASONING_EFFORT``, as TinyTroupe itself sends them.

    :raises CacheCorruptError: if the file is not such a cache.
    """
    with open(path, "rb") as file:
        if file.read(1) != PICKLE:
            return None
    settings = config.settings()
    records: dict[str, Record] = {}
    problems = []
    entries = _entries(path)
    for number, (key, value) in enumerate(entries.items(), 1):
        try:
            for record in _records(key, value, settings):
                earlier = records.setdefault(record.cache_key, record)
                if earlier.response != record.response:
                    raise ValueError("an earlier entry has a different answer to the same request")
        except (ValueError, TypeError, LookupError, RecursionError, APIError) as error:
            problems.append(f"entry {number}: {one_line(str(error), MAX_REASON_CHARACTERS)}")
    if problems:
        reasons = "; ".join(problems[:MAX_REASONS])
        count = len(problems)
        notice("%s: %d of %d entries cannot be read: %s", path, count, len(entries), reasons)
    return list(records.values())


# The pickle


class _StandIn:
    """A stand-in for an object that a pickle would build by running code; it keeps the state."""

    def __init__(self, *arguments: object, **named: object) -> None:
        self.state: object = None

    def __setstate__(self, state: object) -> None:
        self.state = state


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> type[object]:
        """Return a set, which pydantic's objects hold, or a stand-in."""
        is_set = name == "set" and module in ("builtins", "__builtin__")
        return set if is_set else _StandIn


def _entries(path: str) -> dict[Any, object]:
    try:
        with open(path, "rb") as file:
            entries = _Unpickler(file).load()
    except UNREADABLE as error:
        raise CacheCorruptError(f"{path} cannot be read as a pickle: {error}") from error
    if not isinstance(entries, dict):
        raise CacheCorruptError(f"{path} is not a TinyTroupe cache: it does not contain a dict")
    return entries


def _as_plain_data(value: object) -> object:
    """Return a pickle's value as plain data: objects of pydantic (1 or 2) become dicts of their fields, undeclared ones
    included.
    """
    if isinstance(value, _StandIn):
        state = value.state if isinstance(value.state, dict) else {}
        if not isinstance(state.get("__dict__"), dict):
            raise ValueError("it contains an object that is not a pydantic model")
        value = {**state["__dict__"], **(state.get("__pydantic_extra__") or {})}
    if isinstance(value, dict):
        return {name: _as_plain_data(item) for name, item in value.items() if name not in PARSED}
    if isinstance(value, (list, tuple)):
        return [_as_plain_data(item) for item in value]
    return value


# The requests


def _records(key: object, value: object, settings: Settings) -> list[Record]:
    """Return the records of an entry."""
    response = recordable(_as_plain_data(value), "its answer", surrogates=True)
    check_chat(response)
    return [
        Record(key_of("chat", request, None), "chat", None, request, response)
        for request in _requests(key, settings)
    ]


def _requests(key: object, settings: Settings) -> Iterator[dict[str, Data]]:
    """Yield the requests that an entry answers, beginning with llmcall's own form."""
    model, params = _model_and_params(key)
    effort = params.get("reasoning_effort") or settings.reasoning_effort
    request = _request(model, {**params, "reasoning_effort": effort}, settings)
    yield request
    if request.get("top_p") == 0:
        # TinyTroupe up to 0.4 sent top_p=0 by default.
        yield {name: value for name, value in request.items() if name != "top_p"}
    yield _request(model, params, settings)


def _request(model: str, params: dict[str, object], settings: Settings) -> dict[str, object]:
    options = params.get("options")
    if isinstance(options, dict):
        params = {**params, **options}
    parameters = {
        name: value
        for name, value in params.items()
        if name not in IGNORED_PARAMETERS and value not in (None, [])
    }
    parameters = checked_parameters(parameters)
    _, messages = checked_messages(
        params.get("messages"), normalize=normalizer(settings.cache_normalize)
    )
    request = {
        "model": model,
        "messages": messages,
        **keyed_parameters(parameters, settings.cassette_allow),
    }
    changed = under_settings(request, settings)
    namespace = namespaces_of(settings).get(str(changed["model"])) or settings.cache_namespace
    return {**changed, "namespace": namespace} if namespace else changed


# The keys


def _model_and_params(key: object) -> tuple[str, dict[str, object]]:
    """Return the model and the parameters in a key."""
    try:
        data = ast.literal_eval(key) if isinstance(key, str) else None
    except (SyntaxError, ValueError, MemoryError, RecursionError) as error:
        raise ValueError(
            "its key cannot be read as plain data in Python's notation (it may name a class as response_format)"
        ) from error
    if not isinstance(data, tuple) or len(data) != 2 or not isinstance(data[1], dict):
        raise ValueError("its key is not TinyTroupe's: (model, parameters) in Python's notation")
    model, params = data
    model = params.get("model") or model
    if not isinstance(model, str):
        raise ValueError(f"its key does not name a model but {model!r}")
    return model, params
