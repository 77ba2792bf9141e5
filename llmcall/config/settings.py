"""The settings as one frozen value."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any

from .endpoints import Endpoint
from .layers import ARGUMENT, CONFIGURED, Layer, Origin, check_setting
from .names import HIDDEN, SETTINGS, Setting, find_setting, setting_named
from .values import MASK, UNSET, without_password

__all__ = ["CONFIGURED", "Endpoint", "Settings", "thawed"]

_FROM_ARGUMENT = Origin(ARGUMENT, "argument")
_SLOTS = {name: "_own_key" if name == "api_key" else name for name in (*SETTINGS, *HIDDEN)}


class Settings:
    """Hold every setting, frozen; two are equal only if they are the same object.

    Times are in seconds, prices in USD per million tokens (in, out). ``None`` means that there is none. ``settings()``
    makes them; ``replace`` gives a changed copy.
    """

    __slots__ = (*_SLOTS.values(), "_origins")

    api_type: str
    model: str
    embedding_model: str
    base_url: str | None
    organization: str | None
    azure_endpoint: str | None
    azure_api_version: str | None
    azure_ad_token: str | Callable[[], Any] | None
    azure_ad_token_provider: Callable[[], Any] | None
    temperature: float | None
    max_tokens: int | None
    top_p: float | None
    frequency_penalty: float | None
    presence_penalty: float | None
    timeout: float
    deadline: float | None
    reasoning_effort: str | None
    on_error: str
    retry_max_attempts: int
    retry_waiting_time: float
    retry_exponential_backoff_factor: float
    retry_max_waiting_time: float
    cache_mode: str
    cache_path: str
    cache_namespace: str
    cache_normalize: tuple[str, ...]
    cassette_path: str | None
    cassette_mode: str
    cassette_allow: tuple[str, ...]
    limits_max_concurrent_calls: int | None
    limits_requests_per_minute: int | None
    limits_tokens_per_minute: int | None
    templates_path: str
    prices: Mapping[str, tuple[float, float]]
    aliases: Mapping[str, str]
    fallbacks: Mapping[str, tuple[str, ...]]
    endpoints: tuple[Endpoint, ...]
    models: Mapping[str, Mapping[str, Any]]
    _own_key: str | Callable[[], Any] | None
    _openai_key: str | None
    _azure_key: str | None
    _origins: Mapping[str, Origin]

    def __init__(self, layer: Mapping[str, tuple[Any, Origin]]) -> None:
        """Take every setting's value and origin; users call ``settings()`` instead."""
        put = object.__setattr__
        for name, slot in _SLOTS.items():
            put(self, slot, _frozen(layer[name][0]))
        put(self, "_origins", {name: layer[name][1] for name in _SLOTS})

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"settings are frozen: use configure({name}=…) or settings().replace({name}=…)")

    def __delattr__(self, name: str) -> None:
        raise AttributeError("settings are frozen")

    @property
    def api_key(self) -> str | Callable[[], Any] | None:
        """Return the key for ``api_type``, the function that gives it, or ``None``."""
        return self.key_and_origin()[0]

    def key_and_origin(self, api_type: str | None = None) -> tuple[str | Callable[[], Any] | None, Origin]:
        """Return the key for a client, as it was given, and where it came from.

        :param api_type: ``None`` is the configured one.
        """
        sdk = "_azure_key" if (api_type or self.api_type) == "azure" else "_openai_key"
        own, other = self._origins["api_key"], self._origins[sdk]
        if getattr(self, sdk) is not None and other.rank > own.rank:
            return getattr(self, sdk), other
        return self._own_key, own

    def origin(self, name: str) -> str:
        """Say where a value came from, e.g. ``"environment variable LLMCALL_MODEL"``.

        :param name: ``"model"``, ``"MODEL"``, ``"[Cache] MODE"`` or ``"LLMCALL_CACHE_MODE"``.
        :raises ValueError: if there is no such setting; the nearest is suggested.
        """
        return self.origin_of(find_setting(name).attribute).text

    def origin_of(self, attribute: str) -> Origin:
        """Return where a value came from, with its layer's rank."""
        return self.key_and_origin()[1] if attribute == "api_key" else self._origins[attribute]

    def replace(self, **overrides: Any) -> Settings:
        """Return settings with some values changed; what is forced stays.

        :param overrides: settings by name, checked like those of any other source; ``None`` leaves a value as it is.
        :raises ConfigError: if a value is of the wrong type.
        :raises TypeError: if there is no such setting.
        """
        return self.changed(overrides, "Settings.replace()")

    def changed(self, overrides: Mapping[str, Any], caller: str) -> Settings:
        """Return settings with some values changed, as :meth:`replace` does.

        :param caller: the function that was given them, for the message.
        """
        changes: Layer = {}
        for name, value in overrides.items():
            row = setting_named(name, caller=caller)
            if value is not None:
                checked = check_setting(row, value, f"argument {name}")
                if checked is not UNSET:
                    changes[name] = (checked, _FROM_ARGUMENT)
        return self.overlaid(changes)

    def overlaid(self, layer: Mapping[str, tuple[Any, Origin]]) -> Settings:
        """Return settings in which a layer's values stand, save where a higher layer decided."""
        origins = self._origins
        changes = {name: value for name, value in layer.items() if value[1].rank >= origins[name].rank}
        return Settings({**self.layer(), **changes}) if changes else self

    def layer(self) -> Layer:
        """Return each setting's value and origin."""
        origins = self._origins
        return {name: (getattr(self, slot), origins[name]) for name, slot in _SLOTS.items()}

    def items(self) -> Iterator[tuple[str, str, str, Any, str]]:
        """Yield of every setting its name in code, section, key, value and origin, in the order of config.ini.

        Secrets are masked; where the whole section is the value, the key is empty.
        """
        for name, row in SETTINGS.items():
            value = _shown(row, getattr(self, name))
            yield name, row.section, row.key, value, self.origin_of(name).text

    def __repr__(self) -> str:
        return f"Settings({', '.join(f'{name}={value!r}' for name, _, _, value, _ in self.items())})"

    def __copy__(self) -> Settings:
        return self

    def __deepcopy__(self, memo: object) -> Settings:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return Settings, ({name: (thawed(value), origin) for name, (value, origin) in self.layer().items()},)


def _frozen(value: Any) -> Any:
    """Make a mapping read-only, and the mappings in it."""
    if isinstance(value, dict):
        return MappingProxyType({name: _frozen(item) for name, item in value.items()})
    return value


def thawed(value: Any) -> Any:
    """Return dicts for read-only mappings, which cannot be pickled."""
    if isinstance(value, MappingProxyType):
        return {name: thawed(item) for name, item in value.items()}
    return value


def _shown(row: Setting, value: Any) -> Any:
    """Return a value without secrets."""
    if row.kind == "secret":
        return None if value is None else MASK
    if row.kind == "endpoints":
        return tuple(endpoint.masked() for endpoint in value)
    if callable(value):
        return "a function"
    return thawed(without_password(value))
