"""How a call of a client goes: prepared, looked up, or sent along the road; and how its failure is told."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..admission.limits import Limits
from ..answers.completeness import cut_by_context, looks_cut
from ..errors import APIError, ContextLengthError
from ..metering import cost_of
from ..models.prices import price_of
from ..notices import warn_once
from ..replay.current import open_tape
from ..replay.scopes import standing
from ..replay.unrecorded import process_failures
from ..road.fallbacks import followed, larger, tried_in_turn
from ..road.flow import Answer, Call, answer
from ..types import Reply, TokenUsage
from .asked import Asked, policy_of, reader_of
from .core import ClientCore
from .options import split
from .requests import chat_request, embedding_request, texts_of

if TYPE_CHECKING:
    from ..road.effects import Flow
    from ..types import Record, Request

__all__ = ["ClientRoad"]


class ClientRoad(ClientCore):
    """Take one call along the road; :class:`LLMClient` adds what users call."""

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

    def _replayed(self, asked: Asked) -> Answer | None:
        if asked.tape is None:
            return None
        record = followed(asked.tape.find(asked.request), asked.tape.find_key)
        if record is None:
            return None
        asked.tape.cassette.count_replay()
        return Answer(record)

    def _from_cache(self, asked: Asked) -> Answer | None:
        if asked.options.cache is False or (asked.tape and not asked.tape.cassette.reads_cache):
            return None
        cache = self.cache
        record = cache.get(asked.request, mode=self._mode())
        if record is not None and "fallback" in record.response:
            record = followed(record, cache.find)
        if record is None:
            return None
        self._check_host(record)
        return asked.kept(Answer(record))

    def _check_leave(self, asked: Asked) -> None:
        """Refuse to ask where the cassette does not allow it or, where none is open, the mode."""
        if not asked.tape.cassette.asks if asked.tape else self._mode() == "replay":
            from ..misses.miss import missed

            raise missed(
                asked.request,
                settings=self.settings,
                cache=self.cache,
                cassette=asked.tape.cassette if asked.tape else None,
                past_cache=asked.options.cache is False,
            )

    def _check_host(self, record: Record) -> None:
        model = record.request.get("model", "")
        hosts = {self.host(endpoint) for endpoint in self._pool(model).endpoints}
        if record.host is not None and record.host not in hosts:
            warn_once(
                f"answers of {model} recorded from {record.host} are used for {', '.join(sorted(hosts))}; "
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
        try:
            found = None if fresh else self._recorded(asked)
            if found is None or _is_cut(found, asked.request):
                found = yield from self._answer(asked, fallback=fallback, whole=True, cut=found)
        except BaseException as error:
            self._give_back(asked, error)
            raise
        asked.end()
        return found

    def _answer(self, asked: Asked, **how: Any) -> Flow[Answer]:
        """Answer a call that is not recorded, and put the answer on the cassette; arguments as of :meth:`_in_turn`."""
        found = yield from self._in_turn(asked, **how)
        return asked.kept(found)

    def _in_turn(
        self,
        asked: Asked,
        *,
        stream: bool = False,
        fallback: bool = True,
        whole: bool = False,
        cut: Answer | None = None,
    ) -> Flow[Answer]:
        """Answer a call that is not recorded, by another model where the context is too long.

        :param fallback: whether another model may be asked.
        :param whole: whether an answer that the context window cut is an error even from the last model.
        :param cut: the recorded answer, which the context window cut; it is not asked for again.
        """
        request = asked.request
        models = self._fallbacks(request.model) if fallback else []
        if not models and cut is None:
            return (yield from answer(self._call(asked, stream=stream, wants_room=whole)))

        def ask(of: Request, more: bool) -> Flow[Answer]:
            found = cut if of is request else self._recorded(asked._replace(request=of))
            if found is not None and (more or whole) and _is_cut(found, of):
                raise ContextLengthError("the recorded answer was cut where the context window ended")
            if found is not None:
                return found
            self._check_room(of, more)
            # What a stream has told its reader cannot be told again by another model.
            call = self._call(asked._replace(request=of), stream=stream, wants_room=(more or whole) and not stream)
            return (yield from answer(call))

        cache = None if asked.options.cache is False else self.cache
        return (yield from tried_in_turn(request, models, ask, cache, asked.storing(self._mode())))

    def _fallbacks(self, model: str) -> list[str]:
        settings = self.settings
        names = [self.model_named(name) for name in settings.fallbacks.get(model, ())]
        return larger(names, self.capabilities(model).context_window, self._window) if names else []

    def _window(self, model: str) -> int | None:
        return self.capabilities(model).context_window

    def _check_room(self, request: Request, more: bool) -> None:
        """Refuse a prompt that is known not to fit, before it is sent, where a larger window is left to try."""
        window = self._window(request.model)
        if not more or window is None:
            return
        from ..models.tokens import count_tokens

        counted = count_tokens(request.messages, request.model, encoding=self.capabilities(request.model).encoding)
        if not counted.estimated and counted > window:
            raise ContextLengthError(
                f"the prompt has {counted} tokens, and {request.model} takes {window}",
                prompt_tokens=int(counted),
                context_window=window,
            )

    def _call(self, asked: Asked, *, stream: bool = False, wants_room: bool = False) -> Call:
        request, options, settings = asked.request, asked.options, self.settings
        return Call(
            request=request,
            cache=None if options.cache is False else self.cache,
            mode=asked.storing(self._mode()),
            pool=self._pool(request.model),
            transport=self._transport,
            capabilities=self.capabilities(request.model),
            policy=policy_of(options, settings),
            timeout=settings.timeout if options.timeout is None else options.timeout,
            whole=lambda response: self._read_whole(request, response),
            count=lambda response=None, **amounts: self._count_response(asked, response, amounts),
            api_type=self.api_type,
            host=self.host,
            stream=stream,
            wants_room=wants_room,
            limits=Limits.of(settings),
            price=lambda tokens: self.price(request.model, tokens),
        )

    def price(self, model: str, input_tokens: int | None = None) -> tuple[float, float] | None:
        """Return the USD per million tokens, in and out, of a prompt of so many tokens; ``None`` where unknown."""
        first = self._pool(model).endpoints[0]
        address = first.azure_endpoint or first.base_url
        found = price_of(model, self.settings.prices, address=address, input_tokens=input_tokens or 0)
        return found.pair if found is not None else None

    def _count_response(self, asked: Asked, response: Any, amounts: dict[str, Any]) -> float | None:
        request, cost = asked.request, None
        if response is not None:
            tokens = TokenUsage.of(response)
            cost = cost_of(tokens, self.price(request.model, tokens.input_tokens))
            output = 0 if request.kind == "embedding" else tokens.output_tokens
            amounts |= {"calls": 1, "input_tokens": tokens.input_tokens, "output_tokens": output, "cost": cost}
        self._count(request.model, asked.scope, **amounts)
        return cost

    def _read_whole(self, request: Request, response: Any) -> bool:
        """Return whether the server read the whole prompt; where it cut it silently, say so."""
        reported = TokenUsage.of(response).input_tokens
        if not reported or not looks_cut(request.messages, reported):
            return True
        from ..models.tokens import count_tokens

        counted = count_tokens(request.messages, request.model, encoding=self.capabilities(request.model).encoding)
        if reported * 2 >= counted:
            return True
        _log().warning(
            "%s read %d of the prompt's %s tokens: it was cut silently, and the answer is not stored",
            request.model, reported, repr(counted),
        )  # fmt: skip
        return False

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
        if isinstance(error, APIError) and (asked.tape or self._mode() != "off"):
            failures = asked.tape.cassette.failures if asked.tape else process_failures
            what = f"{asked.request.kind} request to {asked.request.model}: {type(error).__name__}"
            failures.add(asked.scope or standing(), what)

    def _prepared(self, messages: Any, arguments: dict[str, Any]) -> Asked:
        options, params = split(arguments)
        tape = open_tape(self._base)
        parse = reader_of(params.get("response_format"))
        model = self.model_named(params.pop("model", None))
        request, drawn = chat_request(messages, model, params, self.settings, options, self.namespace(model))
        return Asked(request, options, drawn, parse, tape)

    def _embedding_asked(self, text: Any, model: str | None, arguments: dict[str, Any]) -> list[Asked]:
        options, params = split(arguments)
        if options.sample is not None:
            raise TypeError("embeddings take no sample: the same text has the same embedding")
        first = open_tape(self._base)
        settings = self.settings
        name = self.model_named(model or self.default_embedding_model())
        requests = embedding_request(texts_of(text), name, params, settings, self.namespace(name))
        tapes = [first, *(open_tape(self._base) for _ in requests[1:])]
        return [Asked(request, options, tape=tape) for request, tape in zip(requests, tapes, strict=False)]

    def _reply(self, found: Answer, asked: Asked) -> Reply:
        asked.end()
        sent = found.sent
        if sent is None:
            return Reply.of(found.record, parse=asked.parse)
        return Reply.of(
            found.record,
            cached=False,
            latency=sent.latency,
            endpoint=sent.endpoint,
            request_id=getattr(sent.response, "request_id", None),
            parse=asked.parse,
        )


def _is_cut(found: Answer, request: Request) -> bool:
    return cut_by_context(found.record.response, request.asked.get("max_tokens"))


def _log() -> Any:
    import logging

    return logging.getLogger("llmcall")
