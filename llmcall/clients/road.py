"""How a call of a client goes: prepared, looked up, or sent along the road; and how its failure is told."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..answers import cut_by_context
from ..errors import APIError, CacheMissError, ContextLengthError
from ..fallbacks import followed, larger, tried_in_turn
from ..flow import Answer, Call, answer
from ..metering import cost_of
from ..notices import warn_once
from ..types import Reply, TokenUsage
from .asked import Asked, open_tape, policy_of, reader_of
from .core import ClientCore
from .options import Options, split
from .requests import chat_request, embedding_request, texts_of

if TYPE_CHECKING:

    from ..cache import ResponseCache
    from ..effects import Flow
    from ..types import Record, Request

__all__ = ["ClientRoad"]


class ClientRoad(ClientCore):
    """Take one call along the road; :class:`LLMClient` adds what users call."""

    def _recorded(self, asked: Asked, *, counted: bool = True) -> Answer | None:
        """Return the recorded answer, or ``None`` where there is leave to ask.

        :raises CacheMissError: where there is none and no leave.
        """
        record = self._replayed(asked) if asked.tape else None
        if record is None:
            record = self._from_cache(asked)
            if record is None:
                self._check_leave(asked)
                return None
            asked.record(record)
        if counted:
            self._count(asked.request.model, _scope(asked.request), cached_calls=1, saved=record.cost)
        return Answer(record)

    def _replayed(self, asked: Asked) -> Record | None:
        assert asked.tape is not None
        tape = asked.tape[0]
        found = followed(tape.find(asked.request), tape.find_key)
        if found is not None:
            tape.count_replay()
        return found

    def _from_cache(self, asked: Asked) -> Record | None:
        if asked.options.cache is False or (asked.tape and not asked.tape[0].reads_cache):
            return None
        cache = self.cache
        record = cache.get(asked.request, mode=self._mode())
        if record is not None and "fallback" in record.response:
            record = followed(record, cache.find)
        if record is not None:
            self._check_host(record)
        return record

    def _check_leave(self, asked: Asked) -> None:
        """Refuse to ask where the cassette or the mode does not allow it."""
        if (asked.tape and not asked.tape[0].asks) or self._mode() == "replay":
            raise CacheMissError(_miss(asked.request, asked.options, self.cache))

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
        try:
            found = None if fresh else self._recorded(asked)
            limit = asked.request.asked.get("max_tokens")
            if found is not None and not cut_by_context(found.record.response, limit):
                return found
            return (yield from self._answer(asked, fallback=fallback, whole=True))
        except BaseException:
            asked.give_back()
            raise

    def _answer(self, asked: Asked, **how: bool) -> Flow[Answer]:
        """Answer a call that is not recorded, and put the answer on the cassette; arguments as of :meth:`_in_turn`."""
        found = yield from self._in_turn(asked, **how)
        asked.record(found.record)
        return found

    def _in_turn(
        self, asked: Asked, *, stream: bool = False, fallback: bool = True, whole: bool = False
    ) -> Flow[Answer]:
        """Answer a call that is not recorded, by another model where the context is too long.

        :param fallback: whether another model may be asked.
        :param whole: whether an answer that the context window cut is an error even from the last model.
        """
        request = asked.request
        models = self._fallbacks(request.model) if fallback else []
        if not models:
            return (yield from answer(self._call(asked, stream=stream, wants_room=whole)))

        def ask(of: Request, more: bool) -> Flow[Answer]:
            found = None if of is request else self._recorded(asked._replace(request=of))
            if found is not None:
                return found
            self._check_room(of, more)
            call = self._call(asked._replace(request=of), stream=stream, wants_room=more or whole)
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
        from ..tokens import count_tokens

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
            count=lambda response=None, **amounts: self._count_response(request, response, amounts),
            api_type=self.api_type,
            host=self.host,
            stream=stream,
            wants_room=wants_room,
        )

    def _count_response(self, request: Request, response: Any, amounts: dict[str, Any]) -> float | None:
        cost = None
        if response is not None:
            tokens = TokenUsage.of(response)
            cost = cost_of(tokens, self.settings.prices.get(request.model))
            output = 0 if request.kind == "embedding" else tokens.output_tokens
            amounts |= {"calls": 1, "input_tokens": tokens.input_tokens, "output_tokens": output, "cost": cost}
        self._count(request.model, _scope(request), **amounts)
        return cost

    def _read_whole(self, request: Request, response: Any) -> bool:
        """Return whether the server read the whole prompt; where it cut it silently, say so."""
        reported = TokenUsage.of(response).input_tokens
        if not reported or not _looks_cut(request.messages, reported):
            return True
        from ..tokens import count_tokens

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
        asked.give_back()
        wanted = asked.options.on_error or self.settings.on_error
        if not isinstance(error, APIError) or wanted == "raise" or (wanted == "return" and not returning):
            raise error
        if wanted == "return":
            return error
        request = asked.request
        _log().error("%s request %s to %s failed: %s", request.kind, request.cache_key[:12], request.model, error)
        return None

    def _prepared(self, messages: Any, arguments: dict[str, Any]) -> Asked:
        options, params = split(arguments)
        parse = reader_of(params.get("response_format"))
        model = self.model_named(params.pop("model", None))
        request, drawn = chat_request(messages, model, params, self.settings, options, self.namespace(model))
        return Asked(request, options, drawn, parse, open_tape())

    def _embedding_asked(self, text: Any, model: str | None, arguments: dict[str, Any]) -> list[Asked]:
        options, params = split(arguments)
        if options.sample is not None:
            raise TypeError("embeddings take no sample: the same text has the same embedding")
        settings = self.settings
        name = self.model_named(model or self.default_embedding_model())
        requests = embedding_request(texts_of(text), name, params, settings, self.namespace(name))
        return [Asked(request, options, tape=open_tape()) for request in requests]

    def _reply(self, found: Answer, asked: Asked) -> Reply:
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


def _looks_cut(messages: list[Any], reported: int) -> bool:
    """Return whether a prompt has so many bytes for each reported token that it is worth counting."""
    texts = [message["content"] for message in messages if isinstance(message.get("content"), str)]
    size = sum(len(text.encode()) for text in texts)
    # An English token has about 4.5 bytes, one of other scripts 2 to 3: twice that is suspicious.
    return size > reported * (6 if all(map(str.isascii, texts)) else 3)


def _scope(request: Request) -> str:
    return request.sample.rpartition("#")[0] if request.sample else ""


def _miss(request: Request, options: Options, cache: ResponseCache) -> str:
    where = (
        "cache=False goes past the disk cache, and no cassette is open" if options.cache is False else str(cache.path)
    )
    return (
        f"no answer is recorded for this {request.kind} request to {request.model} "
        f"(key {request.cache_key[:12]}, sample {request.sample}): {where}. "
        "The mode is replay, which never calls; record it with cache_mode='auto' ([Cache] MODE = auto)"
    )


def _log() -> Any:
    import logging

    return logging.getLogger("llmcall")
