"""Settings: where they come from, which of them win, what is refused, and that no key is ever
shown.
"""

from __future__ import annotations

import importlib
import json
import logging
import os
import pickle
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import openai
import pytest
from commands import written
from config_file import example_file

import llmcall
from llmcall import ConfigError, Endpoint, Settings
from llmcall.testing import ScriptedClient

SECRET = "sk-very-secret"


def read(text: str) -> Settings:
    """Read a text as the project's config.ini."""
    written("config.ini", text)
    llmcall.reset()
    return llmcall.settings()


@contextmanager
def recorded_with(**settings: Any) -> Iterator[None]:
    """Open a cassette in whose header some settings stand."""
    name = f"{'-'.join(settings)}.jsonl"
    written(name, json.dumps({"llmcall": 1, "settings": settings}) + "\n")
    with llmcall.cassette(name, mode="none"):
        yield


# Layers.


def test_each_layer_is_above_those_before_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The value and its origin are those of the highest layer that says something."""

    def decides(value: str, origin: str, found: Settings | None = None) -> None:
        found = found or llmcall.settings()
        assert (found.cache_namespace, found.origin("CACHE_NAMESPACE")) == (value, origin)

    decides("", "default")
    path = written("config.ini", "[Cache]\nNAMESPACE = file\n")
    decides("file", f"config.ini ({path}), [Cache] NAMESPACE")
    path = written(".env", "LLMCALL_CACHE_NAMESPACE=.env\n")
    decides(".env", f".env ({path}), LLMCALL_CACHE_NAMESPACE")
    monkeypatch.setenv("LLMCALL_CACHE_NAMESPACE", "environment")
    decides("environment", "environment variable LLMCALL_CACHE_NAMESPACE")
    with recorded_with(cache_namespace="cassette"):
        with recorded_with(cache_namespace="inner", model="a"):
            decides("inner", "cassette cache_namespace-model.jsonl")
        llmcall.reset()
        decides("cassette", "cassette cache_namespace.jsonl")
        llmcall.configure(cache_namespace="configure")
        decides("configure", "configure()")
        decides("argument", "argument", llmcall.OpenAIClient(cache_namespace="argument").settings)


def test_blocks_nest_overlap_and_withdraw() -> None:
    """The end of a block takes away what it brought, also by an exception and in whatever order;
    None withdraws.
    """

    def now() -> tuple[str, float, float | None]:
        return llmcall.settings().model, llmcall.settings().timeout, llmcall.settings().temperature

    llmcall.configure(model="a", timeout=5)
    with pytest.raises(
        ConfigError, match=r"configure\(\), timeout: -1 is not a number of seconds above 0"
    ):
        llmcall.configure(model="b", timeout=-1)
    with llmcall.configured(timeout=None):
        with pytest.raises(KeyError), llmcall.configured(model="c"):
            llmcall.configure(temperature=1)
            assert now() == ("c", 60, 1)
            raise KeyError
        assert now() == ("a", 60, None)
    llmcall.configure(model=None)
    assert now() == ("gpt-4o-mini", 5, None)
    first, second = llmcall.configured(model="a"), llmcall.configured(temperature=1)
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert now() == ("gpt-4o-mini", 5, 1)
    second.__exit__(None, None, None)
    assert now() == ("gpt-4o-mini", 5, None)


def test_force_api_cache(tmp_path: Path) -> None:
    """On turns off into auto and leaves replay as it is; a cache file is a path, a pickle's that of
    a directory.
    """
    for below, forced, mode in (
        ("auto", True, "auto"),
        ("off", True, "auto"),
        ("replay", True, "replay"),
        ("replay", False, "off"),
        ("off", None, "off"),
    ):
        llmcall.configure(cache_mode=below)
        llmcall.force_api_cache(forced)
        assert llmcall.settings().cache_mode == mode
    llmcall.force_api_cache(True, "openai_api_cache.pickle")
    assert llmcall.settings().cache_path == str(tmp_path / "openai_api_cache.cache")
    llmcall.force_api_cache(True, tmp_path / "x")
    assert llmcall.OpenAIClient(cache_path="y").settings.cache_path == str(tmp_path / "x")
    llmcall.force_api_cache(True)
    assert llmcall.settings().cache_path == str(tmp_path / ".llmcall" / "cache")
    with pytest.raises(TypeError, match="True, False or None, not a str"):
        llmcall.force_api_cache("off")  # type: ignore[arg-type]


# When changes are seen.


def test_changes_are_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """settings() sees what changes in environment, files and working directory; where nothing did,
    it is the same.

    A file that is broken while the program runs is an error at each look, until it is mended.
    """
    first = llmcall.settings()
    monkeypatch.setenv("UNRELATED", "x")
    assert llmcall.settings() is first
    for number, path in enumerate(["config.ini", "config.ini", ".env", ".env"]):
        timeout = 10 + number
        written(
            path,
            f"LLMCALL_TIMEOUT={timeout}" if path == ".env" else f"[OpenAI]\nTIMEOUT = {timeout}",
        )
        assert llmcall.settings().timeout == timeout
    written("config.ini", "[OpenAI]\nMODEL = ${MINE}\nTIMEOUT = 11\n[Aliases]\n")
    for name in ("a", "b"):
        monkeypatch.setenv("MINE", name)
        before = llmcall.settings()
        assert before.model == name
    written("config.ini", "[OpenAI]\nTIMEOUT = soon\n")
    for _ in range(2):
        with pytest.raises(
            ConfigError, match=r"\[OpenAI\] TIMEOUT: 'soon' is not a number of seconds above 0"
        ):
            llmcall.settings()
    written("config.ini", "[OpenAI]\nMODEL = b  # mended\nTIMEOUT = 11\n[Aliases]\n")
    assert llmcall.settings() is before
    written("other/.llmcall/x", "")
    monkeypatch.chdir(tmp_path / "other")
    assert llmcall.settings().model == "gpt-4o-mini"


def test_clients_already_made_follow(monkeypatch: pytest.MonkeyPatch) -> None:
    """client() looks at files and environment at most once a second, configure() at once; all
    clients follow.
    """
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    client, own = llmcall.client(), ScriptedClient(lambda messages: "yes", model="own")
    written("config.ini", "[OpenAI]\nMODEL = a\n")
    assert llmcall.client() is client and client.settings.model == "gpt-4o-mini"
    now[0] += 1
    assert llmcall.client().settings.model == "a"
    written("config.ini", "[OpenAI]\nMODEL = b\n")
    llmcall.configure(temperature=0.5)
    assert client.settings.model == "b"
    own.send_message("Hello")
    assert own.requests[0].model == "own" and own.requests[0].body["temperature"] == 0.5


# Places.


@pytest.mark.parametrize("marker", ["config.ini", ".llmcall/x", "pyproject.toml", ".git/x", ".git"])
def test_the_root_is_the_nearest_marked_folder(
    marker: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files are sought upward to the project's root, .env from the working directory on; a folder
    is no file.
    """
    written("config.ini", "[OpenAI]\nTIMEOUT = 5\n")
    written("a/" + marker, "")
    written("a/.env", "LLMCALL_MODEL=far\nLLMCALL_TEMPERATURE=1\n")
    written("a/b/.env", "LLMCALL_MODEL=near\nLLMCALL_TEMPLATES_PATH=mine\n")
    (tmp_path / "a/b/c/.env").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "a/b/c")
    found = llmcall.settings()
    assert (found.timeout, found.model, found.temperature) == (60, "near", None)
    assert found.cache_path == str(tmp_path / "a/.llmcall/cache")
    assert found.templates_path == str(tmp_path / "a/b/mine")
    monkeypatch.setenv("LLMCALL_CACHE_PATH", "../answers")
    monkeypatch.setenv("HOME", "/home")
    assert llmcall.settings().cache_path == str(tmp_path / "a/b/answers")
    assert llmcall.settings().replace(cache_path="~/x").cache_path == "/home/x"
    assert llmcall.settings().replace(cache_path="redis://h:1/0").cache_path == "redis://h:1/0"


@pytest.mark.parametrize("by", ["environment", ".env"])
def test_a_named_file(by: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """LLMCALL_CONFIG's file is read in place of config.ini, and its paths start from its folder."""
    written("config.ini", "[OpenAI]\nMODEL = found\n")
    written("other/mine.ini", "[OpenAI]\nTIMEOUT = 5\n[Cache]\nPATH = answers\n")
    if by == "environment":
        monkeypatch.setenv("LLMCALL_CONFIG", "other/mine.ini")
    else:
        written(".env", "LLMCALL_CONFIG=other/mine.ini\n")
    found = llmcall.settings()
    assert (found.model, found.timeout, found.cache_path) == (
        "gpt-4o-mini",
        5,
        str(tmp_path / "other/answers"),
    )
    assert found.origin("TIMEOUT") == f"mine.ini ({tmp_path / 'other/mine.ini'}), [OpenAI] TIMEOUT"
    monkeypatch.setenv("LLMCALL_CONFIG", "missing.ini")
    with pytest.raises(ConfigError, match="environment variable LLMCALL_CONFIG: there is no file"):
        llmcall.settings()


def test_a_missing_key_says_where_one_was_sought(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From a directory without a config.ini, the message says that, with the directory and the
    root.
    """
    written("pyproject.toml", "")
    monkeypatch.chdir(Path(written("deep/down/x", "")).parent)
    with pytest.raises(ConfigError, match="OPENAI_API_KEY") as caught:
        llmcall.client().send_message("Hello")
    here = tmp_path / "deep" / "down"
    assert f"no config.ini in {here} or above it, up to the project's root {tmp_path}" in str(
        caught.value
    )
    written(tmp_path / "config.ini", "")
    llmcall.reset()
    with pytest.raises(ConfigError, match="OPENAI_API_KEY") as caught:
        llmcall.client().send_message("Hello")
    assert f"(read: {tmp_path / 'config.ini'})" in str(caught.value)


# Variables.


def test_variables(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """An empty variable hides neither .env nor config.ini; none takes away what a file sets; .env
    sets no variable.

    An unknown one of ours is warned of once, with the nearest; those of other uses are known.
    """
    written("config.ini", "[OpenAI]\nMODEL = a\nTIMEOUT =\nDEADLINE = 30\n")
    written(".env", "LLMCALL_TEMPERATURE=0.5\nexport LLMCALL_TEMPLATES_PATH='a b' # s\n")
    for name in ("LLMCALL_MODEL", "LLMCALL_TEMPERATURE", "LLMCALL_CONFIG", "OPENAI_API_KEY"):
        monkeypatch.setenv(name, " ")
    for name in ("LLMCALL_DEADLINE", "LLMCALL_MODLE", "LLMCALL_SCOPE"):
        monkeypatch.setenv(name, "none")
    found = llmcall.settings()
    assert (found.model, found.temperature, found.timeout, found.api_key) == ("a", 0.5, 60, None)
    assert (found.deadline, found.origin("DEADLINE")) == (
        None,
        "environment variable LLMCALL_DEADLINE",
    )
    assert (
        found.templates_path == str(Path.cwd() / "a b")
        and "LLMCALL_TEMPLATES_PATH" not in os.environ
    )
    said = "environment variable LLMCALL_MODLE: there is no such setting; did you mean 'LLMCALL_MODEL'?"
    assert caplog.record_tuples == [("llmcall", logging.WARNING, said)]
    written(".env", b"A=1\nB=\xff")
    with pytest.raises(ConfigError, match=r"\.env \(.*\), line 2: not UTF-8"):
        llmcall.settings()


# config.ini.


def test_the_shown_file_has_every_setting(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The top-level config.ini is what the table of settings says; read, it changes nothing and
    warns of nothing.
    """
    shown = (Path(__file__).parents[1] / "config.ini").read_text(encoding="utf-8")
    assert shown == example_file()
    bare = [(row.name, value) for row, value, _ in llmcall.settings().items()]
    assert [(row.name, value) for row, value, _ in read(shown).items()] == bare
    monkeypatch.setenv("AZURE_EAST_KEY", "x")
    used = read(re.sub(r"(?m)^# (?=\[|\S+ = )", "", shown))
    assert (
        used.prices["gpt-4o-mini"] == (0.15, 0.6, 0.075)
        and len(used.endpoints) == len(used.models) == 1
    )
    assert all(used.endpoints[0]) and len(used.models["my-model*"]) == 9
    assert caplog.text == ""


def test_a_config_of_tinytroupe(caplog: pytest.LogCaptureFixture) -> None:
    """Its keys are read as ours, each said once; those that mean nothing here are said too; nothing
    is warned of.
    """
    caplog.set_level(logging.INFO, "llmcall")
    theirs = (Path(__file__).parent / "tinytroupe.ini").read_text(encoding="utf-8")
    found = read(theirs.replace("[OpenAI]", "[OpenAI]\nFREQ_PENALTY=0.1"))
    assert (found.model, found.max_tokens, found.retry_max_attempts, found.retry_waiting_time) == (
        "gpt-5-mini",
        128000,
        5,
        0,
    )
    assert (found.limits_max_concurrent_calls, found.cache_mode, found.frequency_penalty) == (
        4,
        "auto",
        0.1,
    )
    assert found.cache_path == str(Path.cwd() / "openai_api_cache.cache")
    assert (
        found.origin("cache_mode")
        == f"config.ini ({Path.cwd() / 'config.ini'}), [OpenAI] CACHE_API_CALLS"
    )
    assert {record.levelname for record in caplog.records} == {"INFO"}
    said = [record.getMessage().partition("[OpenAI] ")[2] for record in caplog.records]
    assert "CACHE_API_CALLS: a key of TinyTroupe's, read as [Cache] MODE" in said
    assert "REASONING_MODEL: a key of TinyTroupe's without a meaning in llmcall" in said
    assert len(said) == len(set(said))


@pytest.mark.parametrize(
    ('text', 'name', 'value'),
    [
        ("CACHE_API_CALLS = True", "cache_mode", "auto"),
        ("CACHE_API_CALLS = no\n[Cache]\nMODE = replay", "cache_mode", "replay"),
        ("MAX_CONCURRENT_MODEL_CALLS = 0", "limits_max_concurrent_calls", None),
        ("MAX_ATTEMPTS = 5.0", "retry_max_attempts", 5),
        ("MODEL = a#b", "model", "a#b"),
        ("MODEL = a # b", "model", "a"),
        ("MODEL = b\nmodel = b\n[openai]\nMODEL = a", "model", "a"),
        ("model = a=50%  ; b", "model", "a=50%"),
        ("MODEL = a ${NAME}-${OTHER} $$ b", "model", "a value-$x $$ b"),
        ("MODEL = $${NAME}$", "model", "${NAME}$"),
        ("[CACHE]\nnormalize =\n    times, uuids\n    # a comment\n    [0-9]+, x ; y", "cache_normalize",
         ("times", "uuids", "[0-9]+, x")),
        ("[Simulation]\ntwice = 1\ntwice = 2\nno value\n  but more\n = x\n[Logging]\nLOGLEVEL=ERROR\n[OpenAI]\n"
         "MODEL = a\n[Simulation]\n[DEFAULT]\nMODEL = b\n[Model]\nlayers = 3", "model", "a"),
        ("[Cache]\nNORMALIZE = none", "cache_normalize", ()),
        ("[Cache]\nNORMALIZE = a, times", "cache_normalize", ("a, times",)),
        ("[Cache]\nNAMESPACE = none", "cache_namespace", "none"),
        ("[Cassette]\nMODE = NONE", "cassette_mode", "none"),
        ("REASONING_EFFORT = none", "reasoning_effort", "none"),
        ("TEMPERATURE = .5", "temperature", 0.5),
        ("BASE_URL = http://[::1]:8000/v1", "base_url", "http://[::1]:8000/v1"),
        ("BASE_URL = https://bücher_1.test/a?b=c", "base_url", "https://bücher_1.test/a?b=c"),
        ("[Prices]\ngemma3:1b = 0, 0 ; free\nb = 0.15, 0.60, 0.075", "prices",
         {"gemma3:1b": (0, 0), "b": (0.15, 0.6, 0.075)}),
        ("[Fallbacks]\na = b, c", "fallbacks", {"a": ("b", "c")}),
        ("[Model my*]\nCONTEXT_WINDOW = 8192\nREASONING = yes\nREFUSED_PARAMETERS = top_p, stop\nENCODING =", "models",
         {"my*": {"context_window": 8192, "reasoning": True, "refused_parameters": ("top_p", "stop")}}),
        ("[endpoint  East One]\nModels = a, b:1\nAZURE_ENDPOINT = https://east/", "endpoints",
         (Endpoint("East One", ("a", "b:1"), "azure", azure_endpoint="https://east/"),)),
    ],
)  # fmt: skip
def test_what_a_file_says(
    text: str,
    name: str,
    value: Any,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Comments, references, lists and tables are read as the manual says, also in a file from
    Windows.

    Whatever stands in somebody else's sections is neither an error nor a warning.
    """
    monkeypatch.setenv("NAME", "value")
    monkeypatch.setenv("OTHER", "$x")
    text = text if text.startswith("[") else "[OpenAI] ; ours\n" + text
    assert getattr(read(text), name) == value
    assert getattr(read("\ufeff" + text.replace("\n", "\r\n")), name) == value and caplog.text == ""


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ("[OpenAI]\nMODLE = a\n", "[OpenAI] MODLE: there is no such key; did you mean 'MODEL'?"),
        ("[Retry]\nCACHE_API_CALLS = off\n", "[Retry] CACHE_API_CALLS: there is no such key"),
        ("[Endpoint a]\nMODELS = m\nAPIKEY = x\n", "[Endpoint a] APIKEY: there is no such key; did you mean"),
        ("[Endpoint a]\nBASE_URL = http://h/v1\n", "[Endpoint a]: without MODELS this endpoint is never used"),
        ("[OpenIA]\nMODE = off\n", "the section [OpenIA] is ignored; did you mean 'OpenAI'?"),
        ("[endpoint]\nMODELS = m\n", "the section [endpoint] is ignored; did you mean 'Endpoint NAME'?"),
        ("[Aliases]\na = 'b'\n", "[Aliases] a: the quotes around the value are part of it"),
        ("[Cache]\nNORMALIZE = time, uuids\n", "'time' is read as a regular expression; did you mean 'times'?"),
    ],
)  # fmt: skip
def test_warnings(text: str, message: str, caplog: pytest.LogCaptureFixture) -> None:
    """What is probably a mistake is one warning that names file, section and key, and the nearest
    right one.
    """
    read(text)
    llmcall.settings()
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert message in caplog.text and str(Path.cwd() / "config.ini") in caplog.text


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ("MODEL = sk-secret\n[OpenAI]\n", r"line 1: a line above the first \[Section\]"),
        ("[Mine]\nno value\n[OpenAI]\nMODEL = a\nsk-secret\n", r"line 5: neither \[Section\] nor KEY = value"),
        ("[OpenAI]\n= sk-secret\n", r"line 2: neither \[Section\] nor KEY = value"),
        (b"[OpenAI]\n# \xe4\n", r"line 2: not UTF-8"),
        ("[Prices]\na = 1, -2\n", r"\[Prices\] a: '1, -2' is not two or three numbers of at least 0"),
        ("[Model a]\nCONTEXT_WINDOW = big\n", r"\[Model a\] CONTEXT_WINDOW: 'big' is not a whole number of at least 1"),
        ("[OpenAI]\nAZURE_ENDPOINT = localhost:8000/v1\n", r"\[OpenAI\] AZURE_ENDPOINT: 'localhost:8000/v1' is not"),
        ("[Endpoint a]\nBASE_URL = localhost:8000/v1\n", r"\[Endpoint a\] BASE_URL: 'localhost:8000/v1' is not"),
        ("[OpenAI]\nMODEL = ${NO_SUCH}\n", r"\[OpenAI\] MODEL: the environment variable NO_SUCH is not set"),
        ("[OpenAI]\nMODEL = a\n  TIMEOUT = 5\n", r"\[OpenAI\] MODEL: .* is not one line of text"),
    ],
)  # fmt: skip
def test_broken_files(text: str | bytes, message: str) -> None:
    """A broken file is an error with path, line or key, and without what may be a key."""
    written("config.ini", text)
    with pytest.raises(ConfigError, match=message) as caught:
        llmcall.settings()
    assert str(Path.cwd() / "config.ini") in str(caught.value) and "secret" not in str(caught.value)
    assert caught.value.__context__ is None or caught.value.__suppress_context__


# Values.


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("temperature", "-0.1", "is not a number of at least 0"),
        ("timeout", 1e12, "is not a number of seconds above 0, at most 2000000"),
        ("max_tokens", "1.5", "is not a whole number of at least 1"),
        ("cache_mode", False, "is not one of auto, replay, refresh, off"),
        ("cache_normalize", "(", "is not a regular expression"),
        ("cassette_allow", 3, "is not a list of texts"),
        ("cassette_allow", "(a", "is not a regular expression"),
        ("azure_ad_token_provider", "token", "is not a function"),
        ("models", {"a": {"window": 1}}, "[Model a]: unknown key 'window'"),
        ("endpoints", [Endpoint("a"), Endpoint("a")], "there are two endpoints 'a'"),
        (
            "endpoints",
            [{"name": "a", "apikey": SECRET}],
            "[Endpoint a]: unknown key 'apikey'; did you mean 'api_key'?",
        ),
        ("api_key", "sk-very secret", "not a key: one word of text, or a function"),
        ("base_url", "Bearer very-secret", "is not an address"),
        ("base_url", "https://good.example\\@evil.example", "is not an address"),
        ("base_url", "http://host:99999/v1", "is not an address"),
        ("base_url", f"https://{'a' * 64}/v1", "is not an address"),
        ("cache_mode", "very-secret" * 9, "is not one of auto"),
    ],
)
def test_refused_values(name: str, value: Any, expected: str) -> None:
    """A value of the wrong type or range is an error that names the place and what is allowed."""
    with pytest.raises(ConfigError, match=rf"configure\(\), {name}") as caught:
        llmcall.configure(**{name: value})
    assert expected in str(caught.value) and "secr" not in str(caught.value)


def test_broken_dotenv(caplog: pytest.LogCaptureFixture) -> None:
    """A line of .env that sets nothing is said once, however often the file is read, and the others
    count.
    """
    path = written(".env", "# s\nno assignment\n\nLLMCALL_MODEL=a\n")
    for temperature in (0.5, 1):
        llmcall.configure(temperature=temperature)
        assert llmcall.settings().model == "a"
    assert caplog.messages == [f".env ({path}), line 2: not NAME=value"]


# Keys.


@pytest.mark.parametrize(
    "variable", ["OPENAI_API_KEY", "LLMCALL_API_KEY", "OPENAI_ORG_ID", "LLMCALL_ORGANIZATION"]
)
def test_what_can_be_a_key(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A line's end around a key or an organization is no part of it; what no header can hold is
    refused, not shown.
    """
    for value in (f"{SECRET}\n", f" {SECRET}\r\n"):
        monkeypatch.setenv(variable, value)
        assert (
            getattr(llmcall.settings(), "organization" if "ORG" in variable else "api_key")
            == SECRET
        )
    for value in (f"{SECRET}ü", f"{SECRET}\n{SECRET}", f"{SECRET}\x07x"):
        monkeypatch.setenv(variable, value)
        with pytest.raises(
            ConfigError, match=f"environment variable {variable}: not an? (key|organization)"
        ) as caught:
            llmcall.settings()
        assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    ("api_type", "key"), [("openai", "openai"), ("azure", "azure"), ("mine", "openai")]
)
def test_keys_of_the_sdks_variables(
    api_type: str, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which variable of the SDK counts depends on the client; a key of ours in the same layer goes
    before.
    """
    monkeypatch.setenv("OPENAI_API_KEY", "openai")
    monkeypatch.setenv("AZURE_OPENAI_KEY", "old")
    monkeypatch.setenv("AZURE_OPENAI_API_KEY", "azure")
    written("config.ini", "[OpenAI]\nAPI_KEY = file\n")
    llmcall.configure(api_type=api_type)
    assert llmcall.settings().api_key == key
    monkeypatch.setenv("LLMCALL_API_KEY", "ours")
    written(".env", "OPENAI_BASE_URL=https://sdk/v1\nLLMCALL_BASE_URL=https://ours/v1\n")
    assert (llmcall.settings().api_key, llmcall.settings().base_url) == ("ours", "https://ours/v1")


def test_a_key_is_looked_up_when_it_is_used() -> None:
    """A variable that the file refers to may be missing as long as its key is not used."""
    endpoint = read("[Endpoint east]\nMODELS = a\nAPI_KEY = ${EAST_KEY}\n").endpoints[0]
    with pytest.raises(
        ConfigError,
        match=r"\[Endpoint east\] API_KEY: the environment variable EAST_KEY is not set",
    ):
        endpoint.key()
    written(".env", "EAST_KEY=from.env\n")
    assert llmcall.settings().endpoints[0].key() == "from.env"
    written(".env", "EAST_KEY='two words'\n")
    with pytest.raises(ConfigError, match="environment variable EAST_KEY: not a key") as caught:
        llmcall.settings().endpoints[0].key()
    assert "words" not in str(caught.value)


def answered(settings: Settings | None = None, **overrides: Any) -> None:
    """Make one call that an HTTP client in this process answers, wherever it goes."""
    body = {
        "choices": [
            {
                "index": 0,
                "finish_reason": "stop",
                "message": {"role": "assistant", "content": "Hi."},
            }
        ]
    }
    # or httpx2
    httpx = importlib.import_module(
        openai.DefaultHttpxClient.__mro__[1].__module__.partition(".")[0]
    )
    http = httpx.Client(
        transport=httpx.MockTransport(lambda request: httpx.Response(200, json=body))
    )
    kind = llmcall.AzureClient if llmcall.settings().api_type == "azure" else llmcall.OpenAIClient
    assert kind(settings, http_client=http, cache_mode="off", **overrides).send_message(
        "Hello", on_error="raise"
    )


URL = "[OpenAI]\nBASE_URL = https://Strange.example/v1\n"
EAST = "[Endpoint east]\nMODELS = gpt-4o-mini\nBASE_URL = https://strange.example/v1\n"
AZURE = "[OpenAI]\nAPI_TYPE = azure\nAZURE_ENDPOINT = https://strange.example\nAZURE_API_VERSION = 2024-10-21\n"


@pytest.mark.parametrize("dotenv", [False, True])
@pytest.mark.parametrize(
    ("text", "variable", "overrides", "is_said"),
    [
        (URL, "OPENAI_API_KEY", {}, True),
        (URL, "LLMCALL_API_KEY", {}, True),
        (URL + "API_KEY = ${MY_KEY}\n", "MY_KEY", {}, True),
        (EAST, "OPENAI_API_KEY", {}, True),
        (EAST + "API_KEY = ${MY_KEY}\n", "MY_KEY", {}, True),
        (AZURE, "AZURE_OPENAI_API_KEY", {}, True),
        (URL.replace("Strange.example", "127.0.0.1"), "OPENAI_API_KEY", {}, False),
        (EAST + "API_KEY = sk-other\n", "OPENAI_API_KEY", {}, False),
        (URL, "OPENAI_API_KEY", {"api_key": "sk-other"}, False),
        (URL, "OPENAI_API_KEY", {"base_url": "https://chosen.example/v1"}, False),
        (URL, "OPENAI_API_KEY LLMCALL_CONFIG", {}, False),
    ],
)
def test_a_strange_host_is_announced_once(
    text: str,
    variable: str,
    overrides: dict[str, str],
    is_said: bool,
    dotenv: bool,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A key of the environment or .env for a host that a found config.ini names is one warning,
    without the key.

    Nothing is said where the user named the host, the key or the file, or the key stays on this
    machine.
    """
    path = written("config.ini", text)
    name, *others = variable.split()
    if dotenv:
        written(".env", f"{name}={SECRET}\n")
    else:
        monkeypatch.setenv(name, SECRET)
    if others:
        monkeypatch.setenv(others[0], path)
    for _ in range(2):
        answered(**overrides)
    said = [record.getMessage() for record in caplog.records]
    place = f"is sent to the host strange.example, which config.ini ({path})"
    assert [name in each and place in each for each in said] == [
        True
    ] * is_said and SECRET not in caplog.text


@pytest.mark.parametrize(
    ("host", "needs"),
    [
        ("localhost:8000", False),
        ("api.LOCALHOST", False),
        ("127.1.2.3:1", False),
        ("[::1]:8000", False),
        ("0.0.0.0:8000", False),
        ("127.0.0.1.strange.example", True),
        ("localhost@strange.example", True),
    ],
)
def test_only_loopback_needs_no_key(host: str, needs: bool) -> None:
    """Only addresses of this machine are loopback, whatever stands around them."""
    with (
        pytest.raises(ConfigError, match=r"no key for .*strange\.example")
        if needs
        else nullcontext()
    ):
        answered(base_url=f"http://{host}/v1")


# The value.


def test_secrets_are_masked_everywhere(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """No text that is made of settings holds a secret, and a worker gets them all."""
    caplog.set_level(0)
    llmcall.configure(models={"m": {"reasoning": True}}, prices={"m": (1, 2)})
    llmcall.force_api_type("azure")
    written(
        "config.ini",
        f"[OpenAI]\nBASE_URL = https://user:{SECRET}@host/v1\nAPI_KEY = ${{MY_KEY}}\n"
        f"[Cache]\nPATH = redis://:{SECRET}@host/0?password={SECRET}\n"
        f"[Endpoint a]\nMODELS = m\nAPI_KEY = {SECRET}\nBASE_URL = http://u:{SECRET}@h/v1\n"
        "[Endpoint b]\nMODELS = m\nAPI_KEY = ${MY_KEY}\n",
    )
    for name in (
        "MY_KEY",
        "OPENAI_API_KEY",
        "AZURE_OPENAI_API_KEY",
        "AZURE_OPENAI_AD_TOKEN",
        "LLMCALL_API_KEY",
    ):
        monkeypatch.setenv(name, SECRET)
    found = llmcall.settings()
    texts = [
        repr(found),
        str(found),
        found._repr_html_(),
        repr(found.endpoints),
        *map(str, found.items()),
        caplog.text,
    ]
    assert not [text for text in texts if SECRET in text]
    again = pickle.loads(pickle.dumps(found))
    assert list(again.items()) == list(found.items())
    assert again.api_key == SECRET and [endpoint.key() for endpoint in again.endpoints] == [
        SECRET,
        SECRET,
    ]
    assert again.replace(api_type="openai").api_type == "azure"


def test_settings_are_frozen() -> None:
    """Nothing in them can be changed, nor through what was given to make them."""
    aliases, models = {"a": "b"}, {"a": {"reasoning": True}}
    llmcall.configure(aliases=aliases, models=models, prices={"a": [1, 2]})
    aliases["a"] = "c"
    models["a"]["reasoning"] = False
    found: Any = llmcall.settings()
    assert (found.aliases, found.models, found.prices) == (
        {"a": "b"},
        {"a": {"reasoning": True}},
        {"a": (1, 2)},
    )
    with pytest.raises(AttributeError, match=r"settings are frozen: use configure\(model=…\)"):
        found.model = "a"
    for table in (found.aliases, found.models["a"], found.prices):
        with pytest.raises(TypeError, match="frozen"):
            table["x"] = "y"
    assert found.replace() is found and found.replace(model=None) is found
    changed = found.replace(model="a", cache_normalize=["times"])
    assert (changed.model, changed.cache_normalize, changed.origin("LLMCALL_MODEL")) == (
        "a",
        ("times",),
        "argument",
    )
    with pytest.raises(ValueError, match=r"there is no setting 'MODLE'; did you mean 'model'\?"):
        found.origin("MODLE")
    with pytest.raises(TypeError, match=r"has no setting 'modle'; did you mean 'model'\?"):
        llmcall.configure(modle="a")


def test_a_loop_of_hits_looks_at_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings are read once: recorded answers, typed ones in scopes too, ask neither for files nor
    for folders.
    """
    # else a second look comes after a second
    monkeypatch.setattr("llmcall.config.resolve.INTERVAL", float("inf"))
    llmcall.register_client(
        "scripted", ScriptedClient(lambda messages: "yes", cache_mode="auto", cache_path=tmp_path)
    )
    llmcall.configure(api_type="scripted")
    buys = llmcall.LLMCall(user="Would {{ name }} buy it?", output_type=bool)

    def ask_all() -> None:
        for name in ("Lisa", "Oscar"):
            with llmcall.scope(name):
                assert buys(name=name) is True
            assert buys(name=name) is True

    ask_all()
    looked: list[object] = []

    def told(function: Callable[..., Any]) -> Callable[..., Any]:
        def tell(*args: Any, **kwargs: Any) -> Any:
            looked.append(args)
            return function(*args, **kwargs)

        return tell

    for name in ("stat", "lstat", "getcwd", "listdir", "open"):
        monkeypatch.setattr(os, name, told(getattr(os, name)))
    for _ in range(10):
        ask_all()
    assert looked == []
