"""A check: the sampled calls, their recorded draws, and what is read from both."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

from ...requests.keys import key_of
from .comparison import NewAnswer, RecordedAnswer
from .sample import RecordedRequests, actor_of
from .values import CUT, MARKS, REFUSED, answers_of

if TYPE_CHECKING:
    from ...review.runs import RecordedRun
    from ...types import Record
    from .sample import Draw
    from .values import Answer, ValueReader


class ReadAnswer(NamedTuple):
    """An answer, and what was read from it.

    :param actor: who asked.
    :param request: the digest of what was asked.
    :param answer: the answer.
    :param values: its values by name.
    """

    actor: str
    request: str
    answer: Answer
    values: Mapping[str, float]

    def has(self, mark: str) -> bool:
        """Return whether the answer is unreadable, cut or refused."""
        if mark == CUT:
            return self.answer.is_cut
        if mark == REFUSED:
            return self.answer.is_refused
        return not self.values and not self.answer.is_refused

    def number(self, name: str) -> float | None:
        """Return a value, or 1 or 0 for a mark; ``None`` if there is no such value.

        :param name: the name of a value, or a mark.
        """
        return float(self.has(name)) if name in MARKS else self.values.get(name)


class Check:
    """The calls of one check.

    :param run: the recording.
    :param requests: its requests that can be asked again.
    :param draws: the calls.
    :param reader: reads the values of answers.
    :param model: the model that is asked in place of the recorded ones, or ``None``.
    :param seed: decides which requests are asked.
    """

    def __init__(
        self,
        run: RecordedRun,
        requests: RecordedRequests,
        draws: Sequence[Draw],
        reader: ValueReader,
        model: str | None,
        seed: int,
    ) -> None:
        self.run = run
        self.requests = requests
        self.draws = list(draws)
        self.reader = reader
        self.model = model
        self.seed = seed

    def request_fields(self, draw: Draw) -> dict[str, Any]:
        """Return what a call asks: the recorded request, or the same of another model."""
        request = self.requests.records[draw.request][0].request
        return request if self.model is None else {**request, "model": self.model}

    def key(self, draw: Draw) -> str:
        """Return the key of a call."""
        return key_of("chat", self.request_fields(draw), draw.sample)

    @cached_property
    def records(self) -> list[Record]:
        """Return the recorded draws of all requests that are asked again."""
        digests = sorted({draw.request for draw in self.draws})
        return [record for digest in digests for record in self.requests.records[digest]]

    @property
    def recorded_models(self) -> list[str]:
        """Return the models that the recording asked."""
        return sorted({str(record.request["model"]) for record in self.records})

    @property
    def is_of_another_model(self) -> bool:
        """Return whether another model is asked than the recording asked."""
        return self.model is not None and self.recorded_models != [self.model]

    @cached_property
    def recorded_answers(self) -> dict[str, list[ReadAnswer]]:
        """Return the recorded answers by request."""
        return {
            digest: [
                each
                for record in self.requests.records[digest]
                for each in self.read(record, actor_of(record), digest)
            ]
            for digest in sorted({draw.request for draw in self.draws})
        }

    def read(self, record: Record, actor: str, request: str) -> list[ReadAnswer]:
        """Return a record's answers and what was read from them.

        :param actor: who asked.
        :param request: the digest of what was asked.
        """
        return [
            ReadAnswer(actor, request, answer, self.reader.values(answer))
            for answer in answers_of(record)
        ]

    @cached_property
    def names(self) -> list[str]:
        """Return the names of the values that recorded answers have."""
        names = {
            name
            for answers in self.recorded_answers.values()
            for answer in answers
            for name in answer.values
        }
        return sorted(names)

    def recorded_values(self, name: str) -> dict[str, list[RecordedAnswer]]:
        """Return the recorded numbers of a value or mark, by request."""
        return {
            request: [
                RecordedAnswer(answer.actor, number)
                for answer in answers
                if (number := answer.number(name)) is not None
            ]
            for request, answers in self.recorded_answers.items()
        }

    @property
    def recorded_answer_counts(self) -> list[int]:
        """Return how many recorded answers each request that is asked again has."""
        return [len(answers) for answers in self.recorded_answers.values()]


def new_values(answers: Iterable[ReadAnswer], name: str) -> list[NewAnswer]:
    """Return the numbers of a value or mark in new answers."""
    return [
        NewAnswer(answer.actor, answer.request, number)
        for answer in answers
        if (number := answer.number(name)) is not None
    ]
