"""From the arguments of a call to a frozen request with its key."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from ..replay.scopes import Draw, draw
from ..requests.keys import identity, sampled_key
from ..requests.messages import asked_messages, check_messages
from ..requests.parameters import UNKEYED, asked_parameters, check_names, expected_answer, given_parameters
from ..types import Request

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from ..config.settings import Settings
    from .options import Options

__all__ = ["chat_request", "embedding_request", "keyed_parameters", "normalizer_of", "texts_of"]


def keyed_parameters(model: str, params: dict[str, Any], settings: Settings, namespace: str) -> dict[str, Any]:
    """Return all of a chat call that enters its key, but the messages.

    :raises TypeError, ValueError: for a parameter of the wrong kind or value.
    """
    check_names(params)
    return _keyed(model, given_parameters(params, settings), namespace)


def _keyed(model: str, given: dict[str, Any], namespace: str) -> dict[str, Any]:
    asked = {"model": model, **asked_parameters(given)}
    return {**asked, "namespace": namespace} if namespace else asked


def normalizer_of(settings: Settings) -> Callable[[str], str] | None:
    """Return what replaces the parts of a text that do not matter, or ``None`` where all of it does."""
    return _normalizer(settings.cache_normalize) if settings.cache_normalize else None


@functools.lru_cache(maxsize=32)
def _normalizer(names: tuple[str, ...]) -> Callable[[str], str] | None:
    from ..requests.keys import normalizer

    return normalizer(names)


def chat_request(
    messages: Any, model: str, params: dict[str, Any], settings: Settings, options: Options, namespace: str
) -> tuple[Request, Draw | None]:
    """Return the request of a chat call, and the draw that it takes.

    :param params: what :func:`llmcall.clients.options.split` left over, the model apart; its ``extra_headers`` are
        taken out.
    :raises TypeError: for a parameter or message of the wrong kind.
    :raises ValueError: for one of the wrong value.
    """
    check_names(params)
    checked = check_messages(messages, dedent=options.dedent_messages)
    given = given_parameters(params, settings)
    headers = given.pop("extra_headers", {})
    asked = {**_keyed(model, given, namespace), "messages": asked_messages(checked, normalizer_of(settings))}
    identified = identity("chat", asked)
    drawn = draw(identified, options.sample)
    sample = drawn.sample if isinstance(drawn, Draw) else drawn
    body = {"model": model, "messages": checked, **given}
    key, expected = sampled_key(identified, sample), expected_answer(params.get("response_format"))
    request = Request("chat", model, asked, body, headers, sample, key, expected)
    return request, drawn if isinstance(drawn, Draw) else None


def texts_of(text: Any) -> list[str]:
    """Return the texts to embed, checked.

    :param text: one text or a sequence of texts.
    :raises TypeError: for anything else, naming its place.
    """
    if isinstance(text, str):
        return [text]
    if not isinstance(text, (list, tuple)):
        text = _listed(text)
    for index, item in enumerate(text):
        if not isinstance(item, str):
            raise TypeError(f"text[{index}] is {type(item).__name__}; it must be a string")
    return list(text)


def _listed(text: Any) -> list[Any]:
    from collections.abc import Sequence

    if isinstance(text, (bytes, bytearray)) or not (isinstance(text, Sequence) or hasattr(text, "tolist")):
        raise TypeError(f"text is {type(text).__name__}; it must be a string or a sequence of strings")
    return list(text)


def embedding_request(
    texts: Sequence[str], model: str, params: Mapping[str, Any], settings: Settings, namespace: str
) -> list[Request]:
    """Return the requests of an embeddings call, one a text; none takes a sample.

    :raises TypeError: for a parameter of the wrong kind.
    """
    check_names(params, embedding=True)
    given = given_parameters(params, None)
    headers = given.pop("extra_headers", {})
    normalize = normalizer_of(settings)
    return [_embedding(text, model, given, headers, normalize, namespace) for text in texts]


def _embedding(
    text: str, model: str, given: dict[str, Any], headers: Mapping[str, str], normalize: Any, namespace: str
) -> Request:
    asked = {"model": model, "input": normalize(text) if normalize else text}
    asked |= {name: value for name, value in given.items() if name not in UNKEYED}
    if namespace:
        asked["namespace"] = namespace
    key = sampled_key(identity("embedding", asked), None)
    return Request("embedding", model, asked, {"model": model, "input": text, **given}, headers, None, key)
