"""Read TinyTroupe's pickle cache: each entry becomes the record that a call of the same parameters
makes.

Forms, as of microsoft/TinyTroupe from its first public version to 0.6: a dict whose keys are
``str((model, params))``, and whose values are the SDK's ``ChatCompletion`` objects, or, since 0.6,
what their ``model_dump()`` gives, or, of its client for Ollama, the response as JSON. Whatever
class or function a pickle names, a stand-in is built in its place: nothing is imported or run.
"""

from __future__ import annotations

import ast
import pickle
import re
from functools import partial
from typing import TYPE_CHECKING, Any

from ..config import resolve as config
from ..errors import APIError, CacheCorruptError
from ..models.catalog import resolve
from ..notices import notice
from ..records.packed import UNREADABLE
from ..requests.arguments import (
    DIGEST,
    asked_messages,
    asked_parameters,
    check_messages,
    check_names,
    given_parameters,
)
from ..requests.keys import key_of, map_texts, normalizer, plain
from ..responses import check_chat
from ..text import brief
from ..types import Record

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ..config.settings import Settings

PICKLE = b"\x80"  # a pickle of protocol 2 or later; Python's default since 3.0
REASON = 200  # characters of a reason
REASONS = 5  # that the log names

# the fields of a request that hold what was said
NORMALIZED = frozenset({"messages", "input", "arguments", "body"})
# What of TinyTroupe's parameters does not matter to an answer, or is no parameter of the API
# (NUM_CTX of Ollama).
UNASKED = ("model", "messages", "options", "timeout", "stream", "num_ctx")
# What the SDK's parse() adds to an answer: objects of classes that are not here.
PARSED = frozenset({"parsed", "parsed_arguments"})
# What stands in Python's notation of data for itself, and a parameter that is a class, of which
# there is only the name.
TEXT_OR_CLASS = re.compile(
    r"""'(\w+)': (<class '[\w.<>]+'>)""" r"""|'[^'\\]*(?:\\.[^'\\]*)*'|"[^"\\]*(?:\\.[^"\\]*)*\"""",
    re.DOTALL,
)


class _StandIn:
    """Stand for whatever a pickle would have built by code; keep what it was to be filled with."""

    def __init__(self, *arguments: object, **named: object) -> None:
        self.state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> type[Any]:
        """Return a set, which pydantic's objects hold, or a stand-in."""
        return set if (module, name) in (("builtins", "set"), ("__builtin__", "set")) else _StandIn


def recognized(path: str) -> bool:
    """Return whether a file is a pickle, as far as its first byte tells."""
    with open(path, "rb") as file:
        return file.read(1) == PICKLE


def read(path: str, classes: tuple[type[Any], ...] = ()) -> list[Record]:
    """Return the records of a pickle cache in the order of the file, and say in the log what could
    not be read.

    Nothing in the file is run. ``REASONING_EFFORT``, which TinyTroupe did not write down, is taken
    from the settings, as are aliases, namespace and normalizers: a script that repeats a call with
    these settings finds its answer. An entry with ``top_p=0`` becomes a second record, for calls
    without ``top_p``. Where TinyTroupe itself asks otherwise, without ``REASONING_EFFORT`` and with
    the SDK's schema of a class, that becomes one more.

    :param classes: those that were a ``response_format``, found by the module and name in a key,
        else by the name.
    :raises CacheCorruptError: where the file is no such cache.
    """
    settings = config.settings()
    records: dict[str, Record] = {}
    unreadable = []
    entries = _entries(path)
    for number, (key, value) in enumerate(entries.items(), 1):
        try:
            response = plain(_plain(value), "its answer", exact=True, surrogates=True)
            check_chat(response)
            for request in _requests(key, settings, classes):
                record = Record(key_of("chat", request, None), "chat", None, request, response)
                if records.setdefault(record.cache_key, record).response != response:
                    raise ValueError(
                        "it is another answer to a request that stands in the file before"
                    )
        except (ValueError, TypeError, LookupError, RecursionError, APIError) as error:
            unreadable.append(f"entry {number}: {brief(str(error), REASON)}")
    if unreadable:
        notice(
            "%s: %d of %d entries could not be read: %s",
            path, len(unreadable), len(entries), "; ".join(unreadable[:REASONS]),
        )  # fmt: skip
    return list(records.values())


def _entries(path: str) -> dict[Any, Any]:
    try:
        with open(path, "rb") as file:
            entries = _Unpickler(file).load()
    except UNREADABLE as error:
        raise CacheCorruptError(f"{path} cannot be read as a pickle: {error}") from error
    if not isinstance(entries, dict):
        raise CacheCorruptError(f"{path} is no cache of TinyTroupe: it holds no dict")
    return entries


def _plain(value: Any) -> Any:
    """Return what a pickle held without its objects: of each one, its fields."""
    if isinstance(
        value, _StandIn
    ):  # of a pydantic model (1 or 2): the fields that it declares, and those beyond
        state = value.state if isinstance(value.state, dict) else {}
        if not isinstance(state.get("__dict__"), dict):
            raise ValueError("it holds an object that is no pydantic model")
        value = {**state["__dict__"], **(state.get("__pydantic_extra__") or {})}
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items() if name not in PARSED}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def _requests(key: Any, settings: Settings, classes: tuple[type[Any], ...]) -> list[dict[str, Any]]:
    """Return the requests that an entry answers: that of a script on llmcall, and others that mean
    the same.
    """
    model, params = _asked(key, classes)
    effort = params.get("reasoning_effort") or settings.reasoning_effort
    request = _request(model, {**params, "reasoning_effort": effort}, settings)
    found = [request]
    if request.get("top_p") == 0:  # TinyTroupe sent it up to 0.4 where its user had said nothing
        found.append({name: value for name, value in request.items() if name != "top_p"})
    sent = params.get("response_format")
    if isinstance(sent, type):
        sent = _sent_by_sdk(sent)
    return [*found, _request(model, {**params, "response_format": sent}, settings)]


def _request(model: str, params: dict[str, Any], settings: Settings) -> dict[str, Any]:
    options = params.get("options")
    found = {**params, **(options if isinstance(options, dict) else {})}
    given = {
        name: value
        for name, value in found.items()
        if name not in UNASKED and value not in (None, [])
    }
    check_names(given)
    messages = asked_messages(
        check_messages(params.get("messages")), normalizer(settings.cache_normalize)
    )
    return asked_now(
        {"model": model, "messages": messages, **asked_parameters(given_parameters(given))},
        settings,
    )


def _sent_by_sdk(model: type[Any]) -> dict[str, Any]:
    """Return what the SDK's ``parse()`` sends as ``response_format`` for a class: its own schema of
    it, not ours.
    """
    import openai

    schema = openai.pydantic_function_tool(model)["function"]["parameters"]
    return {
        "type": "json_schema",
        "json_schema": {"schema": schema, "name": model.__name__, "strict": True},
    }


def _asked(key: Any, classes: tuple[type[Any], ...]) -> tuple[str, dict[str, Any]]:
    """Return the model and the parameters that a key names."""
    found = _literal(key, classes) if isinstance(key, str) else None
    if not isinstance(found, tuple) or len(found) != 2 or not isinstance(found[1], dict):
        raise ValueError(
            "its key is none of TinyTroupe's: (model, parameters) in Python's notation"
        )
    model = found[1].get("model") or found[0]
    if not isinstance(model, str):
        raise ValueError(f"its key names no model but {model!r}")
    return model, found[1]


def _literal(text: str, classes: tuple[type[Any], ...]) -> Any:
    """Return the plain data that a text is Python's notation of, with a class as
    ``response_format``.
    """
    given: dict[str, type[Any]] = {}

    def without_class(found: re.Match[str]) -> str:
        """Return a text as it is, and nothing in place of a class."""
        if found[2] is None:
            return found[0]
        given[found[1]] = _class_named(found[2], found[1], classes)
        return f"'{found[1]}': None"

    text = TEXT_OR_CLASS.sub(without_class, text)
    try:
        value = ast.literal_eval(text)
    except (SyntaxError, ValueError, MemoryError, RecursionError) as error:
        raise ValueError("its key cannot be read as plain data in Python's notation") from error
    if given:
        value[1].update(given)
    return value


def _class_named(text: str, parameter: str, classes: tuple[type[Any], ...]) -> type[Any]:
    """Return the class whose ``repr`` a key holds: of the same module and name, else of the same
    name.
    """
    name = text[len("<class '") : -len("'>")].rpartition(".")[2]
    same = [each for each in classes if repr(each) == text] or [
        each for each in classes if each.__name__ == name
    ]
    if parameter != "response_format" or len(same) != 1:
        remedy = f"load(…, classes=[{name}]) gives it"
        raise ValueError(
            f"its {parameter} is a Python class, {name}, whose schema is not in the file: {remedy}"
        )
    return same[0]


def asked_now(asked: Mapping[str, Any], settings: Settings) -> dict[str, Any]:
    """Return a request as it is asked under some settings: the model after aliases, in their
    namespace, and without what their normalizers leave out.
    """
    now = {name: value for name, value in asked.items() if name != "namespace"}
    namespace = settings.cache_namespace
    if "model" in asked:
        model = now["model"] = resolve(str(asked["model"]), settings.aliases)
        names = {endpoint.namespace for endpoint in settings.endpoints if model in endpoint.models}
        namespace = (names.pop() if len(names) == 1 else None) or namespace
    replace = normalizer(settings.cache_normalize)
    if replace is not None:
        for name in NORMALIZED.intersection(now):
            now[name] = map_texts(now[name], partial(_normalized, replace), kept=("role", "type"))
    return {**now, "namespace": namespace} if namespace else now


def _normalized(replace: Callable[[str], str], text: str) -> str:
    return text if DIGEST.match(text) else replace(text)
