"""Readers of layouts of published answers: VCR cassettes, batches, rows and conversations."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import urljoin

from ...apis.message import object_in
from ...apis.shapes import served_model
from ...core.callbacks import each_from_callback
from ...errors import CacheError, ConfigError, ServiceError
from ...support.display import counted
from .published_responses import BATCH, is_exchange
from .published_tables import Columns, LocatedEntry, conversations, levels, objects, opened, rows

# The endings of files' names, but for .gz; all others contain JSON.
CSV, YAML = (".csv", ".tsv"), (".yaml", ".yml")
IDS = ("custom_id", "key")  # of a batch's lines; the latter is Gemini's
# The fields with a request, of OpenAI's form, Anthropic's and Gemini's
ASKED = ("body", "params", "request")
ANSWERED = ("response", "result", "error")
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
    layouts = {path: _layout(path) for path in paths}
    batch = Batch([path for path in paths if layouts[path] is None], model)
    answers = batch.answers()
    for path in paths:
        if (read := layouts[path]) is not None:
            yield from read(path, columns)
        elif path in batch.inputs:
            yield from batch.calls(path, answers)
    yield from batch.answers_without_question()
    if columns.missing:
        listed = ", ".join(map(repr, columns.missing))
        raise CacheError(
            f"no row of {', '.join(paths)} has the column {listed} that --column names"
        )


def _layout(path: str) -> Callable[[str, Columns], Iterator[LocatedEntry]] | None:
    """Return the reader of a file, or ``None`` for a part of a batch."""
    name = path.lower().removesuffix(".gz")
    if name.endswith(CSV):
        return rows
    if name.endswith(YAML):
        return exchanges_in_yaml
    _, first = next(objects(path), ("", {}))
    if "interactions" in first:
        return exchanges_in_json
    is_batch = any(name in first for name in IDS) and any(
        name in first for name in (*ASKED, *ANSWERED)
    )
    return None if is_batch else conversations


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


class Batch:
    """The input and output files of batches, as exchanges of the API that each batch called.

    :param paths: the files.
    :param model: the model of requests that name none, or ``None``.
    :ivar inputs: the files with the requests.
    :ivar outputs: the files with the answers and errors.
    :raises CacheError: if there are only inputs, or only outputs.
    """

    def __init__(self, paths: Iterable[str], model: str | None) -> None:
        self.inputs: list[str] = []
        self.outputs: list[str] = []
        self._model = model
        self._asked: set[str] = set()  # the ids of requests
        for path in paths:
            _, first = next(objects(path))
            (self.inputs if any(name in first for name in ASKED) else self.outputs).append(path)
        for found, missing, part, lack in (
            (self.outputs, self.inputs, "output", "requests: name its input"),
            (self.inputs, self.outputs, "input", "answers: name its output"),
        ):
            if found and not missing:
                raise CacheError(
                    f"{found[0]} is the {part} of a batch, which does not contain the {lack} file, too"
                )

    def answers(self) -> dict[str, str]:
        """Return the lines of the output by their ids, as JSON.

        :raises CacheError: if an id occurs twice in the input or in the output.
        """
        answers: dict[str, str] = {}
        for part, paths in (("input", self.inputs), ("output", self.outputs)):
            names: set[str] = set()
            for location, name, entry in self._lines(paths):
                if name in names:
                    raise CacheError(
                        f"{location}: the id {name!r} is in the {part} twice; import each batch by itself"
                    )
                names.add(name)
                if part == "output":
                    answers[name] = json.dumps(entry)
        return answers

    def calls(self, path: str, answers: Mapping[str, str]) -> Iterator[LocatedEntry]:
        """Yield the exchanges of an input file, or why there is none."""
        for location, name, entry in self._lines([path]):
            self._asked.add(name)
            try:
                answer = answers.get(name)
                if answer is None:
                    raise ServiceError("the output has no such id")
                response = _batch_response(json.loads(answer))
                request = self._request(entry, object_in(response["body"]))
                yield (
                    location,
                    {
                        "scope": levels(name),
                        "request": request,
                        "response": response,
                        "service_tier": BATCH,
                    },
                )
            except ServiceError as error:
                yield location, error

    def answers_without_question(self) -> Iterator[LocatedEntry]:
        """Yield the reasons to skip answers whose request is in no input file."""
        for location, name, _ in self._lines(self.outputs):
            if name not in self._asked:
                yield location, ServiceError(f"no input file has the id {name!r}")

    def _lines(self, paths: Iterable[str]) -> Iterator[tuple[str, str, dict[str, Any]]]:
        """Yield the lines of some files with their locations and ids."""
        for path in paths:
            for location, entry in objects(path):
                name = next((entry[name] for name in IDS if name in entry), None)
                if not isinstance(name, str):
                    raise CacheError(
                        f"{location}: the line has no custom_id, as a batch's lines have"
                    )
                yield location, name, entry

    def _request(self, entry: Mapping[str, Any], answer: Mapping[str, Any]) -> dict[str, object]:
        """Return the request of an input's line.

        :param answer: names the model that answered.
        """
        model = self._model or served_model(answer)
        if "request" in entry:
            return {"uri": GEMINI.format(model), "body": entry["request"]}
        body = object_in(entry.get("params") or entry.get("body"))
        if model is not None:
            body = {"model": model, **body}
        path = entry.get("url") or next((PATHS[name] for name in PATHS if name in body), "")
        return {"uri": ANTHROPIC if "params" in entry else urljoin(OPENAI, str(path)), "body": body}


def _batch_response(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return the response in an output's line.

    :raises ServiceError: if it holds an error.
    """
    response, result = object_in(entry.get("response")), object_in(entry.get("result"))
    body = response.get("body") if {"body", "status_code"} & response.keys() else response
    body = body or result.get("message")
    error = entry.get("error") or result.get("error")
    if error or not body:
        reported = object_in(object_in(error).get("error") or error).get("message")
        raise ServiceError(str(reported or error or result.get("type") or "an empty response"))
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
    interactions = object_in(cassette).get("interactions")
    if not isinstance(interactions, list):
        raise CacheError(f"{path}: it is not a cassette of VCR's: it has no list of interactions")
    for number, interaction in enumerate(interactions, 1):
        entry = interaction if is_exchange(interaction) else ValueError("it has no request")
        yield f"{path}, interaction {number}", entry
