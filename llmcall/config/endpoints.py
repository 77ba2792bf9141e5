"""A server that answers for some models."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from .references import KeyReference
from .values import MASK, host_of, is_loopback, without_password

__all__ = ["Endpoint", "host_of", "is_loopback"]


class Endpoint(NamedTuple):
    """Describe one server of a pool; ``None`` means what the settings say.

    :param name: the name in ``[Endpoint NAME]``.
    :param models: the models that it answers for.
    :param api_type: the client that speaks to it; ``"azure"`` where an Azure endpoint or API version is given.
    :param api_key: the key, a function that returns it, or a reference to a variable; read it by ``key()``.
    :param base_url: the address of the API, e.g. ``https://host/v1``.
    :param azure_endpoint: the address of an Azure resource.
    :param azure_api_version: the version of Azure's API, e.g. ``2024-10-21``.
    :param deployment: the name of Azure's deployment, where it differs from the model's.
    :param organization: the organization that is billed.
    :param namespace: what its cached answers are kept apart by.
    """

    name: str
    models: tuple[str, ...] = ()
    api_type: str | None = None
    api_key: str | Callable[[], Any] | None = None
    base_url: str | None = None
    azure_endpoint: str | None = None
    azure_api_version: str | None = None
    deployment: str | None = None
    organization: str | None = None
    namespace: str | None = None

    def key(self) -> str | Callable[[], Any] | None:
        """Return the key, or the function that gives it; a reference to a variable is looked up.

        :raises ConfigError: if the variable that config.ini names is not set.
        """
        return self.api_key() if isinstance(self.api_key, KeyReference) else self.api_key

    def masked(self) -> Endpoint:
        """Return a copy that holds no secret and may be shown."""
        return self._replace(
            api_key=MASK if self.api_key else None,
            base_url=without_password(self.base_url),
            azure_endpoint=without_password(self.azure_endpoint),
        )

    def __repr__(self) -> str:
        shown = self.masked()
        return f"Endpoint({', '.join(f'{name}={value!r}' for name, value in zip(self._fields, shown, strict=True))})"
