"""TinyTroupe's settings in the section ``[OpenAI]`` of config.ini, translated to llmcall's."""

from __future__ import annotations

from ...config import values
from ...config.setting import OtherKeys

# llmcall's settings by TinyTroupe's; empty where llmcall has no such setting
_NAMES = {
    "CACHE_API_CALLS": "cache_mode",
    "CACHE_FILE_NAME": "cache_path",
    "MAX_ATTEMPTS": "retry_max_attempts",
    "WAITING_TIME": "retry_waiting_time",
    "EXPONENTIAL_BACKOFF_FACTOR": "retry_exponential_backoff_factor",
    "MAX_COMPLETION_TOKENS": "max_tokens",
    "FREQ_PENALTY": "frequency_penalty",
    "MAX_CONCURRENT_MODEL_CALLS": "limits_max_concurrent_calls",
    "AZURE_EMBEDDING_MODEL_API_VERSION": "",
    "MAX_CONTENT_DISPLAY_LENGTH": "",
    "NUM_CTX": "",
    "REASONING_MODEL": "",
}


def _name_of(section: str, key: str) -> str | None:
    """Return the setting of llmcall that a TinyTroupe key means, such as ``"cache_mode"``, empty if there is none;
    ``None`` for an unknown key.
    """
    return _NAMES.get(key) if section == "OpenAI" else None


def _translated(key: str, value: str, location: str) -> str:
    """Return a TinyTroupe setting's value in llmcall's form."""
    if key == "CACHE_API_CALLS":
        return "auto" if values.boolean(value.strip(), location) else "off"
    if key == "CACHE_FILE_NAME":
        return values.cache_directory_name(value.strip())
    return "none" if key == "MAX_CONCURRENT_MODEL_CALLS" and values.as_number(value) == 0 else value


KEYS = OtherKeys(_name_of, _translated)
