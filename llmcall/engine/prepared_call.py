"""One call as its arguments describe it, and what is recorded of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from ..notices import Failures, process_failures
from ..requests.keys import ANEW, key_of
from ..types import FROM_FUNCTION, Record, Request, TokenUsage, record_of
from .options import Options
from .usage import count

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..cache.cache import ResponseCache
    from ..cassettes.cassette import Cassette, Place
    from ..config.settings import Settings
    from ..scopes import Draw
    from .limits import Pool


class Resolved(NamedTuple):
    """Hold what a client comes to under the present settings.

    :param generation: of the settings.
    :param pools: by model, each made at its first call.
    :param hosts: whose records were looked at, each with the model that was asked for.
    :param defaults: the parameters that the settings give a default to.
    """

    generation: int
    settings: Settings
    cache: ResponseCache
    pools: dict[str, Pool]
    hosts: set[tuple[str, str]]
    defaults: dict[str, Any]


class PreparedCall(NamedTuple):
    """Hold one call as its arguments describe it, before it is looked up or sent.

    :param client: the :class:`~llmcall.LLMClient` that makes it.
    :param resolved: what the client comes to under the settings of the call.
    :param scope: its scope path; empty outside any.
    :param draw: what it takes of the scope's draws, to be given back where it fails; ``None``
        outside any scope.
    :param cassette: the one that is open.
    :param place: the call's in the order of those on the cassette.
    :param parse: reads the answer as the type that ``response_format`` was.
    """

    client: Any
    resolved: Resolved
    request: Request
    options: Options
    scope: str = ""
    draw: Draw | None = None
    cassette: Cassette | None = None
    place: Place = ()
    parse: Callable[[str], Any] | None = None

    @property
    def shared_by(self) -> ResponseCache | None:
        """Return the disk cache whose users share the answer, ``None`` where it is not stored."""
        resolved = self.resolved
        return (
            None
            if self.options.cache is False or resolved.settings.cache_mode == "off"
            else resolved.cache
        )

    @property
    def reads_cache(self) -> bool:
        """Return whether the disk cache may answer."""
        if self.options.cache is False:
            return False
        return self.cassette is None or self.cassette.reads_cache

    def store(self, record: Record, *, anew: bool = False) -> Record:
        """Store a record in the disk cache, unless the call goes past it; return the one that
        counts.

        :param anew: whether it is put in the place of what is there.
        """
        if self.draw is not None and self.draw.asker is not None:
            record = record.replace(asker=self.draw.asker)
        if self.options.cache is False:
            return record
        mode = self.resolved.settings.cache_mode
        anew = anew or (self.cassette is not None and self.cassette.anew)
        if anew and mode != "off":
            mode = "rewrite"  # a cassette that is written anew does so to the disk cache too
        return self.resolved.cache.store(record, mode=mode)

    def give_back(self) -> None:
        """Make the draw's number free again."""
        if self.draw is not None:
            self.draw.give_back()

    def end(self, answer: Record | None = None) -> None:
        """Note that the call has its answer."""
        if self.draw is not None:
            self.draw.end(answer)

    def add_usage(self, **amounts: Any) -> None:
        """Count what it used."""
        count(self.client.meter, self.request.model, self.scope, amounts)

    def count_answer(
        self, tokens: TokenUsage, endpoint: str | None, calls: int = 1
    ) -> float | None:
        """Count the tokens of a response, and return its cost in USD, or ``None`` if it is unknown.

        :param endpoint: the name of the endpoint that answered.
        """
        price = self.client.pool(self.request.model).price(tokens.input_tokens or 0, endpoint)
        cost: float | None = None if price is None else price.cost(tokens)
        amounts: dict[str, Any] = {
            "calls": calls,
            "input_tokens": tokens.input_tokens,
            "cached_input_tokens": tokens.cached_tokens,
            "output_tokens": 0 if self.request.kind == "embedding" else tokens.output_tokens,
            "cost": cost,
        }
        if price is not None:
            amounts["priced_by"] = price.source
        self.add_usage(**amounts)
        return cost

    def keep(self, record: Record, source: str) -> Record:
        """Put a record on the cassette, and return the one that counts there: whatever was recorded
        first.

        A fallback's is a record of its own, and the first request's points to it.

        :param source: ``FROM_SERVER``, ``FROM_CACHE`` or ``FROM_FUNCTION``, by which the cassette counts it.
        """
        if self.cassette is None:
            return record
        if self.draw is not None and self.draw.asker is not None:
            for key in {self.request.cache_key, record.cache_key}:
                self.cassette.note_asker(key, self.draw)
        if record.cache_key != self.request.cache_key:
            pointer = record_of(self.request, {"fallback": record.cache_key})
            self.cassette.add(pointer, self.place, FROM_FUNCTION)
        return self.cassette.add(record, self.place, source)

    def note_replayed(self, record: Record) -> None:
        """Note who gets a recorded answer, if askers have names: the next replay gives it to them."""
        draw = self.draw
        if draw is None or draw.asker is None:
            return
        draw.note_found(record.asker)
        if self.cassette is not None:
            for key in {self.request.cache_key, record.cache_key}:
                self.cassette.note_asker(key, draw, record.asker)
        elif self.resolved.settings.cache_mode != "replay":
            self.resolved.cache.name_asker(record, draw.asker)

    def refuses(self, record: Record) -> bool:
        """Return whether a recorded answer is none to this call: its ``response_format`` refuses
        it.

        An :class:`LLMCall` records such answers, since it reads them itself; a class may have
        changed since.
        """
        if self.request.expected is None:
            return False
        from ..responses import fits

        return not fits(self.request, record.response)

    def anew(self) -> PreparedCall:
        """Return the same call as a further draw, whose answer is recorded beside one that it
        refuses.
        """
        request, sample = self.request, f"{self.request.sample or '#'}{ANEW}"
        key = key_of(request.kind, request.asked, sample)
        return self._replace(request=request._replace(sample=sample, cache_key=key))

    @property
    def name(self) -> str:
        """Return what it is called in messages."""
        return f"{self.request.kind} request {self.request.cache_key[:12]} to {self.request.model}"

    @property
    def failures(self) -> Failures:
        """Return what tells of it at the end of the run where it is not recorded; nobody does where
        no call is.
        """
        if self.cassette is not None:
            return self.cassette.failures
        return process_failures if self.resolved.settings.cache_mode != "off" else Failures()
