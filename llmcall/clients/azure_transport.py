"""What speaks to an Azure endpoint: its address, its version, and the ways to sign in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..config import resolve as config
from ..errors import ConfigError
from .bearer import Hidden, signed_in
from .sdk import SDKTransport, fitting

if TYPE_CHECKING:
    from ..config.settings import Endpoint, Settings

__all__ = ["azure_transport"]

ENTRA_SCOPE = "https://cognitiveservices.azure.com/.default"  # Azure OpenAI documentation, "Microsoft Entra ID"


def azure_transport(endpoint: Endpoint, settings: Settings, http_client: Any) -> SDKTransport:
    """Return what speaks to an Azure endpoint.

    :raises ConfigError: where the address, the API version, or every way of signing in is missing.
    """
    address, version = (
        endpoint.azure_endpoint or endpoint.base_url,
        endpoint.azure_api_version or settings.azure_api_version,
    )
    if not address:
        raise ConfigError("no Azure endpoint: set AZURE_OPENAI_ENDPOINT, or AZURE_ENDPOINT in config.ini")
    if not version:
        raise ConfigError(
            f"no API version for {endpoint.name}: set OPENAI_API_VERSION, or AZURE_API_VERSION in config.ini "
            "(such as 2024-10-21)"
        )
    key = _key(endpoint, settings)
    config.announce_key_destination(settings, endpoint)
    # A token goes into each request's header; the SDK still insists on one of its own.
    sign_in = {"azure_ad_token": "asked before each attempt"} if callable(key) else key
    bare, headers = signed_in(address)

    def make(asynchronous: bool) -> Any:
        """Make an SDK client."""
        import openai

        return (openai.AsyncAzureOpenAI if asynchronous else openai.AzureOpenAI)(
            azure_endpoint=bare,
            default_headers=headers,
            api_version=version,
            azure_deployment=endpoint.deployment,
            organization=endpoint.organization,
            max_retries=0,
            http_client=fitting(http_client, asynchronous),
            **sign_in,
        )

    return SDKTransport(make, endpoint.name, key if callable(key) else None, lent=http_client)


def _key(endpoint: Endpoint, settings: Settings) -> Any:
    """Return how to sign in: a function that gives tokens, or the SDK's argument for a key or a token."""
    key = endpoint.key() or config.key_for(settings, "azure")
    if key:
        return key if callable(key) else {"api_key": Hidden(key)}
    if settings.azure_ad_token_provider:
        return settings.azure_ad_token_provider
    return {"azure_ad_token": Hidden(settings.azure_ad_token)} if settings.azure_ad_token else _entra(endpoint)


def _entra(endpoint: Endpoint) -> Any:
    try:
        from azure.identity import DefaultAzureCredential, get_bearer_token_provider
    except ImportError as error:
        raise ConfigError(
            f"no way to sign in to {endpoint.name}: set AZURE_OPENAI_API_KEY, pass azure_ad_token_provider=, "
            "or install the extra 'azure' (azure-identity) for Entra ID"
        ) from error
    return get_bearer_token_provider(DefaultAzureCredential(), ENTRA_SCOPE)
