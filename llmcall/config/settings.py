"""The table of all settings, and the frozen object that holds their values.

The table is the class ``Settings`` itself, and what features add to it: a setting's name determines its section and
key, its variable and its argument. The top-level config.ini explains each setting.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ..additions import additions, load
from ..support.arguments import nearest
from . import setting, values
from .cassette_modes import ALIASES, MODES
from .endpoints import Endpoint, parse_endpoints
from .setting import Layer, Rank, Setting, SettingValue
from .values import MASK, UNSET, FrozenDict, integer, number, one_of, without_password

# This is a trick: an attribute of Settings has the type of its value, and is its row of the table until
# __init__ sets it.
_setting: Any = Setting
DEFAULT_MODEL = "gpt-6-luna"
EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh")
AZURE_TOKENS = ("azure_ad_token", "azure_ad_token_provider")
ON_ERROR = ("raise", "none", "return")
CACHE_MODES = ("auto", "replay", "refresh", "off")
# A setting whose name begins with one of these words belongs in that section; the others in [OpenAI].
SECTIONS = ("retry", "cache", "cassette", "limits", "templates")
WHOLE_SECTIONS = {
    "prices": "Prices",
    "aliases": "Aliases",
    "fallbacks": "Fallbacks",
    "endpoints": "Endpoint",
    "models": "Model",
}


class Settings:
    """All settings, frozen. Two are equal only if they are the same object.

    Times are in seconds, prices in USD per million tokens. ``None`` means not set.
    ``settings()`` makes them; ``replace`` gives a changed copy.

    >>> settings = llmcall.settings().replace(model="gpt-6-luna", temperature=0)
    >>> settings.model, settings.retry_max_attempts
    ('gpt-6-luna', 5)
    """

    # The ranges of TOP_P and of the penalties come from OpenAI's API reference, "Create chat completion". It
    # also limits TEMPERATURE to 2, which other servers do not.
    api_type: str = _setting(values.text, "openai")
    api: str = _setting(one_of("auto", "chat", "responses"), "auto")
    model: str = _setting(values.text, DEFAULT_MODEL)
    embedding_model: str = _setting(values.text, "text-embedding-3-small")
    base_url: str | None = _setting(values.check_address)
    api_key: str | Callable[[], object] | None = _setting(values.credential)
    organization: str | None = _setting(values.organization)
    azure_endpoint: str | None = _setting(values.check_address)
    azure_api_version: str | None = _setting(values.text)
    azure_ad_token: str | Callable[[], object] | None = _setting(values.credential)
    azure_ad_token_provider: Callable[[], object] | None = _setting(values.function)
    temperature: float | None = _setting(number(0))
    max_tokens: int | None = _setting(integer(1))
    top_p: float | None = _setting(number(0, 1))
    frequency_penalty: float | None = _setting(number(-2, 2))
    presence_penalty: float | None = _setting(number(-2, 2))
    timeout: float = _setting(values.seconds, 600.0)
    deadline: float | None = _setting(values.seconds)
    reasoning_effort: str | None = _setting(one_of(*EFFORTS))
    service_tier: str | None = _setting(values.text)
    on_error: str = _setting(one_of(*ON_ERROR), "none")
    retry_max_attempts: int = _setting(integer(1), 5)
    retry_waiting_time: float = _setting(number(0), 1.0)
    retry_exponential_backoff_factor: float = _setting(number(0), 2.0)
    retry_max_waiting_time: float = _setting(number(0), 60.0)
    cache_mode: str = _setting(one_of(*CACHE_MODES), "auto")
    cache_path: str = _setting(values.path, ".llmcall/cache")
    cache_namespace: str = _setting(values.text, "")
    cache_normalize: tuple[str, ...] = _setting(values.normalizers, ())
    cassette_path: str | None = _setting(values.path)
    cassette_mode: str = _setting(one_of(*MODES, **ALIASES), "once")
    cassette_allow: tuple[str, ...] = _setting(values.patterns, ())
    limits_max_concurrent_calls: int | str | None = _setting(integer(1, *additions("slots")))
    limits_requests_per_minute: int | None = _setting(integer(1))
    limits_tokens_per_minute: int | None = _setting(integer(1))
    templates_path: str = _setting(values.path, "templates")
    prices: Mapping[str, tuple[float, ...]] = _setting(setting.parse_prices, FrozenDict())
    aliases: Mapping[str, str] = _setting(
        setting.mapping_of(values.text, "[Aliases] {name}"), FrozenDict()
    )
    fallbacks: Mapping[str, tuple[str, ...]] = _setting(
        setting.mapping_of(values.names, "[Fallbacks] {name}"), FrozenDict()
    )
    endpoints: tuple[Endpoint, ...] = _setting(parse_endpoints, ())
    models: Mapping[str, Mapping[str, Any]] = _setting(setting.parse_models, FrozenDict())
    # What features add: ``python docs/_ext/names.py`` writes it, until the next comment.
    context_window: int
    # The end of what features add.
    layer: Layer

    def __init__(self, layer: Layer) -> None:
        """Take every setting's value and origin; users call ``settings()`` instead."""
        attributes = self.__dict__
        attributes.update({name: entry.value for name, entry in layer.items()}, layer=layer)
        attributes["api_key"] = self.key_and_origin().value

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(
            f"settings are frozen: use configure({name}=…) or settings().replace({name}=…)"
        )

    def key_and_origin(self, api_type: str | None = None) -> SettingValue:
        """Return a client's API key and its origin. Return no key if a token for Azure has a higher layer.

        :param api_type: ``None`` is the configured one.
        """
        is_azure = (api_type or self.api_type) == "azure"
        own, sdk = self.layer["api_key"], self.layer["_azure_key" if is_azure else "_openai_key"]
        key = sdk if sdk.value is not None and sdk.rank > own.rank else own
        tokens = [self.layer[name] for name in AZURE_TOKENS if is_azure]
        if any(token.value is not None and token.rank > key.rank for token in tokens):
            return key._replace(value=None)
        return key

    def origin(self, name: str) -> str:
        """Return the source of a value, e.g. ``"environment variable LLMCALL_MODEL"``.

        :param name: the setting's name, or its environment variable: ``"cache_mode"``, ``"CACHE_MODE"``
            or ``"LLMCALL_CACHE_MODE"``.
        :raises ValueError: for an unknown setting; the nearest is suggested.
        """
        setting_name = name.lower().removeprefix("llmcall_")
        if setting_name not in SETTINGS:
            raise ValueError(f"unknown setting {name!r}{nearest(setting_name, SETTINGS)}")
        return self.setting_value(setting_name).origin

    def setting_value(self, name: str) -> SettingValue:
        """Return a value with its layer's rank and its origin."""
        return self.key_and_origin() if name == "api_key" else self.layer[name]

    def replace(self, **overrides: object) -> Settings:
        """Return settings with some values changed; forced values stay.

        :param overrides: settings by name, checked as from any other source; ``None`` leaves a value
            unchanged.
        :raises ConfigError: if a value is of the wrong type.
        :raises TypeError: for an unknown setting.
        """
        return self.overlaid(checked_layer(overrides, "Settings.replace()"))

    def overlaid(self, *layers: Layer) -> Settings:
        """Return settings with the values of layers. The highest rank wins, and the last layer of a rank."""
        merged = dict(self.layer)
        for layer in layers:
            for name, entry in layer.items():
                if entry.value is not UNSET and entry.rank >= merged[name].rank:
                    merged[name] = entry
        return Settings(merged) if any(layers) else self

    def items(self) -> Iterator[tuple[Setting, object, str]]:
        """Yield every setting with its masked value and its origin, in the order of config.ini."""
        for name, row in SETTINGS.items():
            yield row, masked_value(row, vars(self)[name]), self.setting_value(name).origin

    def __repr__(self) -> str:
        assignments = [
            f"{row.name}={value!r}"
            for row, value, origin in self.items()
            if origin != "default" or row.name in ("api_type", "model")
        ]
        return f"Settings({', '.join(assignments)})"

    def __reduce__(self) -> tuple[type[Settings], tuple[Layer]]:
        return Settings, (self.layer,)


def _with_section(name: str, row: Setting) -> Setting:
    """Return a setting with its name, and the section and key that follow from it."""
    section, _, key = name.partition("_")
    if row.section:
        section, key = row.section, name.upper().removeprefix(f"{row.section.upper()}_")
    elif name in WHOLE_SECTIONS:
        section, key = WHOLE_SECTIONS[name], ""
    elif section in SECTIONS:
        section, key = section.capitalize(), key.upper()
    else:
        section, key = "OpenAI", "" if row.parse is values.function else name.upper()
    return row._replace(name=name, section=section, key=key)


def _all_settings() -> dict[str, Setting]:
    """Return all settings by name, section by section, those of features behind the others of a section."""
    rows = {name: row for name, row in vars(Settings).items() if isinstance(row, Setting)}
    rows |= {name: load(place) for name, place in additions("settings").items()}
    by_section: dict[str, dict[str, Setting]] = {}
    for name, row in rows.items():
        found = _with_section(name, row)
        by_section.setdefault(found.section, {})[name] = found
    return {name: row for section in by_section.values() for name, row in section.items()}


SETTINGS = _all_settings()
# The file that LLMCALL_CONFIG names; the API keys in the SDK's own variables, of which API_TYPE decides which
# one counts; and the models' namespaces in the header of an open cassette, or None if no header applies.
HIDDEN_SETTINGS = {
    "_config": Setting(values.path, name="_config"),
    "_openai_key": Setting(values.credential, name="_openai_key"),
    "_azure_key": Setting(values.credential, name="_azure_key"),
    "_namespaces": Setting(setting.mapping_of(values.text, "{name}"), name="_namespaces"),
}


def masked_value(row: Setting, value: Any) -> object:
    """Return a value without secrets."""
    if row.parse is values.credential:
        return None if value is None else MASK
    if row.name == "endpoints":
        return tuple(endpoint.masked() for endpoint in value)
    return "a function" if callable(value) else without_password(value)


def checked_layer(
    overrides: Mapping[str, object], function: str, rank: Rank = Rank.ARGUMENT
) -> dict[str, SettingValue]:
    """Return the checked values of keyword arguments; ``None`` and empty ones become ``UNSET``. A relative
    path starts from the current working directory.

    :param function: the public function that takes them, for messages.
    :raises ConfigError: if a value is of the wrong type.
    :raises TypeError: for an unknown setting; the nearest is suggested.
    """
    layer = {}
    origin = "argument" if rank is Rank.ARGUMENT else function
    rows = {**SETTINGS, **HIDDEN_SETTINGS} if rank is Rank.PUSHED else SETTINGS
    for name, value in overrides.items():
        if name not in rows:
            raise TypeError(f"{function} has no setting {name!r}{nearest(name, SETTINGS)}")
        checked = UNSET if value is None else rows[name].check(value, f"{function}, {name}")
        layer[name] = SettingValue(checked, rank, origin)
    return layer
