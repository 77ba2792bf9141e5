"""The preparation of a call: its arguments become its request, options, draw and order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..answers.expected import expected_of
from ..errors import ScopeError
from ..keys.keys import identity, key_of, sampled_key
from ..keys.messages import check_messages, keyed_messages
from ..keys.normalizers import normalizer
from ..keys.parameters import (
    CONFIGURED_UNKEYED,
    checked_parameters,
    keyed_parameters,
)
from ..keys.request import Data, Request
from ..scopes import Position, RecordedAskers, here, next_order, scope_of_call
from ..stores.cassettes.current import current_cassette
from ..support.notices import warn_once
from ..support.sender import is_llmcalls
from .calls import Call, split_options

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..clients.base import LLMClient
    from ..scopes import ActiveScope, Draw


def prepare_chat(client: LLMClient, messages: object, arguments: Mapping[str, object]) -> Call:
    """Return a chat call as its arguments describe it; inside a scope it takes a draw.

    :param arguments: by name; ``None`` means not given.
    :raises TypeError, ValueError: for a wrong argument.
    :raises ScopeError: if timing would decide which draw it takes.
    """
    call, identity_hash = _undrawn_call(client, "chat", messages, arguments)
    return with_draw(call, identity_hash)


def prepare_embeddings(
    client: LLMClient, text: object, model: str | None, arguments: Mapping[str, object]
) -> list[Call]:
    """Return an embeddings call as its arguments describe it, one text each; none takes a draw.

    :raises TypeError: for a wrong argument.
    """
    arguments = {**arguments, "model": model or client.default_embedding_model()}
    texts = checked_texts(text)
    calls = [_undrawn_call(client, "embedding", item, arguments)[0] for item in texts]
    if is_llmcalls():
        return [call._replace(is_inner=True) for call in calls]
    active = here()
    return [_standing_in(call, active) for call in calls]


def _undrawn_call(
    client: LLMClient, kind: str, content: Any, arguments: Mapping[str, object]
) -> tuple[Call, object]:
    """Return a call as its arguments describe it, without a draw, and the hash of what identifies its
    request.

    :param kind: ``"chat"`` or ``"embedding"``.
    :param content: the messages, or the text.
    :raises TypeError, ValueError: for a wrong argument.
    :raises CacheError: for a field that may hold a credential by its name.
    """
    cassette = current_cassette()  # first: it may have settings of its own
    resolved = client.resolved
    settings = resolved.settings
    options, params = split_options(arguments, resolved.options)
    model = client.model_named(params.pop("model", None))
    sent = checked_parameters(params, kind)
    normalize = normalizer(settings.cache_normalize)
    if kind == "chat":
        field = "messages"
        content = check_messages(content, dedent=options.dedent_messages)
        keyed_content: object = keyed_messages(content, normalize)
        sent = client.with_effort(model, resolved.defaults | sent)
    else:
        field = "input"
        keyed_content = content if normalize is None else normalize(content)
        if options.sample is not None:
            raise TypeError(
                "embeddings take no sample, because the same text has the same embedding"
            )
        if options.window != "none":
            warn_once(f"WINDOW = {options.window}: embeddings are sent without a window")
    headers = sent.pop("extra_headers", {})
    asked = {"model": model, **keyed_parameters(sent, settings.cassette_allow)}
    if namespace := client.namespace(model):
        asked["namespace"] = namespace
    asked[field] = keyed_content
    if kind == "chat" and options.window != "none":
        options, sent = client.in_window(options, sent)
    identity_hash = identity(kind, asked)
    request = Request(
        kind=kind,
        model=model,
        asked=asked,
        body={"model": model, field: content, **sent},
        headers=headers,
        sample=None,
        cache_key=sampled_key(identity_hash, None),
        expected=expected_of(params.get("response_format")),
    )
    call = Call(
        client=client,
        settings=settings,
        cache=resolved.cache,
        cassette=cassette,
        request=request,
        options=options,
        name=model,
        position=Position("", next_order()),
        fallbacks=settings.fallbacks.get(model, ()) if kind == "chat" else (),
    )
    return call, identity_hash


def prepare_again(client: LLMClient, recorded_request: Mapping[str, Data], sample: str) -> Call:
    """Return a chat call that asks a recorded request once more, as a draw of its own.

    No configured default is added to it, and the disk cache neither answers nor keeps it.

    :param recorded_request: the recorded request.
    :param sample: the whole name of the draw; the current scope does not enter it.
    """
    cassette = current_cassette()
    resolved = client.resolved
    defaults = resolved.defaults
    unkeyed = {name: defaults[name] for name in CONFIGURED_UNKEYED if name in defaults}
    body_fields = {name: value for name, value in recorded_request.items() if name != "namespace"}
    request = Request(
        kind="chat",
        model=body_fields["model"],
        asked=recorded_request,
        body={**unkeyed, **body_fields},
        headers={},
        sample=sample,
        cache_key=key_of("chat", recorded_request, sample),
    )
    return Call(
        client=client,
        settings=resolved.settings,
        cache=resolved.cache,
        cassette=cassette,
        request=request,
        options=resolved.options._replace(cache=False, on_error="raise", window="none"),
        name=request.model,
        position=Position(sample.partition("#")[0], next_order()),
        is_inner=is_llmcalls(),
    )


def with_draw(call: Call, identity_hash: object) -> Call:
    """Return a call in its scope, with the sample and the key that follow from it: in a scope, it takes
    the next draw unless its options name one.

    :param call: its request has no sample yet.
    :param identity_hash: what :func:`llmcall.keys.keys.identity` returns for the request.
    :raises ScopeError: if timing would decide which draw it takes.
    """
    if is_llmcalls():
        return call._replace(is_inner=True)
    try:
        active = scope_of_call()
    except ScopeError as error:
        _standing_in(call, here()).refuse(error)
    request, named, draw = call.request, call.options.sample, None
    path = active.position.path
    if named is not None:
        sample = f"{path}#{named}"
    elif not path:
        return call
    else:

        def recorded_askers() -> RecordedAskers:
            askers = call.store.askers(path, identity_hash, request.cache_key)
            return askers._replace(may_ask=call.may_ask)

        draw = active.draw(request.cache_key, call.cassette or call.cache, recorded_askers)
        sample = draw.sample
    drawn = request._replace(sample=sample, cache_key=sampled_key(identity_hash, sample))
    return _standing_in(call, active, draw, drawn)


def _standing_in(
    call: Call,
    active: ActiveScope,
    draw: Draw | None = None,
    request: Request | None = None,
) -> Call:
    """Return a call at its position in a scope and its arm.

    :param active: the scope of the call.
    :param draw: the draw that the call has taken.
    :param request: its request, with its sample.
    """
    request, order = request or call.request, call.position.order
    path, _, forks, asker, number = active.position
    if draw is not None:
        asker = None if draw.asker is None else draw.asker.name
        number = draw.number
    position = Position(path, order, forks, asker, number)
    if not forks or not (arm := position.arm):
        return call._replace(request=request, position=position, draw=draw)
    if call.options.cache is False and call.cassette is None:
        warn_once(
            f"a call in the arm {arm!r} has cache=False, so it shares no answer with other arms: leave "
            "that out, or open a cassette around all arms",
            about="cache=False in an arm",
        )
    records = active.used_records
    return call._replace(request=request, position=position, draw=draw, used_records=records)


def checked_texts(text: Any) -> list[str]:
    """Return the texts to embed, checked; a text of a subclass of ``str``, such as NumPy's, becomes a ``str``.

    :param text: one text or a sequence of texts.
    :raises TypeError: for anything else, naming its index.
    """
    if isinstance(text, str):
        return [str.__str__(text)]
    if isinstance(text, (bytes, bytearray)) or not (
        isinstance(text, Sequence) or hasattr(text, "tolist")
    ):
        raise TypeError(
            f"text is {type(text).__name__}; it must be a string or a sequence of strings"
        )
    for index, item in enumerate(text):
        if not isinstance(item, str):
            raise TypeError(f"text[{index}] is {type(item).__name__}; it must be a string")
    return [str.__str__(item) for item in text]
