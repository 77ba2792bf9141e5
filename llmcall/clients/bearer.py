"""The headers that sign in: by a key that a function gives, asked before every attempt; by a name in an address."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Hidden", "abearer", "bearer", "signed_in"]


def bearer(key: Callable[[], Any] | None) -> dict[str, str]:
    """Return the header with a fresh token, or no header where the key is no function.

    :param key: a function, sync or async, that returns the token.
    :raises ConfigError: where it returns anything but a text.
    """
    if key is None:
        return {}
    token = key()
    return _header(_run(token) if inspect.isawaitable(token) else token)


async def abearer(key: Callable[[], Any] | None) -> dict[str, str]:
    """Return the header with a fresh token, as :func:`bearer`, in the running event loop."""
    if key is None:
        return {}
    token = key()
    return _header(await token if inspect.isawaitable(token) else token)


class Hidden(str):
    """Be a text that does not show: what reports a failed test may print the local variables of every function."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'…'"


def _header(token: Any) -> dict[str, str]:
    if not isinstance(token, str) or not token:
        raise ConfigError(f"the api_key function returned {type(token).__name__}; it must return the token as a text")
    return {"Authorization": Hidden(f"Bearer {token}")}


def _run(awaitable: Any) -> Any:
    """Await in an event loop of its own, in a thread of its own: this one may run a loop already."""
    import asyncio
    from concurrent.futures import ThreadPoolExecutor

    async def awaited() -> Any:
        """Await it in an event loop of its own."""
        return await awaitable

    with ThreadPoolExecutor(1) as executor:
        return executor.submit(asyncio.run, awaited()).result()


def signed_in(address: str) -> tuple[str, dict[str, str]]:
    """Return an address without user and password, and the header that signs in with them, where it has any.

    HTTP libraries write the addresses that they send to into their logs.
    """
    if "@" not in address:
        return address, {}
    from base64 import b64encode
    from urllib.parse import unquote_to_bytes, urlsplit

    parts = urlsplit(address)
    user, at, host = parts.netloc.rpartition("@")
    if not at:
        return address, {}
    name, _, password = user.partition(":")
    encoded = b64encode(unquote_to_bytes(name) + b":" + unquote_to_bytes(password)).decode()
    return parts._replace(netloc=host).geturl(), {"Authorization": Hidden(f"Basic {encoded}")}
