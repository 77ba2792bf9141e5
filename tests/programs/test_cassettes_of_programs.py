"""A cassette records every model call of its block: llmcall's own, the SDK's and other clients'."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import importlib
import itertools
import json
import multiprocessing
import os
import socket
import subprocess
import sys
import textwrap
import threading
import urllib.parse
from collections.abc import Callable
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import openai
import pytest
from clients import KEY, QUESTION, Server, ask, http, plain_program
from commands import LONGEST, NEEDS_POSIX, PRICED
from pytest_httpserver import HTTPServer
from servers import NumberedServer

import llmcall

TAPE = "run.jsonl"
BODY = {"model": "gpt-4o-mini", "messages": QUESTION}


@pytest.fixture
def model(httpserver: HTTPServer) -> NumberedServer:
    """A model's server behind a real socket."""
    return NumberedServer(httpserver)


def test_a_block_records_and_replays_the_sdk_without_a_key(
    model: NumberedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the default mode; a client that is made in the replay needs no key."""

    def run() -> Any:
        client = openai.OpenAI(base_url=model.address, max_retries=0)
        return client.chat.completions.create(model="gpt-4o-mini", messages=QUESTION)  # type: ignore[arg-type]

    with monkeypatch.context() as with_key, llmcall.cassette(TAPE) as tape:
        with_key.setenv("OPENAI_API_KEY", KEY)
        live = run().choices[0].message.content
    assert (tape.asked, tape.replayed) == (1, 0)
    assert KEY not in Path(TAPE).read_text(encoding="utf-8")
    with llmcall.cassette(TAPE) as tape:
        assert run().choices[0].message.content == live
    assert (tape.asked, tape.replayed, len(model.asked)) == (0, 1, 1)
    assert "OPENAI_API_KEY" not in os.environ


def test_settings_that_a_program_takes_none_of_are_not_named(
    model: NumberedServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Its file has none, and a replay under the same ones does not say that it was recorded without them."""
    monkeypatch.setenv("LLMCALL_TEMPERATURE", "0.5")
    for mode in ("once", "none"):
        with llmcall.cassette(TAPE, mode=mode):
            http.post(f"{model.address}/chat/completions", json=BODY)
    assert json.loads(Path(TAPE).read_text(encoding="utf-8").splitlines()[0])["settings"] == {}
    assert "no effect" not in caplog.text


def by_requests(url: str, body: dict[str, Any]) -> Any:
    """Post by requests."""
    return pytest.importorskip("requests").post(url, json=body).json()


def by_library(name: str) -> Callable[[str, dict[str, Any]], Any]:
    """Return a function that posts by httpx or httpx2."""

    def post(url: str, body: dict[str, Any]) -> Any:
        pytest.importorskip(name)
        return importlib.import_module(name).post(url, json=body).json()

    return post


@pytest.mark.parametrize(
    "post",
    [by_library("httpx"), by_library("httpx2"), by_requests],
    ids=["httpx", "httpx2", "requests"],
)
def test_a_block_records_every_client(
    model: NumberedServer, post: Callable[[str, dict[str, Any]], Any]
) -> None:
    body = {"model": "gpt-4o-mini", "messages": QUESTION}
    with llmcall.cassette(TAPE), llmcall.scope("s"):
        live = post(f"{model.address}/chat/completions", body)
    with llmcall.cassette(TAPE, mode="none"):
        with llmcall.scope("s"):
            again = post("http://127.0.0.1:9/v1/chat/completions", body)
        with llmcall.scope("s"):
            reply = llmcall.client().send_message(QUESTION, model="gpt-4o-mini", on_error="raise")
    assert again["choices"] == live["choices"]
    assert reply.content == live["choices"][0]["message"]["content"]


@NEEDS_POSIX
@pytest.mark.parametrize("mode", ["none", "once"])
def test_a_forked_child_of_a_block_that_replays_sends_nothing(
    model: NumberedServer, mode: str
) -> None:
    with llmcall.cassette(TAPE):
        http.post(f"{model.address}/chat/completions", json=BODY)
    with pytest.raises(llmcall.CacheMissError), llmcall.cassette(TAPE, mode=mode):
        child = os.fork()
        if not child:
            try:
                http.post(f"{model.address}/chat/completions", json={**BODY, "temperature": 1})
            finally:
                os._exit(0)
        os.waitpid(child, 0)
    assert len(model.asked) == 1


def test_a_library_may_be_imported_in_the_block(model: NumberedServer) -> None:
    """And a call of llmcall's own stands beside it."""
    script = f"""
    import sys, llmcall
    with llmcall.cassette({TAPE!r}) as tape:
        assert not {{"httpx", "httpx2", "requests"}} & sys.modules.keys()
        import httpx
        body = {{"model": "gpt-4o-mini", "messages": [{{"role": "user", "content": "Hi"}}]}}
        httpx.post({model.address!r} + "/chat/completions", json=body)
    print(tape.asked, tape.replayed)
    """
    printed = [
        subprocess.run(
            [sys.executable, "-c", textwrap.dedent(script)],
            capture_output=True,
            text=True,
            check=True,
            timeout=LONGEST,
            env={**os.environ, "LLMCALL_CONFIG": str(PRICED)},
        ).stdout
        for _ in range(2)
    ]
    assert printed == ["1 0\n", "0 1\n"]


def test_a_refusal_that_the_program_swallowed_is_raised_at_the_end() -> None:
    """An error that leaves the block is its own."""
    with llmcall.cassette(TAPE):
        ask(plain_program(Server()))
    with pytest.raises(llmcall.CacheMissError), llmcall.cassette(TAPE, mode="none"):
        for seed in (1, 2):
            with pytest.raises(openai.APIStatusError):
                ask(plain_program(Server()), seed=seed)
    with pytest.raises(openai.ConflictError), llmcall.cassette(TAPE, mode="none"):
        ask(plain_program(Server()), seed=1)


def test_a_refusal_of_llmcalls_own_call_is_raised_at_the_end_too() -> None:
    """The first of them, if the code in the block went on; the call may be in a map's thread."""
    client = llmcall.testing.ScriptedClient(["Hi."])
    with llmcall.cassette(TAPE):
        client.send_message("Hello!")
    with pytest.raises(llmcall.CacheMissError, match="Good bye"), llmcall.cassette(TAPE):
        for text in ("Good bye!", "Bread?"):
            with pytest.raises(llmcall.CacheMissError):
                llmcall.map(client.send_message, [text])


def test_a_cassette_that_the_settings_name_records_the_sdk_from_llmcalls_first_call_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A program that never touches llmcall is not recorded: that is what ``llmcall run`` is for."""
    monkeypatch.setenv("LLMCALL_CASSETTE_PATH", TAPE)
    llmcall.reset()
    client, own = plain_program(Server()), llmcall.testing.ScriptedClient(lambda messages: "Hi.")
    answers = []
    for _ in range(2):
        with llmcall.scope("s"):
            own.send_message("Hello!")
        answers.append(ask(client))
        llmcall.reset()
    assert answers == ["answer number 0"] * 2
    assert ask(client) == "answer number 1"


PROJECT = """
import openai, pytest

@pytest.mark.llm(actor="system")
def test_it():
    client = openai.OpenAI(base_url={address!r}, max_retries=0)
    messages = [{{"role": "system", "content": "You are Lisa."}}, {{"role": "user", "content": "Hi"}}]
    made = client.chat.completions.create(model="gpt-4o-mini", messages=messages)
    assert made.choices[0].message.content == "answer 0"

@pytest.mark.llm
def test_draws():
    client = openai.OpenAI(base_url={address!r}, max_retries=0)
    asked = {{"model": "gpt-4o-mini", "messages": [{{"role": "user", "content": "Hi"}}]}}
    made = [client.chat.completions.create(**asked) for _ in range(2)]
    assert [answer.choices[0].message.content for answer in made] == ["answer 1", "answer 2"]
"""


@pytest.mark.ci
@pytest.mark.feature("pytest_plugin")
def test_a_marked_test_of_the_sdk_is_recorded_and_replayed_without_a_key(
    model: NumberedServer,
) -> None:
    """The plain ``pytest`` replays; the mark takes the actor. No other test reaches the model."""
    Path("test_market.py").write_text(PROJECT.format(address=model.address), encoding="utf-8")
    for options, key in ((["--llm-record=once"], {"OPENAI_API_KEY": KEY}), ([], {})):
        done = subprocess.run(
            [
                *(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"),
                *("-p", "llmcall", *options),
            ],
            capture_output=True,
            text=True,
            check=False,
            timeout=LONGEST,
            env={
                **os.environ,
                "LLMCALL_CONFIG": str(PRICED),
                "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",  # others take more time than the test
                "OPENAI_BASE_URL": model.address,
                **key,
            },
        )
        assert done.returncode == 0, done.stdout
    assert len(model.asked) == 3
    draws, named = sorted(Path("cassettes").rglob("*.jsonl"))
    assert '"sample": "run#1"' in draws.read_text(encoding="utf-8")
    assert "You are Lisa.-" in named.read_text(encoding="utf-8")


def by_streams(host: str, port: int) -> None:
    """Connect in an event loop, as aiohttp does."""

    async def connect() -> None:
        _, writer = await asyncio.open_connection(host, port)
        writer.close()
        await writer.wait_closed()

    asyncio.run(connect())


def by_socket(host: str, port: int) -> None:
    """Connect a socket by the method that returns errors."""
    with socket.socket() as plain_socket:
        plain_socket.connect_ex((host, port))


@pytest.mark.parametrize("connect", [by_streams, by_socket])
def test_a_connection_of_another_client_to_a_model_is_warned_of(
    connect: Callable[[str, int], None], model: NumberedServer, caplog: pytest.LogCaptureFixture
) -> None:
    """A replay refuses it; if the program goes on, the block raises the refusal at its end."""
    url = urllib.parse.urlsplit(model.address)
    refused = pytest.raises(ConnectionRefusedError, match="a replay sends nothing")
    for mode, outcome, end in (
        ("once", contextlib.nullcontext(), contextlib.nullcontext()),
        ("none", pytest.raises(OSError), refused),
    ):
        with end, llmcall.cassette(TAPE, mode=mode):
            http.post(
                f"{model.address}/chat/completions",
                json={"model": "gpt-4o-mini", "messages": QUESTION},
            )
            with outcome:
                connect(str(url.hostname), url.port or 0)
    assert caplog.text.count("requests that other clients sent to localhost are not recorded") == 1
    assert caplog.text.count("a replay refused a connection to localhost") == 1


def test_a_connection_is_reported_however_many_hosts_were_looked_up(
    model: NumberedServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Only so many of their names are kept, and those of the hosts that are connected to next."""
    monkeypatch.setenv("OPENAI_BASE_URL", "http://gateway.example:9/v1")
    look_up = {"gateway.example": "127.0.0.9"}
    resolved = socket.getaddrinfo
    monkeypatch.setattr(
        socket, "getaddrinfo", lambda host, *args: resolved(look_up.get(host, host), *args)
    )
    with llmcall.patched():
        for high, low in itertools.product(range(50), range(250)):
            socket.getaddrinfo(f"127.1.{high}.{low}", 80)
        with contextlib.suppress(OSError):
            socket.create_connection(("gateway.example", 9), timeout=LONGEST)
    assert "requests that other clients sent to gateway.example are not recorded" in caplog.text


def test_a_block_leaves_nothing_in_the_process(
    model: NumberedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither a replacement nor an import hook nor an audit hook, which Python never takes back."""
    hooks: list[object] = []
    monkeypatch.setattr(sys, "addaudithook", hooks.append)
    owners = [
        asyncio,
        asyncio.BaseEventLoop,
        concurrent.futures.ThreadPoolExecutor,
        http.AsyncClient,
        http.Client,
        multiprocessing.Process,
        os,
        socket,
        socket.socket,
        subprocess,
        subprocess.Popen,
        threading,
        threading.Thread,
    ]

    def held() -> list[object]:
        return [*sys.meta_path, *sys.path_hooks, *(dict(vars(owner)) for owner in owners)]

    before = held()
    for block in (llmcall.cassette(TAPE), llmcall.patched()):
        with block:
            http.post(
                f"{model.address}/chat/completions",
                json={"model": "gpt-4o-mini", "messages": QUESTION},
            )
            assert held() != before
    assert held() == before
    assert not hooks


def test_a_programs_request_shows_no_key() -> None:
    """Neither its headers' nor its query's."""
    request = llmcall.types.ProgramRequest(
        "POST", f"https://a.example/v1?key={KEY}", {"a": KEY}, {}
    )
    assert repr(request) == "ProgramRequest('POST', 'https://a.example/v1')"


@pytest.mark.parametrize("mode", ["new", "none"])
def test_a_block_without_a_call_names_the_hosts_that_unrecorded_clients_connected_to(
    mode: str, httpserver: HTTPServer, caplog: pytest.LogCaptureFixture
) -> None:
    """One of them may be a model; a replay does not refuse it."""
    httpserver.expect_request("/").respond_with_data("Two.")
    with llmcall.cassette("tape.jsonl", mode="new"):
        llmcall.recorded(name="clock")(lambda: 7)()
    caplog.clear()
    with llmcall.cassette("tape.jsonl", mode=mode):
        connection = HTTPConnection("127.0.0.1", httpserver.port)
        connection.request("GET", "/")
        assert connection.getresponse().read() == b"Two."
        connection.close()
    words = f"the program connected to localhost:{httpserver.port} through a library that llmcall does not record"
    assert words in caplog.text
