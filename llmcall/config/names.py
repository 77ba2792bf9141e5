"""The names of the settings: one row for each, with its default and what it may be.

The defaults stand here and not in a file, so that reading them costs nothing; a test pins ``defaults.ini`` to this
table.
"""

from __future__ import annotations

from typing import Any

__all__ = [
    "ANCESTOR_KEYS",
    "CAPABILITIES",
    "ENDPOINT_KEYS",
    "HIDDEN",
    "IGNORED_ANCESTOR_KEYS",
    "KNOWN_VARIABLES",
    "SDK_VARIABLES",
    "SETTINGS",
    "Setting",
    "find_setting",
    "in_section",
    "nearest",
    "own_section",
    "setting_named",
]


class Setting:
    """Describe one setting.

    :param attribute: its name in code; in capitals after ``LLMCALL_``, its environment variable.
    :param section: its section in config.ini.
    :param key: its key there; empty where the whole section is the value.
    :param kind: which check reads it, see ``setting_values``.
    :param default: its value where nobody sets it; ``None`` means that it may have none.
    :param low: the smallest number allowed.
    :param high: the largest number allowed.
    :param choices: the words allowed.
    """

    __slots__ = ("attribute", "choices", "default", "high", "key", "kind", "low", "section")

    def __init__(
        self,
        attribute: str,
        section: str,
        key: str,
        kind: str,
        default: Any = None,
        low: float | None = None,
        high: float | None = None,
        choices: tuple[str, ...] = (),
    ) -> None:
        self.attribute = attribute
        self.section = section
        self.key = key
        self.kind = kind
        self.default = default
        self.low = low
        self.high = high
        self.choices = choices


EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh")

# The ranges of TOP_P and of the penalties are those of OpenAI's API reference, "Create chat completion"; it also ends
# TEMPERATURE at 2, which other servers do not.
_ROWS = (
    Setting("api_type", "OpenAI", "API_TYPE", "name", "openai"),
    Setting("model", "OpenAI", "MODEL", "name", "gpt-4o-mini"),
    Setting("embedding_model", "OpenAI", "EMBEDDING_MODEL", "name", "text-embedding-3-small"),
    Setting("base_url", "OpenAI", "BASE_URL", "url"),
    Setting("api_key", "OpenAI", "API_KEY", "secret"),
    Setting("organization", "OpenAI", "ORGANIZATION", "name"),
    Setting("azure_endpoint", "OpenAI", "AZURE_ENDPOINT", "url"),
    Setting("azure_api_version", "OpenAI", "AZURE_API_VERSION", "name"),
    Setting("azure_ad_token", "OpenAI", "AZURE_AD_TOKEN", "secret"),
    Setting("azure_ad_token_provider", "OpenAI", "", "function"),
    Setting("temperature", "OpenAI", "TEMPERATURE", "number", None, 0),
    Setting("max_tokens", "OpenAI", "MAX_TOKENS", "integer", None, 1),
    Setting("top_p", "OpenAI", "TOP_P", "number", None, 0, 1),
    Setting("frequency_penalty", "OpenAI", "FREQUENCY_PENALTY", "number", None, -2, 2),
    Setting("presence_penalty", "OpenAI", "PRESENCE_PENALTY", "number", None, -2, 2),
    Setting("timeout", "OpenAI", "TIMEOUT", "seconds", 60.0),
    Setting("deadline", "OpenAI", "DEADLINE", "seconds"),
    Setting("reasoning_effort", "OpenAI", "REASONING_EFFORT", "choice", None, choices=EFFORTS),
    Setting("on_error", "OpenAI", "ON_ERROR", "choice", "none", choices=("raise", "none", "return")),
    Setting("retry_max_attempts", "Retry", "MAX_ATTEMPTS", "integer", 5, 1),
    Setting("retry_waiting_time", "Retry", "WAITING_TIME", "number", 1.0, 0),
    Setting("retry_exponential_backoff_factor", "Retry", "EXPONENTIAL_BACKOFF_FACTOR", "number", 2.0, 0),
    Setting("retry_max_waiting_time", "Retry", "MAX_WAITING_TIME", "number", 60.0, 0),
    Setting("cache_mode", "Cache", "MODE", "choice", "auto", choices=("auto", "replay", "refresh", "off")),
    Setting("cache_path", "Cache", "PATH", "path", ".llmcall/cache"),
    Setting("cache_namespace", "Cache", "NAMESPACE", "text", ""),
    Setting("cache_normalize", "Cache", "NORMALIZE", "normalizers", ()),
    Setting("cassette_path", "Cassette", "PATH", "path"),
    Setting("cassette_mode", "Cassette", "MODE", "choice", "once", choices=("none", "once", "new", "rewrite")),
    Setting("cassette_allow", "Cassette", "ALLOW", "patterns", ()),
    Setting("limits_max_concurrent_calls", "Limits", "MAX_CONCURRENT_CALLS", "integer", None, 1),
    Setting("limits_requests_per_minute", "Limits", "REQUESTS_PER_MINUTE", "integer", None, 1),
    Setting("limits_tokens_per_minute", "Limits", "TOKENS_PER_MINUTE", "integer", None, 1),
    Setting("templates_path", "Templates", "PATH", "path", "templates"),
    Setting("prices", "Prices", "", "prices", {}),
    Setting("aliases", "Aliases", "", "aliases", {}),
    Setting("fallbacks", "Fallbacks", "", "fallbacks", {}),
    Setting("endpoints", "Endpoint", "", "endpoints", ()),
    Setting("models", "Model", "", "models", {}),
)
SETTINGS = {row.attribute: row for row in _ROWS}

# The keys of the SDK's own variables, kept apart because which of them counts depends on the final API_TYPE.
HIDDEN = {
    "_openai_key": Setting("_openai_key", "", "", "secret"),
    "_azure_key": Setting("_azure_key", "", "", "secret"),
}

# Read by openai 3.51 (openai/_client.py, openai/lib/azure.py), save AZURE_OPENAI_KEY, which TinyTroupe 0.6 reads. Later
# ones win.
SDK_VARIABLES = {
    "AZURE_OPENAI_KEY": "_azure_key",
    "AZURE_OPENAI_API_KEY": "_azure_key",
    "OPENAI_API_KEY": "_openai_key",
    "OPENAI_BASE_URL": "base_url",
    "OPENAI_API_VERSION": "azure_api_version",
    "AZURE_OPENAI_ENDPOINT": "azure_endpoint",
    "AZURE_OPENAI_AD_TOKEN": "azure_ad_token",
    "OPENAI_ORG_ID": "organization",
}

# Values that hold more than one line of text have no variable: sections, and functions.
VARIABLES = {"LLMCALL_" + row.attribute.upper(): row.attribute for row in _ROWS if row.key}
KNOWN_VARIABLES = frozenset({*VARIABLES, "LLMCALL_CONFIG", "LLMCALL_SCOPE"})

# TinyTroupe's keys in [OpenAI] that are ours under another name.
ANCESTOR_KEYS = {
    "CACHE_API_CALLS": "cache_mode",
    "CACHE_FILE_NAME": "cache_path",
    "MAX_ATTEMPTS": "retry_max_attempts",
    "WAITING_TIME": "retry_waiting_time",
    "EXPONENTIAL_BACKOFF_FACTOR": "retry_exponential_backoff_factor",
    "MAX_COMPLETION_TOKENS": "max_tokens",
    "FREQ_PENALTY": "frequency_penalty",
    "MAX_CONCURRENT_MODEL_CALLS": "limits_max_concurrent_calls",
}
# TinyTroupe's keys in [OpenAI] that mean nothing here.
IGNORED_ANCESTOR_KEYS = frozenset(
    {"AZURE_EMBEDDING_MODEL_API_VERSION", "MAX_CONTENT_DISPLAY_LENGTH", "NUM_CTX", "REASONING_MODEL"}
)

# The keys of [Endpoint NAME] and of [Model NAME], by their names in code.
ENDPOINT_KEYS = {
    name: Setting(name, "Endpoint", name.upper(), kind)
    for name, kind in (
        ("models", "names"),
        ("api_type", "name"),
        ("api_key", "secret"),
        ("base_url", "url"),
        ("azure_endpoint", "url"),
        ("azure_api_version", "name"),
        ("deployment", "name"),
        ("organization", "name"),
        ("namespace", "name"),
    )
}
CAPABILITIES = {
    name: Setting(name, "Model", name.upper(), kind, None, low)
    for name, kind, low in (
        ("context_window", "integer", 1),
        ("max_output_tokens", "integer", 1),
        ("encoding", "name", None),
        ("reasoning", "boolean", None),
        ("refused_parameters", "names", None),
        ("max_completion_tokens", "boolean", None),
        ("structured_output", "boolean", None),
        ("embedding", "boolean", None),
        ("dimensions", "integer", 1),
        ("refused_when_reasoning", "names", None),
    )
}

NAMED_SECTIONS = ("Endpoint", "Model")
SECTIONS = tuple(dict.fromkeys(row.section for row in _ROWS))
_BY_FOLDED_SECTION = {section.casefold(): section for section in SECTIONS if section not in NAMED_SECTIONS}


def in_section(section: str) -> dict[str, Setting]:
    """Return the rows of a section of config.ini by their keys."""
    return {row.key: row for row in _ROWS if row.section == section and row.key}


def own_section(header: str) -> str | None:
    """Return a section's name as it is written here, or ``None`` for one that is not ours.

    :param header: the text between the brackets, in any case: ``"endpoint  east"`` gives ``"Endpoint east"``.
    """
    words = header.split(None, 1)
    for section in NAMED_SECTIONS:
        if len(words) == 2 and words[0].casefold() == section.casefold():
            return f"{section} {words[1].strip()}"
    return _BY_FOLDED_SECTION.get(header.strip().casefold())


def setting_named(attribute: str, *, caller: str) -> Setting:
    """Return the row of a keyword argument.

    :param caller: the function that was called, for the message.
    :raises TypeError: if there is no such setting; the nearest is suggested.
    """
    row = SETTINGS.get(attribute)
    if row is None:
        raise TypeError(f"{caller} has no setting {attribute!r}{nearest(attribute.lower(), SETTINGS)}")
    return row


def find_setting(name: str) -> Setting:
    """Return the row of a name in any of its forms.

    :param name: ``cache_mode``, ``LLMCALL_CACHE_MODE``, ``[Cache] MODE``, or a key that only one section has.
    :raises ValueError: if there is none of this name, or more than one.
    """
    plain = name.strip()
    attribute = VARIABLES.get(plain.upper(), plain.lower())
    if attribute in SETTINGS:
        return SETTINGS[attribute]
    head, bracket, key = plain.rpartition("]")
    section = head.lstrip("[").strip().casefold()
    rows = [
        row for row in _ROWS if row.key == key.strip().upper() and (not bracket or row.section.casefold() == section)
    ]
    if len(rows) == 1:
        return rows[0]
    if rows:
        raise ValueError(f"{name!r} is one of {', '.join(row.attribute for row in rows)}: name it in full")
    raise ValueError(f"there is no setting {name!r}{nearest(plain.lower(), SETTINGS)}")


def nearest(word: str, known: Any, *, cutoff: float = 0.6) -> str:
    """Return ``"; did you mean 'X'?"`` for the known word that is most like another, or an empty text.

    :param known: the words to choose from, an iterable of texts.
    :param cutoff: the similarity asked for, 0 to 1, as of ``difflib.get_close_matches``.
    """
    from difflib import get_close_matches

    matches = get_close_matches(word, list(known), 1, cutoff)
    return f"; did you mean {matches[0]!r}?" if matches else ""
