"""llmcall's errors for exceptions of the openai SDK and its HTTP library."""

from __future__ import annotations

import sys
from typing import Any

from ..config.values import is_loopback
from ..errors import APIError, RequestTimeoutError, ServiceError
from .api_errors import failure
from .masking import mask, masked, secrets_of


def http_errors(name: str) -> tuple[type[BaseException], ...]:
    """Return the exception classes of that name in httpx and httpx2, as far as they are imported."""
    libraries = [sys.modules.get(library) for library in ("httpx", "httpx2")]
    # While another thread imports a library, it may lack the class; then nothing has raised it.
    classes = [getattr(library, name, None) for library in libraries]
    return tuple(each for each in classes if each is not None)


def http_library() -> Any:
    """Return the installed SDK's HTTP library: httpx for openai 2.x, httpx2 for 3.x."""
    # openai 3 looks for httpx in sys.modules for each request, and fails while another thread
    # imports it.
    import httpx  # noqa: F401
    import openai

    base_class = next(
        each for each in openai.DefaultHttpxClient.__mro__ if each.__name__ == "Client"
    )
    return sys.modules[base_class.__module__.partition(".")[0]]


def mapped_error(error: BaseException, url: str) -> APIError:
    """Return llmcall's error for an exception of the SDK or its HTTP library, without secrets.

    :param url: the request's address, for the message.
    """
    import openai

    if isinstance(error, APIError):
        return error
    secrets: list[str] = []
    if isinstance(error, openai.APIError):
        secrets = secrets_of(error.request)
        mask(error, secrets)  # it is the cause of ours, and shown with it
    if isinstance(error, openai.APIStatusError):
        body = masked(error.response.text, secrets) if error.body is None else error.body
        if isinstance(body, dict) and "error" not in body:
            body = {"error": body}
        headers = {name.lower(): value for name, value in error.response.headers.items()}
        return failure(error.status_code, body, headers=headers)
    cause = error.__cause__ or error
    description = masked(
        f"{type(cause).__name__}: {cause}" if str(cause) else type(cause).__name__, secrets
    )
    if isinstance(error, (openai.APITimeoutError, *http_errors("TimeoutException"))):
        return RequestTimeoutError(f"no answer from {url} within the timeout ({description})")
    return connection_error(cause, url, description.removesuffix("."))


def connection_error(error: BaseException, url: str, description: str) -> ServiceError:
    """Return the error for a server that cannot be reached, or whose connection broke.

    :param description: what happened.
    """
    service_error = ServiceError(
        f"the connection failed: {description.rstrip('.')}. Is the server at {url} running, and is that its address?"
    )
    service_error.is_loopback_unreachable = is_loopback(url) and isinstance(
        error, http_errors("ConnectError")
    )
    return service_error
