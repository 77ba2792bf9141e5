"""From the arguments of a call to its request, options, draw and order."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from ..cassettes.current import cassette_for
from ..config.resolve import check_blocks
from ..requests.keys import identity, key_of, sampled_key
from ..requests.messages import check_messages, keyed_messages
from ..requests.normalizers import normalizer
from ..requests.parameters import (
    CONFIGURED_UNKEYED,
    check_credentials,
    check_names,
    expected_answer,
    given_parameters,
    keyed_parameters,
    with_effort,
)
from ..scopes import current_scope, next_order
from ..types import Request
from .calls import ModelCall, Options, split_options
from .draws import enter_scope, take_sample

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ..cassettes.cassette import Cassette
    from .client import Client, ResolvedSettings


class _Parameters(NamedTuple):
    """What the arguments of a call say apart from its messages or texts.

    :param model: the model's name after aliases.
    :param keyed: the parameters that enter the key, with the model and the namespace.
    :param sent: the parameters that are sent.
    :param headers: extra HTTP headers.
    :param normalize: replaces what does not matter in a text that enters the key, or ``None``.
    :param expected: as in :class:`llmcall.types.Request`.
    :param parse: reads the answer as the type that ``response_format`` was, or ``None``.
    """

    model: str
    options: Options
    keyed: dict[str, Any]
    sent: dict[str, Any]
    headers: dict[str, str]
    normalize: Callable[[str], str] | None
    expected: Any
    parse: Callable[[str], Any] | None


class _CallContext(NamedTuple):
    """What a call finds when it is made.

    :param resolved: what the current settings mean for the client.
    :param cassette: the open one, or ``None``.
    """

    client: Client
    resolved: ResolvedSettings
    cassette: Cassette | None

    @classmethod
    def current(cls, client: Client) -> _CallContext:
        """Return the client's settings and the cassette as they are now."""
        cassette = cassette_for(client.base_settings)
        # The settings come after the cassette: a cassette that is opened now has settings of its own.
        return cls(client, client.resolved, cassette)

    def call(self, request: Request, options: Options, **fields: Any) -> ModelCall:
        """Return the next call in the order of the calls.

        :param fields: the further fields of :class:`ModelCall`.
        """
        return ModelCall(
            client=self.client,
            settings=self.resolved.settings,
            cache=self.resolved.cache,
            request=request,
            options=options,
            cassette=self.cassette,
            order=next_order(),
            **fields,
        )


def prepare_chat(client: Client, messages: Any, arguments: Mapping[str, Any]) -> ModelCall:
    """Return a chat call as its arguments describe it; inside a scope it takes a draw.

    :param arguments: by name; ``None`` means not given.
    :raises TypeError, ValueError: for a wrong argument.
    :raises ScopeError: if timing would decide which draw it takes.
    """
    context = _CallContext.current(client)
    parameters = _parameters(context, arguments, "chat")
    checked_messages = check_messages(messages, dedent=parameters.options.dedent_messages)
    asked = {
        **parameters.keyed,
        "messages": keyed_messages(checked_messages, parameters.normalize),
    }
    identity_hash = identity("chat", asked)
    request = Request(
        kind="chat",
        model=parameters.model,
        asked=asked,
        body={"model": parameters.model, "messages": checked_messages, **parameters.sent},
        headers=parameters.headers,
        sample=None,
        cache_key=sampled_key(identity_hash, None),
        expected=parameters.expected,
    )
    call = context.call(request, parameters.options, parse=parameters.parse)
    take_sample(call, identity_hash)
    return call


def prepare_again(client: Client, recorded_request: Mapping[str, Any], sample: str) -> ModelCall:
    """Return a chat call that asks a recorded request once more, as a draw of its own.

    No configured default is added to it, and the disk cache neither answers nor keeps it.

    :param recorded_request: the recorded request.
    :param sample: the whole name of the draw; the current scope does not enter it.
    """
    context = _CallContext.current(client)
    defaults = context.resolved.defaults
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
    options = Options(cache=False, on_error="raise")
    return context.call(request, options, scope=sample.partition("#")[0])


def prepare_embeddings(
    client: Client, text: Any, model: str | None, arguments: Mapping[str, Any]
) -> list[ModelCall]:
    """Return an embeddings call as its arguments describe it, one text each; none takes a draw.

    :raises TypeError: for a wrong argument.
    """
    context = _CallContext.current(client)
    active = current_scope()
    with_model = {**arguments, "model": model or client.default_embedding_model()}
    parameters = _parameters(context, with_model, "embedding")
    if parameters.options.sample is not None:
        raise TypeError("embeddings take no sample, because the same text has the same embedding")
    calls = []
    for single_text in texts_of(text):
        call = context.call(_request_of_text(single_text, parameters), parameters.options)
        enter_scope(call, active)
        calls.append(call)
    return calls


def _request_of_text(text: str, parameters: _Parameters) -> Request:
    """Return the request for the embedding of a text."""
    normalize = parameters.normalize
    keyed = {**parameters.keyed, "input": text if normalize is None else normalize(text)}
    return Request(
        kind="embedding",
        model=parameters.model,
        asked=keyed,
        body={"model": parameters.model, "input": text, **parameters.sent},
        headers=parameters.headers,
        sample=None,
        cache_key=key_of("embedding", keyed, None),
    )


def _parameters(context: _CallContext, arguments: Mapping[str, Any], kind: str) -> _Parameters:
    """Return what the arguments of a call say apart from its messages or texts.

    :raises TypeError, ValueError: for a wrong argument.
    :raises CacheError: for a field that may hold a credential by its name.
    """
    client, resolved, _ = context
    without_none = {name: value for name, value in arguments.items() if value is not None}
    check_blocks(resolved.settings, without_none)
    options, params = split_options(without_none)
    model = client.model_named(params.pop("model", None))
    check_names(params, kind)
    sent = given_parameters(params)
    if kind == "chat":
        sent = with_effort(model, {**resolved.defaults, **sent})
    headers = sent.pop("extra_headers", {})
    keyed = {"model": model, **keyed_parameters(sent)}
    check_credentials(keyed, resolved.settings.cassette_allow)
    namespace = client.namespace(model)
    if namespace:
        keyed["namespace"] = namespace
    response_format = params.get("response_format")
    return _Parameters(
        model=model,
        options=options,
        keyed=keyed,
        sent=sent,
        headers=headers,
        normalize=normalizer(resolved.settings.cache_normalize),
        expected=expected_answer(response_format),
        parse=_parser(response_format),
    )


def _parser(response_format: Any) -> Callable[[str], Any] | None:
    """Return the function that reads an answer as a type; ``None`` if no type was given."""
    if response_format is None or isinstance(response_format, dict):
        return None
    from ..typed.reading import read

    return functools.partial(read, output_type=response_format)


def texts_of(text: Any) -> list[str]:
    """Return the texts to embed, checked; those of a subclass of ``str``, such as NumPy's, as ``str``.

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
