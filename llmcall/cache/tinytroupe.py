"""Read TinyTroupe's pickle cache: each entry becomes the record that a call of the same parameters makes.

Forms, as of microsoft/TinyTroupe from its first public version to 0.6: a dict whose keys are ``str((model, params))``,
and whose values are the SDK's ``ChatCompletion`` objects, or, since 0.6, what their ``model_dump()`` gives, or, of its
client for Ollama, the response as JSON. An entry whose ``response_format`` was a class cannot be read: its key has the
class's name alone.
"""

from __future__ import annotations

import ast
import os
import re
from typing import TYPE_CHECKING, Any

from ..config import resolve as config
from ..errors import APIError, CacheCorruptError
from ..models.capabilities import resolve
from ..requests.keys import key_of, normalizer
from ..requests.messages import asked_messages, check_messages
from ..requests.parameters import asked_parameters, check_names, given_parameters
from ..responses.validate import check_chat
from ..types import Record
from .pickles import DEPTH, Room, plain
from .pickles import read as read_pickle

if TYPE_CHECKING:
    from ..config.settings import Settings

__all__ = ["read", "readable", "recognized"]

PICKLE = b"\x80"  # a pickle of protocol 2 or later; Python's default since 3.0
GROWTH = 10  # how many times a file's size the records made of it may have
REASON = 200  # characters of a reason
REASONS = 5  # that the log names

# What of TinyTroupe's parameters does not matter to an answer, or is no parameter of the API (NUM_CTX of Ollama).
UNASKED = ("model", "messages", "options", "timeout", "stream", "num_ctx")
# What the SDK's parse() adds to an answer: objects of classes that are not here.
PARSED = frozenset({"parsed", "parsed_arguments"})
# What stands in Python's notation of plain data.
TOKEN = re.compile(
    r"""'[^'\\]*(?:\\.[^'\\]*)*'|"[^"\\]*(?:\\.[^"\\]*)*"|-?\d[\d.]*(?:e[+-]?\d+)?|True|False|None|[\[{(]|[\]})]|[,:\s]""",
    re.DOTALL,
)


def recognized(path: str | os.PathLike[str]) -> bool:
    """Return whether a file is a pickle, as far as its first byte tells."""
    with open(path, "rb") as file:
        return file.read(1) == PICKLE


def readable(path: str | os.PathLike[str]) -> list[Record]:
    """Return the records of a pickle cache, and say in the log what could not be read; as :func:`read`."""
    records, unreadable = read(path)
    if unreadable:
        import logging

        logging.getLogger("llmcall").warning(
            "%s: %d of %d entries could not be read: %s%s",
            os.fspath(path),
            len(unreadable),
            len(unreadable) + len(records),
            "; ".join(unreadable[:REASONS]),
            "; …" if len(unreadable) > REASONS else "",
        )
    return records


def read(path: str | os.PathLike[str], settings: Settings | None = None) -> tuple[list[Record], list[str]]:
    """Return the records of a pickle cache, and why others could not be read.

    Nothing in the file is run. ``REASONING_EFFORT``, which TinyTroupe did not write down, is taken from the settings,
    as are aliases, namespace and normalizers: a script that repeats a call with these settings finds its answer.

    :param settings: ``None`` means the process's.
    :returns: the records in the order of the file, and one line for each entry that could not be read.
    :raises CacheCorruptError: where the file is no such cache.
    """
    with open(path, "rb") as file:
        data = file.read()
    entries = _entries(data, os.fspath(path))
    known, room = settings or config.settings(), Room(GROWTH * len(data))
    records: dict[str, Record] = {}
    unreadable = []
    for number, (key, value) in enumerate(entries.items(), 1):
        try:
            record = _record(key, value, known, room)
            if records.setdefault(record.cache_key, record).response != record.response:
                raise ValueError("it is another answer to a request that stands in the file before")
        except (ValueError, TypeError, APIError) as error:
            reason = str(error)
            unreadable.append(f"entry {number}: {reason if len(reason) <= REASON else reason[:REASON] + '…'}")
    return list(records.values()), unreadable


def _entries(data: bytes, name: str) -> dict[Any, Any]:
    try:
        entries = read_pickle(data)
    except ValueError as error:
        raise CacheCorruptError(f"{name} cannot be read as a pickle: {error}") from error
    if not isinstance(entries, dict):
        raise CacheCorruptError(f"{name} is no cache of TinyTroupe: it holds no dict")
    return entries


def _record(key: Any, value: Any, settings: Settings, room: Room) -> Record:
    response = plain(value, room, PARSED)
    check_chat(response)
    request = _request(key, settings)
    return Record(key_of("chat", request, None), "chat", None, request, response)


def _request(key: Any, settings: Settings) -> dict[str, Any]:
    model, params = _asked(key)
    options = params.get("options")
    found = {**params, **(options if isinstance(options, dict) else {})}
    given = {name: value for name, value in found.items() if name not in UNASKED and value not in (None, [])}
    given.setdefault("reasoning_effort", settings.reasoning_effort)
    check_names(given)
    model = resolve(model, settings.aliases)
    messages = asked_messages(check_messages(params.get("messages")), normalizer(settings.cache_normalize))
    namespace = _namespace(model, settings)
    return {
        "model": model,
        "messages": messages,
        **asked_parameters(given_parameters(given, None)),
        **({"namespace": namespace} if namespace else {}),
    }


def _asked(key: Any) -> tuple[str, dict[str, Any]]:
    """Return the model and the parameters that a key names."""
    found = _literal(key) if isinstance(key, str) else None
    if not isinstance(found, tuple) or len(found) != 2 or not isinstance(found[1], dict):
        raise ValueError("its key is none of TinyTroupe's: (model, parameters) in Python's notation")
    model = found[1].get("model") or found[0]
    if not isinstance(model, str):
        raise ValueError(f"its key names no model but {model!r}")
    return model, found[1]


def _literal(text: str) -> Any:
    """Return the plain data that a text is Python's notation of; anything else is not even parsed."""
    position = depth = 0
    while position < len(text):
        token = TOKEN.match(text, position)
        if token is None:
            raise ValueError(_unreadable(text, position))
        depth += (token[0] in "[{(") - (token[0] in "]})")
        if depth > DEPTH:
            raise ValueError(f"its key is nested more than {DEPTH} levels deep")
        position = token.end()
    try:
        return ast.literal_eval(text)
    except (SyntaxError, MemoryError, RecursionError) as error:
        raise ValueError(f"its key cannot be read: {error}") from error


def _unreadable(text: str, position: int) -> str:
    names = re.findall(r"'(\w+)': ", text[:position])
    what = "a Python class, whose schema is not in the file" if text.startswith("<class", position) else "no plain data"
    return f"its {names[-1] if names else 'key'} is {what}"


def _namespace(model: str, settings: Settings) -> str:
    """Return the namespace of the model's endpoints, else the cache's, as the clients do."""
    names = {endpoint.namespace for endpoint in settings.endpoints if model in endpoint.models}
    return (names.pop() if len(names) == 1 else None) or settings.cache_namespace
