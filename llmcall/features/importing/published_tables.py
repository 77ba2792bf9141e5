"""Files of published rows and conversations, in JSON and CSV, and their columns."""

from __future__ import annotations

import csv
import gzip
import json
import zlib
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import IO, Any

from ...apis.message import as_text, object_in, objects_in
from ...errors import CacheError
from ...keys.parameters import KINDS, NOT_IN_BODY, NUMBER, UNKEYED_FIELDS, WHOLE_NUMBER
from ...keys.plain_data import is_too_deep
from ...keys.request import Data
from ...models.catalog import parameters_of
from .published_responses import ASSISTANT, GZIP, is_chat, is_exchange, is_raw_answer

PROMPT, ANSWERS = "prompt", ("answer", "response", "completion")
IS_ROW = "is_row"  # marks a conversation of which only the last turn is an answer
# The fields of a conversation, and those of a row besides its answer
CONVERSATION = ("scope", "model", "params", "system", "messages", "responses")
ROW = ("scope", "model", "params", "system", PROMPT)
OWN_LAYOUT = "for any other layout, give your own reader: --layout MODULE:FUNCTION"
OTHER_NAMES = f'if they have other names, give them: --column prompt="Question text"; {OWN_LAYOUT}'
# The types, in the API, of parameters that are not checked when they are sent. A column with other values has only
# the name in common: a study's own predictions, the log probabilities of its answers.
TYPES: dict[str, type] = {
    "audio": dict,
    "functions": list,
    "logit_bias": dict,
    "logprobs": bool,
    "modalities": list,
    "moderation": dict,
    "parallel_tool_calls": bool,
    "prediction": dict,
    "response_format": dict,
    "top_logprobs": int,
    "web_search_options": dict,
}
SWITCHES = {"true": True, "false": False}


class Columns:
    """The meaning of the columns of some rows; it remembers the columns without one.

    :param names: by the name of a field, the name of its column.
    :ivar unused: the columns without a meaning, in the order of their first rows.
    """

    def __init__(self, names: Mapping[str, str] | None = None) -> None:
        self._names = dict(names or {})
        # Those that decide answers or prices; not ``n``, since each choice of a response is a draw.
        names_in_body = parameters_of("chat") - NOT_IN_BODY - UNKEYED_FIELDS - {"model", "n"}
        self._parameters = names_in_body | {"service_tier"}
        self._seen: dict[str, None] = {}
        self._used: set[str] = set()

    @property
    def unused(self) -> tuple[str, ...]:
        """Return the columns that no row used."""
        return tuple(name for name in self._seen if name not in self._used)

    @property
    def missing(self) -> list[str]:
        """Return the columns that were named, and that no row has."""
        return [column for column in self._names.values() if column not in self._seen]

    def problem(self, columns: Collection[str]) -> str:
        """Return why rows with these columns cannot be read; empty if they can."""
        return self._problem_of(self._fields(columns), columns)

    def _problem_of(self, fields: Mapping[str, str], columns: Collection[str]) -> str:
        """Return why rows with these fields cannot be read; empty if they can."""
        if "messages" in fields:
            return ""
        found = [name for name in ANSWERS if name in fields]
        lacking = [] if PROMPT in fields else [PROMPT]
        lacking += [] if found else [ANSWERS[0]]
        if lacking:
            absent = " and ".join(self._names.get(name, name) for name in lacking)
            others = ", ".join(map(str, columns)) or "nothing"
            return f"it has no column {absent}, and no messages, but {others}; {OTHER_NAMES}"
        if len(found) > 1:
            return f"its columns {' and '.join(found)} may both be the answer; choose one: --column answer={found[0]}"
        return ""

    def conversation(self, entry: object, *, has_paths: bool) -> object:
        """Return an object with messages, or a row with prompt and answer, as a conversation, or an error.
        Return exchanges, and anything but a dict, unchanged.

        :param has_paths: ``True`` if a conversation's scope is a path; a row's always is.
        """
        if not isinstance(entry, Mapping) or is_exchange(entry):
            return entry
        self._seen |= dict.fromkeys(map(str, entry))
        try:
            return self._conversation(entry, has_paths)
        except (TypeError, ValueError) as error:
            return error

    def _fields(self, columns: Collection[str]) -> dict[str, str]:
        """Return the columns by the names of their fields."""
        named = {name: column for name, column in self._names.items() if column in columns}
        taken = {*named.values(), *self._names}
        if not taken.isdisjoint(ANSWERS):
            taken.update(ANSWERS)
        return {**{name: name for name in columns if name not in taken}, **named}

    def _conversation(self, entry: Mapping[str, Data], has_paths: bool) -> dict[str, object]:
        columns = self._fields(entry)
        fields = {
            name: entry[column] for name, column in columns.items() if not is_empty(entry[column])
        }
        answers = [name for name in ANSWERS if name in columns]
        if "messages" in fields:
            fields["messages"] = _data(fields["messages"])
            last = objects_in(fields["messages"])[-1:]
            if (
                answers
                and PROMPT not in columns
                and not any(turn.get("role") == ASSISTANT for turn in last)
            ):
                fields[PROMPT] = fields.pop("messages")
                columns = {
                    PROMPT if name == "messages" else name: columns[name] for name in columns
                }
        if problem := self._problem_of(columns, entry):
            raise ValueError(problem)
        is_row = "messages" not in columns
        names = (*ROW, *answers) if is_row else CONVERSATION
        typed = {name: _typed(name, fields[name]) for name in fields if name in self._parameters}
        own = {
            name: typed[name] for name in typed if isinstance(typed[name], TYPES.get(name, object))
        }
        meant = {*names, *own, *self._parameters.difference(fields)}  # an empty cell is a default
        self._used.update(column for name, column in columns.items() if name in meant)
        if is_row:
            if PROMPT not in fields:
                raise ValueError("its prompt is empty")
            prompt, answer = fields[PROMPT], fields.get(answers[0])
            turn: dict[str, object]
            prompt_data, answer_data = _data(prompt), _data(answer)
            is_list = isinstance(prompt, list) or is_chat(prompt_data)
            messages = prompt_data if is_list else [_message("user", prompt)]
            if is_raw_answer(answer_data):
                turn, fields["responses"] = {"role": ASSISTANT}, [answer_data]
            elif object_in(answer_data).get("role") == ASSISTANT:
                turn = answer_data
            else:
                turn = _message(ASSISTANT, answer)
            fields["messages"] = [*messages, turn]
        scope = fields.get("scope")
        if isinstance(scope, (str, int, float)) and (is_row or has_paths):
            fields["scope"] = levels(scope)
        if "system" in fields and isinstance(fields.get("messages"), list):
            fields["messages"] = [_message("system", fields["system"]), *fields["messages"]]
        if own:
            fields["params"] = {**dict(fields.get("params") or {}), **own}
        conversation = {name: fields[name] for name in CONVERSATION if name in fields}
        return {**conversation, IS_ROW: True} if is_row else conversation


def is_empty(value: object) -> bool:
    """Return whether a cell has nothing: ``None``, an empty text, or a data frame's mark for that."""
    if value is None or isinstance(value, str):
        return not value
    is_nan = isinstance(value, float) and value != value
    return is_nan or type(value).__name__ in ("NAType", "NaTType")  # of pandas


def _data(cell: Data) -> Data:
    """Return a cell's data, parsed if it is JSON text, else unchanged."""
    if isinstance(cell, str) and cell.lstrip().startswith(("[", "{")):
        with suppress(ValueError, RecursionError):
            return json.loads(cell)
    return cell


def _message(role: str, value: object) -> dict[str, object]:
    return {"role": role, "content": "" if value is None else as_text(value)}


def levels(path: object) -> tuple[str, ...]:
    """Return the names in a scope path, which may be wrong."""
    return tuple(str(path).split("/"))


def _typed(name: str, value: object) -> object:
    """Return a parameter's value from a cell: a text is read as the parameter's type."""
    kind = KINDS.get(name, ())
    if isinstance(value, str) and str not in kind:
        try:
            value = SWITCHES[value.lower()] if value.lower() in SWITCHES else json.loads(value)
        except ValueError:
            if kind:
                raise ValueError(f"{name} is {value!r}; it must be {kind[0]}") from None
    elif isinstance(value, str) and value.startswith(("[", "{")):
        with suppress(ValueError):
            data = json.loads(value)
            value = data if type(data) in kind else value
    # A data frame's column of whole numbers with an empty cell holds 5.0.
    is_number = kind in (NUMBER, WHOLE_NUMBER)
    return int(value) if is_number and isinstance(value, float) and value.is_integer() else value


def parameters(texts: Mapping[str, str]) -> dict[str, Data]:
    """Return parameters from texts, each read as its type.

    :raises ValueError: if one is not of its type.
    """
    return {name: _typed(name, text) for name, text in texts.items()}


# The location of a conversation or an exchange, for messages, and itself
LocatedEntry = tuple[str, object]
DELIMITERS = ",;\t"
LINES = "write each object into one line: jq -c . FILE > FILE.jsonl (those of a list: jq -c '.[]')"


@contextmanager
def opened(path: str) -> Iterator[IO[str]]:
    """Open a file of UTF-8 text, which may be compressed by gzip.

    :raises CacheError: if it holds anything else.
    """
    with open(path, "rb") as file:
        opener: Any = gzip.open if file.read(len(GZIP)) == GZIP else open
    try:
        with opener(path, "rt", encoding="utf-8-sig", newline="") as file:
            if "\0" in file.read(1024):
                raise CacheError(
                    f"{path} is a binary file, not text; save its rows as CSV or JSON Lines, for example with pandas: "
                    "frame.to_csv('answers.csv', index=False)"
                )
            file.seek(0)
            yield file
    except UnicodeDecodeError as error:
        raise CacheError(
            f"{path}: the text is not UTF-8 (byte 0x{error.object[error.start]:02x}); save the rows of a spreadsheet "
            "as CSV, and convert text of another encoding, for example with iconv -f WINDOWS-1252 -t UTF-8"
        ) from error
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise CacheError(f"{path}: its compressed data is damaged: {error}") from error


def objects(path: str) -> Iterator[tuple[str, dict[str, Data]]]:
    """Yield the JSON objects in a file with their locations: one per line, or the only one.

    :raises CacheError: if it contains anything else.
    """
    with opened(path) as file:
        first = next(filter(str.strip, file), "")
        file.seek(0)
        entries: Iterable[tuple[str, object]]
        if not _is_json(first):
            entries = [(path, _parsed(file.read(), path, LINES))]
        else:
            lines = ((f"{path}:{number}", line) for number, line in enumerate(file, 1))
            entries = ((place, _parsed(line, place)) for place, line in lines if line.strip())
        for location, entry in entries:
            if not isinstance(entry, dict):
                raise CacheError(f"{location}: it is not a JSON object; {LINES}")
            yield location, entry


def _is_json(line: str) -> bool:
    """Return whether a line is whole, and not continued below."""
    with suppress(ValueError, RecursionError):
        json.loads(line)
        return True
    return not line


def _parsed(text: str, location: str, remedy: str = OWN_LAYOUT) -> Data:
    try:
        value = json.loads(text)
        if is_too_deep(value, text):
            raise RecursionError("nested too deeply")
    except (ValueError, RecursionError) as error:
        raise CacheError(f"{location}: it is not JSON ({error}); {remedy}") from error
    return value


def conversations(path: str, columns: Columns) -> Iterator[LocatedEntry]:
    """Yield the objects of a JSON file as conversations."""
    for location, entry in objects(path):
        if problem := columns.problem(entry):
            raise CacheError(f"{location}: {problem}")
        yield location, columns.conversation(entry, has_paths=True)


def rows(path: str, columns: Columns) -> Iterator[LocatedEntry]:
    """Yield the rows of a CSV file as conversations.

    The delimiter is the one of ``,``, ``;`` and tabs with which the first row has the needed
    columns. A guess from the whole text, such as ``csv.Sniffer``'s, may be wrong.

    :raises CacheError: if the file cannot be read, or a row has more or fewer cells than the first one;
        names the line.
    """
    start = 1
    with opened(path) as file, _long_cells():
        try:
            found = (x for x in DELIMITERS if not columns.problem(next(_reader(file, x), ())))
            reader = _reader(file, next(found, DELIMITERS[0]), strict=True)
            names: list[str] = next(reader, [])
            if problem := columns.problem(names):
                raise CacheError(f"{path}: {problem}")
            if twice := sorted({name for name in names if names.count(name) > 1}):
                raise CacheError(f"{path}: it has several columns {', '.join(map(repr, twice))}")
            start += reader.line_num
            for cells in reader:
                if cells and len(cells) != len(names):
                    raise CacheError(
                        f"{path}:{start}: the row has more or fewer cells than the first row, which has {len(names)}; "
                        "quote cells that contain the separator or a line break"
                    )
                if cells:  # not an empty line
                    row = dict(zip(names, cells, strict=True))
                    yield f"{path}:{start}", columns.conversation(row, has_paths=True)
                start = reader.line_num + 1
        except csv.Error as error:
            raise CacheError(f"{path}: after line {start - 1}: {error}") from error


@contextmanager
def _long_cells() -> Iterator[None]:
    """Let the csv module read cells of more than 131,072 characters, such as prompts."""
    limit = csv.field_size_limit(2**31 - 1)  # the most that Windows takes
    try:
        yield
    finally:
        csv.field_size_limit(limit)


def _reader(file: IO[str], delimiter: str, *, strict: bool = False) -> Any:
    file.seek(0)
    return csv.reader(file, delimiter=delimiter, strict=strict)
