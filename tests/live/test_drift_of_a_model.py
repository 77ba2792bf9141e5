"""A check for drift with a real model in this process: the same one, and one that was changed."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import llmcall
from llmcall.clients.local import LocalClient

NAMES = ("Ann", "Ben", "Cleo", "Dan", "Eve", "Finn", "Gus", "Hal")


class Shortened:
    """A model that ends its answers after two tokens, whatever was asked."""

    def __init__(self, model: Any) -> None:
        self._model = model

    def send(self, request: Any, timeout: float | None) -> Any:
        """Return a short answer."""
        body = {**request.body, "max_tokens": 2}
        return self._model.send(request._replace(body=body), timeout)


class ShortenedClient(LocalClient):
    """The local model after its server has changed."""

    def make_transport(self, endpoint: Any) -> Any:
        """Return the changed model."""
        return Shortened(super().make_transport(endpoint))


@pytest.fixture(scope="module")
def recording(only_loopback: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study that was recorded with the local model."""
    path = tmp_path_factory.mktemp("recording") / "study.jsonl"
    llmcall.force_api_type("local")
    client = llmcall.client()

    def ask(name: str) -> Any:
        messages = [
            {"role": "system", "content": f"You are {name}, a farmer."},
            {"role": "user", "content": "Describe your morning."},
        ]
        return client.send_message(messages, temperature=1, seed=len(name), max_tokens=16)

    with llmcall.configured(on_error="raise", timeout=300), llmcall.cassette(path):
        llmcall.map(ask, NAMES, key=str, scope="farm", workers=1)
    llmcall.reset()
    return path


@pytest.fixture
def study(recording: Path, tmp_path: Path) -> Iterator[Path]:
    """A copy of the recorded study, in a process with the local model."""
    llmcall.force_api_type("local")
    with llmcall.configured(on_error="raise", timeout=300):
        yield Path(shutil.copy(recording, tmp_path))
    llmcall.reset()


def test_the_same_model_with_a_seed_answers_as_it_did(study: Path) -> None:
    """Each new answer comes from the model, and has the value of the recorded one."""
    with llmcall.track() as usage:
        drift = llmcall.drift(study, share=1, value=len, to=study.with_name("check.jsonl"))
    assert usage.calls == len(NAMES)
    assert drift.shifts["answer"].estimate == 0
    assert (
        "No interval of answer: the 8 differences from the recorded answers show no spread"
        in str(drift)
    )


def test_a_changed_model_is_found_and_the_check_replays_without_it(study: Path) -> None:
    options: dict[str, Any] = {"share": 1, "value": len, "to": study.with_name("changed.jsonl")}
    llmcall.register_client("local", ShortenedClient)
    drift = llmcall.drift(study, **options)
    assert drift.shifts["answer"].high < 0
    with llmcall.configured(cassette_mode="none"), llmcall.track() as usage:
        assert str(llmcall.drift(study, **options)) == str(drift)
    assert usage.calls == 0
