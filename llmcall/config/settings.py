"""The table of all settings, and the frozen object that holds their values.

The table is the class ``Settings`` itself. The readers of config.ini, ``.env``, the environment and
arguments, the command ``llmcall config``, the reference and the top-level config.ini all use it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from enum import IntEnum
from typing import Any, NamedTuple

from ..display.notebook import html_table
from ..errors import ConfigError
from . import values
from .values import MASK, UNSET, FrozenDict, KeyReference, Parser, nearest, refuse, without_password

Rank = IntEnum(
    "Rank", "DEFAULT NAMED_FILE FOUND_FILE DOTENV ENVIRONMENT PUSHED CONFIGURED ARGUMENT FORCED"
)
"""The layers; a higher one wins."""


class Origin(NamedTuple):
    """The place that a value came from.

    :param rank: its layer's rank.
    :param text: the place in words, e.g. ``"environment variable LLMCALL_MODEL"``.
    """

    rank: Rank
    text: str


Layer = dict[str, tuple[Any, Origin]]


class Setting(NamedTuple):
    """One setting.

    :param section: its section in config.ini.
    :param key: its name there; empty if the whole section is the value, or if only code can set it.
    :param parse: checks its values.
    :param default: its value if nothing sets it; ``None`` if it may have none.
    :param help: one line for config.ini.
    :param example: what config.ini shows after a ``#`` if the default cannot be written there.
    :param name: its name in code; in capitals after ``LLMCALL_``, its environment variable.
    """

    section: str
    key: str
    parse: Parser
    default: Any = None
    help: str = ""
    example: str = ""
    name: str = ""


class Endpoint(NamedTuple):
    """One server of a pool; ``None`` means the value of the settings.

    :param name: the name in ``[Endpoint NAME]``.
    :param models: the models that it serves.
    :param api_type: its client; ``"azure"`` if an Azure endpoint or API version is given.
    :param api_key: the API key, a function that returns it, or a reference to a variable;
        ``key()`` returns it.
    :param base_url: the address of the API, e.g. ``https://host/v1``.
    :param azure_endpoint: the address of an Azure resource.
    :param azure_api_version: the version of Azure's API, e.g. ``2024-10-21``.
    :param deployment: the name of Azure's deployment, if it is not the model's.
    :param organization: the organization that is billed.
    :param namespace: a word that keeps its cached answers apart from others.

    >>> west = llmcall.Endpoint("west", models=("gpt-4o-mini",), base_url="https://west.example.com/v1", api_key="key")
    >>> with llmcall.configured(endpoints=(west,)):
    ...     [endpoint.name for endpoint in llmcall.settings().endpoints]
    ['west']
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

    @property
    def address(self) -> str | None:
        """Return the address of the Azure resource or of the API; ``None`` means the client's own."""
        return self.azure_endpoint or self.base_url

    def key(self) -> str | Callable[[], Any] | None:
        """Return the API key, or the function that returns it; a reference to a variable is looked up.

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
        shown = self.masked()
        return f"Endpoint({', '.join(f'{name}={value!r}' for name, value in zip(self._fields, shown, strict=True))})"


def _keys(section: str, *rows: tuple[str, Parser, str, str]) -> dict[str, Setting]:
    return {
        name: Setting(section, name.upper(), parse, None, help, example, name)
        for name, parse, help, example in rows
    }


# The settings of [Endpoint NAME] and [Model NAME], by their names in code.
ENDPOINT_KEYS = _keys(
    "Endpoint",
    (
        "models",
        values.names,
        "The models it serves",
        "gpt-4o-mini, text-embedding-3-small",
    ),
    (
        "api_type",
        values.text,
        "Its client; azure if an Azure endpoint or version is given",
        "azure",
    ),
    ("api_key", values.credential, "Its API key", "${AZURE_EAST_KEY}"),
    (
        "base_url",
        values.check_address,
        "Address of an OpenAI-compatible server",
        "https://east.example.com/v1",
    ),
    (
        "azure_endpoint",
        values.check_address,
        "The Azure resource's address",
        "https://east.openai.azure.com",
    ),
    ("azure_api_version", values.text, "Azure's API version", "2024-10-21"),
    (
        "deployment",
        values.text,
        "The deployment's name, if it is not the model's",
        "gpt-4o-mini-east",
    ),
    ("organization", values.organization, "The organization to bill", "org-example"),
    (
        "namespace",
        values.text,
        "A word that separates its answers from others; it is part of their cache keys",
        "east",
    ),
)
MODEL_KEYS = _keys(
    "Model",
    (
        "context_window",
        values.integer(1),
        "Context window (input and output together), in tokens",
        "32768",
    ),
    ("max_output_tokens", values.integer(1), "Maximum length of an answer, in tokens", "8192"),
    ("encoding", values.text, "The tiktoken encoding that counts its tokens", "o200k_base"),
    ("reasoning", values.boolean, "Whether it can reason before it answers", "no"),
    (
        "refused_parameters",
        values.names,
        "Parameters it does not accept; they are not sent",
        "top_p, presence_penalty",
    ),
    (
        "refused_when_reasoning",
        values.names,
        "Parameters it does not accept while it reasons",
        "temperature",
    ),
    (
        "max_completion_tokens",
        values.boolean,
        "Whether it expects max_completion_tokens instead of max_tokens",
        "no",
    ),
    (
        "structured_output",
        values.boolean,
        "Whether it accepts a JSON schema as response_format",
        "yes",
    ),
    ("embedding", values.boolean, "Whether it is an embedding model", "no"),
)


# The parsers of settings that are a whole section.


def _each(parse: Parser, place: str = "{where} {name}") -> Parser:
    """Make the parser of a mapping of names of models.

    :param parse: the parser of its values.
    :param place: how messages name a value's place.
    """

    def parse_each(value: Any, where: str) -> FrozenDict:
        """Return a mapping of parsed values."""
        if not isinstance(value, Mapping):
            refuse(where, value, "a mapping")
        return FrozenDict(
            {
                name: parse(item, place.format(where=where, name=name))
                for name, item in value.items()
            }
        )

    return parse_each


def _price(value: Any) -> tuple[float, ...] | None:
    """Return a price as numbers, or ``None`` to refuse it."""
    if isinstance(value, str):
        value = value.split(",")
    if not isinstance(value, (tuple, list)) or len(value) not in (2, 3):
        return None
    numbers = [values.as_number(part, 0) for part in value]
    return None if None in numbers else tuple(number for number in numbers if number is not None)


PRICES = "two or three numbers of at least 0: USD per million tokens of input, output, cached input"


def _endpoints(value: Any, where: str) -> tuple[Endpoint, ...]:
    if not isinstance(value, (list, tuple)) or isinstance(value, Endpoint):
        refuse(where, value, "a list of endpoints")
    found = tuple(_endpoint(item, where) for item in value)
    names = [endpoint.name for endpoint in found]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"{where}: there are two endpoints {name!r}")
    return found


def _endpoint(value: Any, where: str) -> Endpoint:
    given = value._asdict() if isinstance(value, Endpoint) else value
    given = dict(given) if isinstance(given, Mapping) else refuse(where, value, "an Endpoint")
    name = given.pop("name", None)
    if not isinstance(name, str) or not name.strip():
        raise ConfigError(f"{where}: an endpoint needs a name")
    fields = _fields(ENDPOINT_KEYS, given, f"{where}, [Endpoint {name}]")
    if fields.get("azure_endpoint") or fields.get("azure_api_version"):
        fields.setdefault("api_type", "azure")
    return Endpoint(name.strip(), **fields)


def _fields(rows: Mapping[str, Setting], given: Any, where: str) -> dict[str, Any]:
    """Return the checked fields of one named section, without those that are unset or ``None``."""
    if not isinstance(given, Mapping):
        refuse(where, given, "a mapping")
    found = {}
    for name, value in given.items():
        if name not in rows:
            raise ConfigError(f"{where}: there is no setting {name!r}{nearest(name, rows)}")
        checked = (
            UNSET
            if value is None
            else check_setting(rows[name], value, f"{where} {rows[name].key}")
        )
        if checked is not UNSET and checked is not None:
            found[name] = checked
    return found


_models = _each(
    lambda value, where: FrozenDict(_fields(MODEL_KEYS, value, where)), "{where}, [Model {name}]"
)


def check_setting(row: Setting, value: Any, where: str, folder: str | None = None) -> Any:
    """Return the value of a setting as its type.

    :param value: text from a file or a variable, or a value from code; for a whole section, a
        mapping of such values.
    :param where: where it was found, for the message.
    :param folder: the directory that a relative path starts from; ``None`` is the working
        directory.
    :returns: the value, or ``UNSET`` for empty text.
    :raises ConfigError: if it is of the wrong type or outside the allowed range.
    """
    if isinstance(value, str):
        value = value.strip()
        if not value and row.default != "":
            return UNSET
        if value.casefold() == "none" and row.default != "" and row.parse not in values.WORDS:
            return None if row.default is None else UNSET
    return (
        values.path(value, where, folder) if row.parse is values.path else row.parse(value, where)
    )


_setting: Any = Setting
EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh")


class Settings:
    """All settings, frozen; two are equal only if they are the same object.

    Times are in seconds, prices in USD per million tokens. ``None`` means that there is none.
    ``settings()`` makes them; ``replace`` gives a changed copy.

    >>> settings = llmcall.settings().replace(model="gpt-4o-mini", temperature=0)
    >>> settings.model, settings.retry_max_attempts
    ('gpt-4o-mini', 5)
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
    model: str = _setting("OpenAI", "MODEL", values.text, "gpt-4o-mini", "The chat model")
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
    flex_fallback: str = _setting(
        "OpenAI",
        "FLEX_FALLBACK",
        values.choice("standard", "wait", "fail"),
        "standard",
        "If flex has no capacity after the retries: standard (at full price), wait (until the deadline) or fail",
    )
    on_error: str = _setting(
        "OpenAI",
        "ON_ERROR",
        values.choice("raise", "none", "return"),
        "none",
        "What a call does if all its attempts fail: raise, none (log the error and return None) or return (the error)",
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
        values.choice("none", "once", "new", "update", "rewrite"),
        "once",
        "none (only read), once (record if there is no file), new (add what is missing), update (also remove "
        "unused records) or rewrite (record all again)",
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
        _each(values.parser(_price, PRICES)),
        FrozenDict(),
        "A model's price in USD per million tokens: input, output and, if it differs, input cached by the provider",
        "gpt-4o-mini = 0.15, 0.60, 0.075",
    )
    aliases: Mapping[str, str] = _setting(
        "Aliases",
        "",
        _each(values.text),
        FrozenDict(),
        "Another name for a model: calls to the first name go to the second",
        "gpt-4-turbo = gpt-4-1106-preview",
    )
    fallbacks: Mapping[str, tuple[str, ...]] = _setting(
        "Fallbacks",
        "",
        _each(values.names),
        FrozenDict(),
        "If a prompt is too long for the first model, the others are tried in order",
        "gpt-4 = gpt-4-32k, gpt-3.5-turbo-16k",
    )
    endpoints: tuple[Endpoint, ...] = _setting(
        "Endpoint",
        "",
        _endpoints,
        (),
        "Servers; those that list the same model share its calls",
        "[Endpoint east]",
    )
    models: Mapping[str, Mapping[str, Any]] = _setting(
        "Model",
        "",
        _models,
        FrozenDict(),
        "What a model can do (NAME* means all models whose names start with NAME); overrides the packaged table",
        "[Model my-model*]",
    )
    # fmt: on

    layer: Mapping[str, tuple[Any, Origin]]  # each setting's value and origin

    def __init__(self, layer: Mapping[str, tuple[Any, Origin]]) -> None:
        """Take every setting's value and origin; users call ``settings()`` instead."""
        held = self.__dict__
        held.update({name: value for name, (value, _) in layer.items()}, layer=layer)
        held["api_key"] = self.key_and_origin()[0]

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(
            f"settings are frozen: use configure({name}=…) or settings().replace({name}=…)"
        )

    def key_and_origin(
        self, api_type: str | None = None
    ) -> tuple[str | Callable[[], Any] | None, Origin]:
        """Return the API key for a client, as it was given, and where it came from.

        :param api_type: ``None`` is the configured one.
        """
        own = self.layer["api_key"]
        of_sdk = self.layer[
            "_azure_key" if (api_type or self.api_type) == "azure" else "_openai_key"
        ]
        return of_sdk if of_sdk[0] is not None and of_sdk[1].rank > own[1].rank else own

    def origin(self, name: str) -> str:
        """Return the place that a value came from, e.g. ``"environment variable LLMCALL_MODEL"``.

        :param name: its name in code or of its environment variable: ``"cache_mode"``,
            ``"CACHE_MODE"`` or ``"LLMCALL_CACHE_MODE"``.
        :raises ValueError: if there is no such setting; the nearest is suggested.
        """
        plain = name.lower().removeprefix("llmcall_")
        if plain not in SETTINGS:
            raise ValueError(f"there is no setting {name!r}{nearest(plain, SETTINGS)}")
        return self.origin_of(plain).text

    def origin_of(self, name: str) -> Origin:
        """Return where a value came from, with its layer's rank."""
        return self.key_and_origin()[1] if name == "api_key" else self.layer[name][1]

    def replace(self, **overrides: Any) -> Settings:
        """Return settings with some values changed; what is forced stays.

        :param overrides: settings by name, checked like those of any other source; ``None`` leaves
            a value as it is.
        :raises ConfigError: if a value is of the wrong type.
        :raises TypeError: if there is no such setting.
        """
        return self.overlaid(checked_layer(overrides, "Settings.replace()", Rank.ARGUMENT))

    def overlaid(self, layer: Mapping[str, tuple[Any, Origin]]) -> Settings:
        """Return settings with a layer's values, except ``UNSET`` ones and those that a higher layer
        set.
        """
        changes = {
            name: (value, origin)
            for name, (value, origin) in layer.items()
            if value is not UNSET and origin.rank >= self.layer[name][1].rank
        }
        return Settings({**self.layer, **changes}) if changes else self

    def items(self) -> Iterator[tuple[Setting, Any, Origin]]:
        """Yield every setting with its value and origin, in the order of config.ini, secrets masked."""
        for name, row in SETTINGS.items():
            yield row, _shown(row, getattr(self, name)), self.origin_of(name)

    def __repr__(self) -> str:
        shown = [
            f"{row.name}={value!r}"
            for row, value, origin in self.items()
            if origin.rank != Rank.DEFAULT or row.name in ("api_type", "model")
        ]
        return f"Settings({', '.join(shown)})"

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
HIDDEN = {
    name: Setting("", "", parse, name=name)
    for name, parse in (
        ("_config", values.path),
        ("_openai_key", values.credential),
        ("_azure_key", values.credential),
    )
}


def _shown(row: Setting, value: Any) -> Any:
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
        layer[name] = (checked, origin)
    return layer
