"""Which key goes with a client, and what is said before it goes to a host."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmcall.config import resolve as config
from llmcall.config.resolve import Endpoint, announce_key_destination, is_loopback, key_for, key_variable
from llmcall.errors import ConfigError


def in_file(text: str, name: str = "config.ini") -> None:
    """Write the project's config.ini."""
    Path(name).write_text(text, encoding="utf-8")


@pytest.mark.parametrize(
    ("variables", "openai", "azure"),
    [
        ({}, None, None),
        ({"OPENAI_API_KEY": "o"}, "o", None),
        ({"AZURE_OPENAI_API_KEY": "a", "OPENAI_API_KEY": "o"}, "o", "a"),
        ({"AZURE_OPENAI_KEY": "t"}, None, "t"),
        ({"AZURE_OPENAI_KEY": "t", "AZURE_OPENAI_API_KEY": "a"}, None, "a"),
        ({"LLMCALL_API_KEY": "l", "AZURE_OPENAI_API_KEY": "a", "OPENAI_API_KEY": "o"}, "l", "l"),
    ],
)
def test_keys_of_the_environment(
    variables: dict[str, str], openai: str | None, azure: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each client has the variable that the SDK reads; LLMCALL_API_KEY goes before both."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    found = config.settings()
    assert (key_for(found, "openai"), key_for(found, "azure")) == (openai, azure)
    assert (found.api_key, found.replace(api_type="azure").api_key) == (openai, azure)
    assert key_for(found) == openai


def test_a_higher_layer_has_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """OPENAI_API_KEY in the environment is above LLMCALL_API_KEY in .env, and code is above both."""
    in_file("LLMCALL_API_KEY=dotenv\n", ".env")
    in_file("[OpenAI]\nAPI_KEY = file\n")
    monkeypatch.setenv("OPENAI_API_KEY", "environment")
    found = config.settings()
    assert (key_for(found), found.origin("api_key")) == ("environment", "environment variable OPENAI_API_KEY")
    assert key_for(found, "azure") == "dotenv"
    assert key_for(found.replace(api_key="code")) == "code"


def test_a_key_function() -> None:
    """A function stays a function: it is asked before each attempt, by others."""
    assert key_for(config.settings().replace(api_key=len)) is len


def test_a_key_that_the_file_refers_to(monkeypatch: pytest.MonkeyPatch) -> None:
    """[OpenAI] API_KEY may refer to a variable, which is looked up when the key is used."""
    in_file("[OpenAI]\nAPI_KEY = ${MY_KEY}\n")
    found = config.settings()
    with pytest.raises(ConfigError, match=r"\[OpenAI\] API_KEY: the environment variable MY_KEY is not set"):
        key_for(found)
    monkeypatch.setenv("MY_KEY", "mine")
    assert key_for(found) == "mine"


@pytest.mark.parametrize(("api_type", "variable"), [("azure", "AZURE_OPENAI_API_KEY"), ("openai", "OPENAI_API_KEY")])
def test_key_variable(api_type: str, variable: str) -> None:
    """The variable to name where a key is missing."""
    assert key_variable(api_type) == variable


URL = "[OpenAI]\nBASE_URL = https://user@Strange.example:8443/v1\n"
EAST = "[Endpoint east]\nMODELS = m\nBASE_URL = https://strange.example/v1\n"
AZURE = "[OpenAI]\nAPI_TYPE = azure\nAZURE_ENDPOINT = https://strange.example/\n"


def own_endpoint() -> Endpoint:
    """Return an endpoint as a client makes it of the settings."""
    found = config.settings()
    key = key_for(found)
    return Endpoint("strange.example", ("m",), found.api_type, key, found.base_url, found.azure_endpoint)


@pytest.mark.parametrize("dotenv", [False, True])
@pytest.mark.parametrize(
    ("text", "variable", "target"),
    [
        (URL, "OPENAI_API_KEY", "none"),
        (URL, "OPENAI_API_KEY", "address"),
        (URL, "LLMCALL_API_KEY", "own endpoint"),
        (URL + "API_KEY = ${MY_KEY}\n", "MY_KEY", "own endpoint"),
        (EAST, "OPENAI_API_KEY", "listed endpoint"),
        (EAST + "API_KEY = ${MY_KEY}\n", "MY_KEY", "listed endpoint"),
        (AZURE, "AZURE_OPENAI_API_KEY", "none"),
        (AZURE, "AZURE_OPENAI_AD_TOKEN", "own endpoint"),
    ],
)
def test_a_strange_host_is_announced_once(
    text: str,
    variable: str,
    target: str,
    dotenv: bool,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A key of the environment or .env for a host that a found config.ini names is one warning, without the key."""
    in_file(text)
    if dotenv:
        in_file(f"{variable}=sk-secret\n", ".env")
    else:
        monkeypatch.setenv(variable, "sk-secret")
    found = config.settings()
    for _ in range(2):
        if target == "none":
            announce_key_destination(found)
        elif target == "address":
            announce_key_destination(found, found.base_url)
        else:
            announce_key_destination(found, own_endpoint() if target == "own endpoint" else found.endpoints[0])
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    message = caplog.records[0].getMessage()
    assert variable in message
    assert f"goes to the host strange.example, which config.ini ({Path.cwd() / 'config.ini'})" in message
    assert "secret" not in caplog.text


@pytest.mark.parametrize(
    "case",
    ["loopback", "key in the file", "key in code", "host in the environment", "host in code", "named file", "no key"],
)
def test_what_is_not_announced(case: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Nothing is said where the user named the host or the key, or the key stays on this machine."""
    if case != "no key":
        monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    if case == "named file":
        in_file(URL + EAST, "mine.ini")
        monkeypatch.setenv("LLMCALL_CONFIG", "mine.ini")
    elif case == "key in the file":
        in_file(EAST + "API_KEY = sk-other\n")
    else:
        in_file(URL.replace("Strange.example", "127.0.0.1") if case == "loopback" else URL)
    if case == "host in the environment":
        monkeypatch.setenv("OPENAI_BASE_URL", "https://strange.example/v1")
    if case == "key in code":
        config.configure(api_key="sk-other")
    found = config.settings()
    if case == "host in code":
        announce_key_destination(found, "https://chosen.example/v1")
        found = found.replace(base_url="https://chosen.example/v1")
    for target in (None, found.base_url, own_endpoint() if case != "host in code" else None, *found.endpoints):
        if case != "key in the file" or isinstance(target, Endpoint):
            announce_key_destination(found, target)
    assert caplog.text == ""


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://localhost:8000/v1", True),
        ("http://api.LOCALHOST/v1", True),
        ("http://127.0.0.1/v1", True),
        ("http://127.1.2.3:1/v1", True),
        ("http://[::1]:8000/v1", True),
        ("http://0.0.0.0:8000/v1", True),
        ("http://127.0.0.1.strange.example/v1", False),
        ("http://localhost@strange.example/v1", False),
        ("http://localhost.strange.example/v1", False),
        ("https://api.openai.com/v1", False),
    ],
)
def test_loopback(url: str, expected: bool) -> None:
    """Only addresses of this machine are loopback, whatever stands around them."""
    assert is_loopback(url) is expected


def test_an_endpoints_repr() -> None:
    """Keys and passwords are masked, and a missing key is told from one that is there."""
    endpoint = Endpoint("e", ("m",), None, "sk-secret", "https://u:sk-secret@h/v1")
    assert repr(endpoint).startswith(
        "Endpoint(name='e', models=('m',), api_type=None, api_key='***', base_url='https://***@h/v1'"
    )
    assert "api_key=None" in repr(Endpoint("e"))
    assert endpoint.key() == "sk-secret"
