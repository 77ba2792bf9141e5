"""What a ``map`` would do: how many answers are recorded, and what the others would cost."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from ..cassettes.current import current_cassette
from ..display.formatting import counted, money
from ..engine.limits import estimate
from ..engine.lookup import followed
from ..types import Reply, TokenUsage

if TYPE_CHECKING:
    from contextvars import Context

    from ..scopes import Draws
    from ..types import Record, Request
    from .items import TaskPosition


class Plan(NamedTuple):
    """Hold what a map would do.

    :param hits: draws that records answer, whole conversations with their corrections.
    :param misses: draws that would ask a model. Of an answer that does not fit its type and is
        asked again, only the first call is counted here.
    :param input_tokens: of the prompts of those, as counted here.
    :param cost: USD from the prompts alone to the longest answers (``max_tokens``, else the model's
        largest output), as a budget reserves it; ``None`` where a price is unknown.
    :param priced_by: the price sources, with their dates, as in :class:`llmcall.Usage`.

    >>> greet = llmcall.LLMCall(user="{{ greeting }}", max_tokens=16)
    >>> plan = greet.map([{"greeting": "Good evening, Sir!"}, {"greeting": "Good night, Sir!"}], dry_run=True)
    >>> plan.hits, plan.misses
    (0, 2)
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
            cost = f"cost {money(self.cost[0])} to {money(self.cost[1])}"
            cost += f" (priced by {', '.join(self.priced_by)})" if self.priced_by else ""
        return f"{self.hits:,} recorded, {self.misses:,} to ask, {self.input_tokens:,} input tokens, {cost}"

    def _repr_html_(self) -> str:
        from html import escape

        cost = (
            "cost unknown"
            if self.cost is None
            else f"{money(self.cost[0])} to {money(self.cost[1])}"
        )
        calls = counted(self.misses, "call")
        prices = f" Priced by {', '.join(self.priced_by)}." if self.priced_by else ""
        words = f"for {calls} with {self.input_tokens:,} input tokens; {self.hits:,} are recorded already.{prices}"
        return f"<p><b>{escape(cost)}</b> {escape(words)}</p>"


class Planner:
    """Look up what tasks would ask; nothing is sent, counted, drawn or recorded.

    :param job: what the map does: the ``RowJob`` of an ``LLMCall`` or an ``@llm`` function.
    :param context: the caller's.
    :ivar plan: what the tasks that were added would do.
    """

    def __init__(self, job: Any, context: Context) -> None:
        self.plan = Plan(0, 0, 0, (0.0, 0.0))
        self._job, self._client, self._context = job, job.client, context
        # the keys that an earlier task of the map would have recorded
        self._asked: set[str] = set()
        self._cassette = context.run(current_cassette)
        gained = [] if self._cassette is None else self._cassette.gained()
        self._gained = {record.cache_key: record for record, _ in gained}

    def add(self, item: Any, position: TaskPosition, draws: Draws) -> None:
        """Look up what a draw of an item would ask.

        :param draws: those of the scope, or a copy.
        """
        if self._context.copy().run(self._is_hit, item, position, draws):
            self.plan = self.plan._replace(hits=self.plan.hits + 1)

    def _is_hit(self, item: Any, position: TaskPosition, draws: Draws) -> bool:
        asking = self._job.conversation(item)
        with position.stand(draws):
            try:
                wanted = next(asking)
                while True:
                    request = self._client.build_request(wanted.messages, **wanted.params)
                    mode = (
                        "off"
                        if wanted.params.get("cache") is False
                        else self._client.settings.cache_mode
                    )
                    record = self._recorded(request, mode)
                    if record is None:
                        return self._is_asked_before(request, mode)
                    wanted = asking.send(Reply.of(record))
            except StopIteration:
                return True

    def _recorded(self, request: Request, mode: str) -> Record | None:
        cassette = self._cassette
        if cassette is not None:
            stored = cassette.stored
            found = (stored and stored.get(request)) or self._gained.get(request.cache_key)
            found = followed(
                found, lambda key: (stored and stored.get(key)) or self._gained.get(key)
            )
            if found is not None or not cassette.reads_cache:
                return found
        find = partial(self._client.cache.get, mode=mode)
        return followed(find(request), find)

    def _is_asked_before(self, request: Request, mode: str) -> bool:
        """Return whether an earlier task would record the answer; count what is to be asked."""
        if request.cache_key in self._asked and (self._cassette is not None or mode != "off"):
            return True
        self._asked.add(request.cache_key)
        needed = estimate("chat", request.body, self._client.capabilities(request.model))
        price = self._client.price(request.model, needed.input_tokens)
        _, misses, tokens, cost, priced_by = self.plan
        if price is None:
            cost = None
        else:
            priced_by = tuple(sorted({*priced_by, price.source}))
            low = price.cost(TokenUsage(needed.input_tokens, 0)) or 0.0
            high = price.cost(TokenUsage(needed.input_tokens, needed.output_tokens)) or 0.0
            cost = cost and (cost[0] + low, cost[1] + high)
        self.plan = Plan(self.plan.hits, misses + 1, tokens + needed.input_tokens, cost, priced_by)
        return False
