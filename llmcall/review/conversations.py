"""Runs, and their records as conversations: by scope, without the history that each request repeats.

A run is the records of a cassette, an export, or a scope of a cache, in the order of the calls. As text, for a terminal
and for git to compare, conversations are the same each time, and a change moves no other line.
"""

from __future__ import annotations

import json
import os
from array import array
from collections.abc import Collection
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, NamedTuple

from ..cache.cache import ResponseCache, shared_cache
from ..cassettes.cassette import Cassette
from ..cassettes.format import INLINE_CHARACTERS
from ..cassettes.format import read as read_records
from ..text import OUTSIDE, brief, counted, printable, visible
from ..types import Record, TokenUsage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

__all__ = [
    "ORDINARY_ENDS", "Block", "Call", "Group", "Line", "Run", "Said", "first_level", "grouped", "load", "message_key",
    "messages_of", "named", "round_lines", "said_of", "shown_data", "text_lines",
]  # fmt: skip

ORDINARY_ENDS = ("stop", "tool_calls", "function_call", None)
NUMBERS_SHOWN = 3  # of an embedding
ASKED = ("model", "messages", "input", "function", "arguments", "method", "path", "body")  # apart from parameters
INDENT = "    "


# Runs


class Run(NamedTuple):
    """Hold the records of one run.

    :param name: what messages call it.
    :param records: in the order of the calls of each scope.
    :param settings: those of the file's header.
    :param is_complete: whether the recording came to its end, as far as a file says so.
    """

    name: str
    records: list[Record]
    settings: dict[str, Any]
    is_complete: bool = True

    def by_actor(self) -> dict[str, list[Record]]:
        """Return the records by scope path; ``""`` stands for those outside any scope."""
        found: dict[str, list[Record]] = {}
        for record in self.records:
            found.setdefault(record.scope, []).append(record)
        return found


def load(run: Any) -> Run:
    """Return the run that is meant.

    :param run: a :class:`Run`; the path of a cassette, of an exported file or of a cache's directory; a
        :class:`Cassette`; a :class:`ResponseCache`; or one of these and a scope in a tuple: its path, or a pattern of
        paths such as ``"rep-1/l*"``.
    :raises TypeError: where it is none of these.
    :raises CacheError: where the file is damaged.
    """
    if isinstance(run, tuple) and len(run) == 2 and isinstance(run[1], str):
        whole, scope = _loaded(run[0], lambda record: _is_in(record.scope, run[1])), run[1]
        return whole._replace(name=f"the scope {scope!r} of {whole.name}")
    return run if isinstance(run, Run) else _loaded(run, lambda record: True)


def _loaded(run: Any, where: Callable[[Record], bool]) -> Run:
    if isinstance(run, Cassette):
        settings = dict(run.stored.settings) if run.stored else {}
        return Run(str(run.path), list(filter(where, run.all_records())), settings)
    if not isinstance(run, (str, os.PathLike, ResponseCache)):
        raise TypeError(f"{run!r} is no run: give a path, a Cassette, a cache, or one of them and a scope")
    if isinstance(run, ResponseCache) or "://" in str(run) or os.path.isdir(run):
        cache = run if isinstance(run, ResponseCache) else shared_cache(run)
        return Run(str(cache.path), list(cache.records(where=where)), {})
    found = read_records(run)
    return Run(os.fspath(run), list(filter(where, found.records())), dict(found.settings), found.is_complete)


def _is_in(scope: str, above: str) -> bool:
    """Tell whether a scope is one that is named, or lies below it."""
    return f"{scope}/".startswith(f"{above}/") or fnmatchcase(scope, above) or fnmatchcase(scope, f"{above}/*")


def first_level(scopes: Collection[str]) -> str | None:
    """Return the name with which all scope paths begin, or ``None`` where they begin with several."""
    names = {scope.partition("/")[0] for scope in scopes}
    return names.pop() if len(names) == 1 and "" not in names else None


# Conversations


class Block(NamedTuple):
    """Be a piece of a message.

    :param kind: ``"text"``, ``"media"``, ``"data"`` (JSON), ``"call"`` (of a tool) or ``"refusal"``.
    """

    kind: str
    text: str


class Said(NamedTuple):
    """Be one message, or one answer.

    :param role: who says it; with the name, or the tool call that it answers, in parentheses.
    """

    role: str
    blocks: tuple[Block, ...]


class Call(NamedTuple):
    """Be one recorded call.

    :param number: its place in the file, from 1.
    :param draw: which draw it is: what stands after ``#`` in its sample, or empty.
    :param title: the model's or the function's name.
    :param parameters: what else was asked for, as name and JSON.
    :param after: the call that its messages go on from, or ``None``: the first that held them.
    :param nearest: the last call before that holds them too, or ``None``.
    :param known: how many of its messages they are.
    :param asked: the other messages.
    :param answers: the answers; several where ``n`` is above 1.
    """

    number: int
    record: Record
    draw: str
    title: str
    parameters: tuple[tuple[str, str], ...]
    after: Call | None
    nearest: Call | None
    known: int
    asked: tuple[Said, ...]
    answers: tuple[Said, ...]

    @property
    def usage(self) -> TokenUsage:
        """Return the tokens that the server reported."""
        return TokenUsage.of(self.record.response)


class Group(NamedTuple):
    """Be the calls of one scope.

    :param scope: its path; empty outside any scope.
    """

    scope: str
    calls: list[Call]


def grouped(records: Iterable[Record]) -> list[Group]:
    """Return the calls of records by scope, both in the order of the records."""
    groups: dict[str, Group] = {}
    histories: dict[str, _Known] = {}
    for number, record in enumerate(records, 1):
        scope = record.scope
        group = groups.setdefault(scope, Group(scope, []))
        group.calls.append(_call(number, record, histories.setdefault(scope, _Known(None))))
    return list(groups.values())


class _Known:
    """Be the messages that some calls of a scope began with: the first of these calls and the last, and what went on.

    :ivar further: the longer runs of messages, by the message that follows.
    """

    def __init__(self, first: Call | None) -> None:
        self.first = self.last = first
        self.further: dict[str, _Known] = {}

    def longest(self, keys: list[str]) -> tuple[int, _Known]:
        """Return how many messages are known from the first on, the last one apart, and what is known of them."""
        known = self
        for count, key in enumerate(keys[:-1]):
            longer = known.further.get(key)
            if longer is None:
                return count, known
            known = longer
        return max(len(keys) - 1, 0), known

    def add(self, keys: list[str], call: Call) -> _Known:
        """Let the messages of a call be known."""
        known = self
        for key in keys:
            known = known.further.get(key) or known.further.setdefault(key, _Known(call))
            known.last = call
        return known


def _call(number: int, record: Record, histories: _Known) -> Call:
    messages = messages_of(record)
    keys = [message_key(message) for message in messages]
    count, known = histories.longest(keys)
    call = Call(
        number,
        record,
        (record.sample or "").partition("#")[2],
        _title(record),
        tuple((name, shown_data(value)) for name, value in sorted(record.request.items()) if name not in ASKED),
        known.first,
        known.last,
        count,
        tuple(said_of(message) for message in messages[count:]),
        tuple(_answers(record)),
    )
    asked = histories.add(keys, call)
    for answer in _answer_messages(record.response):
        asked.add([message_key(answer)], call)
    return call


def messages_of(record: Record) -> list[Mapping[str, Any]]:
    """Return the messages of a chat; what was asked of anything else as one message."""
    request = record.request
    if record.kind == "chat":
        return [message for message in request.get("messages", ()) if isinstance(message, dict)]
    role, name = {"embedding": ("text", "input"), "http": ("body", "body")}.get(record.kind, ("arguments", "arguments"))
    return [{"role": role, "content": request.get(name)}]


def _title(record: Record) -> str:
    """Return the name of the model or function, or the method and path."""
    if record.kind == "http":
        return f"{record.request.get('method')} {record.request.get('path')}"
    return str(record.request.get("function" if record.kind == "function" else "model", ""))


def message_key(message: Mapping[str, Any]) -> str:
    """Return a text that is the same for equal messages only."""
    content = message.get("content")
    if isinstance(content, str) and len(message) == len(("role", "content")):
        return f"{message.get('role')}\0{content}"
    return json.dumps(message, sort_keys=True, ensure_ascii=False, default=repr)


def _answer_messages(response: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the answers as a following request repeats them: without what is empty."""
    choices = response.get("choices")
    messages = [choice.get("message") for choice in choices if isinstance(choice, dict)] if choices else []
    kept = ("content", "tool_calls", "refusal")
    return [
        {"role": message.get("role") or "assistant", **{name: message[name] for name in kept if message.get(name)}}
        for message in messages
        if isinstance(message, dict)
    ]


def shown_data(value: Any) -> str:
    """Return plain data as JSON; bytes by their number."""
    return json.dumps(value, ensure_ascii=False, default=lambda data: f"{len(data)} bytes")


def said_of(message: Mapping[str, Any]) -> Said:
    """Return a message as it is shown."""
    role = str(message.get("role", "?"))
    about = message.get("name") or message.get("tool_call_id")
    blocks = [*_content(message.get("content")), *_tool_calls(message)]
    if message.get("refusal"):
        blocks.append(Block("refusal", str(message["refusal"])))
    return Said(f"{role} ({about})" if about else role, tuple(blocks))


def _content(content: Any) -> list[Block]:
    if isinstance(content, list):
        return [_part(part) for part in content]
    return [_block(content)] if content is not None else []


def _block(value: Any) -> Block:
    return Block("text", value) if isinstance(value, str) else Block("data", shown_data(value))


def _part(part: Any) -> Block:
    if not isinstance(part, dict):
        return _block(part)
    kind = part.get("type")
    if kind == "text" and isinstance(part.get("text"), str):
        return Block("text", part["text"])
    if kind == "image_url" and isinstance(part.get("image_url"), dict):
        more = {name: value for name, value in part["image_url"].items() if name != "url"}
        return Block("media", f"image {part['image_url'].get('url')}{f' {shown_data(more)}' if more else ''}")
    if kind == "input_audio" and isinstance(part.get("input_audio"), dict):
        return Block("media", f"audio {part['input_audio'].get('format')} {part['input_audio'].get('data')}")
    return Block("data", shown_data(part))


def _tool_calls(message: Mapping[str, Any]) -> list[Block]:
    calls = message.get("tool_calls") or ()
    old = message.get("function_call")
    found = [call for call in calls if isinstance(call, dict)] + ([{"function": old}] if old else [])
    return [Block("call", _tool_call(call)) for call in found]


def _tool_call(call: Mapping[str, Any]) -> str:
    function = call.get("function")
    if not isinstance(function, dict):
        return shown_data(call)
    identifier = f"  [{call['id']}]" if call.get("id") else ""
    return f"{function.get('name')}({function.get('arguments', '')}){identifier}"


def _answers(record: Record) -> list[Said]:
    """Return the answers of a call; several where ``n`` is above 1."""
    response = record.response
    choices = response.get("choices")
    if isinstance(choices, list) and choices:
        return [_choice(choice, len(choices)) for choice in choices if isinstance(choice, dict)]
    embedding = response.get("embedding")
    if isinstance(embedding, bytes):
        return [Said("embedding", (Block("data", _numbers(embedding)),))]
    if "fallback" in response:
        return [Said("fallback", (Block("data", f"answered by the record {str(response['fallback'])[:12]}"),))]
    return [Said("result", (Block("data", shown_data(response.get("value", response))),))]


def _choice(choice: Mapping[str, Any], count: int) -> Said:
    message = choice.get("message")
    said = said_of(message if isinstance(message, dict) else {})
    role = said.role if count == 1 else f"{said.role}, choice {choice.get('index', 0) + 1} of {count}"
    end = choice.get("finish_reason")
    return said._replace(role=role if end in ORDINARY_ENDS else f"{role}, ended by {end}")


def _numbers(embedding: bytes) -> str:
    """Return the first of the float32 numbers in little-endian bytes, and how many there are."""
    numbers = array("f", embedding[: len(embedding) // 4 * 4])
    shown = ", ".join(f"{number:.4g}" for number in numbers[:NUMBERS_SHOWN])
    return f"{len(numbers)} numbers: {shown}{', …' if len(numbers) > NUMBERS_SHOWN else ''}"


def first_words(call: Call, limit: int = 60) -> str:
    """Return the beginning of the last message that a call asked, on one line."""
    blocks = call.asked[-1].blocks if call.asked else ()
    return brief(blocks[-1].text if blocks else "", limit)


def named(call: Call) -> str:
    """Return what a call is called in a list: its sample, its model or function, and its first words."""
    sample = f"{call.record.sample} " if call.record.sample else ""
    return printable(f'{sample}{call.title} "{first_words(call)}"')


# As text


class Line(NamedTuple):
    """Be a line of text.

    :param kind: ``"settings"``, ``"scope"``, ``"call"``, ``"role"``, ``"answer"``, ``"text"``, ``"note"`` or
        ``"blank"``.
    """

    kind: str
    text: str


BLANK = Line("blank", "")


def text_lines(settings: Mapping[str, Any], groups: Iterable[Group]) -> Iterator[Line]:
    """Yield the lines of a file.

    :param settings: what stands in its header: defaults, from which a call may differ.
    :param groups: its calls.
    """
    for name, value in sorted(settings.items()):
        yield Line("settings", f"configured {name}: {visible(shown_data(value))}")
    seen: set[str] = set()
    for number, group in enumerate(groups):
        if number or settings:
            yield BLANK
        yield Line("scope", f"=== {visible(group.scope) or OUTSIDE}")
        before = None
        for call in group.calls:
            yield BLANK
            yield from _call_lines(call, before, seen)
            before = call


def round_lines(groups: Sequence[Group]) -> Iterator[Line]:
    """Yield the n-th call of each actor beside the others', round by round.

    :param groups: the calls of each actor.
    """
    rounds = max((len(group.calls) for group in groups), default=0)
    for number in range(rounds):
        if number:
            yield BLANK
        yield Line("scope", f"=== round {number}")
        for group in groups:
            if number < len(group.calls):
                yield BLANK
                yield Line("scope", f"{visible(group.scope) or OUTSIDE}")
                yield from _call_lines(group.calls[number], group.calls[number - 1] if number else None)


def _call_lines(call: Call, before: Call | None = None, seen: set[str] | None = None) -> Iterator[Line]:
    """Yield the lines of one call.

    :param before: the call whose lines stand right above, or ``None``.
    :param seen: the long texts that stand above; gains those of this call.
    """
    seen = set() if seen is None else seen
    parameters = "".join(f"  {name}={_short(value, seen)}" for name, value in call.parameters)
    draw = f"#{call.draw}  " if call.draw else ""
    yield Line("call", visible(f"--- {draw}{call.title}{parameters}"))
    if call.after is not None:
        yield Line("note", f"{INDENT}… {_history(call, before)}")
    for said in call.asked:
        yield from _said("role", said, "", seen)
    for said in call.answers:
        yield from _said("answer", said, "→ ", seen)


def _history(call: Call, before: Call | None) -> str:
    count = counted(call.known, "message")
    assert call.after is not None
    if call.nearest is before:
        return f"{count} as above"
    return f'{count} as in the call that asked "{visible(first_words(call.after))}"'


def _said(kind: str, said: Said, mark: str, seen: set[str]) -> Iterator[Line]:
    yield Line(kind, f"{mark}{visible(said.role)}")
    for block in said.blocks:
        for line in visible(_words(block, seen)).split("\n"):
            yield Line("text", f"{INDENT}{line}".rstrip())


def _words(block: Block, seen: set[str]) -> str:
    if block.kind == "call":
        return f"calls {block.text}"
    if block.kind == "refusal":
        return f"refuses: {block.text}"
    if block.kind == "media":
        return f"[{block.text}]"
    return _short(block.text, seen)


def _short(text: str, seen: set[str]) -> str:
    """Return a text, but a long one that stands above already only in its first words."""
    if len(text) <= INLINE_CHARACTERS:
        return text
    if text in seen:
        return f"… as above, {len(text):,} characters: {brief(text, 60)}"
    seen.add(text)
    return text
