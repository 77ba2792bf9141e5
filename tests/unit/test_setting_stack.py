"""Layers that open cassettes put up, and the settings of a client that was given some."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import llmcall
from llmcall.config import resolve as config
from llmcall.errors import ConfigError

if TYPE_CHECKING:
    from llmcall.cassettes.cassette import Cassette


def recorded_with(**settings: Any) -> Cassette:
    """Return a cassette in whose header some settings stand."""
    Path("recorded.jsonl").write_text(json.dumps({"llmcall": 1, "settings": settings}) + "\n")
    return llmcall.cassette("recorded.jsonl", mode="none")


def test_a_pushed_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    """None in a layer is a value; the innermost layer counts; taking one down twice is harmless."""
    monkeypatch.setenv("LLMCALL_TEMPERATURE", "0.5")
    monkeypatch.setenv("LLMCALL_CACHE_NAMESPACE", "mine")
    outer = config.push_layer({"temperature": None, "cache_namespace": "", "aliases": {"a": "b"}}, "outer")
    found = config.settings()
    assert (found.temperature, found.cache_namespace, dict(found.aliases)) == (None, "", {"a": "b"})
    inner = config.push_layer({"temperature": 1}, "inner")
    assert config.settings().temperature == 1
    config.pop_layer(outer)
    config.pop_layer(outer)
    assert (config.settings().temperature, config.settings().cache_namespace) == (1, "mine")
    config.pop_layer(inner)
    assert config.settings().temperature == 0.5


@pytest.mark.parametrize(
    ("values", "error"), [({"model": None}, ConfigError), ({"top_p": 2}, ConfigError), ({"x": 1}, TypeError)]
)
def test_a_wrong_layer_is_not_put_up(values: dict[str, Any], error: type[Exception]) -> None:
    """A layer with a wrong value is refused as a whole."""
    before = config.settings()
    with pytest.raises(error, match="the cassette"):
        config.push_layer(values, "the cassette")
    assert config.settings() is before


def test_reset_keeps_the_layers_of_open_cassettes() -> None:
    """What was configured and forced is forgotten; an open cassette's layer stays until it closes."""
    with config.configured(model="a"), recorded_with(temperature=1):
        config.force_api_type("azure")
        config.reset()
        found = config.settings()
        assert (found.model, found.api_type, found.temperature) == ("gpt-4o-mini", "openai", 1)
    assert config.settings().temperature is None


def test_settings_of_a_client(monkeypatch: pytest.MonkeyPatch) -> None:
    """Given settings stand in place of the current ones, below recorded and forced values where those are higher."""
    monkeypatch.setenv("LLMCALL_MODEL", "environment")
    base = config.settings().replace(temperature=0.25)
    config.configure(model="configured")
    assert config.settings_for(base, {"timeout": 5}).timeout == 5
    assert config.settings_for(base).model == "environment"
    assert config.settings_for(None, {}).model == "configured"
    config.force_api_cache(True, "cache")
    with recorded_with(model="recorded", temperature=1):
        found = config.settings_for(base, {"cache_mode": "replay"})
    assert (found.model, found.temperature, found.cache_mode) == ("recorded", 0.25, "replay")
    assert found.cache_path == str(Path.cwd() / "cache")
