"""The client of OpenAI's API and of every server compatible with it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..cassettes import cassette as cassettes
from ..config import resolve as config
from ..config.settings import CONFIGURED
from ..errors import ConfigError
from .base import LLMClient

if TYPE_CHECKING:
    from typing import ClassVar

    from ..config.settings import Endpoint, Settings
    from .sdk import SDKTransport

__all__ = ["OpenAIClient"]

HOST = "api.openai.com"
ADDRESS = f"https://{HOST}/v1"  # openai 3.51, OpenAI.__init__
NO_KEY = "no key needed"  # what a loopback server is sent; the SDK insists on a text


class OpenAIClient(LLMClient):
    """Call OpenAI, or any OpenAI-compatible server through ``base_url``.

    :param settings: what the client stands on instead of the process's settings.
    :param http_client: the SDK's HTTP client (``httpx2.Client`` for openai 3.x, ``httpx.Client`` for 2.x).
    :param overrides: settings by name, above the process's: ``model=``, ``api_key=``, ``base_url=``, ….
    """

    api_type: ClassVar[str] = "openai"

    def __init__(self, settings: Settings | None = None, *, http_client: Any = None, **overrides: Any) -> None:
        self._http_client = http_client
        super().__init__(settings, **overrides)

    def endpoints(self, model: str) -> list[Endpoint]:
        """Return the ``[Endpoint …]`` sections that list a model, or the one endpoint of the settings."""
        return self._pooled(model) or [self._configured(self.settings, model)]

    def _pooled(self, model: str) -> list[Endpoint]:
        settings = self.settings
        if not settings.endpoints or self._overrides.keys() & {"base_url", "azure_endpoint"}:
            return []
        return [endpoint for endpoint in settings.endpoints if model in endpoint.models]

    def hosts(self, model: str) -> set[str]:
        """Return the hosts of the endpoints that serve a model."""
        pooled = self._pooled(model)
        return {self.host(endpoint) for endpoint in pooled} if pooled else {self._own_host()}

    def _own_host(self) -> str:
        """Return the host of the one endpoint of the settings, without making that, which takes longer."""
        settings = self.settings
        url = settings.azure_endpoint if self.api_type == "azure" else settings.base_url
        if url is None:
            return HOST
        from ..config.values import host_of

        return host_of(url)

    def _configured(self, settings: Settings, model: str) -> Endpoint:
        endpoint = config.Endpoint(
            name=self.api_type,
            models=(model,),
            api_type=self.api_type,
            api_key=config.key_for(settings, self.api_type),
            base_url=settings.base_url,
            organization=settings.organization,
        )
        return endpoint._replace(name=self.host(endpoint))

    def namespace(self, model: str) -> str:
        """Return the namespace of the model's endpoints, else the cache's.

        :raises ConfigError: where endpoints of one model name different ones.
        """
        names = self._namespaces(model)
        if len(names) > 1:
            raise ConfigError(
                f"the endpoints of {model} name different namespaces ({', '.join(sorted(map(repr, names)))}): "
                "any of them may answer, so one NAMESPACE must serve all"
            )
        return names.pop() or super().namespace(model)

    def _namespaces(self, model: str) -> set[str]:
        """Return those of the model's endpoints, or what a cassette's header holds in place of files."""
        held = cassettes.header_namespaces()
        by_code = self._overrides.keys() & {"base_url", "azure_endpoint", "endpoints"}
        if held is None or by_code or self.settings.origin_of("endpoints").rank >= CONFIGURED:
            return {endpoint.namespace or "" for endpoint in self._pooled(model)} or {""}
        return {held.get(model, "")}

    def host(self, endpoint: Endpoint) -> str:
        """Return the host of an endpoint, without port or credentials."""
        from ..config.values import host_of

        return host_of(endpoint.azure_endpoint or endpoint.base_url or ADDRESS)

    def make_transport(self, endpoint: Endpoint) -> Any:
        """Return what speaks to an endpoint through the SDK."""
        if self.transport is not None:
            return super().make_transport(endpoint)
        if endpoint.api_type == "azure" and self.api_type != "azure":
            from .azure_transport import azure_transport

            return azure_transport(endpoint, self.settings, self._http_client)
        return self._openai_transport(endpoint)

    def _openai_transport(self, endpoint: Endpoint) -> SDKTransport:
        from .bearer import signed_in
        from .sdk import SDKTransport, fitting

        key = self._key(endpoint)
        config.announce_key_destination(self.settings, endpoint)
        address, headers = signed_in(endpoint.base_url or ADDRESS)

        def make(asynchronous: bool) -> Any:
            """Make an SDK client."""
            import openai

            return (openai.AsyncOpenAI if asynchronous else openai.OpenAI)(
                api_key=NO_KEY if callable(key) or not key else key,
                base_url=address,
                default_headers=headers,
                organization=endpoint.organization,
                max_retries=0,
                http_client=fitting(self._http_client, asynchronous),
            )

        return SDKTransport(make, endpoint.name, key if callable(key) else None, lent=self._http_client)

    def _key(self, endpoint: Endpoint) -> Any:
        key = endpoint.key() or self._fresh_key()
        if not key and not config.is_loopback(endpoint.base_url or ADDRESS):
            raise ConfigError(
                f"no key for {self.host(endpoint)}: set the environment variable "
                f"{config.key_variable(self.api_type)}, or pass api_key="
            )
        return key

    def _fresh_key(self) -> Any:
        """Look again: whoever is told in a notebook that a key is missing sets it there, and calls once more."""
        config.refresh()
        return config.key_for(self.settings, self.api_type)
