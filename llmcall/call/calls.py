"""One call: its options, its request, its draw, and how its answer is recorded."""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ..cassettes.current import check_may_send
from ..display.printable import printable
from ..failures import Failures, process_failures
from ..keys.keys import key_of
from ..keys.parameters import EFFORT
from ..notices import warn_once
from ..records.pointers import pointing_to, target_key, target_of
from ..scopes import ScopedRecord, warn_of_restart
from ..values import FROM_CACHE, FROM_SERVER, POINTER, Record, Request, record_of
from .usage import amounts_of_answer, count, served_amount

if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Callable, Mapping

    from ..cache.cache import ResponseCache
    from ..cassettes.cassette import Cassette
    from ..config.settings import Settings
    from ..scopes import CallOrder, Draw
    from ..values import Record, TokenUsage
    from .client import Client
    from .options import Options
    from .usage import Meter


@dataclass(kw_only=True, eq=False)
class PreparedCall(ABC):
    """One call as its arguments describe it.

    What is found out later is noted here: its scope and draw, and who has its answer.

    :param settings: the settings of the call.
    :param cache: the disk cache.
    :param request: what it asks.
    :param options: how it is made.
    :param scope: its scope path; empty outside any scope.
    :param arm: the name of the arm that it is in; empty outside any.
    :param used_records: gathers the records that the arm's calls get, or ``None``.
    :param draw: the draw that it took in its scope, or ``None``; given back if the call fails.
    :param cassette: the open cassette, or ``None``.
    :param order: says which calls come before it on a cassette.
    :param is_replayed: whether the cassette's file has its answer.
    """

    settings: Settings
    cache: ResponseCache
    request: Request
    options: Options
    scope: str = ""
    arm: str = ""
    used_records: deque[ScopedRecord] | None = None
    draw: Draw | None = None
    cassette: Cassette | None = None
    order: CallOrder = ()
    is_replayed: bool = False

    @property
    @abstractmethod
    def callee(self) -> str:
        """Return the name of the model or the function that it calls."""

    @property
    @abstractmethod
    def label(self) -> str:
        """Return how messages name it."""

    @property
    @abstractmethod
    def meter(self) -> Meter:
        """Return the meter that counts it."""

    @abstractmethod
    def check_origin(self, record: Record) -> None:
        """Warn if a record may not be meant for this call."""

    @abstractmethod
    def check_guards(self) -> None:
        """Raise an error if something forbids the call, such as a test that may reach no model."""

    @property
    def reads_cache(self) -> bool:
        """Return whether the disk cache may answer it."""
        if self.options.cache is False:
            return False
        return self.cassette is None or self.cassette.reads_cache

    @property
    def may_ask(self) -> bool:
        """Return whether the cassette, or without one the cache's mode, allows to ask."""
        if self.cassette is not None:
            return self.cassette.may_record
        return self.settings.cache_mode != "replay"

    @property
    def shared_store(self) -> ResponseCache | Cassette | None:
        """Return the store through which equal calls share its answer: the disk cache or, if that is
        off, the cassette; ``None`` if neither.
        """
        if self.options.cache is False:
            return None
        return self.cassette if self.settings.cache_mode == "off" else self.cache

    @property
    def failures(self) -> Failures:
        """Return the list that reports at the end of the run what was not recorded."""
        if self.cassette is not None:
            return self.cassette.failures
        if self.settings.cache_mode == "off":
            return Failures()  # nothing is recorded, and nothing reported
        return process_failures

    def store_in_cache(self, record: Record, *, replace: bool = False) -> Record:
        """Store a record in the disk cache, and return the one that counts.

        :param replace: whether to replace a record that is there.
        """
        if self.draw is not None and self.draw.asker is not None:
            record = record.replace(asker=self.draw.asker.name)
        if self.options.cache is False:
            return record
        if self.cassette is not None and self.cassette.bypasses_cache:
            replace = True
        self.cache.note_used(record.cache_key)
        return self.cache.store(record, mode=self.settings.cache_mode, replace=replace)

    def keep(self, record: Record, source: str, *, replace: bool = False) -> Record:
        """Store a record in the cache and on the cassette; return the one that counts, which is the
        first.

        :param source, replace: as of :meth:`put_on_cassette` and :meth:`store_in_cache`.
        """
        stored = self.store_in_cache(record, replace=replace)
        return self.put_on_cassette(self.target_in_cache(stored) or record, source)

    def point_to(self, answer: Record) -> Record:
        """Record that a fallback's answer is the one of this call; return the record that counts,
        which is the first.
        """
        stored = self.store_in_cache(self._pointer_to(answer))
        counting = (
            answer if target_key(stored) == answer.cache_key else self.target_in_cache(stored)
        )
        source = FROM_CACHE if answer.received is None else FROM_SERVER
        return self.put_on_cassette(counting or answer, source)

    def target_in_cache(self, record: Record | None) -> Record | None:
        """Return the record to which a pointer in the cache leads, or the record itself."""
        return target_of(record, functools.partial(self.cache.get, mode=self.settings.cache_mode))

    def target_on_cassette(self, record: Record | None) -> Record | None:
        """Return the record to which a pointer on the cassette leads, or the record itself."""
        return target_of(record, self.find_on_cassette)

    def find_on_cassette(self, request_or_key: Request | str) -> Record | None:
        """Return the record, or the pointer, that the cassette has for a request or key."""
        if self.cassette is None:
            return None
        return self.cassette.find(request_or_key, path=self.scope, order=self.order)

    def put_on_cassette(self, record: Record, source: str, *, replace: bool = False) -> Record:
        """Put a record on the cassette, and return the one that counts there.

        The answer of a fallback is a record of its own; a pointer leads to it from this call.

        :param source: ``FROM_SERVER``, ``FROM_CACHE`` or ``FROM_FUNCTION``, by which the cassette
            counts the record.
        :param replace: see :meth:`Cassette.add`.
        """
        if self.cassette is None:
            return record
        if self.draw is not None and self.draw.asker is not None:
            for key in {self.request.cache_key, record.cache_key}:
                self.cassette.uses.note_asker(key, self.draw)
        if record.cache_key != self.request.cache_key:
            pointer = self.cassette.add(self._pointer_to(record), self.scope, self.order, POINTER)
            if target_key(pointer) != record.cache_key:
                return self.target_on_cassette(pointer) or record
        added = self.cassette.add(record, self.scope, self.order, source, replace)
        return self.target_on_cassette(added) or record

    def _pointer_to(self, record: Record) -> Record:
        """Return a record that says: the answer of this call is another one's record."""
        return record_of(self.request, pointing_to(record.cache_key))

    def note_asker(self, record: Record) -> None:
        """Note who gets a recorded answer, if askers have names: the next replay does the same."""
        draw = self.draw
        if draw is None or draw.asker is None:
            return
        draw.note_recorded_asker(record.asker)
        if self.cassette is not None:
            for key in {self.request.cache_key, record.cache_key}:
                self.cassette.uses.note_asker(key, draw, record.asker)
        elif self.settings.cache_mode != "replay":
            self.cache.name_asker(record, draw.asker.name)

    def give_back(self) -> None:
        """Free the draw's number."""
        if self.draw is not None:
            self.draw.give_back()

    def end(self, answer: Record) -> None:
        """Note the record that answers the call: its draw stays taken, and its arm gathers the record."""
        if self.draw is not None:
            self.draw.end(answer)
            if self.shared_store is not None:
                warn_of_restart(self.draw, self.request, self.cassette or self.cache)
        if self.used_records is not None:
            self.used_records.append(ScopedRecord(self.scope, answer))

    def add_usage(self, **amounts: Any) -> None:
        """Count what the call used.

        :param amounts: by column of :class:`~llmcall.types.Usage`; ``None`` means unknown.
        """
        count(self.meter, self.callee, self.scope, amounts, self.arm)

    def count_hit(self, record: Record) -> None:
        """Count an answer that was not asked for now."""
        self.add_usage(
            cached_calls=1,
            replayed_calls=1 if self.is_replayed else 0,
            saved=record.cost,
            **served_amount(record.served),
        )


@dataclass(kw_only=True, eq=False)
class ModelCall(PreparedCall):
    """One call of a model.

    :param client: the client that makes it.
    :param parse: reads the answer as the type that ``response_format`` was, or ``None``.
    :param is_effort_named: whether the effort is not that which the model is asked for by default.
    """

    client: Client
    parse: Callable[[str], Any] | None = None
    is_effort_named: bool = True

    @property
    def callee(self) -> str:
        """Return the model's name."""
        return self.request.model

    @property
    def label(self) -> str:
        """Return how messages name it."""
        request = self.request
        return f"{request.kind} request {request.cache_key[:12]} to {printable(request.model)}"

    @property
    def meter(self) -> Meter:
        """Return the client's meter."""
        return self.client.meter

    def to_model(self, model: str) -> ModelCall:
        """Return the same call of another model, with that one's namespace, and its effort if the call
        names none.
        """
        client, request = self.client, self.request

        def of_model(fields: Mapping[str, Any]) -> dict[str, Any]:
            kept = {name: fields[name] for name in fields if name != EFFORT or self.is_effort_named}
            return client.with_effort(model, {**kept, "model": model})

        keyed = of_model(request.asked)
        keyed.pop("namespace", None)
        if namespace := client.namespace(model):
            keyed["namespace"] = namespace
        return replace(
            self,
            request=request._replace(
                model=model,
                asked=keyed,
                body=of_model(request.body),
                cache_key=key_of(request.kind, keyed, request.sample),
            ),
        )

    def check_origin(self, record: Record) -> None:
        """Warn once if a model's record comes from a host that does not serve the model now."""
        checked_hosts = self.client.resolved.checked_hosts
        host = record.host
        if host is None or (self.request.model, host) in checked_hosts:
            return
        checked_hosts.add((self.request.model, host))
        model = record.request.get("model", "")
        hosts = self.client.hosts(model)
        if host not in hosts:
            warn_once(
                f"answers of {model} recorded from {host} are used for "
                f"{', '.join(sorted(hosts))}; [Cache] NAMESPACE keeps the records of different "
                "servers apart"
            )

    def check_guards(self) -> None:
        """Raise an error if something forbids the call, such as a test that may reach no model."""
        check_may_send(self.client, self.cassette)

    def count_answer(
        self,
        tokens: TokenUsage,
        endpoint: str | None,
        *,
        served: object = None,
        service_tier: str | None = None,
        calls: int = 1,
    ) -> float | None:
        """Count the tokens of a response, and return its cost in USD, or ``None`` if unknown.

        :param endpoint: the name of the endpoint that answered.
        :param served: the model that answered, by the name that the server gave.
        :param service_tier: the tier that the response names.
        """
        pool = self.client.pool(self.request.model)
        price = pool.price(tokens.input_tokens or 0, endpoint, service_tier)
        amounts = amounts_of_answer(
            tokens,
            price,
            served=served,
            calls=calls,
        )
        if self.request.kind == "embedding":
            amounts["output_tokens"] = 0
        self.add_usage(**amounts)
        cost: float | None = amounts["cost"]
        return cost
