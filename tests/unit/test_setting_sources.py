"""What environment, .env and config.ini say, and when they are read again."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from project_files import written, written_anew

from llmcall.config import resolve as config
from llmcall.errors import ConfigError


@pytest.mark.parametrize(
    ("variable", "attribute", "value"),
    [
        ("OPENAI_BASE_URL", "base_url", "https://host/v1"),
        ("OPENAI_API_VERSION", "azure_api_version", "2024-10-21"),
        ("AZURE_OPENAI_ENDPOINT", "azure_endpoint", "https://name.openai.azure.com"),
        ("AZURE_OPENAI_AD_TOKEN", "azure_ad_token", "token"),
        ("OPENAI_ORG_ID", "organization", "org"),
        ("OPENAI_API_KEY", "api_key", "sk-1"),
    ],
)
def test_variables_of_the_sdk(variable: str, attribute: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each variable that the SDK reads is read here too, and named as the origin."""
    monkeypatch.setenv(variable, value)
    assert getattr(config.settings(), attribute) == value
    assert config.settings().origin(attribute) == f"environment variable {variable}"


def test_refresh_sees_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable that was set or removed counts from the next refresh on."""
    before = config.settings()
    monkeypatch.setenv("LLMCALL_MODEL", "a")
    assert config.settings() is before
    config.refresh()
    assert config.settings().model == "a"
    monkeypatch.delenv("LLMCALL_MODEL")
    config.refresh()
    assert config.settings().model == "gpt-4o-mini"


def test_refresh_sees_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files that appear, change or disappear count from the next refresh on, and so does another working directory."""
    (tmp_path / "elsewhere" / ".git").mkdir(parents=True)
    models = [config.settings().model]
    steps = [
        lambda: written("config.ini", "[OpenAI]\nMODEL = a\n"),
        lambda: written_anew("config.ini", "[OpenAI]\nMODEL = b\n"),
        lambda: written(".env", "LLMCALL_MODEL=c\n"),
        lambda: Path(".env").unlink(),
        lambda: monkeypatch.chdir("elsewhere"),
    ]
    for step in steps:
        step()
        config.refresh()
        models.append(config.settings().model)
    assert models == ["gpt-4o-mini", "a", "b", "c", "b", "gpt-4o-mini"]
    assert config.settings().cache_path == str(tmp_path / "elsewhere" / ".llmcall" / "cache")


def test_refresh_sees_variables_that_a_file_refers_to(monkeypatch: pytest.MonkeyPatch) -> None:
    """A change of ${NAME} is a change of the settings."""
    written("config.ini", "[OpenAI]\nMODEL = ${MY_MODEL}\n")
    monkeypatch.setenv("MY_MODEL", "a")
    assert config.settings().model == "a"
    monkeypatch.setenv("MY_MODEL", "b")
    config.refresh()
    assert config.settings().model == "b"


def test_nothing_is_read_again_without_a_change() -> None:
    """Where no file and no variable changed, not even an equal reading takes the place of the first."""
    written("config.ini", "[Endpoint a]\nMODELS = m\nAPI_KEY = ${MY_KEY}\n")
    written(".env", "MY_KEY=key\n")
    before = config.settings()
    config.refresh()
    assert config.settings() is before


def test_a_file_that_says_the_same_changes_nothing() -> None:
    """A file that was only written again leaves the very object."""
    written("config.ini", "[OpenAI]\nMODEL = a\n")
    before = config.settings()
    written_anew("config.ini", "# a comment\n[OpenAI]\nMODEL = a\n")
    config.refresh()
    assert config.settings() is before
    written_anew("config.ini", "[OpenAI]\nMODEL = b\n")
    config.refresh()
    assert config.settings().model == "b"


def test_a_file_that_breaks_leaves_the_settings() -> None:
    """refresh() raises for a broken file each time, and the settings stay as they were until it is repaired."""
    before = config.settings()
    written("config.ini", "[OpenAI]\nTIMEOUT = soon\n")
    for _ in range(2):
        with pytest.raises(ConfigError, match=r"\[OpenAI\] TIMEOUT: 'soon' is not a number of seconds above 0"):
            config.refresh()
        assert config.settings() is before
    written_anew("config.ini", "[OpenAI]\nTIMEOUT = 5\n")
    config.refresh()
    assert config.settings().timeout == 5


def test_a_named_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """LLMCALL_CONFIG's file is read in place of config.ini, and its paths start from its folder."""
    written("config.ini", "[OpenAI]\nMODEL = found\n")
    written("other/mine.ini", "[OpenAI]\nTIMEOUT = 5\n[Cache]\nPATH = answers\n")
    monkeypatch.setenv("LLMCALL_CONFIG", "other/mine.ini")
    found = config.settings()
    assert (found.model, found.timeout, found.cache_path) == ("gpt-4o-mini", 5, str(tmp_path / "other" / "answers"))
    assert found.origin("TIMEOUT") == f"mine.ini ({tmp_path / 'other' / 'mine.ini'}), [OpenAI] TIMEOUT"


def test_a_file_that_dotenv_names() -> None:
    """LLMCALL_CONFIG may stand in .env, and is then relative to it."""
    written(".git/x", "")
    written(".env", "LLMCALL_CONFIG=other/mine.ini\n")
    written("other/mine.ini", "[OpenAI]\nMODEL = a\n")
    assert config.settings().model == "a"


@pytest.mark.parametrize("name", ["missing.ini", "."])
def test_a_named_file_that_is_not_there(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that leads to no file is an error that names the variable."""
    monkeypatch.setenv("LLMCALL_CONFIG", name)
    with pytest.raises(ConfigError, match="environment variable LLMCALL_CONFIG: there is no file"):
        config.settings()


def test_where_relative_paths_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a file: its folder; of environment and code: the working directory; of the default: the project's root."""
    written("config.ini", "[Cassette]\nPATH = calls.jsonl\n")
    written("a/b/.env", "LLMCALL_TEMPLATES_PATH=mine\n")
    (tmp_path / "a" / "b" / "c").mkdir()
    monkeypatch.chdir(tmp_path / "a" / "b" / "c")
    found = config.settings()
    assert found.cache_path == str(tmp_path / ".llmcall" / "cache")
    assert found.cassette_path == str(tmp_path / "calls.jsonl")
    assert found.templates_path == str(tmp_path / "a" / "b" / "mine")
    monkeypatch.setenv("LLMCALL_CACHE_PATH", "../answers")
    config.refresh()
    assert config.settings().cache_path == str(tmp_path / "a" / "b" / "answers")
    config.configure(cache_path="x")
    monkeypatch.chdir(tmp_path)
    assert config.settings().cache_path == str(tmp_path / "a" / "b" / "c" / "x")


def test_empty_variables_are_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty variable hides neither .env nor config.ini."""
    written("config.ini", "[OpenAI]\nMODEL = a\nTIMEOUT =\n")
    written(".env", "LLMCALL_TEMPERATURE=0.5\n")
    for name in ("LLMCALL_MODEL", "LLMCALL_TEMPERATURE", "LLMCALL_CONFIG", "OPENAI_API_KEY"):
        monkeypatch.setenv(name, " ")
    found = config.settings()
    assert (found.model, found.temperature, found.timeout, found.api_key) == ("a", 0.5, 60, None)


def test_the_word_none_is_above_lower_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable can take away what a file sets."""
    written("config.ini", "[OpenAI]\nDEADLINE = 30\n")
    monkeypatch.setenv("LLMCALL_DEADLINE", "none")
    assert config.settings().deadline is None
    assert config.settings().origin("DEADLINE") == "environment variable LLMCALL_DEADLINE"


def test_misspelt_variables(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """An unknown LLMCALL_ variable is warned of once, with the nearest; those of other uses are known."""
    written(".env", "LLMCALL_TIMEOUTS=5\n")
    for name in ("LLMCALL_MODLE", "LLMCALL_SCOPE", "LLMCALL_TEST_X", "LLMCALL_API_KEY"):
        monkeypatch.setenv(name, "x")
    config.settings()
    config.configure(model="a")
    config.settings()
    assert sorted(record.getMessage() for record in caplog.records) == [
        f".env ({Path.cwd() / '.env'}), LLMCALL_TIMEOUTS: there is no such setting; did you mean 'LLMCALL_TIMEOUT'?",
        "environment variable LLMCALL_MODLE: there is no such setting; did you mean 'LLMCALL_MODEL'?",
    ]
    assert {record.levelno for record in caplog.records} == {logging.WARNING}
    assert {record.name for record in caplog.records} == {"llmcall"}


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("config.ini", r"config\.ini \(.*config\.ini\), \[Cache\] MODE: 'on' is not one of auto, replay, refresh, off"),
        (".env", r"\.env \(.*\.env\), LLMCALL_CACHE_MODE: 'on' is not one of"),
        ("environment", "environment variable LLMCALL_CACHE_MODE: 'on' is not one of"),
        ("configure", r"configure\(\), cache_mode: 'on' is not one of"),
        ("argument", "argument cache_mode: 'on' is not one of"),
    ],
)
def test_errors_name_the_place(where: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong value is an error that names file, section and key, or the variable, or the argument."""
    if where == "config.ini":
        written("config.ini", "[Cache]\nMODE = on\n")
    elif where == ".env":
        written(".env", "LLMCALL_CACHE_MODE=on\n")
    elif where == "environment":
        monkeypatch.setenv("LLMCALL_CACHE_MODE", "on")
    with pytest.raises(ConfigError, match=message):
        if where == "configure":
            config.configure(cache_mode="on")
        config.settings().replace(cache_mode="on")
