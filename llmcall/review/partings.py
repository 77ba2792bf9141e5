"""Partings: the first call at which an actor's runs differ, why, and from which answer it may follow."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import NamedTuple

from ..stores.differences.fields import Difference, differences
from ..stores.differences.words import word_changes
from ..stores.record import Record
from ..stores.records.answers import shared_answer_parts
from ..support.display.formatting import as_json, one_line
from ..support.display.printable import printable
from .consequences import Changes, field_text, is_in_prompt, sides_of
from .pairs import Pair

# The words of a report for each reason of a parting
WHY = {
    "prompt": "the prompt changed",
    "parameters": "the parameters changed",
    "model": "the model changed",
    "draw": "the same request has different answers",
    "missing": "the other run ends, or does not make this call",
    "added": "the other run has an additional call",
}
TEXT_CHARACTERS = 60  # of a text in a line


class CallPosition(NamedTuple):
    """A call: the actor's scope path, and the place in the actor's run, from 0."""

    scope: str
    place: int


class Parting(NamedTuple):
    """The first call at which an actor's runs part.

    :param scope: the actor's scope path, without the level that names the whole run.
    :param place: the call's place in the actor's run, from 0.
    :param why: ``"prompt"``, ``"parameters"``, ``"model"``, ``"draw"``, ``"missing"`` or
        ``"added"``.
    :param before: the difference in the first run: the message, the parameters, the model, the
        answer, or the prompt of the call, or ``None`` if it has no such call.
    :param after: the difference in the other run.
    :param follows: the call with the first changed answer that this prompt repeats, if all changed
        words of the prompt are in changed answers that the actor could have read; else ``None``.
        The prompt may be only a consequence of it.
    :param run: the number of the other run, from 1.
    :param served: the models that gave different answers to the same request, by the server's names,
        if they differ; else empty.
    """

    scope: str
    place: int
    why: str
    before: str | None
    after: str | None
    follows: CallPosition | None = None
    run: int = 1
    served: tuple[str, ...] = ()

    @property
    def status(self) -> str:
        """Return the status of the call, as in its :class:`.Row`."""
        return self.why if self.why in ("missing", "added") else "changed"

    @property
    def more(self) -> str:
        """Return the end of a report's line: the call that it may follow from, or the models."""
        if self.follows:
            scope, place = self.follows
            return f" (perhaps a consequence of {printable(scope)}, call {place + 1})"
        if self.served:
            return f" (answered by {' and '.join(map(printable, self.served))})"
        return ""

    def in_words(self) -> str:
        """Return the difference in one line; for prompts, and for answers that begin alike, the words
        as in ``git diff --word-diff``.
        """
        quoted = [
            f'"{printable(one_line(text, TEXT_CHARACTERS))}"'
            for text in (self.before, self.after)
            if text is not None
        ]
        looks_the_same = len(quoted) == 2 and quoted[0] == quoted[1] and self.before != self.after
        if self.why == "prompt" or looks_the_same:
            return word_changes(self.before or "", self.after or "")
        return " → ".join(quoted)


def partings(actors: Sequence[Sequence[Pair]]) -> Iterator[Parting]:
    """Yield the parting of each actor whose runs differ.

    They are found place by place, and within a place causes before consequences, because a change
    may repeat the words of an earlier one. Within a place, the order of the file would be wrong: it
    follows the actors' names, and could take an actor who only heard of a change for its cause.

    :param actors: the calls of each actor, in the order of the file.
    """
    changes = Changes(actors)
    firsts = changes.first_of_each_actor()
    found: dict[int, Parting] = {}
    for _, indexes in groupby(sorted(firsts.values()), key=lambda index: changes[index].place):
        firsts_here = set(indexes)
        for batch in changes.causes_first(firsts_here):
            found |= {index: _parting(changes, index) for index in batch if index in firsts_here}
    yield from (found[firsts[number]] for number in sorted(firsts))


def _parting(changes: Changes, index: int) -> Parting:
    pair = changes[index].pair

    def parting(
        why: str,
        before: str | None,
        after: str | None,
        *,
        follows: CallPosition | None = None,
        served: tuple[str, ...] = (),
    ) -> Parting:
        return Parting(pair.scope, pair.place, why, before, after, follows, pair.run, served)

    one, other = pair.one, pair.other
    if one is None or other is None:
        return parting(pair.status, *(call.prompt if call else None for call in (one, other)))
    changed = differences(one.request, other.request)
    if not changed:
        models = [record.served for record in (one, other) if record.served]
        served = tuple(models) if len(set(models)) > 1 else ()
        return parting("draw", *_differing_answers(one, other), served=served)
    model = next((field for field in changed if field.place in ("model", "body.model")), None)
    if model is not None:
        return parting("model", *map(field_text, sides_of(model)))
    prompts = [field for field in changed if is_in_prompt(field)]
    if not prompts:
        return parting("parameters", *_field_values(changed))
    earlier = [changes.first_source(prompt, index) for prompt in prompts]
    sources = [source for source in earlier if source is not None]
    if len(sources) == len(changed):  # a changed parameter is not a consequence of an answer
        source_pair = changes[min(sources)].pair
        follows = CallPosition(source_pair.scope, source_pair.place)
        return parting("prompt", *map(field_text, sides_of(prompts[0])), follows=follows)
    unexplained = prompts[earlier.index(None)] if None in earlier else prompts[0]
    return parting("prompt", *map(field_text, sides_of(unexplained)))


def _differing_answers(record: Record, other: Record) -> tuple[str | None, str | None]:
    """Return two answers to the same request, or the fields that differ if the texts are the same."""
    if record.answer != other.answer:
        return record.answer, other.answer
    parts, other_parts = shared_answer_parts(record, other)
    return _field_values(differences({"response": parts}, {"response": other_parts}))


def _field_values(differing_fields: Iterable[Difference]) -> tuple[str, str]:
    """Return the values of fields in both runs as texts, such as ``top_p=0.5``."""
    fields = list(differing_fields)
    before = ", ".join(f"{field.place}={as_json(field.recorded)}" for field in fields)
    return before, ", ".join(f"{field.place}={as_json(field.asked)}" for field in fields)
