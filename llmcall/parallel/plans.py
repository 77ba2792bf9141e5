"""What a ``map`` would do, and cost, without a call."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from ..cassettes.cassette import current_cassette
from ..engine.estimates import estimate
from ..engine.prepare import followed
from ..types import Reply, TokenUsage

if TYPE_CHECKING:
    from contextvars import Context

    from ..types import Record, Request
    from .jobs import CallJob
    from .tasks import Task

__all__ = ["Plan", "Planner"]


class Plan(NamedTuple):
    """Hold what a map would do.

    :param hits: draws that records answer, whole conversations with their corrections.
    :param misses: draws that would ask a model. Of an answer that does not fit its type and is asked again, only the
        first call is counted here.
    :param input_tokens: of the prompts of those, as counted here.
    :param cost: USD from the prompts alone to the longest answers (``max_tokens``, else the model's largest output),
        as a budget reserves it; ``None`` where a price is unknown.
    :param priced_by: whose prices these are, with their dates, as in :class:`llmcall.Usage`.
    """

    hits: int
    misses: int
    input_tokens: int
    cost: tuple[float, float] | None
    priced_by: tuple[str, ...] = ()

    def __str__(self) -> str:
        if self.cost is None:
            cost = "cost ? (a price is unknown)"
        else:
            cost = f"cost ${self.cost[0]:,.4f} to ${self.cost[1]:,.4f}"
            cost += f" (priced by {', '.join(self.priced_by)})" if self.priced_by else ""
        return f"{self.hits:,} recorded, {self.misses:,} to ask, {self.input_tokens:,} input tokens, {cost}"


class Planner:
    """Look up what tasks would ask; nothing is sent, counted, drawn or recorded.

    :param job: what the map does.
    :param context: the caller's.
    """

    def __init__(self, job: CallJob, context: Context) -> None:
        self._job, self._context = job, context
        self._client = job.call.client
        self._asked: set[str] = set()  # the keys that an earlier task of the map would have recorded
        self._gained: dict[str, Record] = {}
        self._cassette = context.run(current_cassette)
        if self._cassette is not None:
            self._gained = {record.cache_key: record for record, _ in self._cassette.gained()}
        self._hits = self._misses = self._tokens = 0
        self._low = self._high = 0.0
        self._is_priced = True
        self._priced_by: set[str] = set()

    def plan(self) -> Plan:
        """Return what all tasks together would do."""
        cost = (self._low, self._high) if self._is_priced else None
        return Plan(self._hits, self._misses, self._tokens, cost, tuple(sorted(self._priced_by)))

    def add(self, task: Task) -> None:
        """Look up what a task would ask."""
        self._context.copy().run(self._add, task)

    def _add(self, task: Task) -> None:
        asking = self._job.call.asking(self._client, self._job.variables(task.item))
        with task.stand.inside(task.draws):
            try:
                wanted = next(asking)
                while True:
                    request = self._client.build_request(wanted.messages, **wanted.params)
                    record = self._recorded(request, wanted.params.get("cache") is False)
                    if record is None:
                        self._count(request, wanted.params)
                        return
                    wanted = asking.send(Reply.of(record))
            except StopIteration:
                self._hits += 1

    def _recorded(self, request: Request, past_cache: bool) -> Record | None:
        cassette = self._cassette
        if cassette is not None:
            stored = cassette.stored
            found = (stored and stored.get(request)) or self._gained.get(request.cache_key)
            found = followed(found, lambda key: (stored and stored.find(key)) or self._gained.get(key))
            if found is not None:
                return found
        if past_cache or (cassette is not None and not cassette.reads_cache):
            return None
        cache = self._client.cache
        return followed(cache.get(request, mode=self._client.settings.cache_mode), cache.lookup)

    def _count(self, request: Request, params: dict[str, Any]) -> None:
        if request.cache_key in self._asked and self._keeps(params):
            self._hits += 1
            return
        self._asked.add(request.cache_key)
        self._misses += 1
        needed = estimate("chat", request.body, self._client.capabilities(request.model))
        self._tokens += needed.input_tokens
        price = self._client.price(request.model, needed.input_tokens)
        if price is None:
            self._is_priced = False
            return
        self._priced_by.add(price.source)
        self._low += price.cost(TokenUsage(needed.input_tokens, 0)) or 0.0
        self._high += price.cost(TokenUsage(needed.input_tokens, needed.output_tokens)) or 0.0

    def _keeps(self, params: dict[str, Any]) -> bool:
        """Return whether an answer is there for the next one that asks the same."""
        if self._cassette is not None:
            return True
        return params.get("cache") is not False and self._client.settings.cache_mode != "off"
