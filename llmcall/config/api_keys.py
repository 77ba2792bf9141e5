"""Which key goes with a client, and a warning before it goes to a host that the user may not know of."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..notices import warn_once
from .endpoints import Endpoint, host_of, is_loopback
from .layers import DOTENV, ENVIRONMENT, FOUND_FILE, Origin
from .references import KeyReference

if TYPE_CHECKING:
    from .settings import Settings

__all__ = ["announce_key_destination", "key_for", "key_variable"]


def key_variable(api_type: str) -> str:
    """Return the environment variable that the SDK reads a client's key from.

    :param api_type: ``"azure"`` has one of its own; every other type has OpenAI's.
    """
    return "AZURE_OPENAI_API_KEY" if api_type == "azure" else "OPENAI_API_KEY"


def key_for(settings: Settings, api_type: str | None = None) -> str | Callable[[], Any] | None:
    """Return the key for a client, the function that gives it, or ``None``.

    A key from the settings (``api_key=``, ``LLMCALL_API_KEY``, ``API_KEY`` in config.ini) goes before the SDK's
    variable unless its layer is lower.

    :param api_type: ``None`` is the configured one.
    :raises ConfigError: if config.ini refers to a variable that is not set.
    """
    key, _ = settings.key_and_origin(api_type)
    return key() if isinstance(key, KeyReference) else key


def announce_key_destination(settings: Settings, target: Endpoint | str | None = None) -> None:
    """Warn once per host before a key from the environment goes to a host that a found config.ini names.

    A config.ini comes with a project, perhaps a stranger's, and is found without being asked for. Loopback hosts are
    not announced, nor those that the environment, code or the file of ``LLMCALL_CONFIG`` names.

    :param settings: the client's settings.
    :param target: the endpoint or the base address that is about to be called; ``None`` is the settings' own.
    """
    url, named_by = _destination(settings, target)
    if url is None or named_by.rank != FOUND_FILE or is_loopback(url):
        return
    source = _environment_key(settings, target)
    if source is not None:
        host = host_of(url)
        message = f"the key from {source} goes to the host {host}, which {named_by.text} names"
        warn_once(message, about=("key destination", host))


def _destination(settings: Settings, target: Endpoint | str | None) -> tuple[str | None, Origin]:
    """Return the address and who named it; an address that is in no setting counts as named by code."""
    if isinstance(target, Endpoint):
        wanted = target.azure_endpoint or target.base_url
        if _listed(settings, target) is not None and wanted:
            return wanted, settings.origin_of("endpoints")
    else:
        wanted = target
    names = ("azure_endpoint", "base_url") if _api_type(settings, target) == "azure" else ("base_url", "azure_endpoint")
    for name in names:
        url = getattr(settings, name)
        if url and wanted in (None, url):
            return url, settings.origin_of(name)
    return None, settings.origin_of("base_url")


def _listed(settings: Settings, endpoint: Endpoint) -> Endpoint | None:
    """Return the endpoint of this name and address in the settings; a client may have made one of its own."""
    address = endpoint.azure_endpoint, endpoint.base_url
    for each in settings.endpoints:
        if each.name == endpoint.name and (each.azure_endpoint, each.base_url) == address:
            return each
    return None


def _environment_key(settings: Settings, target: Endpoint | str | None) -> str | None:
    """Say where in the environment the key is, or return ``None`` if it is not from there."""
    listed = _listed(settings, target) if isinstance(target, Endpoint) else None
    if listed is not None and listed.api_key is not None:
        return _variables_of(listed.api_key)
    api_type = _api_type(settings, target)
    key, origin = settings.key_and_origin(api_type)
    if key is None and api_type == "azure":
        key, origin = settings.azure_ad_token, settings.origin_of("azure_ad_token")
    return _variables_of(key) or (origin.text if origin.rank in (DOTENV, ENVIRONMENT) else None)


def _variables_of(key: object) -> str | None:
    return key.variables if isinstance(key, KeyReference) else None


def _api_type(settings: Settings, target: Endpoint | str | None) -> str:
    return (target.api_type if isinstance(target, Endpoint) else None) or settings.api_type
