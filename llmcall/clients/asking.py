"""A call that is not recorded: what the road needs to know of it, and which models are asked in turn."""

from __future__ import annotations

import functools
import time
from typing import TYPE_CHECKING, Any

from ..engine import flow
from ..engine.calls import Call
from ..engine.effects import look
from ..engine.embeddings import embed, vector
from ..engine.fallbacks import larger, tried_in_turn
from ..engine.limits import Limits
from ..engine.retry import RetryPolicy
from ..engine.usage import cost_of
from ..errors import ContextLengthError
from ..responses.validate import cut_by_context, looks_cut
from ..types import TokenUsage

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..config.settings import Settings
    from ..engine.effects import Flow
    from ..models.tokens import TokenCount
    from ..types import Answer, Request
    from .asked import Asked
    from .options import Options
    from .road import ClientRoad

__all__ = ["answer", "call_of", "embedded", "is_cut", "policy_of"]


def answer(client: ClientRoad, asked: Asked, **how: Any) -> Flow[Answer]:
    """Answer a call that is not recorded, and put the answer on the cassette; arguments as of :func:`_in_turn`."""
    found = yield from _in_turn(client, asked, **how)
    if not found.whole:
        from ..notices import CUT

        client._note_unrecorded(asked, CUT)
    return asked.kept(found)


def _in_turn(
    client: ClientRoad,
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
    models = _fallbacks(client, request.model) if fallback else []
    if not models and cut is None:
        return (yield from flow.answer(call_of(client, asked, stream=stream, wants_room=whole)))

    def ask(of: Request, more: bool) -> Flow[Answer]:
        """Answer the request to one model, where ``more`` are left to try."""
        found = cut if of is request else client._recorded(asked._replace(request=of))
        if found is not None and (more or whole) and is_cut(found, of):
            raise ContextLengthError("the recorded answer was cut where the context window ended")
        if found is not None:
            return found
        if more:
            _check_room(client, of)
        # What a stream has told its reader cannot be told again by another model.
        call = call_of(client, asked._replace(request=of), stream=stream, wants_room=(more or whole) and not stream)
        return (yield from flow.answer(call))

    cache = None if asked.options.cache is False else client.cache
    return (yield from tried_in_turn(request, models, ask, cache, asked.storing(client.settings.cache_mode)))


def is_cut(found: Answer, request: Request) -> bool:
    """Return whether an answer ended at a limit that is not the caller's own."""
    return cut_by_context(found.record.response, request.asked.get("max_tokens"))


def _fallbacks(client: ClientRoad, model: str) -> list[str]:
    names = [client.model_named(name) for name in client.settings.fallbacks.get(model, ())]
    return larger(names, _window(client, model), lambda name: _window(client, name)) if names else []


def _window(client: ClientRoad, model: str) -> int | None:
    return client.capabilities(model).context_window


def _check_room(client: ClientRoad, request: Request) -> None:
    """Refuse a prompt that is known not to fit, before it is sent, where a larger window is left to try."""
    window = _window(client, request.model)
    if window is None:
        return
    counted = _counted(client, request)
    if not counted.estimated and counted > window:
        raise ContextLengthError(
            f"the prompt has {counted} tokens, and {request.model} takes {window}",
            prompt_tokens=int(counted),
            context_window=window,
        )


def _counted(client: ClientRoad, request: Request) -> TokenCount:
    from ..models.tokens import count_tokens

    return count_tokens(request.messages, request.model, encoding=client.capabilities(request.model).encoding)


def call_of(client: ClientRoad, asked: Asked, *, stream: bool = False, wants_room: bool = False) -> Call:
    """Return what the road needs to know of a call.

    :param stream: whether its text is handed on as it comes.
    :param wants_room: whether an answer that the context window cut is an error.
    """
    request, options, settings = asked.request, asked.options, client.settings
    return Call(
        request=request,
        cache=None if options.cache is False else client.cache,
        mode=asked.storing(settings.cache_mode),
        pool=client._pool(request.model),
        transport=client._transport,
        capabilities=client.capabilities(request.model),
        policy=policy_of(options, settings),
        timeout=settings.timeout if options.timeout is None else options.timeout,
        whole=lambda response: _read_whole(client, request, response),
        count=lambda response=None, **amounts: _count(client, asked, response, amounts),
        api_type=client.api_type,
        host=client.host,
        stream=stream,
        wants_room=wants_room,
        limits=Limits.of(settings),
        price=lambda tokens: client.price(request.model, tokens),
    )


def policy_of(options: Options, settings: Settings) -> RetryPolicy:
    """Return how often and when a call is tried again; its deadline begins now."""
    deadline = _first(options.deadline, settings.deadline)
    return RetryPolicy(
        _first(options.max_attempts, settings.retry_max_attempts),
        _first(options.waiting_time, settings.retry_waiting_time),
        _first(options.exponential_backoff_factor, settings.retry_exponential_backoff_factor),
        settings.retry_max_waiting_time,
        None if deadline is None else time.monotonic() + deadline,
    )


def _first(*values: Any) -> Any:
    return next((value for value in values if value is not None), None)


def _count(client: ClientRoad, asked: Asked, response: Any, amounts: dict[str, Any]) -> float | None:
    """Count a response or its tokens, and amounts; return the response's USD, or ``None``."""
    request, cost = asked.request, None
    if response is not None:
        tokens = response if isinstance(response, TokenUsage) else TokenUsage.of(response)
        price = client.dated_price(request.model, tokens.input_tokens)
        cost = cost_of(tokens, price and price.pair)
        output = 0 if request.kind == "embedding" else tokens.output_tokens
        amounts = {
            "calls": 1,
            "input_tokens": tokens.input_tokens,
            "output_tokens": output,
            "cost": cost,
            **({"priced_by": price.source} if price is not None and cost is not None else {}),
            **amounts,
        }
    client.count_usage(request.model, asked.scope, amounts)
    return cost


def embedded(client: ClientRoad, asked: list[Asked]) -> Flow[list[list[float]]]:
    """Return the vectors of texts, asking for those that are not recorded."""
    known: dict[str, Answer] = {}
    missing: list[Asked] = []
    for each in asked:
        found = yield from look(client.cache, functools.partial(client._recorded, each, counted=False))
        if found is None:
            missing.append(each)
        else:
            known[each.request.cache_key] = found
    if missing:
        answers = yield from embed([call_of(client, each) for each in missing])
        for each, found in zip(missing, answers, strict=True):
            known[each.request.cache_key] = each.kept(found)
    elif asked:
        client._count(asked[0].request.model, "", cached_calls=1, saved=_sum(known.values()))
    return [vector(known[each.request.cache_key].record) for each in asked]


def _sum(answers: Iterable[Answer]) -> float | None:
    costs = [found.record.cost for found in answers]
    return sum(cost for cost in costs if cost is not None) if None not in costs else None


def _read_whole(client: ClientRoad, request: Request, response: Any) -> bool:
    """Return whether the server read the whole prompt; where it cut it silently, say so."""
    reported = TokenUsage.of(response).input_tokens
    if not reported or not looks_cut(request.messages, reported):
        return True
    counted = _counted(client, request)
    if reported * 2 >= counted:
        return True
    import logging

    logging.getLogger("llmcall").warning(
        "%s read %d of the prompt's %s tokens: it was cut silently, and the answer is not stored",
        request.model, reported, repr(counted),
    )  # fmt: skip
    return False
