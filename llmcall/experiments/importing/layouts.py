"""Readers of the layouts in which answers are published: OpenAI's batches, VCR's cassettes, and rows."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from urllib.parse import urlsplit

from ...apis.bodies import parse_events, read_object
from ...apis.chunks import Assembler
from ...apis.objects import object_in, objects_in
from ...core.membrane import each_foreign
from ...errors import CacheError, ConfigError, ServiceError
from ...keys.parameters import parameters_in
from ...stores.records.spool import Spool
from ...support.display.formatting import counted
from .columns import Columns, levels
from .responses import ASSISTANT, BATCH
from .tables import LocatedConversation, conversations, objects, rows

CHATS, COMPLETIONS = "/chat/completions", "/completions"  # the ends of the paths of calls
PROGRAM_SCOPE = ("run",)  # in which a replay looks for a program's calls
GZIP = b"\x1f\x8b"  # begins compressed data
OK_STATUSES = range(200, 300)
# The endings of files' names; all others contain JSON.
CSV, YAML = (".csv", ".tsv"), (".yaml", ".yml")


def conversations_in(paths: Sequence[str], columns: Columns) -> Iterator[LocatedConversation]:
    """Yield the conversations in files of the known layouts.

    :param columns: the meaning of the columns of rows.
    :raises CacheError: if a file cannot be read, with the location.
    """
    lower_names = {path: path.lower() for path in paths}
    batches = Batches(path for path in paths if not lower_names[path].endswith((*CSV, *YAML)))
    with Spool() as answers:
        batches.read_answers(answers)
        for path in paths:
            if lower_names[path].endswith(CSV):
                yield from rows(path, columns)
            elif lower_names[path].endswith(YAML):
                yield from calls_in(path)
            elif path in batches.inputs:
                yield from batches.calls(path, answers)
            elif path not in batches.outputs:
                yield from conversations(path, columns)
        yield from batches.answers_without_question(answers)
    if columns.missing:
        listed = ", ".join(map(repr, columns.missing))
        raise CacheError(
            f"no row of {', '.join(paths)} has the column {listed} that --column names"
        )


def by_layout(
    layout: Callable[[str], Iterable[object]], name: str, paths: Sequence[str], columns: Columns
) -> Iterator[LocatedConversation]:
    """Yield the conversations that a user's function reads from files.

    :param name: the function's name, for messages.
    :raises CacheError: if it raises anything.
    """
    for path in paths:
        number = 0
        try:
            for number, entry in enumerate(each_foreign(layout, path), 1):
                conversation = columns.conversation(entry, has_paths=False)
                yield f"{path}, conversation {number}", conversation
        except Exception as error:
            raise CacheError(
                f"{path}: the layout {name} failed after {counted(number, 'conversation')}; nothing is written: "
                f"{type(error).__name__}: {error}"
            ) from error


def call_conversation(
    path: str, body: object, response: object, scope: Sequence[str], tier: str | None = None
) -> dict[str, object]:
    """Return a call of the API as a conversation.

    :param path: the path of its address.
    :param body: the request's body.
    :param response: the answer, or an object with an ``error``.
    :param tier: the service tier, if the answer does not name it.
    """
    fields = object_in(body)
    prompt = fields.get("prompt")
    if path.endswith(CHATS):
        messages = fields.get("messages")
    elif path.endswith(COMPLETIONS) and isinstance(prompt, str):
        messages = [{"role": "user", "content": prompt}]
    else:
        messages = None
    if not isinstance(messages, list):
        return unanswered(
            f"POST {path} with such a body is neither a chat nor a completion of one text"
        )
    params = parameters_in(
        {name: value for name, value in fields.items() if name not in ("model", "prompt")}
    )
    return {
        "scope": scope,
        "messages": [*messages, {"role": ASSISTANT}],
        "responses": [response],
        "model": fields.get("model"),
        "params": params if tier is None else {**params, "service_tier": tier},
    }


def unanswered(reason: str) -> dict[str, object]:
    """Return a conversation that will be skipped, with the reason."""
    return {"messages": [{"role": ASSISTANT}], "responses": [{"error": reason}]}


class Batches:
    """The input and output files of an OpenAI batch among some files.

    :param paths: files of JSON.
    :ivar inputs: the files with the requests.
    :ivar outputs: the files with the answers and errors.
    :raises CacheError: if there are only inputs, or only outputs.
    """

    def __init__(self, paths: Iterable[str]) -> None:
        self.inputs: list[str] = []
        self.outputs: list[str] = []
        for path in paths:
            _, first = next(objects(path), ("", {}))
            if "custom_id" in first:
                (self.inputs if "body" in first else self.outputs).append(path)
        if self.outputs and not self.inputs:
            raise CacheError(
                f"{self.outputs[0]} is the output of a batch, which does not contain the requests: name its input "
                "file, too"
            )
        if self.inputs and not self.outputs:
            raise CacheError(
                f"{self.inputs[0]} is the input of a batch, which does not contain the answers: name its output file, "
                "too"
            )

    def read_answers(self, answers: Spool) -> None:
        """Put the answers into a spool, by their ``custom_id``."""
        for location, name, entry in self._lines(self.outputs):
            if not answers.is_first_use(name):
                raise CacheError(
                    f"{location}: the custom_id {name!r} is in the output twice; import each batch by itself"
                )
            response = object_in(entry.get("response"))
            body = response.get("body")
            error = entry.get("error") or (None if body else f"an empty response, {response}")
            answers.add_text(name, json.dumps({"error": error} if error else body))

    def calls(self, path: str, answers: Spool) -> Iterator[LocatedConversation]:
        """Yield the calls in an input file, with their answers."""
        for location, name, entry in self._lines([path]):
            answers.counted_before(name.encode())
            answer = answers.text(name)
            response = (
                {"error": "the output has no such custom_id"}
                if answer is None
                else json.loads(answer)
            )
            address = str(entry.get("url")).partition("?")[0]
            yield (
                location,
                call_conversation(address, entry.get("body"), response, levels(name), BATCH),
            )

    def answers_without_question(self, answers: Spool) -> Iterator[LocatedConversation]:
        """Yield the answers whose request is in no input file, to be skipped."""
        for location, name, _ in self._lines(self.outputs):
            if not answers.counted_before(name.encode()):
                yield location, unanswered(f"no input file has the custom_id {name!r}")

    def _lines(self, paths: Iterable[str]) -> Iterator[tuple[str, str, dict[str, object]]]:
        """Yield the lines of some files with their locations and ids."""
        for path in paths:
            for location, entry in objects(path):
                if not isinstance(name := entry.get("custom_id"), str):
                    raise CacheError(
                        f"{location}: the line has no custom_id, as a batch's lines have"
                    )
                yield location, name, entry


def calls_in(path: str) -> Iterator[LocatedConversation]:
    """Yield the calls in a cassette of VCR's, in order.

    :raises CacheError: if it is not such a cassette.
    :raises ConfigError: if PyYAML is not installed (the extra ``yaml``).
    """
    for number, interaction in enumerate(_interactions(path), 1):
        yield f"{path}, interaction {number}", _conversation(interaction)


def _conversation(interaction: dict[str, object]) -> dict[str, object]:
    """Return a call as a conversation."""
    request, response = (object_in(interaction.get(name)) for name in ("request", "response"))
    address = urlsplit(str(request.get("uri"))).path
    try:
        body = read_object(_bytes(request.get("body")) or b"{}", "request")
        answer = _answer(response, is_stream=bool(body.get("stream")))
    except (ServiceError, zlib.error) as error:
        return unanswered(f"{request.get('method')} {address}: {error}")
    return call_conversation(address, body, answer, PROGRAM_SCOPE)


def _interactions(path: str) -> list[dict[str, object]]:
    try:
        from ...support.libraries import yaml
    except ImportError as error:
        raise ConfigError(
            "VCR's cassettes are YAML; to read them, install PyYAML, or llmcall with the extra 'yaml'"
        ) from error
    loader = yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader
    with open(path, "rb") as file:
        try:
            cassette = yaml.load(file, loader)
        except yaml.YAMLError as error:
            raise CacheError(f"{path}: it is not YAML: {error}") from error
    interactions = object_in(cassette).get("interactions")
    if not isinstance(interactions, list):
        raise CacheError(f"{path}: it is not a cassette of VCR's: it has no list of interactions")
    return objects_in(interactions)


def _answer(response: dict[str, object], *, is_stream: bool) -> dict[str, object]:
    """Return the response of a call; a stream's chunks are assembled."""
    content = _bytes(response.get("body"))
    code = object_in(response.get("status")).get("code") or response.get("status_code")
    if code is not None and code not in OK_STATUSES:
        return {"error": f"the server answered {code}: {content[:200].decode(errors='replace')}"}
    if not (is_stream and content.lstrip().startswith((b"data:", b":", b"event:"))):
        return read_object(content, "answer")
    assembler = Assembler()
    for event in parse_events(content):
        assembler.add(event)
    return assembler.response()


def _bytes(body: object) -> bytes:
    """Return a body as uncompressed bytes."""
    content = body.get("string") if isinstance(body, dict) else body
    if isinstance(content, (dict, list)):
        content = json.dumps(content)
    data = content.encode() if isinstance(content, str) else content
    if not isinstance(data, bytes):  # None, or a number
        return b""
    return zlib.decompress(data, wbits=31) if data.startswith(GZIP) else data
