"""How a call of a client goes: prepared, looked up, or sent along the road; and how its failure is told."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..cache.rows import reply_of
from ..config import resolve as config
from ..errors import APIError, CacheCorruptError
from ..types import Answer, Reply
from .core import ClientCore
from .hits import READING, ShortWay

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ..engine.effects import Flow
    from ..models.prices import Price
    from ..types import Record
    from .asked import Asked

__all__ = ["ClientRoad"]


class ClientRoad(ClientCore):
    """Take one call along the road; :class:`LLMClient` adds what users call."""

    def _at_once(self, messages: Any, names: Sequence[str], values: tuple[Any, ...]) -> Reply | None:
        """Return the recorded answer of a call where it is found the short way, else ``None``.

        :param names: of the arguments in ``values``, after which comes a dict of further ones.
        """
        way = self._short_way
        if way is None or way.generation != config.generation():
            way = self._short_way = ShortWay(self)
        return way.reply(self, messages, names, values)

    def _recorded(self, asked: Asked, *, counted: bool = True) -> Answer | None:
        """Return the recorded answer, or ``None`` where there is leave to ask.

        :raises CacheMissError: where there is none and no leave.
        """
        found = self._replayed(asked) or self._from_cache(asked)
        if found is None:
            self._check_leave(asked)
        elif counted:
            self._count(asked.request.model, asked.scope, cached_calls=1, saved=found.record.cost)
        return found

    def _recalled(self, asked: Asked) -> Reply | None:
        """Return the recorded reply of a call that the short way does not know, where the cache alone decides."""
        if asked.tape or asked.options.cache is False or self._mode() not in READING:
            return None
        request = asked.request
        if request.sample is None and asked.parse is None:
            return None
        try:
            found = self.cache.recall(request.cache_key)
        except CacheCorruptError:  # what is to be done then, the long way knows
            return None
        if found is None:
            return None
        head, reply = found
        self._check_host(request.model, head.host)
        self._count(request.model, asked.scope, cached_calls=1, saved=head.cost)
        asked.end()
        reply._parse = asked.parse
        return reply

    def _replayed(self, asked: Asked) -> Answer | None:
        if asked.tape is None:
            return None
        record = _followed(asked.tape.find(asked.request), asked.tape.find_key)
        if record is None:
            return None
        asked.tape.cassette.count_replay()
        return Answer(record)

    def _from_cache(self, asked: Asked) -> Answer | None:
        if asked.options.cache is False or (asked.tape and not asked.tape.cassette.reads_cache):
            return None
        cache = self.cache
        record = _followed(cache.get(asked.request, mode=self._mode()), cache.lookup)
        if record is None:
            return None
        self._check_host(record.request.get("model", ""), record.host)
        return asked.kept(Answer(record))

    def _check_leave(self, asked: Asked) -> None:
        """Refuse to ask where the cassette does not allow it or, where none is open, the mode."""
        if not asked.tape.cassette.asks if asked.tape else self._mode() == "replay":
            from ..explain.report import missed

            raise missed(
                asked.request,
                settings=self.settings,
                cache=self.cache,
                cassette=asked.tape.cassette if asked.tape else None,
                past_cache=asked.options.cache is False,
            )
        from ..cassettes.cassette import guards

        for guard in guards:
            guard(self, asked.tape)

    def _check_host(self, model: str, host: str | None) -> None:
        """Say so, once, where a record of a model comes from another host than those that serve it now."""
        hosts = self._hosts.get(model) or self._hosts.setdefault(model, self.hosts(model))
        if host is not None and host not in hosts:
            from ..notices import warn_once

            warn_once(
                f"answers of {model} recorded from {host} are used for {', '.join(sorted(hosts))}; "
                "[Cache] NAMESPACE keeps servers apart that differ"
            )

    def responding(self, messages: Any, fallback: bool, arguments: dict[str, Any], *, fresh: bool) -> Flow[Answer]:
        """Answer a chat call; an answer that the context window cut is an error unless another model gives more.

        :param fallback: whether another model may be asked.
        :param arguments: as of :meth:`LLMClient.send_message`.
        :param fresh: whether records take no part.
        :raises ContextLengthError: where the context is too long and no model is left to ask.
        """
        asked = self._prepared(messages, {**arguments, **({"cache": False} if fresh else {})})
        asked = asked._replace(tape=None) if fresh else asked
        from .asking import is_cut

        try:
            found = None if fresh else self._recorded(asked)
            if found is None or is_cut(found, asked.request):
                found = yield from self._answer(asked, fallback=fallback, whole=True, cut=found)
        except BaseException as error:
            self._give_back(asked, error)
            raise
        asked.end()
        return found

    def _answer(self, asked: Asked, **how: Any) -> Flow[Answer]:
        """Answer a call that is not recorded; arguments as of :func:`llmcall.clients.asking.answer`."""
        from .asking import answer

        return answer(self, asked, **how)

    def price(self, model: str, input_tokens: int | None = None) -> tuple[float, float] | None:
        """Return the USD per million tokens, in and out, of a prompt of so many tokens; ``None`` where unknown."""
        found = self.dated_price(model, input_tokens)
        return found.pair if found is not None else None

    def dated_price(self, model: str, input_tokens: int | None = None) -> Price | None:
        """Return the same with whose price it is, and of what day."""
        from ..models.prices import price_of

        first = self._pool(model).endpoints[0]
        address = first.azure_endpoint or first.base_url
        return price_of(model, self.settings.prices, address=address, input_tokens=input_tokens or 0)

    def _failed(self, error: BaseException, asked: Asked, *, returning: bool = True) -> Any:
        """Raise, log or return an error, as the caller wants an API failure; raise any other."""
        self._give_back(asked, error)
        wanted = asked.options.on_error or self.settings.on_error
        if not isinstance(error, APIError) or wanted == "raise" or (wanted == "return" and not returning):
            raise error
        if wanted == "return":
            return error
        request = asked.request
        _log().error("%s request %s to %s failed: %s", request.kind, request.cache_key[:12], request.model, error)
        return None

    def _give_back(self, asked: Asked, error: BaseException) -> None:
        """Give the draw of a call back that ended in an error; where it failed for good, note it."""
        asked.give_back()
        if isinstance(error, APIError):
            from ..notices import FAILED

            self._note_unrecorded(asked, FAILED, f": {type(error).__name__}")

    def _note_unrecorded(self, asked: Asked, why: str, ending: str = "") -> None:
        """Note, where calls are recorded, one that is not."""
        if asked.tape or self._mode() != "off":
            from ..notices import process_failures
            from ..replay.scopes import standing

            failures = asked.tape.cassette.failures if asked.tape else process_failures
            what = f"{asked.request.kind} request to {asked.request.model}{ending}"
            failures.add(asked.scope or standing(), what, why)

    def _prepared(self, messages: Any, arguments: dict[str, Any]) -> Asked:
        from .asked import prepared

        return prepared(self, messages, arguments)

    def _reply(self, found: Answer, asked: Asked) -> Reply:
        asked.end()
        sent = found.sent
        if sent is None:
            return reply_of(found.record, asked.parse)
        return Reply.of(
            found.record,
            cached=False,
            latency=sent.latency,
            endpoint=sent.endpoint,
            request_id=getattr(sent.response, "request_id", None),
            parse=asked.parse,
        )


def _followed(record: Record | None, find: Callable[[str], Record | None]) -> Record | None:
    """Return a record, or the one that it points to, as far as ``find`` gives that."""
    if record is None or "fallback" not in record.response:
        return record
    from ..engine.fallbacks import followed

    return followed(record, find)


def _log() -> Any:
    import logging

    return logging.getLogger("llmcall")
