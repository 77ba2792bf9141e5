"""From the arguments of a call to its request, options, draw and place in a cassette."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from ..cassettes.current import active_cassette
from ..errors import ScopeError
from ..notices import warn_once
from ..requests.keys import identity, key_of, normalizer, sampled_key
from ..requests.messages import asked_messages, check_messages
from ..requests.parameters import (
    CONFIGURED_UNKEYED,
    asked_parameters,
    check_names,
    expected_answer,
    given_parameters,
)
from ..scopes import Recorded, current_scope, scope_of_call
from ..types import Request
from .options import Options, split_options
from .prepared_call import ModelCall
from .refusals import note_refused

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ..cassettes.cassette import Cassette
    from ..scopes import Active
    from .caller import Caller, Resolved
    from .prepared_call import Call, PreparedCall


class _Parameters(NamedTuple):
    """What the arguments of a call say apart from its messages or texts.

    :param model: the model's name after aliases.
    :param asked: the parameters that enter the key, with the model and the namespace.
    :param given: the parameters that are sent.
    :param headers: extra HTTP headers.
    :param normalize: replaces what does not matter in a text that enters the key, or ``None``.
    :param expected: as in :class:`llmcall.types.Request`.
    :param parse: reads the answer as the type that ``response_format`` was, or ``None``.
    """

    model: str
    options: Options
    asked: dict[str, Any]
    given: dict[str, Any]
    headers: dict[str, str]
    normalize: Callable[[str], str] | None
    expected: Any
    parse: Callable[[str], Any] | None


def prepare_chat(client: Caller, messages: Any, arguments: Mapping[str, Any]) -> ModelCall:
    """Return a chat call as its arguments describe it; inside a scope it takes a draw.

    :param arguments: by name; ``None`` means not given.
    :raises TypeError, ValueError: for a wrong argument.
    :raises ScopeError: if timing would decide which draw it takes.
    """
    cassette = active_cassette(client.base_settings)
    place = cassette.place() if cassette is not None else ()
    resolved = client.resolved  # after the cassette is opened: its own settings come first
    parameters = _parameters(client, resolved, arguments, "chat")
    checked = check_messages(messages, dedent=parameters.options.dedent_messages)
    asked = {**parameters.asked, "messages": asked_messages(checked, parameters.normalize)}
    request = Request(
        kind="chat",
        model=parameters.model,
        asked=asked,
        body={"model": parameters.model, "messages": checked, **parameters.given},
        headers=parameters.headers,
        sample=None,
        cache_key="",
        expected=parameters.expected,
    )
    call = ModelCall(
        client=client,
        settings=resolved.settings,
        cache=resolved.cache,
        request=request,
        options=parameters.options,
        cassette=cassette,
        place=place,
        parse=parameters.parse,
    )
    return sampled(call)


def prepare_again(client: Caller, asked: Mapping[str, Any], sample: str) -> ModelCall:
    """Return a chat call that asks a recorded request once more, as a draw of its own.

    No configured default is added to it, and the disk cache neither answers nor keeps it.

    :param asked: the recorded request.
    :param sample: the whole name of the draw; the present scope does not enter it.
    """
    cassette = active_cassette(client.base_settings)
    place = cassette.place() if cassette is not None else ()
    resolved = client.resolved  # after the cassette is opened: its own settings come first
    body = {name: value for name, value in asked.items() if name != "namespace"}
    unkeyed = {
        name: resolved.defaults[name] for name in CONFIGURED_UNKEYED if name in resolved.defaults
    }
    request = Request(
        kind="chat",
        model=body["model"],
        asked=asked,
        body={**unkeyed, **body},
        headers={},
        sample=sample,
        cache_key=key_of("chat", asked, sample),
    )
    return ModelCall(
        client=client,
        settings=resolved.settings,
        cache=resolved.cache,
        request=request,
        options=Options(cache=False, on_error="raise"),
        scope=sample.partition("#")[0],
        cassette=cassette,
        place=place,
    )


def sampled(call: Call) -> Call:
    """Return a call with its sample and key: in a scope, it takes the next draw unless its options
    name one.

    :raises ScopeError: if timing would decide which draw it takes.
    """
    identified = identity(call.request.kind, call.request.asked)
    digest = sampled_key(identified, None)
    request = call.request._replace(cache_key=digest)
    try:
        active = scope_of_call()
    except ScopeError as error:
        refused = replace(call, request=request)
        note_refused(refused.label, refused.callee, refused.meter, error)
        raise
    scope = "" if active is None else active.path
    call = in_arm(call, active)
    draw = None
    sample = None
    if call.options.sample is not None:
        sample = f"{scope}#{call.options.sample}"
    elif active is not None:
        recorded = functools.partial(recorded_askers, call, identified, scope, digest)
        draw = active.draw(digest, call.cassette or call.cache, recorded)
        sample = draw.sample
    if sample is not None:
        request = request._replace(sample=sample, cache_key=sampled_key(identified, sample))
    return replace(call, request=request, scope=scope, draw=draw)


def in_arm(call: Call, active: Active | None) -> Call:
    """Return a call with the arm that it stands in."""
    if active is None or active.arm is None:
        return call
    if call.options.cache is False and call.cassette is None:
        warn_once(
            f"a call in the arm {active.arm.name!r} has cache=False, so it shares no answer with other arms: leave "
            "that out, or open a cassette around all arms",
            about="cache=False in an arm",
        )
    return replace(call, arm=active.arm.name, used=active.used)


def recorded_askers(call: PreparedCall, identified: Any, path: str, digest: str) -> Recorded:
    """Return who asked for the draws of a request when they were recorded.

    :param identified: what :func:`llmcall.requests.keys.identity` returns for the request.
    :param path: the scope path.
    :param digest: the request's key outside any scope.
    """
    cassette = call.cassette
    askers: dict[int, str] = {}
    if call.reads_cache:
        cache, mode = call.cache, call.settings.cache_mode
        for number in itertools.count():
            record = cache.get(sampled_key(identified, f"{path}#{number}"), mode=mode)
            if record is None:
                break
            if record.asker is not None:
                askers[number] = record.asker
    if cassette is None:
        return Recorded(askers)
    on_cassette = cassette.recorded_askers(path, digest)
    return Recorded({**askers, **on_cassette.askers}, on_cassette.goes_on)


def _parameters(
    client: Caller, resolved: Resolved, arguments: Mapping[str, Any], kind: str
) -> _Parameters:
    present = {name: value for name, value in arguments.items() if value is not None}
    options, params = split_options(present)
    model = client.model_named(params.pop("model", None))
    check_names(params, kind)
    given = given_parameters(params)
    if kind == "chat":
        given = {**resolved.defaults, **given}
    headers = given.pop("extra_headers", {})
    asked = {"model": model, **asked_parameters(given)}
    namespace = client.namespace(model)
    if namespace:
        asked["namespace"] = namespace
    response_format = params.get("response_format")
    return _Parameters(
        model=model,
        options=options,
        asked=asked,
        given=given,
        headers=headers,
        normalize=normalizer(resolved.settings.cache_normalize),
        expected=expected_answer(response_format),
        parse=_parser(response_format),
    )


def _parser(response_format: Any) -> Callable[[str], Any] | None:
    """Return the function that reads an answer as a type; ``None`` if no type was given."""
    if response_format is None or isinstance(response_format, dict):
        return None
    from ..outputs import read

    return functools.partial(read, output_type=response_format, structured=True)


def prepare_embeddings(
    client: Caller, text: Any, model: str | None, arguments: Mapping[str, Any]
) -> list[ModelCall]:
    """Return an embeddings call as its arguments describe it, one text each; none takes a draw.

    :raises TypeError: for a wrong argument.
    """
    cassette = active_cassette(client.base_settings)
    resolved, active = client.resolved, current_scope()
    named = {**arguments, "model": model or client.default_embedding_model()}
    parameters = _parameters(client, resolved, named, "embedding")
    if parameters.options.sample is not None:
        raise TypeError("embeddings take no sample, because the same text has the same embedding")
    return [
        in_arm(_prepared_text(client, resolved, parameters, each, cassette, active), active)
        for each in texts_of(text)
    ]


def _prepared_text(
    client: Caller,
    resolved: Resolved,
    parameters: _Parameters,
    text: str,
    cassette: Cassette | None,
    active: Active | None,
) -> ModelCall:
    normalize = parameters.normalize
    asked = {**parameters.asked, "input": text if normalize is None else normalize(text)}
    request = Request(
        kind="embedding",
        model=parameters.model,
        asked=asked,
        body={"model": parameters.model, "input": text, **parameters.given},
        headers=parameters.headers,
        sample=None,
        cache_key=key_of("embedding", asked, None),
    )
    return ModelCall(
        client=client,
        settings=resolved.settings,
        cache=resolved.cache,
        request=request,
        options=parameters.options,
        scope="" if active is None else active.path,
        cassette=cassette,
        place=cassette.place() if cassette is not None else (),
    )


def texts_of(text: Any) -> list[str]:
    """Return the texts to embed, checked.

    :param text: one text or a sequence of texts.
    :raises TypeError: for anything else, naming its place.
    """
    if isinstance(text, str):
        return [text]
    if isinstance(text, (bytes, bytearray)) or not (
        isinstance(text, Sequence) or hasattr(text, "tolist")
    ):
        raise TypeError(
            f"text is {type(text).__name__}; it must be a string or a sequence of strings"
        )
    for index, item in enumerate(text):
        if not isinstance(item, str):
            raise TypeError(f"text[{index}] is {type(item).__name__}; it must be a string")
    return list(text)
