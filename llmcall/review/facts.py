"""The facts at the top of a page: a run's size, models, tokens, cost and failures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from ..apis.message import as_text
from ..scopes.position import is_reserved_name, without_repeats
from ..stores.days import days_counted
from ..stores.record import Record
from ..stores.records.served import model_of
from ..support.display import counted, money
from ..typed.notes import FORM
from .conversations import ASKED_AGAIN, CUT, MARKS, REFUSED, UNREAD, RecordedCall
from .runs import RecordedRun

MAX_CONDITIONS = 20  # more first levels of scopes are repeats


class RunFacts(NamedTuple):
    """What a run's records and headers say, for its page, its checklist and a package's README.

    :param run: the run.
    :param asked: the calls that a model answered; each text of embeddings has one.
    :param answers: the models' answers, in the order of the file.
    """

    run: RecordedRun
    asked: list[RecordedCall]
    answers: list[Record]

    @classmethod
    def of(cls, run: RecordedRun, calls_by_actor: Mapping[str, Sequence[RecordedCall]]) -> RunFacts:
        """Return the facts of a run.

        :param calls_by_actor: its conversations.
        """
        asked = [call for calls in calls_by_actor.values() for call in calls]
        answers = list(filter(model_of, run.records))
        return cls(run, [call for call in asked if model_of(call.record)], answers)

    @property
    def spoken(self) -> list[RecordedCall]:
        """Return the calls without embeddings."""
        return [call for call in self.asked if call.record.kind != "embedding"]

    @property
    def models(self) -> list[str]:
        """Return the models that were asked for."""
        return sorted({answer.model for answer in self.answers if answer.model is not None})

    def by_condition(self, depth: int = 1) -> dict[str, list[Record]]:
        """Return the answers by arm, or by the first levels of scopes that have scopes below them; empty without
        several of them, or with more than :data:`.MAX_CONDITIONS`.

        :param depth: the number of levels.
        """
        by_name: dict[str, list[Record]] = {}
        has_arms = any(answer.arms for answer in self.answers)
        for answer in self.answers:
            levels = answer.scope.split("/")
            above = levels[:depth] if len(levels) > depth else []
            names = [] if any(map(is_reserved_name, above)) else ["/".join(above)]
            for name in filter(None, answer.arms if has_arms else names):
                by_name.setdefault(name, []).append(answer)
        return by_name if 1 < len(by_name) <= MAX_CONDITIONS else {}

    @property
    def days_by_condition(self) -> list[str]:
        """Return in words on which days each condition was asked (:meth:`by_condition`), if all answers' days are
        several.
        """
        counts = {
            name: Counter(answer.days.day if answer.days else "" for answer in answers)
            for name, answers in self.by_condition().items()
        }
        if len(set().union(*counts.values())) < 2:
            return []
        return [f"{name}: {days_counted(of_name)}" for name, of_name in counts.items()]

    @property
    def marks(self) -> Counter[str]:
        """Return how many answers have each mark."""
        return Counter(mark for call in self.asked for mark in call.marks)

    @property
    def overridden(self) -> str:
        """Return in words how many answers were overridden; empty without any."""
        number = sum(record.override for record in self.run.records)
        return f"{counted(number, 'answer')} given by the author, not by a model" if number else ""

    @property
    def unended(self) -> int:
        """Return how many answers do not say how they ended, as published texts don't: whether they were cut or
        refused is not recorded.
        """
        return sum(not is_ended(call.record) for call in self.spoken)

    @property
    def endings(self) -> str:
        """Return in words how many answers were cut, refused, asked again or unread; only what an ``LLMCall`` asks
        for has a form, and is known as unread. What was not recorded has no count.
        """
        marks, total, unended = self.marks, len(self.spoken), self.unended
        ended = f"{marks[CUT]:,} were cut, {marks[REFUSED]:,} refused"
        if not unended:
            ended = f"Of {counted(total, 'answer')}, {ended}"
        else:
            known = f"; of the others, {ended}" if unended < total else ""
            ended = f"Whether {unended:,} of {counted(total, 'answer')} were cut or refused was not recorded{known}"
        if any(FORM.of(call.record) is not None for call in self.asked):
            unread = f"{counted(marks[UNREAD], 'other')} could not be read by it"
        elif self.run.origin:
            return f"{ended}. Whether answers were asked again or could be read was not recorded."
        else:
            unread = "whether others could be read was not recorded"
        return f"{ended}, {marks[ASKED_AGAIN]:,} asked again by an LLMCall; {unread}."

    @property
    def missing(self) -> list[str]:
        """Return in words the answers that are not there: calls without one, pruned and forgotten ones."""
        unknown = "Whether calls got no answer was not recorded" if self.run.origin else ""
        return [*filter(None, [self.run.unanswered or unknown]), *self.run.left_out]


def is_ended(record: Record) -> bool:
    """Return whether a record says how its answer ended."""
    return record.finish_reason is not None or record.refusal is not None


def facts(found: RunFacts) -> dict[str, str]:
    """Return the facts about a run by label."""
    run, answers = found.run, found.answers
    usages = [(answer.kind, answer.usage) for answer in answers]
    spoken = [usage for kind, usage in usages if kind != "embedding"]
    kinds = Counter(record.kind for record in run.records)
    by_kind = ", ".join(f"{count:,} {kind}" for kind, count in kinds.most_common())
    settings = {
        name: as_text(value)
        for name, value in sorted(run.settings.items())
        if name not in ("model", "embedding_model")
    }
    by_label = {
        "source": run.origin,
        "calls": f"{len(run.records):,}" + (f" ({by_kind})" if len(kinds) > 1 else ""),
        "actors": _actors({answer.scope for answer in answers if answer.kind != "embedding"}),
        "model": ", ".join(found.models),
        "answered by": ", ".join(run.served),
        "days": "; ".join(found.days_by_condition),
        "arms": _arms(run.records),
        "tokens in": recorded_sum([usage.input_tokens for _, usage in usages], "{:,}".format),
        "tokens out": recorded_sum([usage.output_tokens for usage in spoken], "{:,}".format),
        "cost": recorded_sum([answer.cost for answer in answers], money),
        "overridden": found.overridden,
        "left out": "; ".join(run.left_out),
        "failures": "; ".join(_failures(found)),
        **settings,
    }
    return {label: value for label, value in by_label.items() if value}


def _actors(scopes: Collection[str]) -> str:
    """Return in words how many actors there are; the repeats of a ``map`` are one actor."""
    count = len({without_repeats(scope)[0] for scope in scopes})
    repeats = f" ({len(scopes):,} with repeats)" if count < len(scopes) else ""
    return f"{count:,}{repeats}" if count else ""


def _arms(records: Iterable[Record]) -> str:
    """Return in words how many records each arm used, and how many several arms share."""
    counts = Counter(name for record in records for name in record.arms)
    shared = sum(len(record.arms) > 1 for record in records)
    words = [f"{name} ({count:,})" for name, count in counts.items()]
    return ", ".join(words) + (f"; {shared:,} shared" if shared else "")


def recorded_sum(amounts: Sequence[float | None], format_sum: Callable[[float], str]) -> str:
    """Return the sum of the recorded amounts in words, and of how many answers it is; empty without answers."""
    if not amounts:
        return ""
    recorded = [amount for amount in amounts if amount is not None]
    if not recorded:
        return "not recorded"
    lacking = len(amounts) - len(recorded)
    return format_sum(sum(recorded)) + (f", and {lacking:,} not recorded" if lacking else "")


def _failures(found: RunFacts) -> Iterator[str]:
    """Yield failures that records show; a call that failed after all retries leaves no record."""
    marks = found.marks
    yield from (f"{counted(marks[mark], 'answer')} {mark}" for mark in MARKS if marks[mark])
    if found.run.unanswered:
        yield found.run.unanswered
    if not found.run.is_complete:
        yield "the recording broke off"
