"""Endpoints: the servers of a pool, and the settings of [Endpoint NAME].

In values, ``${NAME}`` means an environment variable's value, and ``$${NAME}`` the text ``${NAME}``. Any other ``$``
is an ordinary character."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from ..errors import ConfigError
from ..support.lazy_names import pattern
from ..support.notices import warn_once
from . import values
from .setting import checked_fields, settings_of
from .values import MASK, check_credential, refuse, without_password

_REFERENCE = pattern(r"\$(\$?)\{([^{}]*)\}")


def expand(value: str, location: str, lookup: Callable[[str], str | None]) -> str:
    """Return a value with each ``${NAME}`` replaced by the variable's value.

    :param location: file, section and key, for the message.
    :param lookup: returns a variable's value, or ``None`` if it is not set.
    :raises ConfigError: if a variable is not set.
    """

    def value_of(match: re.Match[str]) -> str:
        """Return the value of one reference."""
        if match[1]:
            return match[0][1:]
        replacement = lookup(match[2])
        if not replacement:
            raise ConfigError(f"{location}: the environment variable {match[2]} is not set")
        return replacement

    return _REFERENCE.sub(value_of, value)


class KeyReference(NamedTuple):
    """A key that config.ini writes as ``${NAME}``; calling it returns the key.

    The variable is looked up when the key is used, not when the file is read, because a replay needs no
    key.

    :param reference: the value in the file.
    :param location: file, section and key.
    :param dotenv: the variables of ``.env`` that it names; the environment takes precedence.
    """

    reference: str
    location: str
    dotenv: tuple[tuple[str, str], ...] = ()

    def __call__(self) -> str:
        """Return the key.

        :raises ConfigError: if the variable is not set or holds no key; names file, section, key and
            variable.
        """
        key = expand(
            self.reference,
            self.location,
            lambda name: os.environ.get(name, "").strip() or dict(self.dotenv).get(name),
        )
        return check_credential(key, f"{self.location}, {self.variables}")

    @property
    def variables(self) -> str:
        """Return the names of the variables in words."""
        variable_names = [match[2] for match in _REFERENCE.finditer(self.reference) if not match[1]]
        return " and ".join(f"environment variable {variable}" for variable in variable_names)

    def __repr__(self) -> str:
        return f"KeyReference({self.location!r})"


class Endpoint(NamedTuple):
    """One server of a pool; ``None`` means the value of the settings.

    :param name: the name in ``[Endpoint NAME]``.
    :param models: the models that it serves.
    :param api_type: its client: ``"openai"``, ``"azure"`` or ``"ollama"``; ``"azure"`` if it has an Azure
        endpoint or API version.
    :param api_key: the API key, a function that returns it, or a reference to a variable;
        ``key()`` returns it.
    :param base_url: the address of the API, e.g. ``https://host/v1``.
    :param azure_endpoint: the address of an Azure resource.
    :param azure_api_version: the version of Azure's API, e.g. ``2024-10-21``.
    :param deployment: the name of Azure's deployment, if it differs from the model's.
    :param organization: the organization that is billed.
    :param namespace: a word that separates its cached answers from others.

    >>> west = llmcall.types.Endpoint(
    ...     "west", models=("gpt-6-luna",), base_url="https://west.example.com/v1", api_key="key"
    ... )
    >>> with llmcall.configured(endpoints=(west,)):
    ...     [endpoint.name for endpoint in llmcall.settings().endpoints]
    ['west']
    """

    name: str
    models: tuple[str, ...] = ()
    api_type: str | None = None
    api_key: str | Callable[[], object] | None = None
    base_url: str | None = None
    azure_endpoint: str | None = None
    azure_api_version: str | None = None
    deployment: str | None = None
    organization: str | None = None
    namespace: str | None = None

    @property
    def address(self) -> str | None:
        """Return the address of the Azure resource or of the API, or ``None`` for the client's own."""
        return self.azure_endpoint or self.base_url

    @property
    def is_free(self) -> bool:
        """Return whether the model runs in this process."""
        return self.api_type == "local"

    def key(self) -> str | Callable[[], object] | None:
        """Return the API key or the function that returns it; a reference to a variable is resolved.

        :raises ConfigError: if the variable that config.ini names is not set.
        """
        return self.api_key() if isinstance(self.api_key, KeyReference) else self.api_key

    def masked(self) -> Endpoint:
        """Return a copy without secrets."""
        return self._replace(
            api_key=MASK if self.api_key else None,
            base_url=without_password(self.base_url),
            azure_endpoint=without_password(self.azure_endpoint),
        )

    def __repr__(self) -> str:
        masked = self.masked()
        return f"Endpoint({', '.join(f'{name}={value!r}' for name, value in zip(self._fields, masked, strict=True))})"


ENDPOINT_KEYS = settings_of(
    "Endpoint",
    {
        "models": values.names,
        "api_type": values.one_of("openai", "azure", "ollama"),
        "api_key": values.credential,
        "base_url": values.check_address,
        "azure_endpoint": values.check_address,
        "azure_api_version": values.text,
        "deployment": values.text,
        "organization": values.organization,
        "namespace": values.text,
    },
)


def parse_endpoints(value: object, location: str) -> tuple[Endpoint, ...]:
    """Return checked endpoints.

    :param value: a list of endpoints or of mappings with their fields, or a mapping of fields by name.
    :param location: where it is, for messages.
    :raises ConfigError: if a field is wrong, or two endpoints have one name.
    """
    items: Iterable[tuple[object, object]]
    if isinstance(value, Mapping):
        items = value.items()
    elif isinstance(value, (list, tuple)) and not isinstance(value, Endpoint):
        items = [(None, item) for item in value]
    else:
        refuse(location, value, "a list of endpoints")
    endpoints: dict[str, Endpoint] = {}
    for name, item in items:
        fields = item._asdict() if isinstance(item, Endpoint) else item
        if not isinstance(fields, Mapping):
            refuse(location, item, "an Endpoint")
        name = name or fields.get("name")
        if not isinstance(name, str) or not name.strip():
            raise ConfigError(f"{location}: an endpoint needs a name")
        name, section = name.strip(), f"{location}, [Endpoint {name}]"
        if name in endpoints:
            raise ConfigError(f"{location}: there are two endpoints {name!r}")
        rest = {key: field for key, field in fields.items() if key != "name"}
        checked = checked_fields(ENDPOINT_KEYS, rest, section)
        if checked.get("azure_endpoint") or checked.get("azure_api_version"):
            checked.setdefault("api_type", "azure")
        if not checked.get("models"):
            warn_once(f"{section}: without MODELS this endpoint is never used")
        endpoints[name] = Endpoint(name, **checked)
    return tuple(endpoints.values())
