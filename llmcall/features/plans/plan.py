"""What a dry run of a ``map`` returns: the number of recorded answers, and the cost of the others."""

from __future__ import annotations

import os
from html import escape
from typing import TYPE_CHECKING, NamedTuple

from ...apis.token_usage import total_cost
from ...support.display import counted, money

if TYPE_CHECKING:
    from ..importing.import_answers import Imported
    from .batches import Batch


class Plan(NamedTuple):
    """The plan of a map: what is recorded, and what the rest would cost. Plans add up (``+``, ``sum``); an item in two
    plans counts twice.

    :param hits: the number of draws whose answers, corrections included, are recorded.
    :param misses: the number of draws that are not recorded; where calls are allowed, they are sent. Only
        the first call of a draw is counted, and not its corrections.
    :param input_tokens: the tokens in the prompts of the misses, as counted by llmcall.
    :param cost: the lowest and the highest cost of the misses in USD. The lowest is that of the
        prompts alone, as if the provider had cached them. The highest is what a budget reserves: with
        the longest answers (``max_tokens``, else the model's largest output), and all prompts written
        to the provider's cache. Corrections are not included. It covers the expected cost. ``None`` if a price is
        unknown.
    :param priced_by: the price sources, with their dates, as in :class:`llmcall.types.Usage`.
    :param expected_cost: USD, estimated from the plan's hits, at current prices: each prompt's tokens at the
        average price of the hits' prompt tokens, and for each draw the average cost of the hits' answers and
        corrections; with ``vary``, cell by cell. ``None`` without hits, or if a price is unknown.
    :param notes: further sentences about it.
    :param batch: the requests of the misses, for :meth:`write_batch`.

    >>> plan = llmcall.types.Plan(hits=0, misses=2, input_tokens=24, cost=(0.1, 0.5))
    >>> print(sum([plan, plan]))
    0 recorded, 4 not recorded, 48 input tokens, cost $0.2000 to $1.0000
    """

    hits: int
    misses: int
    input_tokens: int
    cost: tuple[float, float] | None
    priced_by: tuple[str, ...] = ()
    expected_cost: float | None = None
    notes: tuple[str, ...] = ()
    batch: Batch | None = None

    def write_batch(self, path: str | os.PathLike[str]) -> int:
        """Write the misses to a file in the form of OpenAI's batches, which are answered in a day at half the price.

        :returns: the number of requests.
        :raises ValueError: for more than 50,000 requests or 200 MB, and if no answer could be read from the disk cache.
        :raises CacheError: if the file exists and has no requests, such as one of answers.
        """
        return self._checked_batch().write(path)

    def read_batch(self, *paths: str | os.PathLike[str]) -> Imported:
        """Store a batch's answers in the disk cache, as if they had been sent; later calls get them from there.

        An answer that is filtered, cut off by the provider, empty or of another form than its request says is not
        stored: it is missing in the next plan.

        :param paths: the provider's files of answers and of errors.
        :returns: as text, the numbers of answers, and of failures with their reasons; ``.skipped`` has each line that
            was left out: a failure, a damaged line, and those of other plans.
        """
        return self._checked_batch().read(paths)

    def _checked_batch(self) -> Batch:
        if self.batch is None:
            raise ValueError(
                "these calls get no answer from the disk cache, where a batch's answers are stored: plan them with a "
                "cache_mode and a cassette mode that read it"
            )
        return self.batch

    def __add__(self, other: object) -> Plan:
        if not isinstance(other, Plan):
            return NotImplemented
        cost = None
        if self.cost is not None and other.cost is not None:
            cost = self.cost[0] + other.cost[0], self.cost[1] + other.cost[1]
        return Plan(
            self.hits + other.hits,
            self.misses + other.misses,
            self.input_tokens + other.input_tokens,
            cost,
            tuple(sorted({*self.priced_by, *other.priced_by})),
            total_cost([self.expected_cost, other.expected_cost]),
            tuple(dict.fromkeys((*self.notes, *other.notes))),
            None if self.batch is None or other.batch is None else self.batch.joined(other.batch),
        )

    def __radd__(self, other: object) -> Plan:
        # sum() starts with 0
        return self if other == 0 else NotImplemented

    def __str__(self) -> str:
        cost = "cost unknown (a price is missing)"
        if self.cost is not None:
            cost = f"cost {money(self.cost[0])} to {money(self.cost[1])}"
            if self.expected_cost is not None and self.misses:
                cost += f", {money(self.expected_cost)} expected"
            cost += f" (priced by {', '.join(self.priced_by)})" if self.priced_by else ""
        tokens = counted(self.input_tokens, "input token")
        counts = f"{self.hits:,} recorded, {self.misses:,} not recorded, {tokens}"
        return "; ".join((f"{counts}, {cost}", *self.notes))

    def _repr_html_(self) -> str:
        return f"<p>{escape(str(self))}</p>"
