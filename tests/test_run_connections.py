"""``llmcall run``: connections that no recorded client makes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from programs import ASK, LONGEST, PRICED
from pytest_httpserver import HTTPServer
from servers import NumberedServer

pytestmark = pytest.mark.newest_only

PREAMBLE = f"""
import json, urllib.request
{ASK}
def post(text, path="/chat/completions"):
    body = {{"model": "gpt-4o-mini", "messages": [{{"role": "user", "content": text}}]}}
    headers = {{"content-type": "application/json"}}
    request = urllib.request.Request(os.environ["MODEL_AT"] + path, json.dumps(body).encode(), headers)
    return json.load(urllib.request.urlopen(request))["choices"][0]["message"]["content"]
def tried(function, text):
    try:
        return function(text)
    except Exception as error:
        return type(error).__name__
"""


@pytest.fixture
def model(httpserver: HTTPServer, monkeypatch: pytest.MonkeyPatch) -> NumberedServer:
    """A model's server, which the programs of a test find."""
    made = NumberedServer(httpserver)
    monkeypatch.setenv("MODEL_AT", made.address)
    monkeypatch.setenv("LLMCALL_CONFIG", str(PRICED))
    return made


def ran(program: str, *options: str, code: int = 0) -> tuple[str, str]:
    """Run a program under ``llmcall run``; return what it printed, and what was said."""
    Path("program.py").write_text(PREAMBLE + textwrap.dedent(program), encoding="utf-8")
    command = [sys.executable, "-m", "llmcall", "run", "--cassette", "run.jsonl", *options]
    done = subprocess.run(
        [*command, "program.py"], capture_output=True, text=True, check=False, timeout=LONGEST
    )
    assert done.returncode == code, done.stderr
    return done.stdout, done.stderr


@pytest.fixture(scope="module")
def bread(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cassette with the answer to ``Bread?``."""
    folder = tmp_path_factory.mktemp("bread")
    with HTTPServer() as server, pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("MODEL_AT", NumberedServer(server).address)
        monkeypatch.setenv("LLMCALL_CONFIG", str(PRICED))
        monkeypatch.chdir(folder)
        ran("print(ask('Bread?'))")
    return folder / "run.jsonl"


@pytest.fixture
def recorded(bread: Path, model: NumberedServer) -> NumberedServer:
    """A model's server that no program has asked, beside a copy of the cassette."""
    shutil.copy(bread, Path.cwd())
    return model


def test_what_no_recorded_client_asks_is_told(model: NumberedServer) -> None:
    """A request by ``urllib`` goes to the model while recording; the host is said at the end."""
    printed, said = ran("print(ask('Bread?'), post('Salt?'))")
    assert printed == "answer 0 answer 1\n"
    assert "what was sent to localhost by other clients is not recorded" in said


UNRECORDABLE = """
    import httpx
    body = json.dumps({"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Salt?"}]})
    print(httpx.post(os.environ["MODEL_AT"] + "/chat/completions", content=body).status_code)
"""


def test_a_body_that_cannot_be_recorded_is_told(model: NumberedServer) -> None:
    """A request without the media type of JSON is sent while recording, and told."""
    printed, said = ran(UNRECORDABLE)
    assert printed == "415\n"
    assert "POST /v1/chat/completions is sent but not recorded" in said


def test_none_refuses_a_body_that_cannot_be_recorded(
    recorded: NumberedServer, httpserver: HTTPServer
) -> None:
    """It is answered with the status 409 in mode ``none``, and the exit code is 1."""
    httpserver.clear_log()
    printed, said = ran(f"{UNRECORDABLE}    ask('Bread?')", "--mode", "none", code=1)
    assert printed == "409\n"
    assert "POST /v1/chat/completions was not recorded" in said
    assert not httpserver.log


def test_none_refuses_what_no_recorded_client_asks(recorded: NumberedServer) -> None:
    """In mode ``none`` it is refused, and the exit code is 1."""
    program = "print(ask('Bread?'), tried(post, 'Salt?'))"
    printed, said = ran(program, "--mode", "none", code=1)
    assert printed == "answer 0 URLError\n"
    assert "--mode none refused a connection to localhost" in said
    assert not recorded.asked


def test_none_refuses_the_address_of_the_settings(
    recorded: NumberedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A socket to the address in ``OPENAI_BASE_URL`` is refused, whatever library opens it."""
    monkeypatch.setenv("OPENAI_BASE_URL", os.environ["MODEL_AT"])
    program = """
        import socket, urllib.parse
        url = urllib.parse.urlsplit(os.environ["MODEL_AT"])
        try:
            socket.create_connection((url.hostname, url.port))
        except ConnectionRefusedError as error:
            print(error.strerror)
    """
    printed, _ = ran(program, "--mode", "none", code=1)
    assert printed == "llmcall run refuses the connection to localhost: a replay sends nothing\n"


def test_none_allows_other_connections(recorded: NumberedServer, httpserver: HTTPServer) -> None:
    """A program's own server is no model: it is reached in mode ``none``."""
    program = """
        import socket
        server = socket.create_server(("127.0.0.1", 0))
        reader = socket.create_connection(server.getsockname())
        server.accept()[0].sendall(b"a row")
        print(reader.recv(5), ask('Bread?'))
    """
    printed, said = ran(program, "--mode", "none")
    assert printed == "b'a row' answer 0\n"
    assert "refused" not in said.replace("0 refused", "")


def test_what_recorded_clients_ask_is_not_told(model: NumberedServer) -> None:
    """Their connections are their own business, asynchronous ones too."""
    program = """
        import asyncio, openai, requests
        async def aask(text):
            client = openai.AsyncOpenAI(api_key="none", base_url=os.environ["MODEL_AT"])
            messages = [{"role": "user", "content": text}]
            made = await client.chat.completions.create(model="gpt-4o-mini", messages=messages)
            return made.choices[0].message.content
        body = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "by requests"}]}
        requests.post(os.environ["MODEL_AT"] + "/chat/completions", json=body)
        print(ask("Bread?"), asyncio.run(aask("Salt?")))
    """
    printed, said = ran(program)
    assert printed == "answer 1 answer 2\n"
    assert "not recorded" not in said


BY_LLMCALL = {
    "without a cassette": "print(client.send_message('Salt?', model='gpt-4o-mini').content)",
    "with its own": """with llmcall.cassette("own.jsonl", mode="new"):
            print(client.send_message("Salt?", model="gpt-4o-mini").content)
    """,
}


@pytest.mark.newest_only
@pytest.mark.parametrize("way", BY_LLMCALL)
def test_none_refuses_what_the_program_asks_by_llmcall(model: NumberedServer, way: str) -> None:
    """A program that uses llmcall itself sends nothing either, whatever cassette it opens."""
    program = f"""
        import llmcall
        client = llmcall.OpenAIClient(api_key="none", base_url=os.environ["MODEL_AT"])
        {BY_LLMCALL[way]}
    """
    Path("program.py").write_text(PREAMBLE + textwrap.dedent(program), encoding="utf-8")
    command = [sys.executable, "-m", "llmcall", "run", "--mode", "none", "program.py"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=LONGEST)
    assert done.returncode == 1
    assert "no answer is recorded" in done.stderr
    assert "run the program without --mode none to record it" in done.stderr
    assert not model.asked
