"""TinyTroupe's files: its pickle cache, and its config.ini."""

from __future__ import annotations

import enum
import logging
import pickle
from pathlib import Path
from typing import Any

import commands
import openai
import pydantic
import pytest
from pytest_httpserver import HTTPServer
from servers import OK, ScriptedServer, completion

import llmcall
from llmcall import CacheMissError, ResponseCache
from llmcall.testing import ScriptedClient

MESSAGES = [
    {
        "role": "system",
        "content": "You are Lisa's \"twin\".\nYou speak\tin riddles, \\ and 'quotes' – €.",
    },
    {"role": "user", "content": 'What do "apples" cost?'},
]
# The parameters of TinyTroupe's first public version, which keys every one of them, of 0.6, and of
# its Ollama client.
FIRST: dict[str, Any] = {
    "messages": MESSAGES,
    "temperature": 0.3,
    "max_tokens": 1024,
    "top_p": 0,
    "frequency_penalty": 0.0,
    "presence_penalty": 0.0,
    "stop": [],
    "timeout": 30.0,
    "stream": False,
    "n": 1,
}
LATEST: dict[str, Any] = {
    "model": "gpt-5-mini",
    "messages": MESSAGES,
    "max_completion_tokens": 128000,
    "timeout": 480.0,
    "stream": False,
    "n": 1,
}
OLLAMA: dict[str, Any] = {
    "model": "gemma3:1b",
    "messages": MESSAGES,
    "stream": False,
    "n": 1,
    "options": {"temperature": 1.0, "frequency_penalty": 0.1, "num_ctx": 32000},
}


def key(model: str, params: dict[str, Any]) -> str:
    """Return the key of an entry, as TinyTroupe makes it."""
    return str((model, params))


def saved(entries: Any, protocol: int = pickle.DEFAULT_PROTOCOL) -> str:
    """Write a cache file as TinyTroupe does, and return its path."""
    Path("openai_api_cache.pickle").write_bytes(pickle.dumps(entries, protocol))
    return "openai_api_cache.pickle"


def found_in(path: str, messages: Any, **arguments: Any) -> str | None:
    """Load a file, and return what ``send_message`` finds where it may not call."""
    client = ScriptedClient(cache_mode="replay")
    client.cache.clear()
    client.cache.load(path)
    return client.send_message(messages, **arguments).content  # type: ignore[union-attr]


SAMPLING = {
    name: FIRST[name]
    for name in ("temperature", "max_tokens", "frequency_penalty", "presence_penalty")
}


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize(
    ("model", "params", "arguments"),
    [
        ("gpt-4", FIRST, SAMPLING),
        ("gpt-4", FIRST, {**SAMPLING, "top_p": 0, "timeout": 9}),
        ("gpt-5-mini", LATEST, {"max_tokens": 128000}),
        ("gpt-5-mini", LATEST, {"max_completion_tokens": 128000, "n": 1}),
        ("gemma3:1b", OLLAMA, {"temperature": 1, "frequency_penalty": 0.1}),
    ],
    ids=["first", "first with defaults", "latest", "latest with defaults", "Ollama"],
)
def test_an_entry_of_each_version_answers_the_call_that_made_it(
    model: str, params: dict[str, Any], arguments: dict[str, Any], protocol: int
) -> None:
    """Defaults, and other names of parameters, are no others."""
    path = saved({key(model, params): completion()}, protocol)
    assert found_in(path, MESSAGES, model=model, **arguments) == "Two coins."


@pytest.mark.parametrize(
    "params",
    [
        {"stop": ["\n", "END"]},
        {"stop": "END"},
        {"n": 2},
        {"response_format": {"type": "text"}},
        {"temperature": 1e-07, "presence_penalty": -0.5},
        {"reasoning_effort": "low"},
        {"temperature": None},
    ],
    ids=str,
)
def test_an_entry_answers_only_a_call_of_the_same_parameters(params: dict[str, Any]) -> None:
    """Each parameter of the entry counts."""
    entry = key("gpt-4o", {**LATEST, "model": "gpt-4o", **params})
    path = saved({entry: completion('{"coins": 2}')})
    arguments: dict[str, Any] = {"model": "gpt-4o", "max_tokens": 128000, **params}
    assert found_in(path, MESSAGES, **arguments) == '{"coins": 2}'
    with pytest.raises(CacheMissError):
        found_in(path, MESSAGES, **{**arguments, "max_tokens": 5})


class Colour(enum.Enum):
    """A class of the user's."""

    RED = 1


class Reading(pydantic.BaseModel):
    """A class given as response_format, as it stood where the cache was written."""

    a: int


EMPTY = {
    "choices": [
        {"index": 0, "message": {"role": "assistant", "content": ""}, "finish_reason": "length"}
    ]
}
UNREADABLE: dict[str, tuple[Any, Any, str]] = {
    "no text": (5, completion(), "key is not TinyTroupe's"),
    "a call": ("('gpt-4o', {'messages': exit()})", completion(), "cannot be read as plain data"),
    "unbalanced": ("('gpt-4o', {'messages': [", completion(), "cannot be read"),
    "no model": (
        key("gpt-4o", {"messages": MESSAGES})[1:].replace("'gpt-4o'", "(None", 1),
        completion(),
        "does not name a model",
    ),
    "a parameter": (
        key("gpt-4o", {**LATEST, "temprature": 1}),
        completion(),
        "Did you mean 'temperature'",
    ),
    "no choices": (key("gpt-4o", LATEST), {"choices": []}, "without choices"),
    "an empty answer": (key("gpt-4o", LATEST), EMPTY, "the answer is empty"),
    "another object": (key("gpt-4o", LATEST), Colour.RED, "not a pydantic model"),
}


@pytest.mark.parametrize("name", UNREADABLE)
def test_entries_that_cannot_be_read_are_counted_in_one_warning(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The warning has the number of the first and the reason; the others are read."""
    entry, value, words = UNREADABLE[name]
    path = saved(
        {
            key("gpt-4o", FIRST): completion(),
            entry: value,
            key("gemma3:1b", OLLAMA): completion(),
            "x": 1,
        }
    )
    # one for calls without top_p, which TinyTroupe wrote as 0 by itself
    assert ResponseCache("cache").load(path) == 3
    (message,) = [record.getMessage() for record in caplog.records]
    assert message.startswith(f"{path}: 2 of 4 entries cannot be read: entry 2: ")
    assert words in message
    assert len(message) < 700


def of_a_class() -> str:
    """Write a cache whose only entry had a class as ``response_format``, and return its path."""
    # what parse() adds is left out
    message = {
        "role": "assistant",
        "content": '{"a": 1}',
        "parsed": Colour.RED,
    }
    entry = completion(choices=[{"index": 0, "message": message, "finish_reason": "stop"}])
    return saved({key("gpt-4o", {**LATEST, "model": "gpt-4o", "response_format": Reading}): entry})


def test_an_entry_whose_response_format_is_a_class_is_warned_of(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The file has the class's name alone."""
    assert ResponseCache("cache").load(of_a_class()) == 0
    assert "it may name a class as response_format" in caplog.text


def tinytroupe_config(httpserver: HTTPServer, monkeypatch: pytest.MonkeyPatch) -> ScriptedServer:
    """Use TinyTroupe's config.ini with a server here."""
    server = ScriptedServer(httpserver, OK)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-verysecret")
    config = Path(__file__).with_name("tinytroupe.ini").read_text(encoding="utf-8")
    Path("config.ini").write_text(
        config.replace("[OpenAI]", f"[OpenAI]\nBASE_URL={server.base_url}")
    )
    return server


def test_a_tinytroupe_cache_answers_calls_under_its_config(
    httpserver: HTTPServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of llmcall, and TinyTroupe's own through ``http_client``."""
    server = tinytroupe_config(httpserver, monkeypatch)
    printed = commands.cache("load", saved({key("gpt-5-mini", LATEST): completion()}))
    assert printed.startswith("2 records loaded into ")
    assert llmcall.client().send_message(MESSAGES).cached  # type: ignore[union-attr]
    # it does not send REASONING_EFFORT to this model
    with openai.OpenAI(http_client=llmcall.http_client()) as itself:
        itself.chat.completions.create(
            model="gpt-5-mini",
            messages=MESSAGES,  # type: ignore[arg-type]
            max_completion_tokens=128000,
        )
    assert server.requests == []


def test_a_script_of_tinytroupes_form_runs_with_only_its_import_changed(
    httpserver: HTTPServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its config.ini, its names and its arguments mean what they meant; the second call is cached."""
    server = tinytroupe_config(httpserver, monkeypatch)
    llmcall.force_api_type("openai")
    llmcall.force_api_cache(True, "openai_api_cache.pickle")
    messages = [{"role": "user", "content": "What do apples cost?"}]
    for _ in range(2):
        reply = llmcall.client().send_message(
            messages, temperature=1.0, max_completion_tokens=50, echo=False
        )
        assert reply == {"role": "assistant", "content": "Two coins."}
    assert Path("openai_api_cache.cache").is_dir()
    [sent] = (seen.body for seen in server.requests)
    assert sent["max_completion_tokens"] == 50
    assert sent["model"] == "gpt-5-mini"
    assert "echo" not in sent


# Its keys


def read(text: str) -> llmcall.types.Settings:
    """Return the settings of a config.ini."""
    Path("config.ini").write_text(text, encoding="utf-8")
    llmcall.reset()
    return llmcall.settings()


def test_the_keys_of_tinytroupe_are_read_as_settings_of_llmcall(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Each has its value under the name of llmcall's setting, and one line, no warning, that says how it is read, or
    that it means nothing here.
    """
    caplog.set_level(logging.INFO, "llmcall")
    theirs = Path(__file__).with_name("tinytroupe.ini").read_text(encoding="utf-8")
    found = read(theirs.replace("[OpenAI]", "[OpenAI]\nFREQ_PENALTY=0.1"))
    values = {
        "model": "gpt-5-mini",
        "max_tokens": 128000,
        "retry_max_attempts": 5,
        "retry_waiting_time": 0,
        "limits_max_concurrent_calls": 4,
        "cache_mode": "auto",
        "frequency_penalty": 0.1,
        "cache_path": str(Path.cwd() / "openai_api_cache.cache"),
    }
    assert {name: getattr(found, name) for name in values} == values
    assert {record.levelname for record in caplog.records} == {"INFO"}
    lines = [record.getMessage().partition("[OpenAI] ")[2] for record in caplog.records]
    assert "CACHE_API_CALLS: TinyTroupe's setting, read as [Cache] MODE" in lines
    assert (
        "REASONING_MODEL: TinyTroupe's setting, ignored, because llmcall has no such setting"
        in lines
    )
    assert len(lines) == len(set(lines))


@pytest.mark.parametrize(
    ("text", "name", "value"),
    [
        ("CACHE_API_CALLS = True", "cache_mode", "auto"),
        ("CACHE_API_CALLS = no\n[Cache]\nMODE = replay", "cache_mode", "replay"),
        ("MAX_CONCURRENT_MODEL_CALLS = 0", "limits_max_concurrent_calls", None),
        ("MAX_ATTEMPTS = 5.0", "retry_max_attempts", 5),
    ],
)
def test_a_key_of_tinytroupe_means_a_setting(text: str, name: str, value: object) -> None:
    """llmcall's own keys override it."""
    assert getattr(read(f"[OpenAI]\n{text}"), name) == value
