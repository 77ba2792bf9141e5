"""Divergences: the first call at which an actor's runs differ, the reason, and the answer from which it may follow."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from ..additions import additions
from ..stores.differences import Difference, differences, word_changes
from ..stores.record import Record
from ..stores.records.answers import shared_answer_parts
from ..support.display import as_json, one_line, printable
from .consequences import Changes, field_text, is_in_prompt
from .pairs import Pair

# The words for each reason
REASON_WORDS = {
    "prompt": "the prompt changed",
    "parameters": "the parameters changed",
    "model": "the model changed",
    "draw": "the same request has different answers",
    "missing": "{other} ends, or does not make this call",
    "added": "{other} has an additional call",
}
TEXT_CHARACTERS = 60  # of a text in a line


class CallPosition(NamedTuple):
    """A call: the actor's scope path, and the call's number in the actor's run, from 0."""

    scope: str
    index: int  # type: ignore[assignment]


class Change(NamedTuple):
    """One reason why a call differs between two runs.

    :param reason: ``"prompt"``, ``"parameters"``, ``"model"``, ``"draw"``, ``"missing"`` or ``"added"``.
    :param before: what differs in the first run: the message, the parameters, the model, the answer, or
        the prompt of the call, or ``None`` if it has no such call.
    :param after: what differs in the other run.
    :param caused_by: the call with the first changed answer that this prompt repeats, if all changed
        words of the prompt are in changed answers that the actor could have read; else ``None``.
        The prompt may be only a consequence of it.
    :param given: the word for one of two answers that differ if no model gave it, as of a record.
    """

    reason: str
    before: str | None
    after: str | None
    caused_by: CallPosition | None = None
    given: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return the change as plain data; whether each word for given answers holds."""
        fields = self._asdict()
        given = fields.pop("given")
        return {**fields, **{word: word == given for word in additions("given").values()}}

    def in_words(self, other: str, *, is_one_of_many: bool = False) -> str:
        """Return the reason and the difference in one line.

        :param other: the name of the other run.
        :param is_one_of_many: leaves out the words that differ from call to call: those of a call that
            one run lacks, and those that repeat answers.
        """
        words = REASON_WORDS[self.reason].format(other=printable(other))
        if self.given:
            words = f"the answer is {self.given}"
        if is_one_of_many and self.reason in ("missing", "added"):
            return words
        if not is_one_of_many or not self.caused_by:
            words = f"{words}: {self.changed_words}"
        if self.caused_by:
            scope, index = self.caused_by
            source = (
                "earlier answers" if is_one_of_many else f"{printable(scope)}, call {index + 1}"
            )
            words += f" (perhaps a consequence of {source})"
        return words

    @property
    def changed_words(self) -> str:
        """Return the difference; for prompts, and for answers that begin alike, the words as in ``git
        diff --word-diff``.
        """
        quoted = [
            f'"{printable(one_line(text, TEXT_CHARACTERS))}"'
            for text in (self.before, self.after)
            if text is not None
        ]
        looks_the_same = len(quoted) == 2 and quoted[0] == quoted[1] and self.before != self.after
        if self.reason == "prompt" or looks_the_same:
            return word_changes(self.before or "", self.after or "")
        return " → ".join(quoted)


class Divergence(NamedTuple):
    """The first call at which an actor's runs diverge.

    :param scope: the actor's scope path, without the level that names the whole run.
    :param index: the call's number in the actor's run, from 0.
    :param changes: all that differs; what follows from an earlier answer comes last.
    :param run: the number of the other run, from 1.
    """

    scope: str
    index: int  # type: ignore[assignment]
    changes: tuple[Change, ...]
    run: int = 1

    @property
    def reasons(self) -> tuple[str, ...]:
        """Return all reasons why the call differs: some of ``"model"``, ``"prompt"`` and
        ``"parameters"``, or one of ``"draw"``, ``"missing"`` and ``"added"``.
        """
        return tuple(change.reason for change in self.changes)

    @property
    def reason(self) -> str:
        """Return the first reason."""
        return self.changes[0].reason

    @property
    def before(self) -> str | None:
        """Return what differs by the first reason, in the first run; see :class:`Change`."""
        return self.changes[0].before

    @property
    def after(self) -> str | None:
        """Return what differs by the first reason, in the other run."""
        return self.changes[0].after

    @property
    def caused_by(self) -> CallPosition | None:
        """Return the call of which this one may be only a consequence, or ``None`` if it has a reason of
        its own.
        """
        return self.changes[0].caused_by

    @property
    def status(self) -> str:
        """Return the status of the call, as in its :class:`.Row`."""
        return self.reason if self.reason in ("missing", "added") else "changed"

    def in_words(self, other: str, *, is_one_of_many: bool = False) -> str:
        """Return all reasons in one line; see ``Change.in_words``."""
        return "; ".join(
            change.in_words(other, is_one_of_many=is_one_of_many) for change in self.changes
        )

    def to_dict(self) -> dict[str, object]:
        """Return it as plain data, for JSON."""
        return {
            "scope": self.scope,
            "index": self.index,
            "reason": self.reason,
            "reasons": self.reasons,
            "before": self.before,
            "after": self.after,
            "changes": [change.to_dict() for change in self.changes],
            "caused_by": self.caused_by,
            "run": self.run,
        }


def divergences(actors: Sequence[Sequence[Pair]]) -> Iterator[Divergence]:
    """Yield the first difference of each actor whose runs differ.

    :param actors: the calls of each actor, in the order of the file.
    """
    changes = Changes(actors)
    yield from (_divergence(changes, index) for index in changes.first_of_each_actor())


def _divergence(changes: Changes, index: int) -> Divergence:
    pair = changes.pair(index)
    one, other = pair.one, pair.other
    if one is None or other is None:
        before, after = (None if call is None else call.prompt for call in (one, other))
        found = [Change(pair.status, before, after)]
    elif differing := differences(one.request, other.request):
        found = sorted(
            _changes(changes, index, differing), key=lambda change: bool(change.caused_by)
        )
    else:
        given = one.given or other.given
        found = [Change("draw", *_differing_answers(one, other), given=given)]
    return Divergence(pair.scope, pair.index, tuple(found), pair.run)


def _changes(changes: Changes, index: int, differing: Sequence[Difference]) -> Iterator[Change]:
    """Yield the reasons why a request differs."""
    models = [field for field in differing if field.place in ("model", "body.model")]
    for model in models:
        yield Change("model", field_text(model.recorded), field_text(model.requested))
    prompts = [field for field in differing if is_in_prompt(field)]
    if prompts:
        sources = [changes.first_source(prompt, index) for prompt in prompts]
        known = [source for source in sources if source is not None]
        caused_by = None
        if len(known) == len(sources):
            source_pair = changes.pair(min(known))
            caused_by = CallPosition(source_pair.scope, source_pair.index)
        shown = [
            prompt
            for prompt, source in zip(prompts, sources, strict=True)
            if source is None or caused_by
        ]
        before = _joined(prompt.recorded for prompt in shown)
        yield Change("prompt", before, _joined(prompt.requested for prompt in shown), caused_by)
    parameters = [field for field in differing if field not in models and field not in prompts]
    if parameters:
        yield Change("parameters", *_field_values(parameters))


def _joined(values: Iterable[object]) -> str | None:
    """Return the values of some fields as one text, or ``None`` if there are none."""
    texts = [text for text in map(field_text, values) if text is not None]
    return "\n\n".join(texts) if texts else None


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
    return before, ", ".join(f"{field.place}={as_json(field.requested)}" for field in fields)
