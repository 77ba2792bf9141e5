"""What the SDK and its HTTP library raise, as errors of the tree, without the keys that a server may repeat."""

from __future__ import annotations

import sys
from typing import Any, NoReturn

from ..answers.nesting import is_deep
from ..answers.raw_stream import secrets_of
from ..errors import APIError, RequestTimeoutError, ServiceError
from .failures import failure

__all__ = ["failures", "hide_keys", "mapped_error", "raise_mapped"]


def failures() -> tuple[type[BaseException], ...]:
    """Return the exceptions that :func:`mapped_error` maps."""
    import openai

    return (openai.APIError, APIError, *_transport_errors("TransportError", "DecodingError"))


def mapped_error(error: BaseException) -> APIError:
    """Return the error of the tree for one of the SDK's or of its HTTP library's."""
    import openai

    if isinstance(error, APIError):
        return error
    if isinstance(error.__cause__, APIError):
        return error.__cause__  # up to 3.0 the SDK takes what is raised while it sends for a failed connection
    if isinstance(error, openai.APIStatusError):
        headers = {name.lower(): value for name, value in error.response.headers.items()}
        mapped = failure(error.status_code, _body(error), headers=headers)
    elif isinstance(error, (openai.APITimeoutError, *_transport_errors("TimeoutException"))):
        mapped = RequestTimeoutError(f"no answer within the timeout ({_words(error)})")
    else:
        mapped = ServiceError(f"the connection failed: {_words(error)}")
    if isinstance(error, openai.APIError):
        hide_keys(error.request, mapped, error)
    return mapped


def hide_keys(request: Any, *errors: BaseException) -> None:
    """Take the keys out of the words of a server that repeats them, and out of the SDK's words of it."""
    secrets = sorted(secrets_of(request), key=len, reverse=True)

    def hidden(value: Any) -> Any:
        """Return plain data without the keys."""
        if isinstance(value, str):
            for secret in secrets:
                value = value.replace(secret, "…")
        elif isinstance(value, dict):
            return {hidden(name): hidden(item) for name, item in value.items()}
        elif isinstance(value, list):
            return [hidden(item) for item in value]
        return value

    for error in errors:
        error.args = tuple(map(hidden, error.args))
        for name in ("message", "body", "code", "param"):
            if hasattr(error, name):
                setattr(error, name, hidden(getattr(error, name)))


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


def _transport_errors(*names: str) -> tuple[type[BaseException], ...]:
    """Return exception classes of the SDK's HTTP library: httpx of openai 2.x, httpx2 of 3.x, or a given client's."""
    libraries = [sys.modules[name] for name in ("httpx", "httpx2") if name in sys.modules]
    return tuple(getattr(library, name) for library in libraries for name in names)


def _words(error: BaseException) -> str:
    cause = error.__cause__ or error
    return f"{type(cause).__name__}: {cause}" if str(cause) else type(cause).__name__
