"""A check: the sampled calls, and what plan and result both say of them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from ...display.formatting import money, shortened
from ...display.printable import printable
from ...keys.keys import key_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ...values import Record
    from .sample import Draw, RecordedRequests
    from .values import Reader

SHOWN_CHARACTERS = 60  # of a value's name


@dataclass(frozen=True)
class Check:
    """The calls of one check.

    :ivar requests: those of the recording that can be asked again.
    :ivar draws: the calls.
    :ivar reader: reads the values of answers.
    :ivar model: the model that is asked in place of the recorded ones, or ``None``.
    :ivar seed: decides which requests are asked.
    """

    requests: RecordedRequests
    draws: Sequence[Draw]
    reader: Reader
    model: str | None
    seed: int

    def request_fields(self, draw: Draw) -> dict[str, Any]:
        """Return what a call asks: the recorded request, or the same of another model."""
        request = self.requests.records[draw.request][0].request
        return request if self.model is None else {**request, "model": self.model}

    def key(self, draw: Draw) -> str:
        """Return the key of a call."""
        return key_of("chat", self.request_fields(draw), draw.sample)

    @cached_property
    def records(self) -> dict[str, list[Record]]:
        """Return the recorded draws of the requests that are asked again, by the request's digest."""
        digests = sorted({draw.request for draw in self.draws})
        return {digest: self.requests.records[digest] for digest in digests}

    @property
    def recorded_models(self) -> list[str]:
        """Return the models that the recording asked."""
        return sorted({str(records[0].request["model"]) for records in self.records.values()})

    @property
    def is_of_another_model(self) -> bool:
        """Return whether another model is asked than the recording asked."""
        return self.model is not None and self.recorded_models != [self.model]

    def model_words(self) -> str:
        """Return the mark of a check that asks another model; empty if it asks the recorded one."""
        if not self.is_of_another_model:
            return ""
        recorded = ", ".join(map(printable, self.recorded_models))
        return (
            f"ANOTHER MODEL: {printable(str(self.model))} is asked in place of {recorded}. A shift is a "
            "difference between the two models, not a change in one of them."
        )

    def notes(self) -> list[str]:
        """Return what the check leaves out, in sentences."""
        notes = [f"Left out: {self.requests.left_out}."] if self.requests.left_out else []
        if self.reader.left_out:
            names = ", ".join(repr(shown(name)) for name in self.reader.left_out)
            notes.append(
                f"Not compared: {names}, which hold neither numbers nor yes or no. To compare them, give "
                "value= (--value)."
            )
        return notes


def shown(name: str) -> str:
    """Return a value's name as it is shown; that of a field may be long."""
    return shortened(printable(name), SHOWN_CHARACTERS)


def cost_words(cost: float | None, *, is_estimate: bool = False) -> str:
    """Return for which price calls are made.

    :param cost: in USD, or ``None`` if a price is unknown.
    """
    if cost is None:
        return "at an unknown price"
    amount = money(cost)
    if amount.startswith("<"):
        return f"for less than {amount.removeprefix('<')}"
    return f"for {'about ' if is_estimate else ''}{amount}"
