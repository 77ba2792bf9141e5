"""TinyTroupe's pickle cache: its entries become records that a repeated call finds."""

from __future__ import annotations

import enum
import logging
import pickle
from pathlib import Path
from typing import Any

import pydantic
import pytest
from click.testing import CliRunner
from project_files import written
from pytest_httpserver import HTTPServer
from servers import OK, ScriptedServer, completion

import llmcall
from llmcall import CacheCorruptError, LLMCall
from llmcall.cache import tinytroupe
from llmcall.cli.main import main
from llmcall.testing import ScriptedClient

MESSAGES = [
    {"role": "system", "content": "You are Lisa's \"twin\".\nYou speak\tin riddles, \\ and 'quotes' – €."},
    {"role": "user", "content": 'What do "apples" cost?'},
]
# The parameters of TinyTroupe's first public version, which keys every one of them, and of 0.6.
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
    "options": {"temperature": 1.0, "frequency_penalty": 0.1, "num_ctx": 32000},
    "stream": False,
    "n": 1,
}
CONFIG = """
[OpenAI]
# Default options: openai, azure
API_TYPE=openai
MODEL=gpt-5-mini
REASONING_MODEL=o3-mini
EMBEDDING_MODEL=text-embedding-3-small
AZURE_EMBEDDING_MODEL_API_VERSION=2023-05-15
MAX_COMPLETION_TOKENS=128000
TIMEOUT=480
MAX_ATTEMPTS=5
WAITING_TIME=1
EXPONENTIAL_BACKOFF_FACTOR=5
MAX_CONCURRENT_MODEL_CALLS=4
REASONING_EFFORT=high
CACHE_API_CALLS=True
CACHE_FILE_NAME=openai_api_cache.pickle
MAX_CONTENT_DISPLAY_LENGTH=4000

[Simulation]
PARALLEL_AGENT_ACTIONS=True

[Logging]
LOGLEVEL=ERROR
"""


def key(model: str, params: dict[str, Any]) -> str:
    """Return the key of an entry, as TinyTroupe makes it."""
    return str((model, params))


def saved(entries: Any, protocol: int = pickle.DEFAULT_PROTOCOL) -> str:
    """Write a cache file as TinyTroupe does, and return its path."""
    Path("openai_api_cache.pickle").write_bytes(pickle.dumps(entries, protocol))
    return "openai_api_cache.pickle"


def sdk_completion(**fields: Any) -> Any:
    """Return the SDK's object of a completion."""
    from openai.types.chat import ChatCompletion

    return ChatCompletion.model_validate({**completion(), **fields})


def replayed(path: str, messages: Any, **arguments: Any) -> str | None:
    """Return what ``send_message`` finds among a file's records, where it may not call."""
    client = ScriptedClient(cache_mode="replay")
    for record in tinytroupe.read(path)[0]:
        client.cache.store(record)
    reply = client.send_message(messages, **arguments)
    return reply and reply.content


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_the_first_version(protocol: int) -> None:
    """Its objects of the SDK are read, and its default stop is none."""
    path = saved({key("gpt-4", FIRST): sdk_completion()}, protocol)
    records, unreadable = tinytroupe.read(path)
    assert not unreadable and len(records) == 2  # one for calls without top_p, which TinyTroupe wrote as 0 by itself
    asked = {name: FIRST[name] for name in ("temperature", "max_tokens", "top_p")}
    found = replayed(path, MESSAGES, model="gpt-4", **asked, frequency_penalty=0, presence_penalty=0, timeout=9)
    assert found == "Two coins."
    del asked["top_p"]
    assert replayed(path, MESSAGES, model="gpt-4", **asked, frequency_penalty=0, presence_penalty=0) == "Two coins."


def test_the_latest_version() -> None:
    """Its dumped responses are read, and its other name of the token limit is no other parameter."""
    path = saved({key("gpt-5-mini", LATEST): sdk_completion().model_dump()})
    assert replayed(path, MESSAGES, model="gpt-5-mini", max_tokens=128000) == "Two coins."
    assert replayed(path, MESSAGES, model="gpt-5-mini", max_completion_tokens=128000, n=1) == "Two coins."


def test_ollama() -> None:
    """Its options are parameters like any other, save the window, which is none of the API."""
    path = saved({key("gemma3:1b", OLLAMA): completion()})
    assert replayed(path, MESSAGES, model="gemma3:1b", temperature=1, frequency_penalty=0.1) == "Two coins."


@pytest.mark.parametrize(
    "params",
    [
        {"stop": ["\n", "END"]},
        {"stop": "END"},
        {"n": 2},
        {"response_format": {"type": "json_object"}},
        {"temperature": 1e-07, "presence_penalty": -0.5},
        {"reasoning_effort": "low"},
        {"temperature": None, "stop": None},
    ],
    ids=str,
)
def test_parameters(params: dict[str, Any]) -> None:
    """A call of the same parameters finds the answer, and one of others does not."""
    path = saved({key("gpt-4o", {**LATEST, "model": "gpt-4o", **params}): completion()})
    arguments: dict[str, Any] = {"model": "gpt-4o", "max_tokens": 128000, **params}
    assert replayed(path, MESSAGES, **arguments) == "Two coins."
    with pytest.raises(llmcall.CacheMissError):
        replayed(path, MESSAGES, **{**arguments, "max_tokens": 5})


class Colour(enum.Enum):
    """Be a class of the user's."""

    RED = 1


@pytest.mark.parametrize("parsed", [{"a": 1}, Colour.RED], ids=["a dict", "an object"])
def test_parsed_answers(parsed: Any) -> None:
    """What the SDK's parse() adds to an answer is left out, whatever it is."""
    message = {"role": "assistant", "content": '{"a": 1}', "parsed": parsed}
    path = saved({key("gpt-4o", LATEST): completion(choices=[{"index": 0, "message": message}])})
    (record,), unreadable = tinytroupe.read(path)
    assert not unreadable and record.response["choices"][0]["message"].keys() == {"role", "content"}


def test_settings_enter_as_they_do_in_a_call() -> None:
    """Aliases, namespace, normalizers and the effort of reasoning, which is in no key, are the configured ones."""
    llmcall.configure(aliases={"gpt-5-mini": "gpt-5"}, cache_namespace="lab", cache_normalize="times")
    llmcall.configure(reasoning_effort="high")
    messages = "It is 10:15."
    params = {**LATEST, "messages": [{"role": "user", "content": messages}]}
    path = saved({key("gpt-5-mini", params): completion()})
    assert replayed(path, "It is 23:59.", model="gpt-5-mini", max_tokens=128000) == "Two coins."
    llmcall.configure(reasoning_effort="low")
    assert replayed(path, messages, model="gpt-5", max_tokens=128000) == "Two coins."


def test_the_namespace_of_the_endpoints() -> None:
    """An endpoint's namespace goes before the cache's, as in a call."""
    llmcall.configure(endpoints=[llmcall.Endpoint("east", models=("gpt-5-mini",), namespace="east")])
    (record,), _ = tinytroupe.read(saved({key("gpt-5-mini", LATEST): completion()}))
    assert record.request["namespace"] == "east"


class Action:
    """Be a class given as response_format."""


EMPTY = {"choices": [{"index": 0, "message": {"role": "assistant", "content": ""}, "finish_reason": "length"}]}
UNREADABLE: dict[str, tuple[Any, Any, str]] = {
    "a class": (
        key("gpt-4o", {**LATEST, "response_format": Action}),
        completion(),
        "response_format is a Python",
    ),
    "no text": (5, completion(), "key is none of TinyTroupe's"),
    "another text": ("hello", completion(), "key is no plain data"),
    "a list": ("['gpt-4o', {}]", completion(), "key is none of TinyTroupe's"),
    "a call": ("('gpt-4o', {'messages': exit()})", completion(), "messages is no plain data"),
    "deep": ("(" * 101 + ")" * 101, completion(), "100 levels"),
    "unbalanced": ("('gpt-4o', {'messages': [", completion(), "cannot be read"),
    "no model": (key("gpt-4o", {"messages": MESSAGES})[1:].replace("'gpt-4o'", "(None", 1), completion(), "no model"),
    "no messages": (key("gpt-4o", {"temperature": 1}), completion(), "messages"),
    "a role": (key("gpt-4o", {"messages": [{"role": "robot", "content": "Hi"}]}), completion(), "robot"),
    "a parameter": (key("gpt-4o", {**LATEST, "temprature": 1}), completion(), "did you mean 'temperature'"),
    "no response": (key("gpt-4o", LATEST), None, "malformed answer"),
    "no choices": (key("gpt-4o", LATEST), {"choices": []}, "without choices"),
    "an empty answer": (key("gpt-4o", LATEST), EMPTY, "the answer is empty"),
    "another object": (key("gpt-4o", LATEST), Colour.RED, "no pydantic model"),
    "not a number": (key("gpt-4o", LATEST), completion(created=float("nan")), "nan"),
}


@pytest.mark.parametrize("name", UNREADABLE)
def test_unreadable_entries(name: str) -> None:
    """An entry that cannot be read is told by its number, with the reason, and the others are read."""
    entry, value, words = UNREADABLE[name]
    path = saved({key("gpt-4o", FIRST): completion(), entry: value, key("gemma3:1b", OLLAMA): completion()})
    records, (reason,) = tinytroupe.read(path)
    assert len(records) == 3
    assert reason.startswith("entry 2: ") and words in reason and len(reason) < 300


class Reading(pydantic.BaseModel):
    """Be a class given as response_format, as it stood where the cache was written."""

    a: int


def test_an_entry_whose_response_format_is_a_class(caplog: pytest.LogCaptureFixture) -> None:
    """The file has the class's name alone; ``classes`` gives it, and the call with that class finds its answer."""
    params = {**LATEST, "model": "gpt-4o", "response_format": Reading}
    path = saved({key("gpt-4o", params): completion('{"a": 1}')})
    client = ScriptedClient(cache_mode="replay")
    assert client.cache.load(path) == 0
    assert "load(…, classes=[Reading])" in caplog.text
    assert client.cache.load(path, classes=[Action, Reading]) == 1
    reply = client.send_message(MESSAGES, model="gpt-4o", max_tokens=128000, response_format=Reading)
    assert reply is not None and reply.cached and reply.parsed == Reading(a=1)


def test_two_answers_to_one_request() -> None:
    """Entries that differ in what does not matter are one record; the first answer counts, another one is told."""
    other = {**LATEST, "timeout": 5, "temperature": None}
    path = saved({key("gpt-5-mini", LATEST): completion(), key("gpt-5-mini", other): completion()})
    assert [len(found) for found in tinytroupe.read(path)] == [1, 0]
    path = saved({key("gpt-5-mini", LATEST): completion(), key("gpt-5-mini", other): completion("Three.")})
    records, unreadable = tinytroupe.read(path)
    assert [record.response["choices"][0]["message"]["content"] for record in records] == ["Two coins."]
    assert unreadable == ["entry 2: it is another answer to a request that stands in the file before"]


@pytest.mark.parametrize("data", [b"", b"\x80\x04]", b"\x80\x04K\x01.", b"\x80\x04\x8c\x01a.", b"no pickle"])
def test_another_file(data: bytes) -> None:
    """A file that is no such cache is an error that names it."""
    Path("some.pickle").write_bytes(data)
    with pytest.raises(CacheCorruptError, match=r"some\.pickle"):
        tinytroupe.read("some.pickle")


def test_what_could_not_be_read_is_said(caplog: pytest.LogCaptureFixture) -> None:
    """One warning says how many entries could not be read, and why the first of them."""
    broken = {f"('gpt-4o', {{'messages': {number}}})": completion() for number in range(9)}
    path = saved({key("gpt-5-mini", LATEST): completion(), **broken})
    with caplog.at_level(logging.WARNING, "llmcall"):
        assert len(tinytroupe.readable(path)) == 1
    (message,) = [record.getMessage() for record in caplog.records]
    assert message.startswith(f"{path}: 9 of 10 entries could not be read: entry 2: ") and "entry 7" not in message
    caplog.clear()
    assert len(tinytroupe.readable(saved({key("gpt-5-mini", LATEST): completion()}))) == 1 and not caplog.records


def test_recognized() -> None:
    """A pickle is told from an exported file by its first byte."""
    assert tinytroupe.recognized(saved({}))
    assert not tinytroupe.recognized(written("export.jsonl", '{"llmcall": 1, "settings": {}}\n'))
    assert not tinytroupe.recognized(written("empty", ""))
    assert tinytroupe.read(saved({})) == ([], [])


def test_a_script_of_its_form(httpserver: HTTPServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """With its config.ini, its templates and its calls, a script runs when only its import was changed."""
    pytest.importorskip("pystache")
    server = ScriptedServer(httpserver, OK)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-verysecret")
    written("config.ini", CONFIG.replace("API_TYPE=openai", f"API_TYPE=openai\nBASE_URL={server.base_url}"))
    written("templates/teller.system.mustache", "# {{title}}\n\n{{#goods}}\n  - {{{.}}}\n{{/goods}}\n")
    written("templates/teller.user.mustache", "{{^goods}}Nothing.{{/goods}}What do they cost?")

    from llmcall import client, force_api_cache, force_api_type

    force_api_type("openai")
    force_api_cache(True, "openai_api_cache.pickle")
    messages = [{"role": "user", "content": "What do apples cost?"}]
    for _ in range(2):
        response = client().send_message(messages, temperature=1.0, max_completion_tokens=50, echo=False)
        assert response is not None and response["content"] == "Two coins." and response["role"] == "assistant"
    call = LLMCall("teller.system.mustache", "teller.user.mustache", temperature=0.5)
    assert call.call(title="Market", goods=['"bread"', "salt & pepper"]) == "Two coins."
    assert Path("openai_api_cache.cache").is_dir()

    first, second = (seen.body for seen in server.requests)
    assert first["max_completion_tokens"] == 50 and first["model"] == "gpt-5-mini" and "echo" not in first
    assert [message["content"].split() for message in second["messages"]] == [
        ["#", "Market", "-", '"bread"', "-", "salt", "&", "pepper"],
        ["What", "do", "they", "cost?"],
    ]


def test_its_cache_serves_its_script() -> None:
    """After its pickle was loaded, a script with its config.ini needs no key and no network."""
    written("config.ini", CONFIG)
    path = saved({key("gpt-5-mini", LATEST): sdk_completion().model_dump()})
    done = CliRunner().invoke(main, ["cache", "load", path])
    assert done.exit_code == 0 and done.output.startswith("1 records loaded into ")
    reply = llmcall.client().send_message(MESSAGES)
    assert reply is not None and reply.cached and reply.content == "Two coins."
