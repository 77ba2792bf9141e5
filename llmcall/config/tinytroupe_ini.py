"""TinyTroupe's settings in the section ``[OpenAI]`` of config.ini, translated to llmcall's."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from . import values


class Spelling(NamedTuple):
    """A TinyTroupe setting in one of llmcall's sections.

    :param name: the equivalent setting of llmcall, such as ``"cache_mode"``, or empty.
    :param translate: returns the value for llmcall's setting, from the value and its location.
    """

    name: str
    translate: Callable[[str, str], str]


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


def spelling_of(section: str, key: str) -> Spelling | None:
    """Return the meaning of a TinyTroupe key, or ``None`` for an unknown one."""
    if section != "OpenAI" or key not in _NAMES:
        return None
    return Spelling(_NAMES[key], partial(_translate, key))


def _translate(key: str, value: str, location: str) -> str:
    """Return a setting's value in llmcall's form."""
    if key == "CACHE_API_CALLS":
        return "auto" if values.boolean(value.strip(), location) else "off"
    if key == "CACHE_FILE_NAME":
        return values.cache_directory_name(value.strip())
    return "none" if key == "MAX_CONCURRENT_MODEL_CALLS" and values.as_number(value) == 0 else value
