"""What a comparison of runs finds."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import NamedTuple

from ..display.formatting import one_line
from ..display.printable import printable
from .word_changes import TEXT_CHARACTERS, word_changes

STRETCHES_SHOWN = 12  # of rounds
# By the reason of a parting: what a report says of it.
WHY = {
    "prompt": "the prompt changed",
    "parameters": "the parameters changed",
    "model": "the model changed",
    "draw": "the same request has different answers",
    "missing": "the other run ends, or does not make this call",
    "added": "the other run has an additional call",
}


class Row(NamedTuple):
    """One call of the runs.

    :param scope: the actor's scope path, without the level that names the whole run.
    :param place: its place in the actor's run, from 0: in the first run, or in the other one if
        it was added there.
    :param status: ``"same"``, ``"changed"``, ``"added"`` or ``"missing"`` (of the other run).
    :param prompt: the last message that was asked, in the first run; ``None`` if it has no such
        call.
    :param answer: its answer, likewise.
    :param other_prompt: the same in the other run.
    :param other_answer: the same in the other run.
    :param run: which of the other runs it is, from 1.
    :param round: the name of its round, if a level of the scopes is the round; else empty.
    """

    scope: str
    place: int
    status: str
    prompt: str | None
    answer: str | None
    other_prompt: str | None
    other_answer: str | None
    run: int = 1
    round: str = ""


class Parting(NamedTuple):
    """The first call at which an actor's runs part.

    :param scope: the actor's scope path, without the level that names the whole run.
    :param place: the call's place in the actor's run, from 0.
    :param why: ``"prompt"``, ``"parameters"``, ``"model"``, ``"draw"``, ``"missing"`` or
        ``"added"``.
    :param before: what differs, as it is in the first run: the message, the parameters, the model,
        the answer, or the prompt of the call; ``None`` if there is none. An earlier answer that
        a message repeats is the first run's in both.
    :param after: the same in the other run.
    :param run: which of the other runs it is, from 1.
    :param doubt: why a changed prompt may be no cause but a consequence of earlier answers, if
        the recordings do not tell; else empty.
    :param round: the name of the call's round, as of its :class:`.Row`.
    :param served: of different answers to the same request, the models that gave them, by their own
        names, if these differ; else empty.
    """

    scope: str
    place: int
    why: str
    before: str | None
    after: str | None
    run: int = 1
    doubt: str = ""
    round: str = ""
    served: tuple[str, ...] = ()

    @property
    def status(self) -> str:
        """Return the status of the call, as of its :class:`.Row`."""
        return self.why if self.why in ("missing", "added") else "changed"

    @property
    def perhaps(self) -> str:
        """Return what stands at the end of a line: the doubt, or which models answered."""
        if self.served:
            return f" (answered by {' and '.join(map(printable, self.served))})"
        return f" ({self.doubt})" if self.doubt else ""

    @property
    def call(self) -> str:
        """Return which of the actor's calls it is, in words."""
        number = f"call {self.place + 1}"
        return f"{number} ({printable(self.round)})" if self.round else number

    def in_words(self) -> str:
        """Return what differs, in one line; the words of a prompt as ``git diff --word-diff`` shows
        them.
        """
        if self.why == "prompt":
            return word_changes(self.before or "", self.after or "")
        quoted = [
            f'"{printable(one_line(text, TEXT_CHARACTERS))}"'
            for text in (self.before, self.after)
            if text is not None
        ]
        words = " → ".join(quoted)
        if self.before == self.after or len(set(quoted)) == len(quoted):
            return words
        sides = {"".join((text or "").split()) for text in (self.before, self.after)}
        where = "only in white space" if len(sides) == 1 else "after these words"
        return f"{words} (they differ {where})"


class Round(NamedTuple):
    """How many calls of one round changed.

    :param name: the round's name, or ``"call 3"`` for the third call of each actor if rounds are no
        level of the scopes.
    :param calls: the number of calls of this round that both runs have.
    :param changed: the number of them whose request or answer differs.
    :param run: which of the other runs it is, from 1.
    """

    name: str
    calls: int
    changed: int
    run: int = 1

    @property
    def share(self) -> float:
        """Return the share of changed calls, from 0 to 1."""
        return self.changed / self.calls


class Spread(NamedTuple):
    """The answers of several runs to one question.

    :param scope: the actor's scope path.
    :param place: the call's place in the actor's run, from 0.
    :param prompt: the last message that was asked.
    :param answers: how many runs gave each answer, the most frequent first.
    """

    scope: str
    place: int
    prompt: str | None
    answers: dict[str, int]


def shares_in_words(rounds: Sequence[Round]) -> Iterator[str]:
    """Yield the share of changed calls in each stretch of rounds that have the same; if these are
    many, in stretches of as many rounds each.
    """
    stretches = [list(stretch) for _, stretch in groupby(rounds, key=lambda each: _share([each]))]
    if len(stretches) > STRETCHES_SHOWN:
        length = -(-len(rounds) // STRETCHES_SHOWN)
        stretches = [
            list(rounds[begin : begin + length]) for begin in range(0, len(rounds), length)
        ]
    for stretch in stretches:
        first, last = stretch[0].name, stretch[-1].name
        yield f"{_share(stretch)} in {printable(_stretch(first, last))}"


def _stretch(first: str, last: str) -> str:
    """Return the names of the first and the last round of a stretch as one text."""
    if first == last:
        return first
    if first.startswith("call ") and last.startswith("call "):
        return f"calls {first.removeprefix('call ')} to {last.removeprefix('call ')}"
    return f"{first} to {last}"


def _share(rounds: Iterable[Round]) -> str:
    """Return the share of changed calls in some rounds together, in words."""
    calls, changed = 0, 0
    for each in rounds:
        calls += each.calls
        changed += each.changed
    if changed in (0, calls):
        return "all" if changed else "none"
    return f"{min(max(round(100 * changed / calls), 1), 99)}%"


def counted_value(answer: str | None) -> str:
    """Return an answer as it is counted: JSON by its value, a text without the blanks around it."""
    text = (answer or "").strip()
    if text[:1] not in ("{", "[", '"'):
        return text
    try:
        return json.dumps(json.loads(text), sort_keys=True, ensure_ascii=False)
    except ValueError:
        return text
