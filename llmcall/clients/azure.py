"""The client of Azure OpenAI."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from ..config import resolve as config
from .azure_transport import azure_transport
from .openai import OpenAIClient

if TYPE_CHECKING:
    from ..config.settings import Endpoint, Settings

__all__ = ["AzureClient"]


class AzureClient(OpenAIClient):
    """Call Azure OpenAI with a key, or with Entra ID (extra ``azure``, or ``azure_ad_token_provider=``)."""

    api_type: ClassVar[str] = "azure"

    def _configured(self, settings: Settings, model: str) -> Endpoint:
        endpoint = config.Endpoint(
            name="azure",
            models=(model,),
            api_type="azure",
            api_key=config.key_for(settings, "azure"),
            azure_endpoint=settings.azure_endpoint,
            azure_api_version=settings.azure_api_version,
            organization=settings.organization,
        )
        return endpoint._replace(name=self.host(endpoint) if settings.azure_endpoint else "azure")

    def make_transport(self, endpoint: Endpoint) -> Any:
        """Return what speaks to an endpoint through the SDK."""
        if self.transport is not None or endpoint.api_type != "azure":
            return super().make_transport(endpoint)
        return azure_transport(endpoint, self.settings, self._http_client)
