"""Readers of layouts of published answers: VCR cassettes, batches, rows and conversations."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from urllib.parse import urljoin

from ...apis.message import object_in
from ...apis.shapes import served_model
from ...core.callbacks import each_from_callback
from ...errors import CacheError, ConfigError, ServiceError
from ...support.data import Data
from ...support.display import counted
from .published_responses import BATCH, is_exchange
from .published_tables import Columns, LocatedEntry, conversations, levels, objects, opened, rows

# The endings of files' names, but for .gz; all others contain JSON.
CSV, YAML = (".csv", ".tsv"), (".yaml", ".yml")
IDS = ("custom_id", "key")  # of a batch's lines; the latter is Gemini's
# The fields with a request, of OpenAI's form, Anthropic's and Gemini's
ASKED = frozenset({"body", "params", "request"})
ANSWERED = frozenset({"response", "result", "error"})
# The fields of other tools' files, which only a layout reads, and what these are
OTHERS = {
    ("recordId", "modelInput"): "a batch of Amazon Bedrock",
    ("request", "response", "status"): "the output of a batch of Vertex AI",
    ("log",): "a HAR file, a browser's log",
    ("http_interactions",): "a cassette of Ruby's or R's VCR",
}
OPENAI, ANTHROPIC = "https://api.openai.com", "https://api.anthropic.com/v1/messages"
GEMINI = "https://generativelanguage.googleapis.com/v1beta/models/{}:generateContent"
# The paths that the fields of a body imply, for batches that name none.
PATHS = {"messages": "/v1/chat/completions", "prompt": "/v1/completions", "input": "/v1/embeddings"}


def entries_in(paths: Sequence[str], columns: Columns, model: str | None) -> Iterator[LocatedEntry]:
    """Yield the conversations and exchanges in files of the known layouts.

    :param columns: the meaning of the columns of rows.
    :param model: the model of a batch that names none.
    :raises CacheError: if a file cannot be read, with the location.
    """
    layouts = [(path, _layout(path, columns)) for path in paths]
    for path, read in layouts:
        if read is not None:
            yield from read(path, columns)
    yield from _batches([path for path, read in layouts if read is None], model)
    if columns.missing:
        listed = ", ".join(map(repr, columns.missing))
        raise CacheError(
            f"no row of {', '.join(paths)} has the column {listed} that --column names"
        )


def _layout(path: str, columns: Columns) -> Callable[[str, Columns], Iterator[LocatedEntry]] | None:
    """Return the reader of a file, or ``None`` for a part of a batch."""
    name = path.lower().removesuffix(".gz")
    if name.endswith(CSV):
        return rows
    if name.endswith(YAML):
        return exchanges_in_yaml
    _, first = next(objects(path), ("", {}))
    if "interactions" in first:
        return exchanges_in_json
    if not columns.problem(first):
        return conversations
    _check_known(path, first)
    is_batch = first.keys() & {*IDS} and first.keys() & (ASKED | ANSWERED)
    return None if is_batch else conversations


def _check_known(path: str, first: Mapping[str, object]) -> None:
    """Raise an error for another tool's file.

    :param first: its first object.
    """
    for names, kind in OTHERS.items():
        if first.keys() >= {*names}:
            raise CacheError(
                f"{path}: it is {kind}; to read it, give a layout that yields its exchanges: --layout MODULE:FUNCTION"
            )


def by_layout(
    layout: Callable[[str], Iterable[object]], name: str, paths: Sequence[str], columns: Columns
) -> Iterator[LocatedEntry]:
    """Yield the conversations and exchanges that a user's function reads from files.

    :param name: the function's name, for messages.
    :raises CacheError: if it raises anything.
    """
    for path in paths:
        number = 0
        try:
            for number, entry in enumerate(each_from_callback(layout, path), 1):
                conversation = columns.conversation(entry, has_paths=False)
                yield f"{path}, conversation {number}", conversation
        except Exception as error:
            raise CacheError(
                f"{path}: the layout {name} failed after {counted(number, 'conversation')}; nothing is written: "
                f"{type(error).__name__}: {error}"
            ) from error


def _batches(paths: Iterable[str], model: str | None) -> Iterator[LocatedEntry]:
    """Yield the calls of batches as exchanges of the API that each called, or why there is none.

    :param paths: the input and output files.
    :param model: the model of requests that name none, or ``None``.
    :raises CacheError: if there are only inputs, or only outputs, or an id occurs twice in one of them.
    """
    asked: dict[str, tuple[str, dict[str, Data]]] = {}
    answered: dict[str, tuple[str, dict[str, Data]]] = {}
    parts = (("input", ASKED, asked), ("output", ANSWERED, answered))
    for path in paths:
        for location, entry in objects(path):
            name = next((entry[name] for name in IDS if name in entry), None)
            if not isinstance(name, str):
                raise CacheError(
                    f"{location}: the line has no custom_id, which every line of a batch has"
                )
            for part, fields, lines in parts:  # a line may have both
                if fields & entry.keys():
                    if name in lines:
                        raise CacheError(
                            f"{location}: the id {name!r} is in the {part} twice; import each batch by itself"
                        )
                    lines[name] = location, entry
    if bool(asked) != bool(answered):
        part, lack = ("input", "answers") if asked else ("output", "requests")
        other = "output" if asked else "input"
        raise CacheError(
            f"{', '.join(paths)} is the {part} of a batch, which lacks the {lack}: also give its {other} file"
        )
    for name, (location, entry) in asked.items():
        try:
            if name not in answered:
                raise ServiceError("the output has no such id")
            response = batch_response(answered[name][1])
            request = _batch_request(entry, model or served_model(object_in(response["body"])))
            exchange = {"request": request, "response": response, "service_tier": BATCH}
            yield location, {"scope": levels(name), **exchange}
        except ServiceError as error:
            yield location, error
    for name in [name for name in answered if name not in asked]:
        yield answered[name][0], ServiceError(f"no input file has the id {name!r}")


def _batch_request(entry: Mapping[str, object], model: str | None) -> dict[str, object]:
    """Return the request in an input's line.

    :param model: for a request that names none.
    """
    if "request" in entry:
        return {"uri": GEMINI.format(model), "body": entry["request"]}
    body = object_in(entry.get("params") or entry.get("body"))
    if model is not None:
        body = {"model": model, **body}
    path = entry.get("url") or next((PATHS[name] for name in PATHS if name in body), "")
    return {"uri": ANTHROPIC if "params" in entry else urljoin(OPENAI, str(path)), "body": body}


def batch_response(entry: Mapping[str, Data]) -> dict[str, Data]:
    """Return the response in an output's line.

    :raises ServiceError: if it holds an error.
    """
    response, result = object_in(entry.get("response")), object_in(entry.get("result"))
    body = response.get("body") if {"body", "status_code"} & response.keys() else response
    body = body or result.get("message")
    error = entry.get("error") or result.get("error")
    if error or not body:
        reported = object_in(object_in(error).get("error") or error)
        words = reported.get("message") or error or result.get("type") or "an empty response"
        failure = ServiceError(str(words))
        failure.code = reported.get("code")
        raise failure
    return {"status_code": response.get("status_code"), "body": body}


def exchanges_in_yaml(path: str, _: Columns) -> Iterator[LocatedEntry]:
    """Yield a VCR cassette's exchanges, in order.

    :raises CacheError: if it is not such a cassette.
    :raises ConfigError: if PyYAML is not installed (the extra ``yaml``).
    """
    try:
        from ...support.libraries import yaml
    except ImportError as error:
        raise ConfigError(
            "VCR's cassettes are YAML; to read them, install PyYAML, or llmcall with the extra 'yaml'"
        ) from error
    loader = yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader
    with opened(path) as file:
        try:
            cassette = yaml.load(file, loader)
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            raise CacheError(f"{path}: it is not YAML: {error}") from error
    return _exchanges(path, cassette)


def exchanges_in_json(path: str, _: Columns) -> Iterator[LocatedEntry]:
    """Yield the exchanges of a VCR cassette in JSON, in order."""
    for _location, cassette in objects(path):
        yield from _exchanges(path, cassette)


def _exchanges(path: str, cassette: object) -> Iterator[LocatedEntry]:
    fields = object_in(cassette)
    _check_known(path, fields)
    interactions = fields.get("interactions")
    if not isinstance(interactions, list):
        raise CacheError(f"{path}: it is not a VCR cassette: it has no list of interactions")
    for number, interaction in enumerate(interactions, 1):
        entry = interaction if is_exchange(interaction) else ValueError("it has no request")
        yield f"{path}, interaction {number}", entry
