"""What the SDK and its HTTP library raise, as errors of the tree, without the keys that a server may repeat."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, NoReturn

from ..errors import APIError, RequestTimeoutError, ServiceError
from ..requests.plain_data import is_deep
from ..responses.raw_stream import SECRET_NAMES
from ..responses.sizes import LARGEST_REFUSAL
from .bodies import is_cut
from .failures import failure

__all__ = [
    "MASK", "failures", "hide_keys", "mapped_error", "raise_mapped", "transport_errors", "unmistakable_keys",
    "without_keys",
]  # fmt: skip

MASK = "…"
SHORTEST = 6  # characters; masking a shorter key would blot out ordinary words
UNMISTAKABLE = 16  # characters
TOLD = ("message", "body", "code", "param", "request_id")  # what errors tell of a server's words


def failures() -> tuple[type[BaseException], ...]:
    """Return the exceptions that :func:`mapped_error` maps."""
    import openai

    return (openai.APIError, APIError, *transport_errors("TransportError", "DecodingError"))


def mapped_error(error: BaseException) -> APIError:
    """Return the error of the tree for one of the SDK's or of its HTTP library's."""
    import openai

    if isinstance(error, APIError):
        return error
    if isinstance(error.__cause__, APIError):
        return error.__cause__  # up to 3.0 the SDK takes what is raised while it sends for a failed connection
    if isinstance(error, openai.APIStatusError):
        headers = {name.lower(): value for name, value in error.response.headers.items()}
        secrets = _longest_first(error.request)  # a message is shortened, and might then end in the half of one
        mapped = failure(error.status_code, _hidden(_body(error), secrets), headers=headers)
        if is_cut(error.response):
            mapped.args = (f"{mapped} (the error is larger than {LARGEST_REFUSAL >> 20} MiB, and was read no further)",)
    elif isinstance(error, (openai.APITimeoutError, *transport_errors("TimeoutException"))):
        mapped = RequestTimeoutError(f"no answer within the timeout ({_words(error)})")
    else:
        mapped = ServiceError(f"the connection failed: {_words(error)}")
    if isinstance(error, openai.APIError):
        hide_keys(error.request, mapped, error)
    return mapped


def hide_keys(request: Any, *errors: BaseException) -> None:
    """Take the keys out of the words of a server that repeats them, in errors and all their causes."""
    secrets = _longest_first(request)
    for error in errors:
        for each in _with_causes(error):
            each.args = tuple(_hidden(word, secrets) for word in each.args)
            for name in TOLD:
                if hasattr(each, name):
                    setattr(each, name, _hidden(getattr(each, name), secrets))


def _longest_first(request: Any, shortest: int = SHORTEST) -> list[str]:
    return sorted(keys_of(request, shortest), key=lambda key: (-len(key), key))


def _with_causes(error: BaseException | None) -> Iterator[BaseException]:
    seen: list[BaseException] = []
    while error is not None and error not in seen:
        seen.append(error)
        error = error.__cause__ or error.__context__
    yield from seen


def _hidden(value: Any, secrets: list[str]) -> Any:
    """Return plain data without the keys."""
    if isinstance(value, str):
        for secret in secrets:
            value = value.replace(secret, MASK)
    elif isinstance(value, (bytes, bytearray)):
        for secret in secrets:
            value = value.replace(secret.encode(), MASK.encode())
    elif isinstance(value, dict):
        return {_hidden(name, secrets): _hidden(item, secrets) for name, item in value.items()}
    elif isinstance(value, list):
        return [_hidden(item, secrets) for item in value]
    return value


def keys_of(request: Any, shortest: int) -> set[str]:
    """Return the credentials of a request, whole and without the word before them ("Bearer …").

    :param shortest: the characters of the shortest one that is meant.
    """
    headers, url = request.headers, request.url
    values = {value.decode(headers.encoding) for name, value in headers.raw if _is_secret(name)}
    if url.query:
        values |= {value for name, value in url.params.multi_items() if _is_secret(name.encode())}
    if isinstance(url.password, str):  # that of a mock is none
        values.add(url.password)
    values |= {_credentials(*value.partition(" ")[::2]) for value in values}
    return {value for value in values if len(value) >= shortest}


@lru_cache(maxsize=1024)
def _is_secret(name: bytes) -> bool:
    """Return whether a header or parameter of a name holds a credential."""
    lower = name.lower()
    return any(word.encode() in lower for word in SECRET_NAMES)


def _credentials(scheme: str, value: str) -> str:
    """Return what follows the scheme in a header; of a name and a password, the password."""
    if scheme != "Basic":
        return value
    from base64 import b64decode

    try:
        return b64decode(value).decode().partition(":")[2]
    except ValueError:
        return value


def unmistakable_keys(request: Any) -> list[bytes]:
    """Return those keys of a request that no answer holds by chance: a server that repeats them is answered for.

    A dummy key such as ``ollama`` is a word of many answers.

    :returns: the longest first, as one may hold another ("Bearer …").
    """
    found = _longest_first(request, UNMISTAKABLE)
    return [key.encode() for key in found if any(map(str.isdigit, key)) and any(map(str.isalpha, key))]


def without_keys(body: bytearray, request: Any) -> bytearray:
    """Return an answer without those keys of its request that a server repeated."""
    for key in unmistakable_keys(request):
        body = body.replace(key, MASK.encode())
    return body


def raise_mapped(error: BaseException, endpoint: str) -> NoReturn:
    """Raise the error of the tree, with the SDK's as its cause."""
    mapped = mapped_error(error)
    mapped.endpoint = endpoint
    if mapped is error:
        raise mapped
    raise mapped from error


def _body(error: Any) -> object:
    if is_deep(error.body):
        error.body = None
    if error.body is not None:
        return {"error": error.body} if isinstance(error.body, dict) and "error" not in error.body else error.body
    return error.response.text


def transport_errors(*names: str) -> tuple[type[BaseException], ...]:
    """Return exception classes of the SDK's HTTP library: httpx of openai 2.x, httpx2 of 3.x, or a given client's."""
    libraries = [sys.modules[name] for name in ("httpx", "httpx2") if name in sys.modules]
    return tuple(getattr(library, name) for library in libraries for name in names)


def _words(error: BaseException) -> str:
    cause = error.__cause__ or error
    return f"{type(cause).__name__}: {cause}" if str(cause) else type(cause).__name__
