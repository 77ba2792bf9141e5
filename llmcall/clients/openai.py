"""The clients for OpenAI, Azure OpenAI, and every compatible server."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from ..additions import additions
from ..config import resolve as config
from ..config.endpoints import Endpoint
from ..config.setting import Rank
from ..config.values import check_address, host_of, is_loopback
from ..errors import ConfigError
from .base import LLMClient

if TYPE_CHECKING:
    from collections.abc import Mapping

    from typing_extensions import Self

    from ..config.settings import Settings
    from ..core.seams import Sends
    from ..keys.request import Data
    from ..traffic.sites import Site
    from .sdk import SDKTransport

# as of openai 3.52, Ollama 0.12
ADDRESSES = {"openai": "https://api.openai.com/v1", "ollama": "http://localhost:11434/v1"}
# Azure OpenAI documentation, "Microsoft Entra ID"
ENTRA_SCOPE = "https://cognitiveservices.azure.com/.default"
# The SDK requires a key. This one is sent to a server on this machine that needs none, and is a
# placeholder if a function returns the key for each request.
NO_KEY = "no key needed"


class OpenAIClient(LLMClient):
    """A client for OpenAI, or for any OpenAI-compatible server (``base_url``).

    :param settings: settings to use instead of the process's.
    :param http_client: the SDK's HTTP client (``httpx2.Client`` for openai 3.x, ``httpx.Client``
        for 2.x, or their asynchronous twins). You close it yourself.
    :param overrides: settings by name, which override the process's: ``model=``, ``api_key=``,
        ``base_url=``, ….

    >>> client = llmcall.OpenAIClient(base_url="http://localhost:8000/v1", model="qwen3-8b")
    >>> client.build_request("Good morning!").model
    'qwen3-8b'
    """

    api_type: ClassVar[str] = "openai"

    def __init__(
        self, settings: Settings | None = None, *, http_client: object = None, **overrides: Any
    ) -> None:
        self._http_client = http_client
        super().__init__(settings, **overrides)

    def endpoints(self, model: str) -> list[Endpoint]:
        """Return the ``[Endpoint …]`` sections that list a model, or else the settings' endpoint."""
        if configured := self._configured_endpoints(model):
            return [*map(self._filled, configured)]
        endpoint = self._filled(Endpoint(self.api_type, (model,), self.api_type))
        return [endpoint._replace(name=self.host(endpoint) or self.api_type)]

    def _filled(self, endpoint: Endpoint) -> Endpoint:
        """Return an endpoint with the settings' values for what it does not name. The address in the settings is that
        of the configured client.
        """
        settings, api_type = self.settings, endpoint.api_type or self.api_type
        base_url, azure_endpoint = endpoint.base_url, endpoint.azure_endpoint
        version = endpoint.azure_api_version
        if api_type == "azure":
            version = version or settings.azure_api_version
            azure_endpoint = azure_endpoint or (None if base_url else settings.azure_endpoint)
        elif api_type == self.api_type:
            base_url = base_url or settings.base_url
        return endpoint._replace(
            api_key=endpoint.api_key or settings.key_and_origin(api_type).value,
            base_url=base_url,
            azure_endpoint=azure_endpoint,
            azure_api_version=version,
            organization=endpoint.organization or settings.organization,
        )

    def _configured_endpoints(self, model: str) -> list[Endpoint]:
        if self._has_own_address():
            return []
        return [endpoint for endpoint in self.settings.endpoints if model in endpoint.models]

    def _has_own_address(self) -> bool:
        """Return whether an argument names the address of this client alone."""
        addresses = map(self.settings.setting_value, ("base_url", "azure_endpoint"))
        return any(address.rank is Rank.ARGUMENT for address in addresses)

    def wire(self, body: Mapping[str, Data], site: Site) -> str:
        """Return the API (wire) that a body goes to, as ``API`` says.

        ``auto`` is chat completions, and the Responses API only
        if Chat Completions cannot do it: a model that only the Responses API serves, or tools
        while the model reasons.

        :param site: the model's.
        """
        wire = site.settings.api
        if "messages" not in body:
            return "chat"
        if wire == "auto":
            has_tools = body.get("tools") and body.get("reasoning_effort") != "none"
            needs_responses = site.capabilities.only_on_responses or (
                has_tools and site.capabilities.tools_on_responses
            )
            wire = "responses" if needs_responses else "chat"
        return wire

    def host(self, endpoint: Endpoint) -> str:
        """Return an endpoint's host, without port or credentials."""
        return host_of(endpoint.address or self._default_address(endpoint))

    def _default_address(self, endpoint: Endpoint) -> str:
        api_type = endpoint.api_type or self.api_type
        return "" if api_type == "azure" else ADDRESSES.get(api_type, ADDRESSES["openai"])

    def namespace(self, model: str) -> str:
        """Return the namespace of a model's endpoints, or the one in an open cassette's header, or the
        cache's.

        :raises ConfigError: if a model's endpoints name different ones.
        """
        settings = self.resolved.settings
        of_cache = settings.cache_namespace
        recorded_namespaces = settings.setting_value("_namespaces").value
        if recorded_namespaces is None and not settings.endpoints:
            return of_cache
        if (
            recorded_namespaces is not None
            and not self._has_own_address()
            and settings.setting_value("endpoints").rank < Rank.CONFIGURED
        ):
            return recorded_namespaces.get(model, "") or of_cache
        names = {endpoint.namespace or "" for endpoint in self._configured_endpoints(model)} or {""}
        if len(names) > 1:
            raise ConfigError(
                f"the endpoints of {model} have different namespaces ({', '.join(sorted(map(repr, names)))}), "
                "and any of them may answer: give all of them the same NAMESPACE"
            )
        return names.pop() or of_cache

    def make_transport(self, endpoint: Endpoint) -> Self | Sends:
        """Return a transport that reaches an endpoint through the SDK, or this client if its class defines
        ``send``.

        :raises ConfigError: if its address is wrong, or its key or another setting is missing.
        """
        from .user_transports import unless_own  # not needed for a recorded answer

        return unless_own(self, partial(self._sdk_transport, endpoint))

    def _sdk_transport(self, endpoint: Endpoint) -> SDKTransport:
        from .sdk import Hidden, SDKTransport

        is_azure = (endpoint.api_type or self.api_type) == "azure"
        if is_azure:
            address, version = self._azure_address(endpoint)
            arguments: dict[str, Any] = {"azure_endpoint": address.url, "api_version": version}
            arguments["azure_deployment"] = endpoint.deployment
            key_argument, key = self._azure_sign_in(endpoint)
        else:
            address = _address(endpoint.base_url or self._default_address(endpoint), "BASE_URL")
            arguments = {"base_url": address.url}
            key_argument, key = "api_key", self._key(endpoint)
        config.announce_key_destination(self.settings, endpoint)
        # The transport calls a function for each request, and puts what it returns into the header.
        token = key if callable(key) else None
        arguments[key_argument] = Hidden(key if key and token is None else NO_KEY)
        arguments["organization"] = endpoint.organization
        arguments["default_headers"] = {
            name: Hidden(value) for name, value in address.headers.items()
        }
        arguments["default_query"] = address.query
        return SDKTransport(
            "AzureOpenAI" if is_azure else "OpenAI",
            arguments,
            address.url,
            token=token,
            http_client=self._http_client,
            deployment=endpoint.deployment,
        )

    def _key(self, endpoint: Endpoint) -> object:
        """Return an endpoint's key or a function that returns it; ``None`` if it needs none."""
        key = endpoint.key()
        if not key:
            # In a notebook, a user who reads the error below sets the key and calls again.
            config.refresh()
            settings = self.settings
            addresses = [settings.base_url, *(listed.base_url for listed in settings.endpoints)]
            if endpoint.base_url in addresses:  # other settings may hold where a stream is read
                key = config.key_for(settings, endpoint.api_type or self.api_type)
        if not key and not is_loopback(endpoint.base_url or self._default_address(endpoint)):
            remedy = additions("remedies").get("a missing key")
            raise ConfigError(
                f"no API key for {self.host(endpoint)} (looked in the environment; {config.file_summary()}). "
                "Set OPENAI_API_KEY or pass api_key=" + (f". {remedy}" if remedy else "")
            )
        return key

    def _azure_address(self, endpoint: Endpoint) -> tuple[ServerAddress, str]:
        """Return an endpoint's address at Azure and its API version."""
        version = endpoint.azure_api_version
        if not endpoint.address:
            raise ConfigError(
                "no Azure endpoint: set AZURE_OPENAI_ENDPOINT, or AZURE_ENDPOINT in config.ini"
            )
        if not version:
            raise ConfigError(
                f"no API version for {endpoint.name}: set OPENAI_API_VERSION, or AZURE_API_VERSION in config.ini "
                "(such as 2024-10-21)"
            )
        return _address(endpoint.address, "AZURE_ENDPOINT"), version

    def _azure_sign_in(self, endpoint: Endpoint) -> tuple[str, object]:
        """Return the SDK's argument for a key or a token, and its value or a function that returns
        it.
        """
        if key := endpoint.key():
            return ("azure_ad_token" if callable(key) else "api_key"), key
        token = self.settings.azure_ad_token_provider or self.settings.azure_ad_token
        return "azure_ad_token", token or _entra_token_provider(endpoint)


class AzureClient(OpenAIClient):
    """A client for Azure OpenAI, with a key, or with Entra ID (extra ``azure``, or
    ``azure_ad_token_provider=``).

    >>> client = llmcall.AzureClient(
    ...     azure_endpoint="https://east.openai.azure.com", azure_api_version="2024-10-21", api_key="my-key",
    ...     model="gpt-6-luna",
    ... )
    >>> client.build_request("Good morning!").model
    'gpt-6-luna'
    """

    api_type: ClassVar[str] = "azure"


class OllamaClient(OpenAIClient):
    """A client of Ollama at ``http://localhost:11434/v1``, or at ``base_url``. It needs no key."""

    api_type: ClassVar[str] = "ollama"


class ServerAddress(NamedTuple):
    """A server's address: its URL without credentials and query, the header that signs in, and the
    query.
    """

    url: str
    headers: dict[str, str]
    query: dict[str, str]


def _address(url: str, setting: str) -> ServerAddress:
    """Split an address. HTTP libraries log URLs, so user and password become a header.

    :param setting: the setting that names it.
    :raises ConfigError: if no server can have it.
    """
    from base64 import b64encode
    from urllib.parse import parse_qsl, unquote_to_bytes, urlsplit

    parts = urlsplit(check_address(url, setting))
    user, separator, host = parts.netloc.rpartition("@")
    name, _, password = user.partition(":")
    encoded = b64encode(unquote_to_bytes(name) + b":" + unquote_to_bytes(password)).decode()
    return ServerAddress(
        parts._replace(netloc=host, query="", fragment="").geturl(),
        {"Authorization": f"Basic {encoded}"} if separator else {},
        dict(parse_qsl(parts.query, keep_blank_values=True)),
    )


def _entra_token_provider(endpoint: Endpoint) -> object:
    """Return a function that returns tokens from Entra ID."""
    try:
        from ..support.libraries import azure
    except ImportError as error:
        raise ConfigError(
            f"cannot sign in to {endpoint.name}: set AZURE_OPENAI_API_KEY, pass azure_ad_token_provider=, "
            "or install the extra 'azure' (azure-identity) for Entra ID"
        ) from error
    credential = azure.identity.DefaultAzureCredential()
    return azure.identity.get_bearer_token_provider(credential, ENTRA_SCOPE)
