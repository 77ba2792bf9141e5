"""Plans of a ``map``: they look its requests up, and compute what those without an answer cost."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from ...apis.token_usage import tier_of, total_cost
from ...core import threads
from ...core.reply import Reply
from ...keys.request import Data, Request
from ...many.names import ItemNames
from ...many.tasks import FunctionJob, Task, tasks_of
from ...scopes.callers import current_caller
from ...scopes.draws import Draws
from ...stores.cassettes.current import open_current_cassette
from ...stores.cassettes.stores import CacheStore, CassetteStore
from ...stores.record import Record
from ...traffic.estimates import costliest_parts, estimate, uses_server_tools
from .batches import Batch, Planned
from .plan import Plan

if TYPE_CHECKING:
    from ...clients.base import LLMClient
    from ...many.map_options import MapOptions
    from ...many.tasks import Job
    from ...models.prices import Price
    from ...typed.corrections import SendMessage
    from ...typed.rows import RowJob


class UnrecordedDraw(NamedTuple):
    """The first call of a draw that is not recorded.

    :param price: the model's price, or ``None`` if it is unknown.
    :param low: the cost of its prompt alone, in USD, as if the provider had cached it.
    :param high: the cost that a budget reserves for it.
    """

    input_tokens: int
    price: Price | None
    low: float = 0.0
    high: float = 0.0

    @classmethod
    def of(cls, client: LLMClient, body: Mapping[str, Data]) -> UnrecordedDraw:
        """Estimate the call that sends a body."""
        prompt, answer = estimate("chat", body, client.capabilities(body["model"]))
        price = price_of(client, body)
        if price is None:
            return cls(prompt, None)
        low = price.cost_of_parts({"input_tokens": prompt, "cache_read_tokens": prompt})
        high = price.cost_of_parts(costliest_parts(body, prompt, answer))
        return cls(prompt, price, low.total, high.total)


def price_of(client: LLMClient, body: Mapping[str, Data]) -> Price | None:
    """Return the price of a call, or ``None`` if it is unknown."""
    if uses_server_tools(body):
        return None
    return client.site(body["model"]).pool.price(service_tier=tier_of(body))


def plan_of(
    hits: int,
    misses: Sequence[UnrecordedDraw],
    expected: float | None,
    notes: tuple[str, ...] = (),
    batch: Batch | None = None,
) -> Plan:
    """Return a plan.

    :param expected: what the misses are expected to cost, in USD.
    :param batch: their requests.
    """
    input_tokens = sum(miss.input_tokens for miss in misses)
    sources = {miss.price.source for miss in misses if miss.price is not None}
    priced_by = tuple(sorted(sources))
    if any(miss.price is None for miss in misses):
        return Plan(hits, len(misses), input_tokens, None, priced_by, None, notes, batch)
    low = sum((miss.low for miss in misses), 0.0)
    high = sum((miss.high for miss in misses), 0.0)
    if expected is not None:  # corrections are in it, and a server may count more tokens
        low, high = min(low, expected), max(high, expected)
    return Plan(hits, len(misses), input_tokens, (low, high), priced_by, expected, notes, batch)


class _DrawCost(NamedTuple):
    """The cost of a recorded draw at current prices, in USD.

    :param prompt_tokens: of its first answer.
    :param prompt: what these cost.
    :param rest: what else its answers cost, those to its corrections included.
    """

    prompt_tokens: int
    prompt: float
    rest: float

    @classmethod
    def of(cls, answers: Sequence[Record], price: Price | None) -> _DrawCost | None:
        """Return the cost of a draw, or ``None`` if the usage or the price of an answer is unknown.

        :param answers: its first answer, then those to its corrections.
        """
        costs = [price and price.cost_of_answer(answer.response) for answer in answers]
        known = [cost for cost in costs if cost is not None]
        tokens = answers[0].usage.input_tokens
        if tokens is None or len(known) < len(costs):
            return None
        prompt = known[0].prompt
        return cls(tokens, prompt, sum(cost.total for cost in known) - prompt)


def _expected_cost(
    draws: Sequence[_DrawCost | None], misses: Sequence[UnrecordedDraw]
) -> float | None:
    """Return the expected cost of further draws, or ``None`` if nothing says what one costs."""
    known = [draw for draw in draws if draw is not None]
    if not known or len(known) < len(draws):
        return None
    tokens = sum(draw.prompt_tokens for draw in known)
    token_cost = sum(draw.prompt for draw in known) / tokens if tokens else 0.0
    rest = sum(draw.rest for draw in known) / len(known)
    return sum(miss.input_tokens * token_cost + rest for miss in misses)


class _UnrecordedError(Exception):
    """The end of a task's conversation at the first unrecorded request."""


def plan_map(job: Job, items: object, options: MapOptions) -> Plan:
    """Return the plan of a map; nothing is sent. Its items set the caller of the current context.

    :raises TypeError: if the function is neither an ``LLMCall`` nor an ``@llm`` function.
    """
    if isinstance(job, FunctionJob):
        raise TypeError(
            "dry_run needs an LLMCall or an @llm function: llmcall cannot know the calls of other functions"
        )
    active = options.active_scope()
    names = ItemNames(options.item_key, job.identity)
    planner = Planner(job)
    tasks = tasks_of(job, items, options.repeats, names, active, (), current_caller())
    for task in tasks:
        planner.add(task, active.draws if active.path else Draws())
    names.warn()
    return planner.plan()


class Planner:
    """A planner that looks up the requests of tasks; nothing is sent, counted, drawn or recorded.

    :param job: of an ``LLMCall`` or an ``@llm`` function.
    """

    def __init__(self, job: RowJob) -> None:
        self._job = job
        self._client = job.client
        self._cassette = open_current_cassette()
        self._hits = 0
        # By LLMCall; with vary, each cell has its own.
        self._misses: dict[object, list[UnrecordedDraw]] = defaultdict(list)
        self._costs: dict[object, list[_DrawCost | None]] = defaultdict(list)
        self._planned_keys: set[str] = set()  # of answers that an earlier task would record
        self._batch: Batch | None = Batch()

    def plan(self) -> Plan:
        """Return the plan of the added tasks."""
        misses = [miss for misses_of_call in self._misses.values() for miss in misses_of_call]
        expected = total_cost(
            _expected_cost(self._costs[call], of_call) for call, of_call in self._misses.items()
        )
        return plan_of(self._hits, misses, expected, batch=self._batch)

    def add(self, task: Task, draws: Draws) -> None:
        """Look up the requests of a task.

        :param draws: counts the scope's draws.
        """
        call = self._job.call_for(task.item)
        answers: list[tuple[Request, Record]] = []
        unrecorded: list[tuple[Request, str]] = []  # what ends it, with the cache's mode

        async def recorded_reply(question: SendMessage) -> Reply:
            request = self._client.build_request(question.messages, **question.params)
            is_off = question.params.get("cache") is False
            mode = "off" if is_off else self._client.settings.cache_mode
            record = self._find(request, mode)
            if record is None:
                unrecorded.append((request, mode))
                raise _UnrecordedError
            answers.append((request, record))
            return Reply.of(record)

        task.position.set_caller()  # a recording that broke off names who got each answer
        with suppress(_UnrecordedError), task.position.scope(draws):
            threads.run(self._job.conversation(task.item, recorded_reply))
        if not unrecorded:
            self._hits += 1
            if answers:
                # The price is today's, also that of a tier, which is not part of a recorded request.
                price = price_of(self._client, answers[0][0].body)
                self._costs[call].append(_DrawCost.of([record for _, record in answers], price))
            return
        [(request, mode)] = unrecorded
        is_kept = self._cassette is not None or mode != "off"
        if is_kept and request.cache_key in self._planned_keys:
            self._hits += 1
            return
        self._planned_keys.add(request.cache_key)
        if mode == "off" or (self._cassette is not None and self._cassette.bypasses_cache):
            self._batch = None  # the disk cache would not supply its answers
        if self._batch is not None:
            self._batch[request.cache_key] = Planned(self._client, request)
        self._misses[call].append(UnrecordedDraw.of(self._client, request.body))

    def _find(self, request: Request, mode: str) -> Record | None:
        cassette = self._cassette
        overwrites = cassette is not None and cassette.bypasses_cache
        cache = CacheStore(self._client.cache, mode, None, overwrites=overwrites)
        store = cache if cassette is None else CassetteStore(cassette, cache, None)
        return store.get(request)
