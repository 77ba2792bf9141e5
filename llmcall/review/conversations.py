"""Runs, and their records as conversations: by scope, without the history that each request
repeats.

A run is the records of a cassette, an export, or a scope of a cache, in the order of the calls. As
text, for a terminal and for git to compare, conversations are the same each time, and a change
moves no other line.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, NamedTuple

from ..cache.cache import ResponseCache
from ..cache.shared import shared_cache
from ..cassettes.cassette import Cassette
from ..display.formatting import OUTSIDE_ANY_SCOPE, as_json, counted, one_line
from ..display.printable import printable, visible
from ..errors import CacheError
from ..programs.actors import SYSTEM, named_by_system
from ..records.reader import read as read_records
from ..records.references import INLINE_CHARACTERS
from ..records.served import model_of, served_by, served_words
from ..requests.contents import title_of
from ..requests.keys import normalizer
from ..types import Record
from .rounds import Rounds, find_rounds

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

# in the words of chat completions, of the Responses API and of the Messages API
ORDINARY_ENDS = (
    "stop",
    "tool_calls",
    "function_call",
    "completed",
    "end_turn",
    "stop_sequence",
    "tool_use",
    None,
)
# apart from parameters
ASKED = (
    "model",
    "messages",
    "input",
    "function",
    "arguments",
    "method",
    "path",
    "body",
)
# The fields of a body that contain what was said.
SYSTEMS = ("system", "instructions")
QUESTIONS = ("messages", "input", "prompt")
SAID = (*SYSTEMS, *QUESTIONS)
TEXTS = ("text", "input_text", "output_text")  # the types of parts that are texts
ANSWERER = "assistant"  # the role
INDENT = "    "
WORDS = 60  # characters of a text that stands above


# Runs


class Run(NamedTuple):
    """The records of one run.

    :param name: what messages call it.
    :param records: in the order of the calls of each scope.
    :param settings: those of the file's header.
    :param is_complete: whether the recording came to its end, as far as a file says so.
    :param options: those of ``llmcall run`` in the file's header.
    :param rounds: which level of the scopes is the round, if one is.
    """

    name: str
    records: list[Record]
    settings: dict[str, Any]
    is_complete: bool = True
    options: Mapping[str, Any] = {}
    rounds: Rounds | None = None

    @property
    def names_by_system(self) -> bool:
        """Return whether its actors are named by their system messages.

        The header says so if ``llmcall run`` named them, and only their names if ``patched`` did.
        """
        if "actor" in self.options:
            return bool(self.options["actor"] == SYSTEM)
        return any(
            actor.rpartition("/")[2] == named_by_system(records[0].request)
            for actor, records in self.by_actor().items()
        )

    @property
    def served(self) -> list[str]:
        """Return in words which models answered, and on which days."""
        return served_words(served_by(self.records))

    @property
    def normalize(self) -> Callable[[str], str] | None:
        """Return what was taken out of the texts of its requests, or ``None``."""
        return normalizer(tuple(self.settings.get("cache_normalize", ())))

    def actor_of(self, record: Record) -> str:
        """Return the actor that made a call: its scope path, without the round."""
        return record.scope if self.rounds is None else self.rounds.split(record.scope)[0]

    def round_of(self, record: Record) -> str:
        """Return the name of the round that a call is in; empty if rounds are no level."""
        return "" if self.rounds is None else self.rounds.split(record.scope)[1]

    def round_number(self, record: Record) -> int:
        """Return the number of the round that a call is in, from 0; -1 outside any round."""
        return -1 if self.rounds is None else self.rounds.number(record.scope)

    def by_actor(self) -> dict[str, list[Record]]:
        """Return the records by actor, in the order of their rounds; ``""`` stands for those
        outside any scope.
        """
        found: dict[str, list[Record]] = {}
        for record in self.records:
            found.setdefault(self.actor_of(record), []).append(record)
        if self.rounds is not None:
            for records in found.values():
                records.sort(key=self.round_number)
        return found


def with_rounds(runs: Sequence[Run], named: str | int | None = None) -> list[Run]:
    """Return runs that know which level of their scopes is the round.

    :param named: the level, as of :func:`~llmcall.review.rounds.find_rounds`.
    :raises ValueError: if no run has such a level.
    """
    found = find_rounds([{record.scope for record in run.records} for run in runs], named)
    return [run._replace(rounds=rounds) for run, rounds in zip(runs, found, strict=True)]


def load(run: Any, *, may_be_empty: bool = False) -> Run:
    """Return the run that is meant.

    :param run: a :class:`Run`; the path of a cassette, of an exported file or of a cache's
        directory; a :class:`Cassette`; a :class:`ResponseCache`; or one of these and a scope in a
        tuple: its path, or a pattern of paths such as ``"rep-1/l*"``.
    :raises TypeError: if it is none of these.
    :raises CacheError: if the file is damaged, or no record is there that must be.
    """
    if isinstance(run, Run):
        return run
    if isinstance(run, tuple) and len(run) == 2 and isinstance(run[1], str):
        whole, scope = _loaded(run[0], lambda record: _is_in(record.scope, run[1])), run[1]
        found = whole._replace(name=f"the scope {scope!r} of {whole.name}")
    else:
        found = _loaded(run, lambda record: True)
    if not found.records and not may_be_empty:
        raise CacheError(f"nothing is recorded in {found.name}")
    return found


def _loaded(run: Any, where: Callable[[Record], bool]) -> Run:
    if isinstance(run, Cassette):
        settings = dict(run.stored.settings) if run.stored else {}
        options = (run.stored.run if run.stored else None) or {}
        return Run(str(run.path), list(filter(where, run.all_records())), settings, options=options)
    if not isinstance(run, (str, os.PathLike, ResponseCache)):
        raise TypeError(
            f"{run!r} is not a run: give a path, a Cassette, a cache, or one of them and a scope"
        )
    if isinstance(run, ResponseCache) or "://" in str(run) or os.path.isdir(run):
        cache = run if isinstance(run, ResponseCache) else shared_cache(run)
        return Run(str(cache.path), list(cache.records(where=where)), {})
    found = read_records(run)
    return Run(
        os.fspath(run),
        list(filter(where, found.records())),
        dict(found.settings),
        found.is_complete,
        found.run or {},
    )


def _is_in(scope: str, above: str) -> bool:
    """Tell whether a scope is one that is named, or lies below it."""
    return (
        f"{scope}/".startswith(f"{above}/")
        or fnmatchcase(scope, above)
        or fnmatchcase(scope, f"{above}/*")
    )


def first_level(scopes: Collection[str]) -> str | None:
    """Return the name with which all scope paths begin, or ``None`` if they begin with several."""
    names = {scope.partition("/")[0] for scope in scopes}
    return names.pop() if len(names) == 1 and "" not in names else None


# Conversations


class Said(NamedTuple):
    """One message, or one answer.

    :param role: who says it; with the name, or the tool call that it answers, in parentheses.
    :param texts: its parts as they are shown: texts, calls of tools, a refusal; anything else as
        JSON.
    """

    role: str
    texts: tuple[str, ...]


@dataclass
class History:
    """The messages with which some calls of a scope begin, by the last of them.

    :ivar said: the last message.
    :ivar first: the first call that asked or answered it.
    :ivar last: the last such call.
    :ivar further: the histories with one more message.
    """

    said: Said
    first: Call | None = None
    last: Call | None = None
    further: dict[Said, History] = field(default_factory=dict)

    def with_message(self, said: Said) -> History:
        """Return the history with one more message."""
        return self.further.get(said) or self.further.setdefault(said, History(said))


class Call(NamedTuple):
    """One recorded call.

    :param draw: which draw it is: what stands after ``#`` in its sample, or empty.
    :param title: the model's or the function's name.
    :param parameters: what else was asked for, as name and JSON.
    :param messages: all that were asked.
    :param known: how many of them, from the first, an earlier call contained.
    :param after: the first call that contained them, if the one right before it in its scope did not;
        else ``None``.
    :param answers: the answers; several if ``n`` is above 1.
    """

    record: Record
    draw: str
    title: str
    parameters: tuple[tuple[str, str], ...]
    messages: tuple[Said, ...]
    known: int
    after: Call | None
    answers: tuple[Said, ...]


def conversations(run: Run) -> dict[str, list[Call]]:
    """Return the calls of a run by actor (empty outside any scope), both in their order."""
    return {actor: _calls(records) for actor, records in run.by_actor().items()}


def _calls(records: Iterable[Record]) -> list[Call]:
    beginning = History(Said("", ()))
    calls: list[Call] = []
    for record in records:
        calls.append(_call(record, beginning, calls[-1] if calls else None))
    return calls


def by_round(run: Run) -> dict[str, list[Call]]:
    """Return the calls of all actors in each round; without rounds, the n-th call of each actor
    beside the others'.
    """
    groups = conversations(run)
    if run.rounds is None:
        numbered = zip_longest(*groups.values())
        return {
            f"call {number}": [call for call in calls if call]
            for number, calls in enumerate(numbered, 1)
        }
    found: dict[str, list[Call]] = {name: [] for name in ("", *run.rounds.numbers)}
    for calls in groups.values():
        for call in calls:
            found[run.round_of(call.record)].append(call)
    return {name or "outside any round": calls for name, calls in found.items() if calls}


def _call(record: Record, beginning: History, before: Call | None) -> Call:
    histories = [beginning]
    for message in _messages_of(record):
        histories.append(histories[-1].with_message(_said_of(message)))
    known = sum(each.last is not None for each in histories[1:-1])
    call = Call(
        record,
        (record.sample or "").partition("#")[2],
        title_of(record.kind, record.request),
        tuple((name, as_json(value)) for name, value in sorted(_parameters_of(record).items())),
        tuple(each.said for each in histories[1:]),
        known,
        None if histories[known].last is before else histories[known].first,
        tuple(_answers(record)),
    )
    choices = record.response.get("choices") or ()
    answered = [histories[-1].with_message(_said_of(choice["message"])) for choice in choices]
    if _asks_model(record):
        answered = [
            histories[-1].with_message(said._replace(role=ANSWERER)) for said in call.answers
        ]
    for each in (*histories[1:], *answered):
        each.first, each.last = each.first or call, call
    return call


def _messages_of(record: Record) -> Sequence[Mapping[str, Any]]:
    """Return the messages of a chat; what was asked of anything else as one message."""
    request = record.request
    if record.kind == "chat":
        return request["messages"]  # type: ignore[no-any-return]
    if _asks_model(record):
        return list(_messages_in(request["body"]))
    role, name = {"embedding": ("text", "input"), "http": ("body", "body")}.get(
        record.kind, ("arguments", "arguments")
    )
    return [{"role": role, "content": request.get(name)}]


def _asks_model(record: Record) -> bool:
    """Return whether a request that is recorded as it is asks a model something."""
    if record.kind != "http" or model_of(record.kind, record.request, record.response) is None:
        return False
    body = record.request.get("body")
    return isinstance(body, dict) and not set(SAID).isdisjoint(body)


def _messages_in(body: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yield the messages in a body of the Responses, the Messages or the completions API."""
    for name in SYSTEMS:
        if name in body:
            yield {"role": "system", "content": body[name]}
    for name in QUESTIONS:
        asked = body.get(name)
        if isinstance(asked, list) and all(isinstance(item, dict) for item in asked):
            for item in asked:
                is_message = isinstance(item.get("role"), str) and "content" in item
                yield item if is_message else {"role": "user", "content": as_json(item)}
        elif asked is not None:
            text = asked if isinstance(asked, str) else as_json(asked)
            yield {"role": "user", "content": text}


def _parameters_of(record: Record) -> dict[str, Any]:
    """Return what else was asked for; of a body, its further fields."""
    asked = {name: value for name, value in record.request.items() if name not in ASKED}
    if _asks_model(record):
        body = record.request["body"]
        asked |= {name: value for name, value in body.items() if name not in SAID}
    return asked


def _said_of(message: Mapping[str, Any]) -> Said:
    """Return a message as it is shown."""
    role = str(message.get("role") or "assistant")
    about = message.get("name") or message.get("tool_call_id")
    content, calls = message.get("content"), message.get("tool_calls") or ()
    parts = content if isinstance(content, list) else [] if content is None else [content]
    texts = [*map(_part, parts), *(f"calls {_tool_call(call)}" for call in calls)]
    if message.get("function_call"):  # of an older API
        texts.append(f"calls {_tool_call({'function': message['function_call']})}")
    if message.get("refusal"):
        texts.append(f"refuses: {message['refusal']}")
    return Said(f"{role} ({about})" if about else role, tuple(texts))


def _part(part: Any) -> str:
    if isinstance(part, dict) and part.get("type") in TEXTS:
        part = part.get("text")
    return part if isinstance(part, str) else as_json(part)


def _tool_call(call: Mapping[str, Any]) -> str:
    function = call.get("function")
    if not function:
        return as_json(call)
    identifier = f"  [{call['id']}]" if call.get("id") else ""
    return f"{function.get('name')}({function.get('arguments', '')}){identifier}"


def _answers(record: Record) -> list[Said]:
    """Return the answers of a call; several if ``n`` is above 1."""
    choices = record.response.get("choices")
    if choices:
        return [_choice(choice, len(choices)) for choice in choices]
    if _asks_model(record):
        return [_http_answer(record)]
    role = next((name for name in ("embedding", "fallback") if name in record.response), "result")
    return [Said(role, (record.answer,))]


def _http_answer(record: Record) -> Said:
    """Return a model's answer that is recorded as it came."""
    texts = (f"refuses: {record.refusal}",) if record.refusal else (record.answer,)
    end = record.finish_reason
    return Said(ANSWERER if end in ORDINARY_ENDS else f"{ANSWERER}, ended by {end}", texts)


def _choice(choice: Mapping[str, Any], count: int) -> Said:
    said = _said_of(choice["message"])
    role = (
        said.role if count == 1 else f"{said.role}, choice {choice.get('index', 0) + 1} of {count}"
    )
    end = choice.get("finish_reason")
    return said._replace(role=role if end in ORDINARY_ENDS else f"{role}, ended by {end}")


def named(record: Record) -> str:
    """Return what a record is called in a list: its sample, its model or function, and its first
    words.
    """
    asked = one_line(record.prompt, WORDS)
    return printable(
        f'{record.sample or ""} {title_of(record.kind, record.request)} "{asked}"'.lstrip()
    )


# As text


def text_lines(
    settings: Mapping[str, Any],
    groups: Mapping[str, list[Call]],
    served: Sequence[str] = (),
) -> Iterator[str]:
    """Yield the lines of a file, coloured for a terminal.

    :param settings: what stands in its header: defaults, from which a call may differ.
    :param groups: its calls, by what stands above them; each call's own scope stands above it where
        that is another.
    :param served: the models that answered, and their days, in words.
    """
    from click import style

    for name, value in sorted(settings.items()):
        yield style(f"configured {name}: {visible(as_json(value))}", dim=True)
    for words in served:
        yield style(f"answered by {words}", dim=True)
    seen: set[str] = set()
    for number, (heading, calls) in enumerate(groups.items()):
        if number or settings or served:
            yield ""
        yield style(f"=== {visible(heading) or OUTSIDE_ANY_SCOPE}", bold=True)
        is_scope = all(call.record.scope == heading for call in calls)
        for call in calls:
            yield ""
            if not is_scope:
                yield style(visible(call.record.scope) or OUTSIDE_ANY_SCOPE, bold=True)
            yield from _call_lines(call, seen)


def _call_lines(call: Call, seen: set[str]) -> Iterator[str]:
    """Yield the lines of one call.

    :param seen: the long texts that stand above; gains those of this call.
    """
    from click import style

    parameters = "".join(f"  {name}={_short(value, seen)}" for name, value in call.parameters)
    draw = f"#{call.draw}  " if call.draw else ""
    yield style(visible(f"--- {draw}{call.title}{parameters}"), fg="cyan")
    if call.known:
        above = (
            f'in the call that asked "{visible(_first_words(call.after))}"'
            if call.after
            else "above"
        )
        yield style(f"{INDENT}… {counted(call.known, 'message')} as {above}", dim=True)
    shown = [("", "blue", said) for said in call.messages[call.known :]]
    shown += [("→ ", "green", said) for said in call.answers]
    for mark, colour, said in shown:
        yield style(f"{mark}{visible(said.role)}", fg=colour)
        for text in said.texts:
            for line in visible(_short(text, seen)).split("\n"):
                yield f"{INDENT}{line}".rstrip()


def _first_words(call: Call) -> str:
    """Return the beginning of the last message that a call asked, on one line."""
    texts = call.messages[-1].texts if call.messages else ()
    return one_line(texts[-1] if texts else "", WORDS)


def _short(text: str, seen: set[str]) -> str:
    """Return a text, but a long one that stands above already only in its first words."""
    if len(text) <= INLINE_CHARACTERS:
        return text
    if text in seen:
        return f"… as above, {len(text):,} characters: {one_line(text, WORDS)}"
    seen.add(text)
    return text
