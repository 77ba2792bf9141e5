"""Redirects: followed on the server that was meant; neither a key nor a prompt follows one to another."""

from __future__ import annotations

from typing import Any

from ..errors import ServiceError

__all__ = ["OF_THE_SDK", "at_home", "hooked"]

MEANT = "llmcall.meant"  # a request's extension, which its redirects inherit: the address that it was made for
OF_THE_SDK = "x-stainless-lang"  # a header of all of the SDK's requests; a user's HTTP client may make others
DEFAULT_PORTS = {"http": 80, "https": 443}


def at_home(sdk: Any, *, asynchronous: bool = False) -> Any:
    """Let an SDK client follow no redirect to another server, and return it.

    HTTP libraries follow a redirect with the whole body, and keep the headers that they do not know to be credentials:
    Azure's ``api-key``, or those that a user adds.
    """
    return hooked(sdk, "request", _acheck if asynchronous else _check)


def hooked(sdk: Any, event: str, hook: Any) -> Any:
    """Let an SDK client's HTTP client call a hook at each event, once where a user lends it several times; return it.

    :param event: ``"request"`` or ``"response"``.
    """
    hooks = sdk._client.event_hooks[event]
    if hook not in hooks:
        hooks.append(hook)
    return sdk


def _check(request: Any) -> None:
    meant = request.extensions.setdefault(MEANT, request.url)
    if meant is not request.url and OF_THE_SDK in request.headers and not _same_server(meant, request.url):
        error = ServiceError(
            f"{meant.host} redirects to another server, {request.url.scheme}://{request.url.netloc.decode('ascii')}; "
            "neither the prompt nor the key follows. If that is the right one, name it as BASE_URL (AZURE_ENDPOINT)"
        )
        error.retryable = False
        raise error


async def _acheck(request: Any) -> None:
    _check(request)


def _same_server(meant: Any, url: Any) -> bool:
    before, after = (meant.scheme, meant.host, _port(meant)), (url.scheme, url.host, _port(url))
    return after in (before, ("https", meant.host, 443) if before == ("http", meant.host, 80) else before)


def _port(url: Any) -> int | None:
    return url.port or DEFAULT_PORTS.get(url.scheme)
