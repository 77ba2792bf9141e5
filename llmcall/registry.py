"""Which client speaks for which api_type; one shared instance of each."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Any

from .clients.base import LLMClient
from .config import resolve as config
from .errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

    from .config.settings import Settings

__all__ = ["client", "forget_clients", "known_api_types", "register_client"]

ENTRY_POINTS = "llmcall.clients"

_lock = threading.RLock()
_registered: dict[str, LLMClient | Callable[[Settings], LLMClient]] = {}
_shared: dict[str, LLMClient] = {}


def _renew_lock() -> None:
    """Make a lock of a forked process's own: a thread that stayed behind may have held this one."""
    global _lock
    _lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)


def _openai(settings: Settings) -> LLMClient:
    from .clients.openai import OpenAIClient

    return OpenAIClient()


def _azure(settings: Settings) -> LLMClient:
    from .clients.openai import AzureClient

    return AzureClient()


def _ollama(settings: Settings) -> LLMClient:
    from .clients.openai import OllamaClient

    return OllamaClient()


def _local(settings: Settings) -> LLMClient:
    from .clients.local import LocalClient

    return LocalClient()


BUILT_IN: dict[str, Callable[[Settings], LLMClient]] = {
    "openai": _openai, "azure": _azure, "ollama": _ollama, "local": _local,
}  # fmt: skip


def register_client(api_type: str, client: LLMClient | Callable[[Settings], LLMClient]) -> None:
    """Say which client speaks for an api_type, in place of the one that did.

    :param api_type: the name, as in ``[OpenAI] API_TYPE``.
    :param client: a client, or a function of the settings that returns one.
    :raises TypeError: where it is neither, or the name is no string.
    """
    if not isinstance(api_type, str) or not api_type:
        raise TypeError(f"api_type is {api_type!r}; it must be a name")
    if not isinstance(client, LLMClient) and not callable(client):
        raise TypeError(
            f"the client for {api_type!r} is {client!r}; it must be an LLMClient or a function that returns one"
        )
    with _lock:
        _registered[api_type] = client
        _shared.pop(api_type, None)


def client(api_type: str | None = None) -> LLMClient:
    """Return the shared client of an api_type.

    :param api_type: the name; ``None`` means the configured one.
    :raises ConfigError: where nobody speaks for it; the message lists the known ones.
    """
    config.refresh()
    name = api_type or config.settings().api_type
    with _lock:
        found = _shared.get(name)
        if found is None:
            found = _shared[name] = _made(name)
        return found


def _made(name: str) -> LLMClient:
    given = _registered.get(name, BUILT_IN.get(name))
    if given is None:  # a client may be false, as one with a length is
        given = _plugin(name)
    made = given if isinstance(given, LLMClient) else given(config.settings())
    if not isinstance(made, LLMClient):
        raise ConfigError(
            f"what is registered for the api_type {name!r} returned {type(made).__name__}, not an LLMClient"
        )
    return made


def _plugin(name: str) -> Any:
    for point in _entry_points():
        if point.name == name:
            return _loaded(point)
    from difflib import get_close_matches

    known = known_api_types()
    near = get_close_matches(name, known, 1)
    hint = f"; did you mean {near[0]!r}?" if near else "."
    raise ConfigError(f"unknown api_type {name!r}{hint} Known are {', '.join(known)} (register_client adds one)")


def _loaded(point: Any) -> Any:
    try:
        return point.load()
    except (ImportError, AttributeError) as error:
        raise ConfigError(
            f"the plug-in {point.value} for the api_type {point.name!r} cannot be loaded: {error}"
        ) from error


def _entry_points() -> Any:
    from importlib.metadata import entry_points

    return entry_points(group=ENTRY_POINTS)


def known_api_types() -> list[str]:
    """Return the names that :func:`client` takes, plug-ins included, sorted."""
    return sorted({*BUILT_IN, *_registered, *(point.name for point in _entry_points())})


def forget_clients() -> None:
    """Close and forget the shared clients, and what was registered."""
    with _lock:
        clients = list(_shared.values())
        _shared.clear()
        _registered.clear()
    for shared in clients:
        shared.close()
