"""``llmcall.import_answers``: a cassette of conversations that others published."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from ...apis.message import message_of
from ...apis.shapes import choices_of
from ...apis.token_usage import tier_of
from ...config import resolve as config
from ...errors import APIError, ArgumentError, CacheError, LLMCallError
from ...keys.keys import identity, sampled_key
from ...keys.messages import checked_messages
from ...keys.parameters import CONFIGURED, checked_parameters, keyed_parameters
from ...keys.plain_data import recordable
from ...keys.request import Data
from ...models.prices import price_of
from ...programs.recorder import ProgramClient
from ...scopes.active import PROGRAM_SCOPE
from ...scopes.position import checked_name
from ...stores.days import creation_time
from ...stores.record import Record
from ...stores.records.answers import same_answer
from ...stores.records.header import Header
from ...stores.records.packed import kept
from ...stores.records.reader import read
from ...stores.records.writer import write
from ...support.display import counted, one_line, printable
from ...support.secrets import masked
from .layouts import by_layout, entries_in
from .notes import IMPORTED, imported_note
from .published_responses import (
    ASSISTANT,
    BATCH,
    OVERRIDES,
    chat_with,
    is_exchange,
    is_placeholder,
    records_of,
    split_choices,
    turn_response,
)
from .published_tables import IS_ROW, Columns, parameters

MAX_REASONS = 20  # in the text of a result
MAX_REASON_CHARACTERS = 300


@dataclass(frozen=True)
class Imported:
    """The result of :func:`llmcall.import_answers`; ``str()`` gives a report.

    :ivar path: the cassette.
    :ivar records: the number of its answers.
    :ivar conversations: the number of conversations read.
    :ivar skipped: for each turn that was left out, the number of its conversation, from 1, and the
        reason.
    :ivar nameless: the number of records without a model, which no call finds.
    :ivar draws: the number of records outside any scope that repeat the request of an earlier one.
    :ivar unused: the columns of rows that mean nothing to the import.
    """

    path: str
    records: int
    conversations: int
    skipped: list[tuple[int, str]] = field(default_factory=list)
    nameless: int = 0
    draws: int = 0
    unused: tuple[str, ...] = ()

    def __str__(self) -> str:
        count = counted(self.conversations, "conversation")
        lines = [f"{counted(self.records, 'record')} of {count} written to {self.path}"]
        if self.nameless:
            lines.append(
                f"{counted(self.nameless, 'record')} without the name of a model: they can be read and compared, but "
                "no call finds them; name the model with model= (--model)"
            )
        if self.draws:
            lines.append(
                f"without a scope, {counted(self.draws, 'further draw')} of earlier requests: sample=1, sample=2 …"
            )
        if self.unused:
            lines.append(f"columns that were not used: {', '.join(map(printable, self.unused))}")
        if self.skipped:
            lines.append(f"{counted(len(self.skipped), 'turn')} skipped:")
        lines += [f"  {number}: {reason}" for number, reason in self.skipped[:MAX_REASONS]]
        if rest := self.skipped[MAX_REASONS:]:
            lines.append(f"  and {len(rest):,} more")
        return "\n".join(lines)


def import_answers(
    conversations: Iterable[Mapping[str, object]],
    to: str | os.PathLike[str],
    *,
    model: str | None = None,
    params: Mapping[str, object] | None = None,
    source: str | Mapping[str, object] | None = None,
) -> Imported:
    """Convert published answers to a cassette. It works like a recorded one: replay it,
    compare it, send a sample of it again, pack it.

    Each assistant turn becomes a record; its request is the messages before it. Identical requests in
    one scope become draws, in order; outside any scope, the first has no sample, and the next have
    ``sample=1``, ``sample=2`` …. Each choice of a response is also a draw. Settings and environment don't
    matter: the same input gives the same bytes.

    :param conversations: dicts, iterated over once, with these fields; only ``messages`` is required.

        * ``scope``: a tuple of names, one for each level; a name is what :func:`llmcall.scope` takes.
        * ``messages``: all messages, the assistant's turns included. A turn ``{"role": "assistant"}`` without
          content takes it from its response.
        * ``responses``: the API's whole answers as dicts, one for each assistant turn: chat
          completions, answers of the Responses or Messages API, of Gemini or Ollama, or legacy completions,
          which are marked. Without them, the turn itself is the answer.
        * ``model``, ``params``: as the arguments, for this conversation.
        * ``system``: the text of a system message before the others.
        * parameters by their names, such as ``temperature``; a text is read as the parameter's type.

        Instead of ``messages``, a row may have ``prompt`` (a text, or a list of messages) and ``answer``,
        ``response`` or ``completion`` (a text, a message, or the API's whole answer), and a path as its
        ``scope``: one record. Empty fields count as missing. Or it is an exchange, a dict with ``request``
        and ``response`` in the form of VCR's cassettes, which becomes the record that a program looks for.
    :param to: the file to write; it must not exist.
    :param model: the model, for conversations that name none. Without it, the model in the
        response counts.
    :param params: the calls' parameters, as of ``send_message``.
    :param source: the origin of the answers, for readers of the file: a text, or a dict with an address, a
        commit, a licence ….
    :returns: the numbers of records and conversations, and the turns that were skipped because their answer
        is empty, filtered or unreadable, or does not match the turn.
    :raises ValueError: if the file exists, or a parameter is wrong.
    :raises TypeError: if a parameter is unknown or has another type.
    :raises CacheError: if no answer can be read, or a text looks like a credential. Nothing is
        written.

    >>> conversations = [
    ...     {"scope": ("Ann",), "messages": [
    ...         {"role": "user", "content": "How much do you give?"},
    ...         {"role": "assistant", "content": "5"},
    ...     ]},
    ... ]
    >>> print(llmcall.import_answers(conversations, "games.jsonl", model="gpt-4-0314", source="doi:10.1/games"))
    1 record of 1 conversation written to games.jsonl
    >>> with llmcall.cassette("games.jsonl", mode="none"), llmcall.scope("Ann"):
    ...     llmcall.client("openai").send_message("How much do you give?").content
    '5'
    """
    if isinstance(conversations, str) or not isinstance(conversations, Iterable):
        raise TypeError(f"conversations is {conversations!r}; it must be a list of dicts")
    columns = Columns()
    read = (("", columns.conversation(entry, has_paths=False)) for entry in conversations)
    return import_located(read, to, model, params, source, columns=columns)


def import_located(
    conversations: Iterable[tuple[str, object]],
    to: str | os.PathLike[str],
    model: str | None,
    params: Mapping[str, object] | None,
    source: str | Mapping[str, object] | None,
    *,
    columns: Columns,
    made_of: Mapping[str, Data] | None = None,
) -> Imported:
    """Import conversations that come with their locations, for messages; see :func:`import_answers`.

    :param columns: the columns by which rows were read.
    :param made_of: the files that were read, and the options, for the header.
    """
    path = os.path.expanduser(os.fspath(to))
    if os.path.lexists(path):
        raise ArgumentError(f"{path} already exists; remove it, or choose another name")
    shared_params = {**(params or {}), **({} if model is None else {"model": model})}
    defaults = checked_parameters(shared_params)
    skipped: list[tuple[int, str]] = []
    reasons: Counter[str] = Counter()
    number = nameless = draws = 0
    first_model, client = None, ProgramClient(**OVERRIDES)
    records: list[Record] = []
    drawn: Counter[bytes] = Counter()
    for number, (location, conversation) in enumerate(conversations, 1):
        for result in _records(conversation, shared_params, client, drawn):
            if isinstance(result, str):
                reason = one_line(result, MAX_REASON_CHARACTERS)
                reasons[masked(reason)] += 1
                skipped.append((number, f"{location}: {reason}" if location else reason))
                continue
            records.append(kept(result))
            nameless += result.kind == "chat" and result.model is None
            draws += (result.sample or "").startswith("#")
            first_model = first_model or result.model
    if not records:
        first = f": {skipped[0][1]}" if skipped else ""
        count = counted(number, "conversation")
        raise CacheError(f"no answer in {count} can be imported, so nothing was written{first}")
    settings = {name: defaults[name] for name in CONFIGURED if name in defaults}
    if first_model:
        settings.setdefault("model", first_model)
    imported = imported_note({} if source is None else source, made_of or {}, reasons)
    header = Header(settings, notes={IMPORTED.name: recordable(imported, "source")})
    write(path, header, records, replaces=b"")
    return Imported(path, len(records), number, skipped, nameless, draws, columns.unused)


def _records(
    entry: Any,
    shared_params: Mapping[str, object],
    client: ProgramClient,
    drawn: Counter[bytes],
) -> Iterator[Record | str]:
    """Yield the records of an exchange or a conversation, and the reasons to leave out turns.

    :param shared_params: the parameters of conversations that name none, the model among them.
    :param drawn: counts the draws of each request in its scope.
    """
    try:
        if isinstance(entry, Exception):
            raise entry
        path = _path(entry)
        found = (
            _of_exchange(entry, client) if is_exchange(entry) else _of_turns(entry, shared_params)
        )
        for record in found:
            if isinstance(record, str):
                yield record
                continue
            hashed = identity(record.kind, record.request)
            name = hashed.digest() + path.encode()
            draw = drawn[name]
            drawn[name] += 1
            if record.kind == "embedding" and draw:
                continue  # a text has one
            has_sample = record.kind != "embedding" and (path or draw)
            sample = f"{path}#{draw}" if has_sample else None
            yield record.replace(cache_key=sampled_key(hashed, sample), sample=sample)
    except (LLMCallError, TypeError, ValueError) as error:
        yield str(error)
    except RecursionError:
        yield "it is nested too deeply"


def _of_exchange(exchange: Mapping[str, Data], client: ProgramClient) -> Iterator[Record]:
    """Yield the records of an exchange; of a batch, one for each choice of a chat."""
    is_batch = exchange.get("service_tier") == BATCH
    for record in records_of(exchange, client):
        answer = record.model_answer
        cost = _cost(answer, record.model, exchange)
        draws = [(record.response, cost)]
        request = record.request
        if is_batch and record.kind == "chat":
            draws = split_choices(record.response, cost)
            request = {name: value for name, value in request.items() if name != "n"}
        for response, share in draws:
            yield record.replace(request=request, response=response, cost=share)


def _of_turns(
    conversation: Mapping[str, Data], shared_params: Mapping[str, object]
) -> Iterator[Record | str]:
    """Yield, for each turn of the assistant in a conversation, its record or the reason to skip it."""
    turns = _turns(conversation)
    params = {**shared_params, **(conversation.get("params") or {})}
    params["model"] = conversation.get("model") or params.get("model")
    parameters = keyed_parameters(checked_parameters(params), config.settings().cassette_allow)
    parameters.pop("n", None)  # each choice is a draw
    model = parameters.pop("model", None)
    messages = list(conversation["messages"])
    for number, (place, response) in enumerate(turns, 1):
        turn = messages[place]
        try:
            answer, raw = turn_response(turn, response)
            if is_placeholder(turn):
                messages[place] = message_of(choices_of(answer)[0])
            if not place:
                raise ValueError("no message precedes it")
            if any(is_placeholder(messages[earlier]) for earlier, _ in turns[: number - 1]):
                raise ValueError("a turn before it has no text")
            _, history = checked_messages(messages[:place])
            name = model or answer.get("model")
            request = {"model": name} if name else {}
            request = {**request, **parameters, "messages": history}
            for choice, cost in split_choices(answer, _cost(raw, name, params)):
                yield Record(None, "chat", None, request, choice, cost)
        except (APIError, TypeError, ValueError) as error:
            yield f"turn {number}: {error}" if len(turns) > 1 else str(error)


def _turns(conversation: Mapping[str, Data]) -> list[tuple[int, object]]:
    """Return the place of each turn of the assistant among the messages, and its response; of a row, of the last
    turn. Without responses, the turns are the answers.
    """
    messages = conversation.get("messages")
    if not isinstance(messages, (list, tuple)):
        raise TypeError("it has no list of messages")
    places = [
        place
        for place, message in enumerate(messages)
        if isinstance(message, Mapping) and message.get("role") == ASSISTANT
    ]
    if conversation.get(IS_ROW):
        places = places[-1:]
    if not places:
        raise ValueError("it has no assistant turn")
    responses = conversation.get("responses")
    if responses is None:
        responses = [chat_with(messages[place]) for place in places]
    if len(responses) != len(places):
        raise ValueError(
            f"it has {counted(len(responses), 'response')} for {counted(len(places), 'assistant turn')}"
        )
    return list(zip(places, responses, strict=True))


def _path(conversation: object) -> str:
    """Return the path of a conversation's scope; empty outside any."""
    if not isinstance(conversation, Mapping):
        raise TypeError(f"it is {type(conversation).__name__}; a conversation must be a dict")
    names = conversation.get("scope", (PROGRAM_SCOPE,) if is_exchange(conversation) else ()) or ()
    if not isinstance(names, (list, tuple)):
        raise TypeError(f"its scope is {names!r}; it must be a tuple of names, one for each level")
    texts = [
        name if isinstance(name, str) else checked_name(name, "a name of its scope")
        for name in names
    ]
    for name in texts:
        if not name or "/" in name or "#" in name:
            raise ValueError(
                f"its scope has the name {name!r}; a name must be a non-empty string without '/' or '#': rename it"
            )
    return "/".join(texts)


def _cost(
    response: Mapping[str, object], model: object, params: Mapping[str, object]
) -> float | None:
    """Return an answer's cost on its day, or ``None`` if its usage, day or price is unknown."""
    seconds = creation_time(response)
    if seconds is None or not isinstance(model, str) or not response.get("usage"):
        return None
    tier = BATCH if params.get("service_tier") == BATCH else tier_of(response)
    time = datetime.fromtimestamp(seconds, timezone.utc)
    price = price_of(model, {}, service_tier=tier, time=time)
    cost = None if price is None else price.cost_of_answer(response)
    return None if cost is None else cost.total


# Files, which the header names with their digests, so that anybody can repeat an import


def import_files(
    files: Sequence[str],
    to: str,
    options: Mapping[str, Any],
    source: str | None,
    layout: Callable[[str], Iterable[object]] | None = None,
) -> Imported:
    """Import files, and note their digests and the options in the cassette's header.

    :param options: those of ``model``, ``params``, ``columns`` and ``layout`` that the command got.
    :param layout: the function that ``layout`` names.
    """
    columns = Columns(options.get("columns"))
    if layout is None:
        entries = entries_in(files, columns, options.get("model"))
    else:
        entries = by_layout(layout, options["layout"], files, columns)
    params = checked_parameters(parameters(options.get("params", {})))
    made_of = {"files": [*map(_entry, _files(files))], **options}
    return import_located(
        entries, to, options.get("model"), params, source, columns=columns, made_of=made_of
    )


def _files(paths: Iterable[str]) -> Iterator[Path]:
    """Yield the files at some paths, and those in the folders there."""
    for path in map(Path, paths):
        yield from filter(Path.is_file, sorted(path.rglob("*")) if path.is_dir() else [path])


def _entry(path: Path) -> dict[str, Data]:
    name = os.path.relpath(path)
    if name.startswith(os.pardir):
        name = path.name
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return {"name": Path(name).as_posix(), "sha256": digest}


def differences_of_import(
    imported: Data, recording: Path, packed: Mapping[str, Path], folder: Path, *, is_whole: bool
) -> list[str] | str:
    """Import a cassette's files again, and say what differs or why this is impossible.

    :param imported: the note in the cassette's header.
    :param packed: the files that are at hand, by their SHA-256.
    :param folder: an empty one.
    :param is_whole: ``False`` if answers were left out of the recording.
    """
    files = imported.get("files") if isinstance(imported, dict) else None
    if not files:
        return "its header names no files"
    if "layout" in imported:
        return f"the function {imported['layout']} read its files"
    if missing := [file["name"] for file in files if file["sha256"] not in packed]:
        return f"{counted(len(missing), 'file')} not packed: {', '.join(missing)}"
    copies = []
    for number, file in enumerate(files):
        copies.append(folder / str(number) / Path(file["name"]).name)
        copies[-1].parent.mkdir()
        copies[-1].write_bytes(packed[file["sha256"]].read_bytes())
    again = folder / "again.jsonl"
    with config.configured(
        cassette_allow=["(?s).+"]
    ):  # its author allowed what looks like a credential
        import_files([*map(str, copies)], str(again), imported, None)
    records = {record.cache_key: record for record in read(again)}
    found = [*read(recording)]
    differing = [
        f"{record.sample or record.cache_key[:12]} is not as in the files"
        for record in found
        if record.cache_key not in records or not same_answer(record, records[record.cache_key])
    ]
    lacking = len(records.keys() - {record.cache_key for record in found})
    if lacking and is_whole:
        differing.append(f"{counted(lacking, 'answer')} of the files not in the recording")
    return differing
