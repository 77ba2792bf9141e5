"""A block in which some calls get the user's own answers. The look-up of a call finds them, so it is not sent."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from ...apis.message import content_text, holds_answer, unreadable_message
from ...config.cassette_modes import MODES
from ...core.calls import stores_around
from ...core.parents import parents
from ...errors import ArgumentError, ConfigError, ScopeError
from ...keys.keys import key_of
from ...keys.plain_data import plain
from ...keys.request import Data, Request
from ...scopes.active import here
from ...scopes.draw_numbers import Numbers
from ...scopes.position import Branches, Position, draw_in_arm
from ...stores.cassettes.current import open_cassettes
from ...stores.cassettes.stores import CassetteStore
from ...stores.record import Record
from ...stores.records.reader import header_in
from ...support.arguments import nearest
from ...support.data import check_unicode
from ...support.display import as_json, counted, printable
from ...support.failures import report_problem
from ...support.listeners import CallListener, listen, stop_listening
from ...support.system import lock
from .notes import OVERRIDE

if TYPE_CHECKING:
    from ...core.calls import Call
    from ...core.seams import Store
    from ...keys.keys import Identity
    from ...scopes.draw_numbers import RecordedCallers

Message = dict[str, Any]
MOST_NAMED = 5  # actors that a message lists
# Where other APIs have an answer's text, whole and streamed; and the types of objects that have other texts there
TEXT_FIELDS = ("text", "delta", "content", "response")
NOT_TEXT = re.compile("reasoning|thinking|summary|arguments")

_open: list[Override] = []  # an override that is entered twice is here twice


class _Calls:
    """The calls of an actor, numbered from 1 as a comparison counts them. Over a recording, its order counts;
    otherwise their arrival, and a failed call returns its number.

    :param before: how many calls the actor had made when the counting began.
    :param recorded: the keys of its calls in the recording that is replayed; ``None`` while one is made.
    """

    def __init__(self, before: int, recorded: list[str] | None) -> None:
        self._before = before
        self._recorded = recorded
        self._numbers = Numbers()
        self._by_key: dict[str, int] = {}
        self._answered: set[str] = set()

    def number(self, key: str) -> int | None:
        """Return the number of the call with a key; ``None`` if the recording lacks it. The caller holds the lock."""
        if key not in self._by_key:
            self._by_key[key] = self._numbers.lowest
            self._numbers.take(self._by_key[key])
        if self._recorded is None:
            return self._before + self._by_key[key] + 1
        return self._recorded.index(key) + 1 if key in self._recorded else None

    def keep(self, key: str) -> None:
        """Keep a call's number: it has an answer."""
        self._answered.add(key)

    def release(self, key: str) -> None:
        """Return a call's number, unless it has an answer."""
        if key in self._by_key and key not in self._answered:
            self._numbers.release(self._by_key.pop(key))

    def __len__(self) -> int:
        return self._before + len(self._by_key)


class _Answer:
    """One answer of an override.

    :param actor: the actor's scope path, or its last levels.
    :param number: which of its calls, from 1.
    :ivar path: the scope path of the first call by that actor; ``None`` before it.
    :ivar is_used: ``True`` if a call got the answer.
    """

    def __init__(self, actor: str, number: int, answer: object) -> None:
        self.actor = actor.strip("/")
        self.number = number
        self.message = message_of(answer, self.place)
        self.path: str | None = None
        self.is_used = False

    @property
    def place(self) -> str:
        """Return the answer's name in messages."""
        return f"the override of {printable(self.actor)}'s call {self.number}"


class Override(CallListener):
    """A block made by :func:`llmcall.override`: a context manager.

    While open, it applies to every thread, task and child of the process. An override that is opened in a scope or an
    arm applies only to the calls inside it.
    """

    def __init__(self, answers: Mapping[tuple[str, int], str | Mapping[str, object]]) -> None:
        for place in answers:
            if not (isinstance(place, tuple) and [*map(type, place)] == [str, int]):
                raise TypeError(
                    f"override has the key {place!r}; it must be an actor and the number of its call: ('Ben', 2)"
                )
        self._answers = [
            _Answer(actor, number, answer) for (actor, number), answer in answers.items()
        ]
        self._inside = Position()
        self._calls: dict[tuple[Branches, str], _Calls] = {}
        self._seen: dict[str, None] = {}  # the last levels of the scopes of calls
        self._process = 0

    def __enter__(self) -> Override:
        if self._answers and parents and not open_cassettes:
            raise ScopeError(
                f"{self._answers[0].place} is opened in a child process, whose calls the parent answers: open it "
                "in the parent, or pass it to llmcall run --override"
            )
        self._inside = here().parent_of_new_scopes.position
        self._process = os.getpid()
        self._calls.clear()
        self._seen.clear()
        for answer in self._answers:
            answer.path, answer.is_used = None, False
        with lock:
            _open.append(self)
        listen(self)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        stop_listening(self)
        with lock:
            _open.remove(self)
        if kind in (None, SystemExit) and os.getpid() == self._process:
            for words in filter(None, map(self._problem_of, self._answers)):
                report_problem(words)

    def answered(self, call: Call, record: Record) -> None:
        """Keep the number of a call that has an answer."""
        with lock:
            if (calls := self._calls_of(call)) is not None:
                calls.keep(call.request.cache_key)

    def failed(self, call: Call, error: BaseException) -> None:
        """Return the number of a call that failed."""
        with lock:
            if (calls := self._calls_of(call)) is not None:
                calls.release(call.request.cache_key)

    def _calls_of(self, call: Call) -> _Calls | None:
        return self._calls.get((call.position.branches, call.position.path))

    def covers(self, position: Position) -> bool:
        """Return whether a call at a position is in the block's scope and arm."""
        inside, branches = self._inside.path, self._inside.branches
        is_below = not inside or f"{position.path}/".startswith(f"{inside}/")
        return is_below and position.branches[: len(branches)] == branches

    def answers_to(self, call: Call) -> list[_Answer]:
        """Return the answers for a call, and count it.

        :raises ConfigError: if they would replace the answers of a complete file.
        :raises ScopeError: if an answer's actor also fits another scope.
        """
        path, branches = call.position.path, call.position.branches
        fitting = [answer for answer in self._answers if f"/{path}".endswith(f"/{answer.actor}")]
        self._seen[path.rpartition("/")[2]] = None
        if not fitting:
            return []
        with lock:
            for answer in fitting:
                answer.path = answer.path or path
            calls = self._calls_of(call)
            if calls is None:
                calls = self._calls[branches, path] = _counted(call)
            number = calls.number(call.request.cache_key)
        for answer in fitting:
            if answer.path != path:
                call.refuse(
                    ScopeError(
                        f"{answer.place} fits two scopes, {printable(str(answer.path))} and {printable(path)}: give "
                        "the whole path, or open the override in the scope that you mean"
                    )
                )
        return [answer for answer in fitting if answer.number == number]

    def _problem_of(self, answer: _Answer) -> str:
        """Return a sentence for an answer that no call got; empty for others."""
        of_path = [calls for (_, path), calls in self._calls.items() if path == answer.path]
        is_refused = answer.path is not None and not of_path  # which a ConfigError has said
        if answer.is_used or is_refused:
            return ""
        if of_path:
            reason = f"{printable(answer.actor)} made {counted(max(map(len, of_path)), 'call')}"
        else:
            names = list(self._seen)
            known = ", ".join(map(printable, names[:MOST_NAMED]))
            further = len(names) - MOST_NAMED
            known += f" and {further:,} more" if further > 0 else ""
            reason = f"no actor has that name{nearest(answer.actor, names)}"
            reason += f" (the actors: {known})" if known else ""
        return f"{answer.place} answered no call: {reason}"


def _counted(call: Call) -> _Calls:
    """Return the count of the calls of a call's actor, in its arm, which begins with this call.

    :raises ConfigError: if the cassette's mode would replace the answers of a complete file.
    """
    position, cassette = call.position, call.cassette
    if cassette is None:
        return _Calls(0, None)
    header = header_in(cassette.path) if MODES[cassette.mode].adds else None
    if header is not None and header.is_complete:
        raise ConfigError(
            f"{cassette.path} is complete and keeps its recorded answers, which an override in mode "
            f"{cassette.mode!r} would replace: record into a new cassette. Calls that do not change get these answers "
            f"there, from the disk cache; 'llmcall cache load {cassette.path}' puts them into it"
        )
    tape = cassette.tape
    # a file has the calls of an arm in the order of the arms that made them first
    if tape.may_record or position.arm:
        return _Calls(tape.log.count_in(position.path, position.arm), None)
    keys = [record.cache_key for record in tape.stored if record.scope == position.path]
    return _Calls(0, keys)


def message_of(answer: object, place: str) -> Message:
    """Return an answer as an assistant message.

    :param answer: its text, or the message as Chat Completions has it.
    :param place: what messages call the answer.
    :raises TypeError: if it is neither.
    :raises ValueError: if it holds no text, tool call or refusal, or one that cannot be read.
    """
    if isinstance(answer, str):
        answer = {"content": answer}
    if not isinstance(answer, Mapping):
        raise TypeError(
            f"{place} is {type(answer).__name__}; it must be text or an assistant message (a dict)"
        )
    fields: Message = plain(dict(answer), place)
    check_unicode(json.dumps(fields, ensure_ascii=False), place)
    if problem := unreadable_message(fields):
        raise ArgumentError(f"{place} {problem}")
    message = {"content": None, **fields, "role": "assistant"}
    if not holds_answer(message):
        raise ArgumentError(f"{place} is empty; give it text or tool_calls")
    return message


def chat_response(request: Request, message: Message) -> dict[str, Data]:
    """Return the response to a chat that holds a message, as it is recorded."""
    end = "tool_calls" if message.get("tool_calls") else "stop"
    choices = [
        {"index": index, "message": dict(message), "finish_reason": end}
        for index in range(int(request.hashed.get("n") or 1))
    ]
    # A program reads zeros; readers of records take them, beside a text, for no report.
    usage = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
    return {"model": str(request.hashed["model"]), "choices": choices, "usage": usage}


def other_response(recorded: Record, message: Message, place: str) -> dict[str, Data]:
    """Return the recorded response of another API with a message's text instead of its own, whole or streamed.

    :param place: what messages call the answer.
    :raises ValueError: if the message is not only a text, or the response has none.
    """
    text = content_text(message["content"])
    if text is None or message.get("tool_calls") or message.get("refusal"):
        raise ArgumentError(
            f"{place} must be a text: only in a Chat Completions call may it be more"
        )
    value = recorded.response.get("value")
    if isinstance(value, dict) and isinstance(body := value.get("body"), str):
        for choice in recorded.choices:
            body = _with_text(body, choice["message"].get("content") or "", text)
        response: dict[str, Data] = {"value": {**value, "body": body}}
        made = Record(None, recorded.kind, None, recorded.request, response)
        if [choice["message"].get("content") for choice in made.choices[:1]] == [text]:
            return response
    raise ArgumentError(f"{place} cannot be used: the recorded response to that call has no text")


def _with_text(body: str, old: str, new: str) -> str:
    """Return a body, JSON or a stream of events or lines, with another text.

    It has the old one whole, in pieces that follow one another, or both.
    """
    rest = old

    def changed(item: Data) -> Data:
        nonlocal rest
        if item.get("thought") or NOT_TEXT.search(str(item.get("type"))):
            return item
        for name in TEXT_FIELDS:
            text = item.get(name)
            if text == old:
                item[name] = new
            elif isinstance(text, str) and text and rest.startswith(text):
                item[name] = new if rest == old else ""
                rest = rest[len(text) :] or old
        return item

    def in_line(line: str) -> str:
        head, brace, data = line.partition("{")
        try:
            return head + as_json(json.loads(brace + data, object_hook=changed))
        except ValueError:
            return line

    try:
        return as_json(json.loads(body, object_hook=changed))
    except ValueError:
        rest = old
        return "\n".join(map(in_line, body.split("\n")))


class OverridingStore(NamedTuple):
    """The store of a call in an open override.

    :param below: the call's store without the override.
    """

    call: Call
    below: Store

    def get(self, request: Request) -> Record | None:
        """Return the user's own answer to a request, or else the recorded one, or ``None``.

        :raises ScopeError: if an answer fits several scopes.
        :raises ConfigError: in an API other than Chat Completions, if no response is recorded.
        :raises ValueError: if the answer does not fit the recorded response.
        """
        call = self.call
        found = [
            answer
            for block in tuple(dict.fromkeys(_open))
            if block.covers(call.position)
            for answer in block.answers_to(call)
        ]
        if not found:
            return self.below.get(request)
        answer, arm, sample = found[0], call.position.arm, request.sample
        if arm:  # it is a draw of that arm alone
            sample = draw_in_arm(str(sample), arm)
        key = key_of(request.kind, request.hashed, sample)
        response = self._response(request, answer)
        fields = request.kind, sample, dict(request.hashed), response
        record = Record(key, *fields, cost=0.0, notes={OVERRIDE.name: True})
        answer.is_used = True
        call.note(overridden=1)
        if isinstance(self.below, CassetteStore):
            return self.below.put_given(record)
        return record

    def _response(self, request: Request, answer: _Answer) -> dict[str, Data]:
        if request.kind == "chat":
            return chat_response(request, answer.message)
        call, key = self.call, request.cache_key
        recorded = call.cassette.tape.get(key) if call.cassette else None
        recorded = recorded or call.at.cache.get(key, mode=call.at.settings.cache_mode)
        if recorded is None:
            raise ConfigError(
                f"{answer.place} goes into the recorded response to that call, but none is recorded: record the "
                "run without the override first"
            )
        return other_response(recorded, answer.message, answer.place)

    def has_used(self, key: str) -> bool:
        """Return whether a call of this process used or made the record of a key."""
        return self.below.has_used(key)

    def add(self, record: Record) -> Record:
        """Add an answer; return the answer that counts."""
        return self.below.add(record)

    def callers(self, path: str, identity: Identity) -> RecordedCallers:
        """Return the callers that took a request's draws in the recording."""
        return self.below.callers(path, identity)


def _around(call: Call, store: Store) -> Store:
    """Return a call's store, which asks an open override first."""
    is_draw = bool(_open) and bool(call.position.path) and call.request.sample is not None
    return OverridingStore(call, store) if is_draw else store


stores_around.append(_around)


def override(answers: Mapping[tuple[str, int], str | Mapping[str, object]]) -> Override:
    """Answer some calls of a block yourself: what if Ben had said no?

    An overridden call is not sent. The calls that it changes are new requests, and the others replay.

    :param answers: by actor and call. The actor is its whole scope path, or its last levels; its calls count
        from 1, as ``llmcall diff`` counts them. The answer is a text, or an assistant message (a dict, which may
        have ``tool_calls``).
    :returns: a context manager, for every thread, task and child process. In a scope or an arm, it applies to the
        calls inside it. An actor that fits several scopes raises ``ScopeError`` at its call.
        Entered in a recorded child process, it also raises ``ScopeError``: the parent answers that child's calls.
    :raises TypeError: for another kind of key or answer.
    :raises ValueError: for an empty answer.

    >>> from llmcall.testing import ScriptedClient
    >>> client = ScriptedClient(lambda messages: "yes")
    >>> with llmcall.override({("Ben", 2): "no"}), llmcall.scope("Ben"):
    ...     [client.send_message("Do you buy?").content for _ in range(3)]
    ['yes', 'no', 'yes']
    """
    return Override(answers)
