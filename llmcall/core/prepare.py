"""The preparation of a call: its arguments become its request, options, draw and order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from ..answers.expected import expected_form
from ..errors import ConfigError, ScopeError
from ..keys.keys import OpenIdentity, canonical_json, canonical_messages, identity, open_identity
from ..keys.messages import checked_messages
from ..keys.parameters import checked_parameters, keyed_parameters, with_effort
from ..keys.request import Request, UncheckedFormat
from ..scopes.active import ActiveScope, here, next_order, scope_of_call
from ..scopes.callers import current_for_draw
from ..scopes.draw_numbers import RecordedCallers
from ..scopes.position import CallOrder, Position, held
from ..stores.cassettes.current import open_current_cassette
from ..stores.notes import checked_notes
from ..support.data import Data
from ..support.normalizers import normalizer
from ..support.notices import warn_once
from ..support.request_origin import llmcall_sends
from .calls import Call, InnerCall, Resolved
from .kinds import KINDS, Kind
from .options import Options, split_options
from .parents import parents

if TYPE_CHECKING:
    from ..clients.configured import ConfiguredClient as Client
    from ..stores.cassettes.cassette import Cassette


# Types of immutable arguments, which are equal only if they mean the same.
SIMPLE = frozenset({str, int, float, bool, type(None), UncheckedFormat})
CONTENTS = {"chat": "messages", "embedding": "input"}  # the field of the content
NOWHERE = Position()
MOST_PREPARED = 1_000  # per client; a program may give each call a seed of its own


def prepare_chat(client: Client, messages: object, arguments: Mapping[str, object]) -> Call:
    """Return a chat call as its arguments describe it; inside a scope it takes a draw.

    :param arguments: by name; ``None`` means not given.
    :raises TypeError, ValueError: for a wrong argument.
    :raises ScopeError: if timing would decide which draw it takes.
    """
    return place(_unplaced(client, "chat", messages, arguments))


def prepare_embeddings(
    client: Client, text: object, model: str | None, arguments: Mapping[str, object]
) -> list[Call]:
    """Return the calls of an embeddings request, one for each text; none takes a draw.

    :raises TypeError: for a wrong argument.
    """
    arguments = {**arguments, "model": model or None}
    texts = checked_texts(text)
    return [place_without_draw(_unplaced(client, "embedding", item, arguments)) for item in texts]


def _unplaced(client: Client, kind: str, content: Data, arguments: Mapping[str, object]) -> Call:
    """Return a call as its arguments describe it, without a position."""
    cassette = open_current_cassette()  # first: it may have settings of its own
    blank, opened = _prepared(client, kind, arguments)
    normalize = normalizer(blank.at.settings.cache_normalize)
    sent: Data
    keyed: Data
    if kind == "chat":
        dedent = blank.options.dedent_messages
        sent, keyed = checked_messages(content, dedent=dedent, normalize=normalize)
    else:
        sent, keyed = content, content if normalize is None else normalize(content)
    name, request = CONTENTS[kind], blank.request
    canonical = canonical_messages if kind == "chat" else canonical_json
    request_identity = opened.with_value(canonical(keyed, f"request.{name}"))
    make_notes, position = held().make_notes, NOWHERE
    if make_notes is not None and (cassette is not None or parents):
        position = Position(notes=checked_notes(make_notes()))
    return Call(
        client,
        blank.at,
        cassette,
        Request(
            kind,
            request.model,
            {**request.hashed, name: keyed},
            {**request.body, name: sent},
            request.headers,
            None,
            "",
            request.expected,
        ),
        blank.options,
        blank.kind,
        position,
        None,
        blank.fallbacks,
        False,
        request_identity,
    )


def _prepared(
    client: Client, kind: str, arguments: Mapping[str, object]
) -> tuple[Call, OpenIdentity]:
    """Return a call without content, client and position, and its identity. Each set of arguments is prepared once: a
    simulation makes thousands of calls with the same ones.
    """
    at = client.resolved
    types = (*map(type, arguments.values()),)
    if not SIMPLE.issuperset(types):
        return _prepare(client, at, kind, arguments)
    key = kind, types, *arguments, *arguments.values()  # with types, since 1 == 1.0 == True
    found = at.prepared.get(key)
    if found is None:
        if len(at.prepared) >= MOST_PREPARED:
            at.prepared.clear()
        found = at.prepared[key] = _prepare(client, at, kind, arguments)
    return found


def _prepare(
    client: Client, at: Resolved, kind: str, arguments: Mapping[str, object]
) -> tuple[Call, OpenIdentity]:
    settings = at.settings
    options, params = split_options(arguments, at.options)
    named_model = params.pop("model", None) or None
    default = client.default_embedding_model() if kind == "embedding" else None
    model = client.model_named(named_model or default)
    sent = checked_parameters(params, kind)
    fallbacks: tuple[str, ...] = ()
    if kind == "chat":
        sent = with_effort(at.defaults | sent, client.effort(model))
        fallbacks = tuple(map(client.model_named, settings.fallbacks.get(model, ())))
    elif options.sample is not None:
        raise TypeError("embeddings take no sample, because the same text has the same embedding")
    for name in (model, *fallbacks):
        with suppress(ConfigError):  # a replay needs no endpoint
            client.site(name)  # now: where a stream is read, other settings may hold
    headers = sent.pop("extra_headers", {})
    hashed = {"model": model, **keyed_parameters(sent, settings.cassette_allow)}
    if namespace := client.namespace(model):
        hashed["namespace"] = namespace
    body = {"model": model, **sent}
    response_format = params.get("response_format")
    expected = None if response_format is None else expected_form(response_format)
    request = Request(kind, model, hashed, body, headers, None, "", expected)
    blank = Call(None, at, None, request, options, KINDS[kind], NOWHERE, fallbacks=fallbacks)
    return blank, open_identity(kind, hashed, CONTENTS[kind])


def unplaced_call(
    client: Client | None,
    at: Resolved,
    cassette: Cassette | None,
    request: Request,
    options: Options,
    kind: Kind,
    **fields: Any,
) -> Call:
    """Return a call whose request is whole, but for its sample and its key, without a position.

    :param fields: further fields of the call.
    """
    fields = {"position": NOWHERE, "identity": identity(request.kind, request.hashed), **fields}
    return Call(client, at, cassette, request, options, kind, **fields)


def place_as(unplaced: Call, sample: str, order: CallOrder) -> Call:
    """Return a call as the draw that a whole name names; no scope adds anything to it."""
    return unplaced.placed(Position(sample.partition("#")[0], order), sample)


def place(unplaced: Call) -> Call:
    """Return a call in its scope, with the sample and the key that follow from it: in a scope, it takes
    the next draw unless its options name one. A call that another process answers takes its draw there.

    :raises ScopeError: if timing would decide which draw it takes.
    """
    if llmcall_sends():
        return place_without_draw(unplaced)
    try:
        active = scope_of_call()
    except ScopeError as error:
        call = place_without_draw(unplaced)
        call.notify("failed", error)
        call.refuse(error)
    order = next_order(active)
    if parents:
        call = place_without_draw(unplaced, active, order)
        if call.errand is not None:
            return call
    return place_in(unplaced, active, order)


def place_in(unplaced: Call, active: ActiveScope, order: CallOrder) -> Call:
    """Return a call in a scope, with its draw, as :func:`place` does.

    :param active: the scope.
    :param order: the order of the call.
    """
    inherited, named_sample = active.position, unplaced.options.sample
    path, branches, draw = inherited.path, inherited.branches, None
    if named_sample is not None:
        sample = f"{path}#{named_sample}"
        position = Position(path, order, branches, inherited.caller, inherited.draw)
    elif not path:
        return unplaced.placed(Position("", order))
    else:
        request_identity = unplaced.identity
        assert request_identity is not None  # it has no position yet

        def recorded_callers() -> RecordedCallers:
            if unplaced.cassette is not None and unplaced.cassette.tape.names_no_callers:
                return unplaced.cassette.tape.no_callers
            return unplaced.store.callers(path, request_identity)

        source = unplaced.cassette or unplaced.cache
        draw = active.draw(
            request_identity.hexdigest(), source, current_for_draw(), recorded_callers
        )
        sample, caller = draw.sample, None if draw.caller is None else draw.caller.name
        position = Position(path, order, branches, caller, draw.number, draw.is_in_order)
    call = unplaced.placed(position, sample, draw)
    return _in_arm(call, active) if branches else call


def place_without_draw(
    unplaced: Call, active: ActiveScope | None = None, order: CallOrder | None = None
) -> Call:
    """Return a call at its position, without a draw; code that llmcall calls has no position.

    :param active: the scope; by default the one in which the code runs.
    :param order: the order of the call; by default the next one.
    """
    active = active or here()
    order = order or next_order(active)
    if llmcall_sends():
        call: Call = InnerCall._make(unplaced.placed(Position("", order)))
    else:
        call = _in_arm(unplaced.placed(active.position._replace(order=order)), active)
    innermost = parents[-1:]  # a copy, since other threads may leave it
    if call.cassette is not None or not innermost:
        return call
    return call._replace(errand=innermost[0].errand(active, order))


def _in_arm(call: Call, active: ActiveScope) -> Call:
    """Return a call; if its scope is in an arm, the arm gathers its record."""
    arm = call.position.arm
    if not arm:
        return call
    is_off = call.options.cache is False or call.settings.cache_mode == "off"
    if is_off and call.cassette is None and call.kind.calls_model:
        warn_once(
            f"a call in the arm {arm!r} has cache=False or cache_mode='off', so it shares no answer with other arms: "
            "remove that setting, or open a cassette around all arms",
            about="no cache in an arm",
        )
    return call._replace(used_records=active.used_records)


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
