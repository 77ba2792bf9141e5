"""The preparation of a call: its arguments become its request, options, draw and order."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from ..answers.expected import expected_form
from ..errors import ConfigError, ScopeError
from ..keys.keys import (
    Identity,
    OpenIdentity,
    canonical_json,
    canonical_messages,
    identity,
    open_identity,
    sampled_key,
)
from ..keys.messages import checked_messages
from ..keys.parameters import (
    checked_parameters,
    keyed_parameters,
    with_effort,
)
from ..keys.request import Data, Request, UncheckedFormat
from ..scopes.active import ActiveScope, here, next_order, scope_of_call
from ..scopes.callers import current_for_draw
from ..scopes.draw_numbers import RecordedCallers
from ..scopes.draws import Draw
from ..scopes.position import CallOrder, Position, held
from ..stores.cassettes.current import open_current_cassette
from ..stores.notes import checked_notes
from ..stores.records.keyed_settings import settings_taken
from ..support.normalizers import normalizer
from ..support.notices import warn_once
from ..support.request_origin import llmcall_sends
from ..support.tracebacks import hide_own_frames
from .calls import Call, InnerCall
from .kinds import KINDS
from .options import split_options
from .parents import parents, way_from

if TYPE_CHECKING:
    from ..clients.configured import ConfiguredClient as Client
    from ..clients.configured import ResolvedSettings
    from ..stores.cassettes.cassette import Cassette
    from .seams import Account


class PreparedArguments(NamedTuple):
    """A call's arguments: everything but its content.

    :param blank: a call with these arguments, but without content, client or position.
    :param normalize: replaces the parts of a text that do not matter, or ``None``.
    :param open_identity: the identity of a call, without its content.
    """

    blank: Call
    normalize: Callable[[str], str] | None
    open_identity: OpenIdentity


class Draft(NamedTuple):
    """A call as its arguments describe it, before its scope decides its position, sample and key.

    :param blank: a call with the same arguments.
    :param account: counts it, or ``None``.
    :param cassette: the open cassette, or ``None``.
    :param hashed: everything that enters the key, except the sample.
    :param body: what is sent.
    :param identity: the identity of its request, without a sample.
    :param notes: what its record notes, by name, or ``None``.
    """

    blank: Call
    account: Account | None
    cassette: Cassette | None
    hashed: Mapping[str, Data]
    body: Mapping[str, Data]
    identity: Identity
    notes: Mapping[str, Any] | None = None

    @classmethod
    def of(cls, call: Call, notes: Mapping[str, Any] | None = None) -> Draft:
        """Return the draft of a call that has its content and its client.

        :param notes: what its record notes, by name, or ``None``.
        """
        request = call.request
        request_identity = identity(request.kind, request.hashed)
        return cls(
            call,
            call.account,
            call.cassette,
            request.hashed,
            request.body,
            request_identity,
            notes,
        )

    def call_at(
        self, position: Position, sample: str | None = None, draw: Draw | None = None
    ) -> Call:
        """Return the call at a position, with the key that follows from its sample."""
        if self.notes is not None:
            position = position._replace(notes=self.notes)
        # By position, not by _replace, which takes twice as long: a microsecond more for each replayed answer.
        blank, asked = self.blank, self.blank.request
        key = sampled_key(self.identity, sample)
        request = Request(
            asked.kind,
            asked.model,
            self.hashed,
            self.body,
            asked.headers,
            sample,
            key,
            asked.expected,
        )
        return Call(
            self.account,
            blank.at,
            self.cassette,
            request,
            blank.options,
            blank.kind,
            position,
            draw,
            blank.fallbacks,
            is_streamed=blank.is_streamed,
            settings_taken=blank.settings_taken,
        )


# Types of immutable arguments, which are equal only if they mean the same.
SIMPLE = frozenset({str, int, float, bool, type(None), UncheckedFormat})
CONTENTS = {"chat": "messages", "embedding": "input"}  # the field of the content
MOST_PREPARED = 1_000  # per client; a program may give each call a seed of its own


def prepare_chat(client: Client, messages: object, arguments: Mapping[str, object]) -> Call:
    """Return a chat call as its arguments describe it; inside a scope it takes a draw.

    :param arguments: by name; ``None`` means not given.
    :raises TypeError, ValueError: for a wrong argument.
    :raises ScopeError: if timing would decide which draw it takes.
    """
    try:
        return place(_draft(client, "chat", messages, arguments))
    except TypeError as error:
        hide_own_frames(error, is_mistake=True)
        raise error


def prepare_embeddings(
    client: Client, text: object, model: str | None, arguments: Mapping[str, object]
) -> list[Call]:
    """Return the calls of an embeddings request, one for each text; none takes a draw.

    :raises TypeError: for a wrong argument.
    """
    arguments = {**arguments, "model": model or None}
    texts = checked_texts(text)
    return [place_without_draw(_draft(client, "embedding", item, arguments)) for item in texts]


def _draft(client: Client, kind: str, content: Any, arguments: Mapping[str, object]) -> Draft:
    """Return a call as its arguments describe it, without a draw."""
    cassette = open_current_cassette()  # first: it may have settings of its own
    resolved = client.resolved
    blank, normalize, opened = _prepared(client, resolved, kind, arguments)
    if cassette is not None:
        cassette.opening.tell_overridden(blank.settings_taken)
    sent: Any
    keyed: Any
    if kind == "chat":
        dedent = blank.options.dedent_messages
        sent, keyed = checked_messages(content, dedent=dedent, normalize=normalize)
    else:
        sent, keyed = content, content if normalize is None else normalize(content)
    name = CONTENTS[kind]
    hashed, body = {**blank.request.hashed, name: keyed}, {**blank.request.body, name: sent}
    canonical = canonical_messages if kind == "chat" else canonical_json
    request_identity = opened.with_value(canonical(keyed, f"request.{name}"))
    make_notes = held().make_notes
    notes = None
    if make_notes is not None and (cassette is not None or parents):
        notes = checked_notes(make_notes())
    return Draft(blank, client, cassette, hashed, body, request_identity, notes)


def _prepared(
    client: Client, resolved: ResolvedSettings, kind: str, arguments: Mapping[str, object]
) -> PreparedArguments:
    """Return a call's arguments, prepared only once: a simulation makes thousands of calls with the same ones."""
    prepared = resolved.prepared
    types = (*map(type, arguments.values()),)
    if not SIMPLE.issuperset(types):
        return _prepare(client, resolved, kind, arguments)
    key = kind, types, *arguments, *arguments.values()  # with types, since 1 == 1.0 == True
    found = prepared.get(key)
    if found is None:
        if len(prepared) >= MOST_PREPARED:
            prepared.clear()
        found = prepared[key] = _prepare(client, resolved, kind, arguments)
    return found


def _prepare(
    client: Client, resolved: ResolvedSettings, kind: str, arguments: Mapping[str, object]
) -> PreparedArguments:
    settings = resolved.settings
    options, params = split_options(arguments, resolved.options)
    named_model = params.pop("model", None) or None
    default = client.default_embedding_model() if kind == "embedding" else None
    model = client.model_named(named_model or default)
    sent = checked_parameters(params, kind)
    given = frozenset(sent) if client.takes_defaults else None
    fallbacks: tuple[str, ...] = ()
    if kind == "chat":
        sent = with_effort(resolved.defaults | sent, client.effort(model))
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
    blank = Call(
        None,
        resolved.at,
        None,
        request,
        options,
        KINDS[kind],
        Position(),
        fallbacks=fallbacks,
        settings_taken=partial(settings_taken, settings, request, named_model, given),
    )
    opened = open_identity(kind, hashed, CONTENTS[kind])
    return PreparedArguments(blank, normalizer(settings.cache_normalize), opened)


def place(draft: Draft) -> Call:
    """Return a call in its scope, with the sample and the key that follow from it: in a scope, it takes
    the next draw unless its options name one. A call that another process answers takes its draw there.

    :raises ScopeError: if timing would decide which draw it takes.
    """
    if llmcall_sends():
        return place_without_draw(draft)
    try:
        active = scope_of_call()
    except ScopeError as error:
        call = place_without_draw(draft)
        call.notify("failed", error)
        call.refuse(error)
    order = next_order(active)
    if parents:
        call = place_without_draw(draft, active, order)
        if call.way is not None:
            return call
    return place_in(draft, active, order)


def place_in(draft: Draft, active: ActiveScope, order: CallOrder) -> Call:
    """Return a call in a scope, with its draw, as :func:`place` does.

    :param active: the scope.
    :param order: the order of the call.
    """
    inherited, named_sample = active.position, draft.blank.options.sample
    path, branches, draw = inherited.path, inherited.branches, None
    if named_sample is not None:
        sample = f"{path}#{named_sample}"
        position = Position(path, order, branches, inherited.caller, inherited.draw)
    elif not path:
        return draft.call_at(Position("", order))
    else:

        def recorded_callers() -> RecordedCallers:
            if draft.cassette is not None and draft.cassette.tape.names_no_callers:
                return draft.cassette.tape.no_callers
            call = draft.call_at(Position("", order))
            return call.store.callers(path, draft.identity)

        source = draft.cassette or draft.blank.cache
        digest = draft.identity.hexdigest()
        draw = active.draw(digest, source, current_for_draw(), recorded_callers)
        sample, caller = draw.sample, None if draw.caller is None else draw.caller.name
        position = Position(path, order, branches, caller, draw.number, draw.is_in_order)
    call = draft.call_at(position, sample, draw)
    return _in_arm(call, active) if branches else call


def place_without_draw(
    draft: Draft, active: ActiveScope | None = None, order: CallOrder | None = None
) -> Call:
    """Return a call at its position, without a draw; code that llmcall calls has no position.

    :param active: the scope; by default the one in which the code runs.
    :param order: the order of the call; by default the next one.
    """
    active = active or here()
    order = order or next_order(active)
    if llmcall_sends():
        call: Call = InnerCall._make(draft.call_at(Position("", order)))
    else:
        call = _in_arm(draft.call_at(active.position._replace(order=order)), active)
    return call if call.cassette is not None else call._replace(way=way_from(active, order))


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
