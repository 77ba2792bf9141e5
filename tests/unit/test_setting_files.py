"""What config.ini says: endpoints, tables, misspelt keys, references, and TinyTroupe's form of it."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from llmcall.config import resolve as config
from llmcall.config.settings import Endpoint, Settings
from llmcall.errors import ConfigError
from llmcall.notices import forget_notices, inform_once, warn_once

# The [OpenAI] section of TinyTroupe 0.6, with a section of its own after it.
TINYTROUPE = """
[OpenAI]
# Default options: openai, azure
API_TYPE=openai
AZURE_API_VERSION=2024-12-01-preview
MODEL=gpt-5-mini
REASONING_MODEL=o3-mini
EMBEDDING_MODEL=text-embedding-3-small\x20
AZURE_EMBEDDING_MODEL_API_VERSION=2023-05-15
MAX_COMPLETION_TOKENS= 128000
FREQ_PENALTY=0.1
TIMEOUT=480
MAX_ATTEMPTS=5
WAITING_TIME=0
EXPONENTIAL_BACKOFF_FACTOR=5
MAX_CONCURRENT_MODEL_CALLS=4
REASONING_EFFORT=high
CACHE_API_CALLS=False
CACHE_FILE_NAME=openai_api_cache.pickle
MAX_CONTENT_DISPLAY_LENGTH=4000

[ActionGenerator]
MAX_ATTEMPTS=2
"""


def read(text: str) -> Settings:
    """Read a text as the project's config.ini."""
    Path("config.ini").write_text(text, encoding="utf-8")
    config.reset()
    return config.settings()


def test_a_config_of_tinytroupe(caplog: pytest.LogCaptureFixture) -> None:
    """Its keys are read as ours, each said once; those that mean nothing here are said too; nothing is warned of."""
    caplog.set_level(logging.INFO, "llmcall")
    found = read(TINYTROUPE)
    assert (found.model, found.max_tokens, found.timeout, found.reasoning_effort) == ("gpt-5-mini", 128000, 480, "high")
    assert (found.embedding_model, found.frequency_penalty) == ("text-embedding-3-small", 0.1)
    assert (found.retry_max_attempts, found.retry_waiting_time, found.retry_exponential_backoff_factor) == (5, 0, 5)
    assert (found.limits_max_concurrent_calls, found.cache_mode) == (4, "off")
    assert found.cache_path == str(Path.cwd() / "openai_api_cache.cache")
    assert found.origin("cache_mode") == f"config.ini ({Path.cwd() / 'config.ini'}), [OpenAI] CACHE_API_CALLS"
    assert {record.levelname for record in caplog.records} == {"INFO"}
    said = [record.getMessage().partition("[OpenAI] ")[2] for record in caplog.records]
    assert sorted(said) == [
        "AZURE_EMBEDDING_MODEL_API_VERSION: a key of TinyTroupe's that means nothing to llmcall",
        "CACHE_API_CALLS: a key of TinyTroupe's, read as [Cache] MODE",
        "CACHE_FILE_NAME: a key of TinyTroupe's, read as [Cache] PATH",
        "EXPONENTIAL_BACKOFF_FACTOR: a key of TinyTroupe's, read as [Retry] EXPONENTIAL_BACKOFF_FACTOR",
        "FREQ_PENALTY: a key of TinyTroupe's, read as [OpenAI] FREQUENCY_PENALTY",
        "MAX_ATTEMPTS: a key of TinyTroupe's, read as [Retry] MAX_ATTEMPTS",
        "MAX_COMPLETION_TOKENS: a key of TinyTroupe's, read as [OpenAI] MAX_TOKENS",
        "MAX_CONCURRENT_MODEL_CALLS: a key of TinyTroupe's, read as [Limits] MAX_CONCURRENT_CALLS",
        "MAX_CONTENT_DISPLAY_LENGTH: a key of TinyTroupe's that means nothing to llmcall",
        "REASONING_MODEL: a key of TinyTroupe's that means nothing to llmcall",
        "WAITING_TIME: a key of TinyTroupe's, read as [Retry] WAITING_TIME",
    ]


@pytest.mark.parametrize(
    ("line", "attribute", "value"),
    [
        ("CACHE_API_CALLS = True", "cache_mode", "auto"),
        ("CACHE_API_CALLS = no", "cache_mode", "off"),
        ("CACHE_API_CALLS =", "cache_mode", "auto"),
        ("MAX_CONCURRENT_MODEL_CALLS = 0", "limits_max_concurrent_calls", None),
        ("MAX_CONCURRENT_MODEL_CALLS = NONE", "limits_max_concurrent_calls", None),
        ("MAX_ATTEMPTS = 5.0", "retry_max_attempts", 5),
    ],
)
def test_values_of_tinytroupe(line: str, attribute: str, value: Any) -> None:
    """Its words for on, off and unlimited are understood."""
    assert getattr(read(f"[OpenAI]\n{line}\n"), attribute) == value


def test_our_keys_go_before_tinytroupes() -> None:
    """In one file, the key in our own section wins, wherever it stands."""
    found = read(
        "[Cache]\nMODE = replay\n[Retry]\nMAX_ATTEMPTS = 2\n[OpenAI]\nCACHE_API_CALLS = no\nMAX_ATTEMPTS = 9\n"
    )
    assert (found.cache_mode, found.retry_max_attempts) == ("replay", 2)


def test_a_wrong_value_of_tinytroupe() -> None:
    """A wrong value is named by the key that the file has."""
    with pytest.raises(ConfigError, match=r"\[OpenAI\] CACHE_API_CALLS: 'perhaps' is not one of yes, no"):
        read("[OpenAI]\nCACHE_API_CALLS = perhaps\n")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[OpenAI]\nMODLE = a\n", "[OpenAI] MODLE: there is no such key; did you mean 'MODEL'?"),
        ("[Cache]\nmoed = off\n", "[Cache] MOED: there is no such key; did you mean 'MODE'?"),
        ("[Retry]\nCACHE_API_CALLS = off\n", "[Retry] CACHE_API_CALLS: there is no such key"),
        (
            "[Endpoint a]\nMODELS = m\nAPIKEY = x\n",
            "[Endpoint a] APIKEY: there is no such key; did you mean 'API_KEY'?",
        ),
        ("[Model a]\nWINDOW = 1\n", "[Model a] WINDOW: there is no such key; did you mean"),
        ("[Endpoint a]\nBASE_URL = http://h/v1\n", "[Endpoint a]: without MODELS this endpoint is never used"),
    ],
)
def test_warnings(text: str, message: str, caplog: pytest.LogCaptureFixture) -> None:
    """A misspelt key is one warning that names file, section and key, and the nearest key."""
    read(text)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert f"config.ini ({Path.cwd() / 'config.ini'}), {message}" in caplog.text


def test_tables() -> None:
    """Prices, aliases and fallbacks are read-only mappings by the models' names."""
    found = read(
        "[Prices]\ngemma3:1b = 0, 0 ; free\ngpt-4o-mini = 0.15, 0.60\n"
        "[Aliases]\nGPT = gpt-4o-mini\n[Fallbacks]\ngpt-4 = gpt-4-32k, gpt-3.5-turbo-16k\n"
    )
    assert found.prices == {"gemma3:1b": (0, 0), "gpt-4o-mini": (0.15, 0.6)}
    assert found.aliases == {"GPT": "gpt-4o-mini"}
    assert found.fallbacks == {"gpt-4": ("gpt-4-32k", "gpt-3.5-turbo-16k")}
    for table in (found.prices, found.aliases, found.fallbacks, found.models):
        with pytest.raises(TypeError):
            table["x"] = "y"  # type: ignore[index]


def test_models() -> None:
    """What a [Model NAME] section says is typed; what it leaves open is left out."""
    text = (
        "[Model my*]\nCONTEXT_WINDOW = 8192\nREASONING = yes\nREFUSED_PARAMETERS = top_p, stop\nENCODING =\n[Model b]\n"
    )
    found = read(text).models
    assert found == {
        "my*": {"context_window": 8192, "reasoning": True, "refused_parameters": ("top_p", "stop")},
        "b": {},
    }
    assert isinstance(found["my*"], Mapping)
    with pytest.raises(TypeError):
        found["my*"]["reasoning"] = False  # type: ignore[index]


def test_endpoints(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each [Endpoint NAME] is one endpoint, in the file's order; an Azure address makes it Azure."""
    monkeypatch.setenv("EAST_KEY", "east-secret")
    found = read(
        "[Endpoint west]\nMODELS = a, b:1\nAPI_KEY = west-secret\nBASE_URL = http://localhost:8000/v1\n"
        "[Endpoint east]\nMODELS = a\nAPI_KEY = ${EAST_KEY}\nAZURE_ENDPOINT = https://east/\n"
        "DEPLOYMENT = d\nNAMESPACE = e\n"
    ).endpoints
    west, east = found
    assert west == Endpoint("west", ("a", "b:1"), None, "west-secret", "http://localhost:8000/v1")
    assert (east.api_type, east.azure_endpoint, east.deployment, east.namespace) == ("azure", "https://east/", "d", "e")
    assert (west.key(), east.key()) == ("west-secret", "east-secret")
    assert "secret" not in repr(found)


def test_a_key_is_looked_up_when_it_is_used() -> None:
    """An endpoint whose variable is unset is an error only where its key is used."""
    endpoint = read("[Endpoint east]\nMODELS = a\nAPI_KEY = ${EAST_KEY}\n").endpoints[0]
    with pytest.raises(ConfigError, match=r"\[Endpoint east\] API_KEY: the environment variable EAST_KEY is not set"):
        endpoint.key()
    Path(".env").write_text("EAST_KEY=from .env\n", encoding="utf-8")
    config.refresh()
    assert config.settings().endpoints[0].key() == "from .env"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[Prices]\na = 1\n", r"\[Prices\] a: '1' is not two numbers of at least 0"),
        ("[Prices]\na = 1, -2\n", r"\[Prices\] a: '1, -2' is not two numbers"),
        ("[Prices]\na = 1, nan\n", r"\[Prices\] a: '1, nan' is not two numbers"),
        ("[Aliases]\na =\n", r"\[Aliases\] a: '' is not a model's name"),
        ("[Fallbacks]\na =\n", r"\[Fallbacks\] a: '' is not a model's name"),
        ("[Model a]\nCONTEXT_WINDOW = big\n", r"\[Model a\] CONTEXT_WINDOW: 'big' is not a whole number of at least 1"),
        ("[Model a]\nREASONING = often\n", r"\[Model a\] REASONING: 'often' is not one of yes, no"),
        ("[Endpoint a]\nMODELS = m\nBASE_URL = h:1\n", r"\[Endpoint a\] BASE_URL: 'h:1' is not an address"),
        ("[OpenAI]\nMODEL = ${NO_SUCH}\n", r"\[OpenAI\] MODEL: the environment variable NO_SUCH is not set"),
        ("[Aliases]\na = ${NO_SUCH}\n", r"\[Aliases\] a: the environment variable NO_SUCH is not set"),
        ("[OpenAI]\nMODEL = a\n  TIMEOUT = 5\n", r"\[OpenAI\] MODEL: .* is not one line of text"),
    ],
)
def test_wrong_values(text: str, message: str) -> None:
    """A wrong value is an error that names file, section and key."""
    with pytest.raises(ConfigError, match=message) as caught:
        read(text)
    assert str(Path.cwd() / "config.ini") in str(caught.value)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"prices": {"a": (1, 2, 3)}}, "configure(), prices a: a tuple is not two numbers"),
        ({"prices": [1]}, "configure(), prices: a list is not a mapping"),
        ({"aliases": {"a": 1}}, "configure(), aliases a: 1 is not a model's name"),
        ({"aliases": {1: "a"}}, "configure(), aliases: 1 is not a model's name"),
        ({"fallbacks": {"a": [1]}}, "configure(), fallbacks a: 1 is not a text"),
        ({"models": {"a": {"window": 1}}}, "configure(), models, [Model a]: unknown key 'window'"),
        ({"endpoints": Endpoint("a")}, "configure(), endpoints: a Endpoint is not a list of endpoints"),
        ({"endpoints": [{"models": "a"}]}, "configure(), endpoints: an endpoint needs a name"),
        ({"endpoints": [Endpoint("a"), Endpoint("a")]}, "configure(), endpoints: there are two endpoints 'a'"),
        ({"endpoints": [Endpoint("a", base_url="h")]}, "configure(), endpoints, [Endpoint a] BASE_URL: 'h' is not"),
        (
            {"endpoints": [{"name": "a", "apikey": "secret"}]},
            "[Endpoint a]: unknown key 'apikey'; did you mean 'api_key'?",
        ),
    ],
)
def test_wrong_tables_in_code(values: dict[str, Any], message: str) -> None:
    """Tables given in code are checked as those of a file are."""
    with pytest.raises(ConfigError) as caught:
        config.configure(**values)
    assert message in str(caught.value)
    assert "secret" not in str(caught.value)


def test_tables_in_code_stand_apart_from_what_was_given() -> None:
    """A mapping that is changed afterwards changes no setting."""
    aliases, models = {"a": "b"}, {"a": {"reasoning": True}}
    config.configure(
        aliases=aliases, models=models, endpoints=[{"name": "e", "models": ["a"], "azure_api_version": "v"}]
    )
    aliases["a"] = "c"
    models["a"]["reasoning"] = False
    found = config.settings()
    assert (found.aliases, found.models) == ({"a": "b"}, {"a": {"reasoning": True}})
    assert found.endpoints == (Endpoint("e", ("a",), "azure", azure_api_version="v"),)


def test_notices_are_said_once(caplog: pytest.LogCaptureFixture) -> None:
    """The same words, or the same subject in other words, are said again only after they were forgotten."""
    caplog.set_level(logging.INFO, "llmcall")
    for _ in range(2):
        warn_once("100 % sure")
        inform_once("so it is")
        warn_once("first", about="x")
        warn_once("second", about="x")
    said = ["100 % sure", "so it is", "first"]
    assert [record.getMessage() for record in caplog.records] == said
    forget_notices()
    warn_once("second", about="x")
    assert [record.getMessage() for record in caplog.records] == [*said, "second"]
