"""Recordings with exchanged answers: what stays the same with them does not come from the answers.

The answers of each form go to other records of that form. The program may then send requests that are not recorded,
because their prompts contain other answers: a stand-in answers them from the recording, so that the program goes on.
"""

from __future__ import annotations

import json
import threading
from collections import Counter, defaultdict, deque
from collections.abc import Mapping, Sequence
from pathlib import Path

from ...config.resolve import configured
from ...keys.request import Data, Request, title_of
from ...scopes.position import Position
from ...stores.cassettes.cassette import Cassette
from ...stores.misses.causes import parameters_of
from ...stores.record import Record
from ...stores.records.packed import LazyRecord
from ...stores.records.reader import read
from ...stores.records.served import model_of
from ...stores.records.writer import write
from ...typed.notes import FORM

# Means and shares are the same for permuted answers, so there is a second way.
PERMUTED, UNEVEN = WAYS = ("permuted", "uneven")


def exchange_answers(path: Path, way: str) -> bool:
    """Exchange the answers in a recording; return whether there are any to exchange, which differ.

    :param way: ``PERMUTED`` permutes the answers of each form among its records, so that as many records as
        possible get another answer. ``UNEVEN`` also gives the rarest answer to the first half of them, and counts
        the forms that have only one answer as one form.
    """
    recording = read(path)
    records = list(recording)
    exchanged, has_changed = list(records), False
    for places in _places_by_form(records, joins_forms=way == UNEVEN):
        answers = [_answer(records[place]) for place in places]
        donors = _permutation(answers)
        if way == UNEVEN:
            half = len(answers) // 2
            donors[:half] = [answers.index(min(answers, key=Counter(answers).__getitem__))] * half
        for place, answer, donor in zip(places, answers, donors, strict=True):
            if answers[donor] != answer:
                exchanged[place] = _with_answer_of(records[place], records[places[donor]])
                has_changed = True
    if not has_changed:
        return False
    with configured(cassette_allow=["(?s).+"]):  # its author allowed what looks like a credential
        write(path, recording.header, exchanged)
    return True


def _places_by_form(records: Sequence[Record], *, joins_forms: bool) -> list[list[int]]:
    """Return the places of the records of each form, of those that a model answered."""
    groups: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for place, record in enumerate(records):
        if model_of(record) is not None:
            form = form_of(record.kind, record.request, FORM.of(record))
            # Without a recorded form, a program may expect a number, or an object with certain fields.
            groups[form, "" if FORM.of(record) else _type_of(record.answer)].append(place)
    if not joins_forms:
        return list(groups.values())
    joined: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for group, places in groups.items():
        is_single = len({_answer(records[place]) for place in places}) == 1
        is_chat = records[places[0]].kind == "chat"
        joined[("chat",) if is_single and is_chat else group] += places
    return list(joined.values())


def form_of(kind: str, request: Mapping[str, Data], form: Mapping[str, Data] | None) -> str:
    """Return the form of a request: the recorded one, else its model and parameters."""
    if form is not None:
        return f"{form['name']} {form['digest']}"
    parameters = parameters_of(request)
    return json.dumps([kind, title_of(kind, request), parameters], sort_keys=True, default=repr)


def _type_of(answer: str) -> str:
    data = _read(answer)
    if isinstance(data, dict):
        return f"object of {sorted(data)}"
    return "number" if type(data) in (int, float) else type(data).__name__


def _answer(record: Record) -> Data:
    """Return what makes an answer another one: its text and tool calls, its data, or an embedding."""
    embedding = record.response.get("embedding")
    return embedding or json.dumps(_read(record.answer), sort_keys=True)


def _read(answer: str) -> Data:
    """Return the data of an answer in JSON, else its text."""
    try:
        return json.loads(answer)
    except ValueError:
        return answer.strip()


def _permutation(answers: Sequence[Data]) -> list[int]:
    """Return for each place the one whose answer it gets: a rotation of the places, sorted by answer, by the number
    of the most frequent answer. It leaves an answer in place only where more than half are the same.
    """
    first = {answer: place for place, answer in reversed([*enumerate(answers)])}
    ordered = sorted(range(len(answers)), key=lambda place: first[answers[place]])
    shift = max(Counter(answers).values())
    donors = dict(zip(ordered, ordered[shift:] + ordered[:shift], strict=True))
    return [donors[place] for place in range(len(answers))]


def _with_answer_of(record: Record, donor: Record) -> Record:
    return LazyRecord(record, lambda: record.replace(response=donor.response))


class StandIn:
    """Answers for requests that a cassette does not have, from its records of the same form.

    It gives the first unused one of the same scope, such as the next turn of a conversation, else any one. It gives
    as many as there are records, so that a program that goes on until a model says something comes to its end.

    :param cassette: the cassette, before it opens.
    """

    def __init__(self, cassette: Cassette) -> None:
        self._cassette = cassette
        self._lock = threading.Lock()
        self._left = 0
        self._keys: dict[str, list[str]] = defaultdict(list)
        self._keys_in_scope: dict[tuple[str, str], deque[str]] = defaultdict(deque)

    def key_for(self, request: Request, position: Position) -> str | None:
        """Return the key of the record that answers a request; ``None`` without one."""
        with self._lock:
            if not self._keys:
                self._read_records()
            form = form_of(request.kind, request.hashed, FORM.of(position))
            if form not in self._keys:  # imported answers have no recorded form
                form = form_of(request.kind, request.hashed, None)
            keys, in_scope = self._keys[form], self._keys_in_scope[form, position.path]
            if not keys or not self._left:
                return None
            self._left -= 1
            while in_scope:
                key = in_scope.popleft()
                if not self._cassette.tape.log.has_used(key):
                    return key
        return keys[int(request.cache_key[:8], 16) % len(keys)]

    def _read_records(self) -> None:
        for record in self._cassette.tape.stored:
            form = form_of(record.kind, record.request, FORM.of(record))
            self._keys[form].append(record.cache_key)
            self._keys_in_scope[form, record.scope].append(record.cache_key)
            self._left += 1
