"""The frozen settings: names, origins, secrets, copies."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest

from llmcall.config import resolve as config
from llmcall.config.names import SETTINGS
from llmcall.config.settings import Settings
from llmcall.errors import ConfigError

SECRET = "sk-very-secret"


def secret_settings(monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Return settings that hold a secret wherever one can be."""
    Path("config.ini").write_text(
        "[OpenAI]\nBASE_URL = https://user:sk-very-secret@host/v1\nAPI_KEY = ${MY_KEY}\n"
        "[Cache]\nPATH = redis://:sk-very-secret@host/0\n"
        "[Endpoint a]\nMODELS = m\nAPI_KEY = sk-very-secret\nBASE_URL = http://u:sk-very-secret@h/v1\n"
        "[Endpoint b]\nMODELS = m\nAPI_KEY = ${MY_KEY}\n",
        encoding="utf-8",
    )
    for name in ("MY_KEY", "OPENAI_API_KEY", "AZURE_OPENAI_API_KEY", "AZURE_OPENAI_AD_TOKEN", "LLMCALL_API_KEY"):
        monkeypatch.setenv(name, SECRET)
    return config.settings()


def test_secrets_are_masked_everywhere(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """No text that is made of settings holds a secret."""
    caplog.set_level(0)
    found = secret_settings(monkeypatch)
    config.announce_key_destination(found)
    for endpoint in found.endpoints:
        config.announce_key_destination(found, endpoint)
    texts = [repr(found), str(found), f"{found}", repr(found.endpoints), repr(found.key_and_origin()[1]), caplog.text]
    texts += [str(item) for item in found.items()]
    texts += [found.origin(name) for name in SETTINGS]
    assert not [text for text in texts if SECRET in text]
    assert SECRET in (found.base_url or "")
    assert found.api_key == SECRET


def test_items(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every setting is listed once with its value and origin, in a form that is shown or written as JSON."""
    items = list(secret_settings(monkeypatch).items())
    assert [item[0] for item in items] == list(SETTINGS)
    shown = {name: (section, key, value, origin) for name, section, key, value, origin in items}
    assert shown["cache_mode"] == ("Cache", "MODE", "auto", "default")
    assert shown["api_key"] == ("OpenAI", "API_KEY", "***", "environment variable LLMCALL_API_KEY")
    assert shown["azure_ad_token_provider"][2] is None
    assert SECRET not in json.dumps(items)
    config.configure(api_key=lambda: SECRET, azure_ad_token_provider=lambda: SECRET)
    shown_later = {item[0]: item[3] for item in config.settings().items()}
    assert (shown_later["api_key"], shown_later["azure_ad_token_provider"]) == ("***", "a function")


@pytest.mark.parametrize(
    ("name", "attribute"),
    [
        ("MODEL", "model"),
        ("model", "model"),
        ("LLMCALL_MODEL", "model"),
        ("cache_mode", "cache_mode"),
        ("CACHE_MODE", "cache_mode"),
        ("[Cache] MODE", "cache_mode"),
        ("[cache]mode", "cache_mode"),
        ("LLMCALL_CACHE_MODE", "cache_mode"),
        ("NAMESPACE", "cache_namespace"),
        ("retry_max_attempts", "retry_max_attempts"),
        ("[Retry] MAX_ATTEMPTS", "retry_max_attempts"),
        ("prices", "prices"),
    ],
)
def test_forms_of_a_name(name: str, attribute: str) -> None:
    """origin() takes a name as code, file and environment write it."""
    value = {"cache_mode": "replay", "retry_max_attempts": 2, "prices": {}}.get(attribute, "x")
    with config.configured(**{attribute: value}):
        assert config.settings().origin(name) == "configured()"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("MODLE", "there is no setting 'MODLE'; did you mean 'model'?"),
        ("[Cache] MODES", "there is no setting '[Cache] MODES'"),
        ("[OpenAI] MODE", "there is no setting '[OpenAI] MODE'"),
        ("MODE", "'MODE' is one of cache_mode, cassette_mode: name it in full"),
        ("", "''"),
    ],
)
def test_names_of_nothing(name: str, message: str) -> None:
    """An unknown or ambiguous name is an error that helps."""
    with pytest.raises(ValueError) as caught:
        config.settings().origin(name)
    assert message in str(caught.value)


def test_frozen() -> None:
    """No attribute can be set, added or deleted; two settings are equal only if they are one."""
    found = config.settings()
    with pytest.raises(AttributeError, match=r"settings are frozen: use configure\(model=…\)"):
        found.model = "a"
    with pytest.raises(AttributeError, match="frozen"):
        found.other = 1  # type: ignore[attr-defined]
    with pytest.raises(AttributeError, match="frozen"):
        del found.model
    assert found != Settings(found.layer())
    assert len({found, Settings(found.layer())}) == 2


def test_annotations_are_the_table() -> None:
    """Each setting has a typed attribute, and each attribute is a setting."""
    typed = [name for name in Settings.__annotations__ if not name.startswith("_")]
    assert sorted([*typed, "api_key"]) == sorted(SETTINGS)


def test_what_may_be_none_is_annotated_so() -> None:
    """A setting without a default is annotated as one that may be None, and no other is."""
    optional = {name for name, hint in Settings.__annotations__.items() if hint.endswith("| None") and name[0] != "_"}
    assert optional | {"api_key"} == {name for name, row in SETTINGS.items() if row.default is None}


def test_replace() -> None:
    """Changed settings are others; None leaves a value as it is; nothing to change gives the same object."""
    found = config.settings()
    changed = found.replace(model="a", temperature=None, cache_normalize=["times"])
    assert (changed.model, changed.temperature, changed.cache_normalize) == ("a", None, ("times",))
    assert (changed.origin("model"), changed.origin("temperature")) == ("argument", "default")
    assert changed.replace(model="b").model == "b"
    assert changed.replace(model=None).model == "a"
    assert found.model == "gpt-4o-mini"
    assert found.replace() is found
    assert found.replace(model=None) is found


@pytest.mark.parametrize("value", [-1, "soon", True, float("nan")])
def test_replace_checks(value: Any) -> None:
    """An argument is checked like any other source."""
    with pytest.raises(ConfigError, match="argument timeout: "):
        config.settings().replace(timeout=value)


def test_pickled_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker process gets every value, key and origin, and what is forced stays so there."""
    config.configure(models={"m": {"reasoning": True}}, prices={"m": (1, 2)})
    config.force_api_type("azure")
    found = secret_settings(monkeypatch)
    again = pickle.loads(pickle.dumps(found))
    assert list(again.items()) == list(found.items())
    assert again.api_key == SECRET
    assert [endpoint.key() for endpoint in again.endpoints] == [SECRET, SECRET]
    assert again.replace(api_type="openai").api_type == "azure"
    with pytest.raises(TypeError):
        again.models["m"]["reasoning"] = False
