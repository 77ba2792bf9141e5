"""Plans of a ``map``: the number of recorded answers, and the cost of the others."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from html import escape
from typing import TYPE_CHECKING, NamedTuple

from ..apis.token_usage import tier_of, total_cost
from ..core import threads
from ..core.reply import Reply
from ..keys.request import Data, Request
from ..scopes.callers import current_caller
from ..scopes.draws import Draws
from ..stores.cassettes.current import open_current_cassette
from ..stores.cassettes.stores import CacheStore, CassetteStore
from ..stores.record import Record
from ..support.display import counted, money
from ..traffic.estimates import costliest_parts, estimate, uses_server_tools
from .names import ItemNames
from .tasks import FunctionJob, Task, tasks_of

if TYPE_CHECKING:
    from ..clients.base import LLMClient
    from ..models.prices import Price
    from ..typed.corrections import SendMessage
    from ..typed.rows import RowJob
    from .map_options import MapOptions
    from .tasks import Job


class Plan(NamedTuple):
    """The plan of a map. You can add plans with ``+`` and ``sum``; an item in both counts twice.

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

    >>> greet = llmcall.LLMCall(user="{{ greeting }}", max_tokens=16)
    >>> plan = greet.map([{"greeting": "Good evening, Sir!"}, {"greeting": "Good night, Sir!"}], dry_run=True)
    >>> plan.hits, plan.misses
    (0, 2)
    >>> sum([plan, plan]).misses
    4
    """

    hits: int
    misses: int
    input_tokens: int
    cost: tuple[float, float] | None
    priced_by: tuple[str, ...] = ()
    expected_cost: float | None = None
    notes: tuple[str, ...] = ()

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
        )

    def __radd__(self, other: object) -> Plan:
        # sum() starts with 0
        return self if other == 0 else NotImplemented

    def __str__(self) -> str:
        cost = "cost ? (a price is unknown)"
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
    return None if uses_server_tools(body) else client.price(body["model"], tier_of(body))


def plan_of(
    hits: int,
    misses: Sequence[UnrecordedDraw],
    expected: float | None,
    notes: tuple[str, ...] = (),
) -> Plan:
    """Return a plan.

    :param expected: what the misses are expected to cost, in USD.
    """
    input_tokens = sum(miss.input_tokens for miss in misses)
    sources = {miss.price.source for miss in misses if miss.price is not None}
    priced_by = tuple(sorted(sources))
    if any(miss.price is None for miss in misses):
        return Plan(hits, len(misses), input_tokens, None, priced_by, notes=notes)
    low = sum((miss.low for miss in misses), 0.0)
    high = sum((miss.high for miss in misses), 0.0)
    if expected is not None:  # corrections are in it, and a server may count more tokens
        low, high = min(low, expected), max(high, expected)
    return Plan(hits, len(misses), input_tokens, (low, high), priced_by, expected, notes)


class _Costs:
    """The costs of the recorded draws of a call, at current prices; the sums are in USD.

    :ivar is_known: whether the usage and the price of each answer are known.
    """

    def __init__(self) -> None:
        self.is_known = True
        self._draws = 0
        self._prompt_tokens = 0
        self._prompts = 0.0  # of first answers
        self._rest = 0.0  # what else first answers cost, and corrections

    def add(self, answers: Sequence[Record], price: Price | None) -> None:
        """Add a draw: its first answer, then those to its corrections."""
        costs = [
            None if price is None else price.cost_of_answer(answer.response) for answer in answers
        ]
        known = [cost for cost in costs if cost is not None]
        tokens = answers[0].usage.input_tokens
        self.is_known = self.is_known and len(known) == len(costs) and tokens is not None
        if self.is_known:
            self._draws += 1
            self._prompt_tokens += tokens or 0
            self._prompts += known[0].prompt
            self._rest += sum(cost.total for cost in known) - known[0].prompt

    def expected(self, misses: Sequence[UnrecordedDraw]) -> float | None:
        """Return the expected cost of further draws, or ``None`` if nothing says what one costs."""
        if not (self._draws and self.is_known):
            return None
        token_cost = self._prompts / self._prompt_tokens if self._prompt_tokens else 0.0
        prompts = sum(miss.input_tokens * token_cost for miss in misses)
        return prompts + self._rest / self._draws * len(misses)


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
        self._costs: dict[object, _Costs] = defaultdict(_Costs)
        self._planned_keys: set[str] = set()  # of answers that an earlier task would record

    def plan(self) -> Plan:
        """Return the plan of the added tasks."""
        misses = [miss for misses_of_call in self._misses.values() for miss in misses_of_call]
        expected = total_cost(
            self._costs[call].expected(of_call) for call, of_call in self._misses.items()
        )
        return plan_of(self._hits, misses, expected)

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
                # The price is today's, also that of a window, which is not part of a recorded request.
                price = price_of(self._client, answers[0][0].body)
                self._costs[call].add([record for _, record in answers], price)
            return
        [(request, mode)] = unrecorded
        is_kept = self._cassette is not None or mode != "off"
        if is_kept and request.cache_key in self._planned_keys:
            self._hits += 1
            return
        self._planned_keys.add(request.cache_key)
        self._misses[call].append(UnrecordedDraw.of(self._client, request.body))

    def _find(self, request: Request, mode: str) -> Record | None:
        cassette = self._cassette
        overwrites = cassette is not None and cassette.bypasses_cache
        cache = CacheStore(self._client.cache, mode, None, overwrites=overwrites)
        store = cache if cassette is None else CassetteStore(cassette, cache, None)
        return store.get(request)
