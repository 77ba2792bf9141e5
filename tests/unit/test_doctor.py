"""llmcall doctor: what is wrong, and how to mend it."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from project_files import written
from pytest_httpserver import HTTPServer
from servers import Answer, ScriptedServer, refusal, refusing

import llmcall
from llmcall.cli.doctor import Check, checks
from llmcall.cli.main import main
from llmcall.testing import ScriptedClient

Serve = Callable[[Answer], ScriptedServer]


def listing(*models: str) -> Answer:
    """Return a list of models as OpenAI's API gives it."""
    return Answer(200, {"object": "list", "data": [{"id": model, "object": "model"} for model in models]})


def found() -> dict[str, Check]:
    """Return the checks by what they check; each is there once."""
    made = list(checks())
    named = {check.name: check for check in made}
    assert len(named) == len(made)
    return named


@pytest.fixture
def serve(httpserver: HTTPServer, monkeypatch: pytest.MonkeyPatch) -> Serve:
    """Start a server that answers all requests alike, and name it and a key in the environment."""

    def start(answer: Answer) -> ScriptedServer:
        server = ScriptedServer(httpserver, answer)
        monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
        monkeypatch.setenv("OPENAI_API_KEY", "sk-verysecret")
        return server

    return start


def test_all_is_well(serve: Serve) -> None:
    """Where all is well, each line says so, and the exit code is 0."""
    server = serve(listing("gpt-4o", "gpt-4o-mini"))
    done = CliRunner().invoke(main, ["doctor"])
    assert done.exit_code == 0
    lines = [line.split(maxsplit=2) for line in done.output.splitlines() if not line.startswith(" ")]
    assert [(mark, name) for mark, name, _ in lines] == [
        ("ok", name) for name in ("files", "settings", "key", "endpoint", "model", "cache", "tokenizer", "price")
    ]
    assert "environment variable OPENAI_API_KEY" in done.output and "sk-verysecret" not in done.output
    assert [request.path for request in server.requests] == ["/v1/models"]
    assert not Path(".llmcall").exists()


def test_as_json(serve: Serve) -> None:
    """As JSON, each check is an object; the exit code is 1 where one is not well."""
    serve(listing("gpt-4o"))
    done = CliRunner().invoke(main, ["doctor", "--json"])
    rows = {row["name"]: row for row in json.loads(done.output)}
    assert done.exit_code == 1
    assert rows["endpoint"]["ok"] is True and rows["model"]["ok"] is False
    assert rows["model"]["remedy"] == "[OpenAI] MODEL may be gpt-4o"


def test_no_key() -> None:
    """A missing key is named by its variable, with the way to do without one."""
    check = found()["key"]
    assert not check.ok and "OPENAI_API_KEY" in check.found and "LLMCALL_CACHE_MODE=replay" in check.remedy


def test_replay_needs_no_key() -> None:
    """In the mode replay no key is missed and nobody is asked."""
    llmcall.configure(cache_mode="replay")
    made = found()
    assert made["key"].ok and "endpoint" not in made and all(check.ok for check in made.values())


def test_a_loopback_server_needs_no_key(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the loopback no key is needed, and the doctor says so."""
    serve(listing("gpt-4o-mini"))
    monkeypatch.delenv("OPENAI_API_KEY")
    assert found()["key"].found == "127.0.0.1: no key, and none is needed"


@pytest.mark.parametrize(
    ("answer", "ok", "words", "remedy"),
    [
        (refusal(401, "Incorrect API key provided: sk-verysecret"), False, "401", "key is refused"),
        (refusal(403, "no access"), False, "403", "key is refused"),
        (refusal(500, "broken"), False, "500", "status page"),
        (refusal(429, "slow down"), False, "429", "status page"),
        (refusal(404, "no such route"), True, "no list of models", "/v1"),
        (Answer(501, "<html>Unsupported method ('GET')</html>"), True, "no list of models (HTTP 501)", "/v1"),
        (Answer(502, "<html>Bad gateway</html>"), False, "127.0.0.1: HTTP 502", "status page"),
        (Answer(200, "<html>It works!</html>"), False, "not as a model's API", "BASE_URL"),
        (Answer(200, "[]"), False, "not as a model's API", "BASE_URL"),
        (Answer(200, {"data": ["gpt-4o"]}), False, "not as a model's API", "BASE_URL"),
    ],
    ids=["401", "403", "500", "429", "404", "501", "502", "HTML", "a list", "texts"],
)
def test_what_the_endpoint_answers(serve: Serve, answer: Answer, ok: bool, words: str, remedy: str) -> None:
    """What the endpoint answers is told without the key, with what to do about it."""
    serve(answer)
    check = found()["endpoint"]
    assert check.ok is ok and words in check.found and remedy in check.remedy
    assert "sk-verysecret" not in check.found and "<html>" not in check.found


def test_no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nobody listens, the doctor asks whether the server is running."""
    with refusing() as address:
        monkeypatch.setenv("OPENAI_BASE_URL", address)
        check = found()["endpoint"]
    assert not check.ok and "connection failed" in check.found and "is the server running" in check.remedy


def test_an_unknown_model(serve: Serve) -> None:
    """The nearest of the server's models are suggested."""
    serve(listing("whisper-1", "gpt-4o", *(f"model-{index}" for index in range(50)), "gpt-4o-mini"))
    llmcall.configure(model="gpt-4o-mimi")
    check = found()["model"]
    assert not check.ok and "gpt-4o-mimi" in check.found
    assert check.remedy.startswith("[OpenAI] MODEL may be gpt-4o-mini") and "whisper" not in check.remedy


def test_an_alias(serve: Serve) -> None:
    """The model that an alias stands for is what counts."""
    serve(listing("gpt-4o"))
    llmcall.configure(model="best", aliases={"best": "gpt-4o"})
    assert found()["model"] == Check("model", True, "127.0.0.1 has gpt-4o")


def test_an_endpoint_of_a_pool(serve: Serve) -> None:
    """Each endpoint of the model's pool is checked, by its name."""
    server = serve(listing("gpt-4o"))
    sections = [f"[Endpoint {name}]\nMODELS = gpt-4o\nBASE_URL = {server.base_url}\n" for name in ("east", "west")]
    written("config.ini", "[OpenAI]\nMODEL = gpt-4o\n" + sections[0] + "API_KEY = ${OPENAI_API_KEY}\n" + sections[1])
    made = [check.found for check in checks()]
    assert "east: [Endpoint east] gives one" in made and "west: no key, and none is needed" in made
    assert "east has gpt-4o" in made and "west has gpt-4o" in made


def test_azure(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """Azure lists what could be deployed: that a deployment is missing shows at the first call only."""
    server = serve(listing("gpt-4o-mini-2024-07-18"))
    monkeypatch.setenv("AZURE_OPENAI_ENDPOINT", server.base_url.removesuffix("/v1"))
    monkeypatch.setenv("AZURE_OPENAI_API_KEY", "verysecret")
    llmcall.configure(api_type="azure", azure_api_version="2024-10-21")
    made = found()
    assert made["endpoint"].ok and made["model"].ok and "deployment gpt-4o-mini" in made["model"].found
    assert server.requests[0].headers["api-key"] == "verysecret"


@pytest.mark.parametrize("missing", ["AZURE_OPENAI_ENDPOINT", "OPENAI_API_VERSION", "AZURE_OPENAI_API_KEY"])
def test_azure_lacks_something(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What Azure needs and is not there is named by its variable."""
    values = {
        "AZURE_OPENAI_ENDPOINT": "http://127.0.0.1:9",
        "OPENAI_API_VERSION": "2024-10-21",
        "AZURE_OPENAI_API_KEY": "key",
    }
    for name in values.keys() - {missing}:
        monkeypatch.setenv(name, values[name])
    monkeypatch.setitem(sys.modules, "azure.identity", None)
    llmcall.configure(api_type="azure")
    check = found()["key"]
    assert not check.ok and missing in check.found


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ("[OpenAI]\nAPI_TYPE = opnai\n", "did you mean 'openai'"),
        ("[OpenAI]\nTIMEOUT = soon\n", "TIMEOUT"),
        ("[Aliases]\ngpt-4o-mini = gpt-4o-mini\n", "circle"),
    ],
    ids=["api_type", "value", "aliases"],
)
def test_wrong_settings(config: str, words: str) -> None:
    """Settings that cannot be used are the first thing that is told, and the only one."""
    written("config.ini", config)
    *_, check = checks()
    assert check.name == "settings" and not check.ok and words in check.found


def test_the_local_model_needs_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody who uses the model in this process is told that a key is missing; the files that were read are told."""
    monkeypatch.setattr("llmcall.clients.local.find_model", lambda name: Path("model.gguf"))
    path = written("config.ini", "[OpenAI]\nAPI_TYPE = local\n")
    made = found()
    assert made["key"].ok and "none is needed" in made["key"].found
    assert made["files"].found == f"read: {path}"


def test_a_client_of_ones_own() -> None:
    """A registered client is checked as far as it can be."""
    llmcall.register_client("mine", ScriptedClient(["Hi."], model="mine-1"))
    llmcall.configure(api_type="mine")
    made = found()
    assert made["settings"].found.startswith("scripted, model mine-1") and "endpoint" not in made
    assert all(check.ok for check in made.values())


@pytest.mark.parametrize("place", ["file", "damaged"])
def test_an_unusable_cache(place: str) -> None:
    """A cache that is a file or damaged is told, with another place as the remedy."""
    path = "somewhere" if place == "file" else "somewhere/cache.db"
    written(path, "This is no database." * 100)
    llmcall.configure(cache_path="somewhere", cache_mode="replay")
    check = found()["cache"]
    assert not check.ok and "somewhere" in check.found and "[Cache] PATH" in check.remedy


@pytest.mark.skipif(os.name == "posix" and os.geteuid() == 0, reason="root may write anywhere")
@pytest.mark.parametrize("made", [True, False])
def test_an_unwritable_cache(made: bool) -> None:
    """A directory that cannot be written, or not be made, is told."""
    Path("locked/cache").mkdir(parents=True)
    Path("locked/cache" if made else "locked").chmod(0o500)
    llmcall.configure(cache_path="locked/cache" if made else "locked/new", cache_mode="replay")
    check = found()["cache"]
    Path("locked/cache" if made else "locked").chmod(0o700)
    assert not check.ok and "cannot be written" in check.found


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="needs a directory that nobody can write to")
def test_a_place_where_nothing_can_be_made() -> None:
    """Where not even root could make the cache, the doctor says so."""
    llmcall.configure(cache_path="/proc/llmcall", cache_mode="replay")
    check = found()["cache"]
    assert not check.ok and "/proc/llmcall cannot be written" in check.found


@pytest.mark.parametrize(("model", "remedy"), [("no-such-model", False), ("gpt-4o-mini", True)])
def test_the_tokenizer(model: str, remedy: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """An estimate is well, and bettered only where a vocabulary would help."""
    monkeypatch.setattr("llmcall.models.tokens.counter", lambda encoding: None)
    llmcall.configure(model=model, cache_mode="replay")
    check = found()["tokenizer"]
    assert check.ok and check.found == f"estimated for {model}" and ("offline" in check.remedy) is remedy


def test_the_cache_is_counted(serve: Serve) -> None:
    """A cache that is there is told with what it holds."""
    serve(listing("gpt-4o-mini"))
    client: Any = ScriptedClient(["Hi."], cache_mode="auto")
    client.send_message("Hello")
    assert found()["cache"].found.endswith("cache: 1 records")


def test_a_configured_price() -> None:
    """The price that counts is shown with where it comes from."""
    llmcall.configure(model="gpt-4o-mini", prices={"gpt-4o-mini": (0.15, 0.6)}, cache_mode="replay")
    said = "gpt-4o-mini: $0.15 in and $0.6 out per million tokens, by [Prices]"
    assert found()["price"] == Check("price", True, said)


def test_an_unknown_price() -> None:
    """A price that nobody knows is no fault; the setting that gives one is named."""
    llmcall.configure(model="my-model", cache_mode="replay")
    check = found()["price"]
    assert check.ok and check.found == "my-model: unknown, so costs are shown as ?"
    assert "my-model = IN, OUT in [Prices]" in check.remedy and "'prices'" in check.remedy


def test_the_day_of_a_packaged_price() -> None:
    """A price of the package is shown with its version and day."""
    pytest.importorskip("genai_prices")
    llmcall.configure(model="gpt-4o-mini", cache_mode="replay")
    assert re.search(r"out per million tokens, by genai-prices [\d.]+ for \d{4}-\d\d-\d\d$", found()["price"].found)
