"""The command line: ask, tokens, config, demo, and how it ends."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from project_files import written
from pytest_httpserver import HTTPServer
from servers import QUESTION, Answer, ScriptedServer, refusal

import llmcall
from llmcall.cli.main import main
from llmcall.testing import ScriptedClient

COMMANDS = [
    *([name] for name in ("ask", "cache", "config", "demo", "doctor", "tokens")),
    *(["cache", name] for name in ("clear", "delete", "export", "load", "ls", "show", "stats", "verify")),
]


def run(*arguments: str, text: str | None = None) -> Result:
    """Run a command in this process."""
    return CliRunner().invoke(main, arguments, input=text)


def python_m(*arguments: str, text: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run ``python -m llmcall`` in a process of its own."""
    command = [sys.executable, "-W", "error", "-m", "llmcall", *arguments]
    return subprocess.run(command, input=text, capture_output=True, text=True, encoding="utf-8")


@pytest.fixture
def scripted() -> ScriptedClient:
    """Make a client that repeats the last message the configured one."""
    client = ScriptedClient(lambda messages: f"{messages[-1]['content']}!")
    llmcall.register_client("scripted", client)
    llmcall.configure(api_type="scripted")
    return client


@pytest.fixture
def server(httpserver: HTTPServer, monkeypatch: pytest.MonkeyPatch) -> ScriptedServer:
    """Start a server that answers once, and name it in the environment."""
    chunk = {"id": "c", "model": "gpt-4o-mini", "choices": [{"index": 0, "delta": {"content": "Two "}}]}
    last = {"id": "c", "choices": [{"index": 0, "delta": {"content": "coins."}, "finish_reason": "stop"}]}
    events = "".join(f"data: {json.dumps(event)}\n\n" for event in (chunk, last)) + "data: [DONE]\n\n"
    started = ScriptedServer(httpserver, Answer(200, events), refusal(400, "once is enough"))
    monkeypatch.setenv("OPENAI_BASE_URL", started.base_url)
    return started


def test_ask(server: ScriptedServer) -> None:
    """A question is asked once, and answered from the record afterwards; the answer alone is on standard output."""
    for _ in range(2):
        done = python_m("ask", "What do apples cost?", "-s", "You sell fruit.", "-m", "gpt-4o")
        assert (done.returncode, done.stdout, done.stderr) == (0, "Two coins.\n", "")
    (seen,) = server.requests
    assert seen.body["stream"] is True and seen.body["model"] == "gpt-4o"
    assert seen.body["messages"] == [{"role": "system", "content": "You sell fruit."}, *QUESTION]


def test_ask_from_standard_input(scripted: ScriptedClient) -> None:
    """A minus sign stands for standard input."""
    done = run("ask", "-", text="Wie geht’s?\n")
    assert (done.exit_code, done.output) == (0, "Wie geht’s?\n!\n")


def test_ask_prints_a_refusal() -> None:
    """Where the model refuses, its words are the answer."""
    client = ScriptedClient([{"role": "assistant", "content": None, "refusal": "I will not."}])
    llmcall.register_client("scripted", client)
    llmcall.configure(api_type="scripted")
    assert run("ask", "Tell me!").output == "I will not.\n"


@pytest.mark.parametrize(
    ("options", "systems"),
    [([], ["You are a helpful assistant."]), (["-s", "Be rude."], ["Be rude."]), (["-s", ""], [])],
)
def test_ask_the_local_model(options: list[str], systems: list[str]) -> None:
    """So small a model needs a system message: it gets one where none is given."""
    client = ScriptedClient(["Paris."])
    llmcall.register_client("local", client)
    assert run("ask", "--local", "The capital of France?", *options).output == "Paris.\n"
    messages = client.requests[0].messages
    assert [message["content"] for message in messages if message["role"] == "system"] == systems


@pytest.mark.parametrize("text", ["", " \n"])
def test_ask_nothing(text: str, scripted: ScriptedClient) -> None:
    """An empty question is wrong usage, and is not sent."""
    done = run("ask", "-", text=text)
    assert done.exit_code == 2 and "no question" in done.output
    assert not scripted.requests


def test_ask_without_a_key() -> None:
    """A missing key fails with the name of its variable."""
    done = python_m("ask", "Hello")
    assert done.returncode == 1 and done.stdout == ""
    assert "OPENAI_API_KEY" in done.stderr and "Traceback" not in done.stderr


def test_ask_of_a_refusing_server(httpserver: HTTPServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the server says is said, and the key is not."""
    server = ScriptedServer(httpserver, refusal(401, "Incorrect API key provided: sk-verysecret"))
    monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-verysecret")
    done = run("ask", "Hello")
    assert done.exit_code == 1 and "AuthenticationError: 401: Incorrect API key" in done.output
    assert "sk-verysecret" not in done.output


def test_tokens() -> None:
    """Each file has its count, and several their sum."""
    written("a.txt", "Hello world")
    written("b.txt", "Grüße")
    one = run("tokens", "a.txt")
    assert one.exit_code == 0 and one.output.split() == [repr(llmcall.count_tokens("Hello world")), "a.txt"]
    both = run("tokens", "a.txt", "b.txt")
    assert [line.split()[1] for line in both.output.splitlines()] == ["a.txt", "b.txt", "all"]


def test_estimated_tokens() -> None:
    """An estimate is marked, also in the sum; JSON says it in words."""
    written("a.txt", "Hello world")
    estimated = run("tokens", "a.txt", "a.txt", "-m", "no-such-model")
    assert all(line.lstrip().startswith("~") for line in estimated.output.splitlines())
    rows = json.loads(run("tokens", "a.txt", "-m", "no-such-model", "--json").output)
    assert rows == [{"file": "a.txt", "tokens": int(llmcall.count_tokens("Hello world", "no")), "estimated": True}]


def test_tokens_of_standard_input() -> None:
    """A minus sign stands for standard input."""
    assert run("tokens", "-", text="Hello").output.split()[0].lstrip("~").isdigit()


def test_tokens_of_what_is_no_text(tmp_path: Path) -> None:
    """A file that is no UTF-8 is named, as is one that is not there."""
    Path("image.png").write_bytes(b"\x89PNG")
    for name in ("image.png", "missing.txt"):
        done = run("tokens", name)
        assert done.exit_code == 2 and name in done.output


CONFIG = """
[OpenAI]
MODEL = gpt-4
API_KEY = ${MY_KEY}
[Prices]
gpt-4 = 30, 60
[Endpoint east]
MODELS = gpt-4
API_KEY = ${MY_KEY}
BASE_URL = https://user:password@east.example.com/v1
[Model my-*]
STRUCTURED_OUTPUT = no
"""


def test_config(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every setting is shown with its value and where it came from; no secret is."""
    monkeypatch.setenv("MY_KEY", "sk-verysecret")
    monkeypatch.setenv("LLMCALL_CACHE_MODE", "replay")
    written("config.ini", CONFIG)
    shown = run("config")
    assert shown.exit_code == 0
    assert shown.output.startswith("[OpenAI] MODEL") and "[Retry] MAX_ATTEMPTS" not in shown.output
    assert f"read: {Path.cwd() / 'config.ini'}" in shown.output and "--all" in shown.output
    shown = run("config", "--all")
    lines = {line.split("  ")[0]: line for line in shown.output.splitlines()}
    assert "gpt-4" in lines["[OpenAI] MODEL"] and "config.ini" in lines["[OpenAI] MODEL"]
    assert lines["[Cache] MODE"].endswith("environment variable LLMCALL_CACHE_MODE")
    assert lines["[Retry] MAX_ATTEMPTS"].endswith("default")
    assert "30.0, 60.0" in lines["[Prices] gpt-4"] and "***" in lines["[Endpoint east] API_KEY"]
    assert "no" in lines["[Model my-*] STRUCTURED_OUTPUT"]
    assert "sk-verysecret" not in shown.output and "password" not in shown.output


def test_config_as_json(monkeypatch: pytest.MonkeyPatch) -> None:
    """As JSON, values have their types."""
    monkeypatch.setenv("MY_KEY", "sk-verysecret")
    written("config.ini", CONFIG)
    done = run("config", "--json")
    rows: dict[Any, Any] = {(row["section"], row["key"]): row["value"] for row in json.loads(done.output)}
    assert rows["Retry", "MAX_ATTEMPTS"] == 5 and rows["OpenAI", "TEMPERATURE"] is None
    assert rows["Prices", ""] == {"gpt-4": [30, 60]}
    assert rows["Endpoint", ""][0]["name"] == "east" and rows["Endpoint", ""][0]["models"] == ["gpt-4"]
    assert "sk-verysecret" not in done.output and "password" not in done.output


def test_a_broken_config() -> None:
    """A value of the wrong type fails with its place."""
    written("config.ini", "[OpenAI]\nTIMEOUT = soon\n")
    done = run("config")
    assert done.exit_code == 1 and "ConfigError" in done.output and "TIMEOUT" in done.output


def test_version() -> None:
    """--version says name and version."""
    done = python_m("--version")
    assert (done.returncode, done.stdout) == (0, f"llmcall, version {llmcall.__version__}\n")


@pytest.mark.parametrize("command", [[], *(command for command in COMMANDS if command != ["demo"])], ids=" ".join)
def test_help(command: list[str]) -> None:
    """Every command takes -h and --help, and each line of a list of commands fits."""
    short, long = run(*command, "-h"), run(*command, "--help")
    assert short.exit_code == 0 and short.output == long.output
    assert short.output.startswith(f"Usage: {' '.join(['main', *command])}")
    assert "..." not in short.output.partition("Commands:")[2]


@pytest.mark.parametrize(
    "arguments", [["nothing"], ["ask"], ["tokens"], ["ask", "a", "b"], ["config", "--yaml"], ["cache", "show"]]
)
def test_wrong_usage(arguments: list[str]) -> None:
    """Wrong usage ends with 2, and nothing of it is an answer."""
    assert run(*arguments).exit_code == 2


def test_the_reader_has_seen_enough() -> None:
    """A pipe that is closed early ends the command without a word."""
    command = [sys.executable, "-m", "llmcall", "config"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0)
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait() == 1


def test_demo_gets_its_options(monkeypatch: pytest.MonkeyPatch) -> None:
    """The demo is run as a script, with all that follows."""
    script = written("market.py", "import sys; print(__name__, sys.argv[1:])")
    monkeypatch.setattr("llmcall.cli.main._demo_script", lambda: Path(script))
    assert run("demo", "--live", "-h").output == "__main__ ['--live', '-h']\n"
