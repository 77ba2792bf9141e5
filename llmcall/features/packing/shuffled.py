"""A package's program with shuffled answers: a number that stays the same does not come from the answers.

Requests that quote shuffled answers are not recorded. A stand-in answers them with others of the same form, so that the
program goes on.
"""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from itertools import takewhile
from pathlib import Path
from typing import NamedTuple

from ...config.resolve import configured
from ...keys.request import Data, Request, title_of
from ...scopes.position import Position
from ...stores.cassettes.cassette import Cassette
from ...stores.misses.causes import parameters_of
from ...stores.record import Record
from ...stores.records.header import model_of
from ...stores.records.reader import read
from ...stores.records.writer import write
from ...support.display import counted
from ...typed.notes import FORM
from .observed_run import Observation, run_program
from .package import RESULT, Manifest, lay_out

PRINTED = "printed text"
# Digits with leading zeros are a code, such as a postcode.
NUMBER = re.compile(r"(?<![\w.])[-+]?(?:(?:0|[1-9]\d*)(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?(?![\w.])")
LEAST_CHANGE = 1e-6  # of a number, in parts of itself
PICTURES = (".svg", ".pdf", ".ps", ".eps")  # that may be text
# Shuffled answers may keep a program going; seconds, and multiples of its own time.
LEAST_TIME, TIMES = 60, 10


class Change(NamedTuple):
    """What shuffled answers change in a result.

    :param name: the result's path, or ``printed text``.
    :param has_changed: ``True`` if its bytes are others; ``None`` if the program did not write it.
    :param numbers: how many numbers a text has; 0 for a picture.
    :param changed: how many of them are others.
    """

    name: str
    has_changed: bool | None
    numbers: int = 0
    changed: int = 0

    def __str__(self) -> str:
        if self.has_changed is None:
            return f"{self.name}: not written with shuffled answers"
        if not self.numbers:
            return f"{self.name}: {'changes' if self.has_changed else 'stays the same'}"
        text = "" if self.changed or not self.has_changed else ", but its text changes"
        return f"{self.name}: {numbers_from_answers(self.changed, self.numbers)}{text}"


def numbers_from_answers(changed: int, numbers: int) -> str:
    """Say how many numbers come from the answers."""
    verb = "comes" if 1 in (changed, numbers) else "come"
    return f"{changed:,} of {counted(numbers, 'number')} {verb} from the answers"


def changes_when_shuffled(
    package: Path, manifest: Manifest, replay: Observation, folder: Path
) -> tuple[list[Change], str]:
    """Run a package's program with shuffled answers. Return which results change, and how the program failed,
    if it did.

    :param replay: its run with its own answers.
    :param folder: the folder of that run; this one gets its own beside it.
    """
    place = folder.with_name(f"{folder.name}-shuffled")
    lay_out(package, manifest, place)
    has_changed = [shuffle_answers(place / path) for path in manifest.recordings]
    if not any(has_changed):
        return [], ""
    run = run_program(
        manifest.command,
        place,
        cassettes=manifest.recordings,
        environment=manifest.environment,
        answers_all=True,
        longest=LEAST_TIME + TIMES * replay.seconds,
    )
    results = [file.path for file in manifest.files_with_role(RESULT)]
    changes = [
        _change(path, (folder / path).read_bytes(), (place / path).read_bytes())
        if path in run.files_written
        else Change(path, None)
        for path in results
    ]
    if replay.printed:
        changes.append(_change(PRINTED, replay.printed.encode(), run.printed.encode()))
    return changes, run.failure


def _change(name: str, own: bytes, shuffled: bytes) -> Change:
    """Compare a result with the one of shuffled answers."""
    try:
        texts = [] if name.lower().endswith(PICTURES) else [own.decode(), shuffled.decode()]
    except UnicodeDecodeError:
        texts = []
    numbers, others = ([*map(float, NUMBER.findall(text))] for text in texts or ("", ""))
    return Change(name, own != shuffled, len(numbers), len(numbers) - _same(numbers, others))


def _same(numbers: Sequence[float], others: Sequence[float]) -> int:
    """Return how many numbers stay the same."""

    def is_same(pair: tuple[float, float]) -> bool:
        return abs(pair[0] - pair[1]) <= LEAST_CHANGE * abs(pair[0])

    pairs = [*zip(numbers, others, strict=False)]
    if len(numbers) == len(others):
        return sum(map(is_same, pairs))
    # One is more or fewer, so others may stand elsewhere: those from either end count.
    before = len([*takewhile(is_same, pairs)])
    ends = zip(numbers[before:][::-1], others[before:][::-1], strict=False)
    return before + len([*takewhile(is_same, ends)])


def shuffle_answers(path: Path) -> bool:
    """Shuffle the answers in a recording; return whether there are any that differ.

    The answers of each form are rotated among its records. The second half of them get the rarest one, since a mean
    is the same for rotated answers.
    """
    recording = read(path)
    records = [*recording]
    shuffled, has_changed = [*records], False
    for places in _places_by_form(records):
        answers = [_answer(records[place]) for place in places]
        for place, answer, donor in zip(places, answers, _donors(answers), strict=True):
            has_changed |= answers[donor] != answer
            shuffled[place] = records[place].replace(response=records[places[donor]].response)
    if has_changed:
        with configured(
            cassette_allow=["(?s).+"]
        ):  # its author allowed what looks like a credential
            write(path, recording.header, shuffled)
    return has_changed


def _places_by_form(records: Sequence[Record]) -> Iterator[list[int]]:
    """Yield the places of the records of each form, of those that a model answered."""
    groups: dict[tuple[str, str], list[int]] = defaultdict(list)
    for place, record in enumerate(records):
        if model_of(record) is not None:
            form = FORM.of(record)
            # Without a recorded form, a program may expect a number, or an object with certain fields.
            kind = "" if form else _type_of(record.answer)
            groups[_form_of(record.kind, record.request, form), kind].append(place)
    yield from groups.values()


def _form_of(kind: str, request: Mapping[str, Data], form: Mapping[str, Data] | None) -> str:
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


def _donors(answers: Sequence[Data]) -> list[int]:
    """Return for each place the place whose answer it gets. Sorted by answer, the places are rotated by the
    size of the largest group, so an answer stays in place only if more than half are the same.
    """
    counts = Counter(answers)
    first = {answer: place for place, answer in reversed([*enumerate(answers)])}
    ordered = sorted(range(len(answers)), key=lambda place: first[answers[place]])
    shift = max(counts.values())
    rotated = dict(zip(ordered, ordered[shift:] + ordered[:shift], strict=True))
    rarest = min(counts, key=counts.__getitem__)
    half, last = len(answers) // 2, len(answers) - 1
    rotated |= {place: first[rarest] for place in range(half, last + 1) if answers[place] != rarest}
    if Counter(answers[donor] for donor in rotated.values()) == counts:
        rotated[last] = last  # half said yes, half no
    return [rotated[place] for place in range(len(answers))]


class StandIn:
    """Answers the requests that a cassette does not have, each with a record of the same form.

    :param cassette: the cassette, before it opens.
    """

    def __init__(self, cassette: Cassette) -> None:
        self._cassette = cassette

    @cached_property
    def _keys(self) -> dict[str, list[str]]:
        keys: dict[str, list[str]] = defaultdict(list)
        for record in self._cassette.tape.stored:
            form = _form_of(record.kind, record.request, FORM.of(record))
            keys[form].append(record.cache_key)
        return {**keys}

    def key_for(self, request: Request, position: Position) -> str | None:
        """Return the key of the record that answers a request; ``None`` without one."""
        for form in (FORM.of(position), None):  # imported answers have no recorded form
            if keys := self._keys.get(_form_of(request.kind, request.hashed, form)):
                return keys[int(request.cache_key[:8], 16) % len(keys)]
        return None
