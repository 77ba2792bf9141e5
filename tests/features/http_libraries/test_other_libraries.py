"""Requests by aiohttp and urllib, recorded and replayed."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
from commands import LONGEST
from pytest_httpserver import HTTPServer
from servers import NumberedServer, chunk, event
from werkzeug import Response

PREAMBLE = """
import asyncio, json, os, random, sys, urllib.error, urllib.request
ADDRESS = os.environ["MODEL_AT"] + "/chat/completions"
def body(question, **parameters):
    messages = [{"role": "user", "content": question}]
    return {"model": "gpt-4o-mini", "messages": messages, **parameters}
def by_urllib(question="Bread?", address=ADDRESS, **parameters):
    data = json.dumps(body(question, **parameters)).encode()
    return urllib.request.urlopen(
        urllib.request.Request(address, data, {"Content-Type": "application/json"})
    )
def text(answer):
    return answer["choices"][0]["message"]["content"]
"""
AIOHTTP = """
import aiohttp
async def by_aiohttp(session, question="Bread?", address=ADDRESS):
    await asyncio.sleep(random.random() / 10)
    async with session.post(address, json=body(question)) as response:
        return text(await response.json())
"""
RUN = [sys.executable, "-m", "llmcall", "run"]
A = "--cassette", "a.jsonl"
NONE = *A, "--mode", "none"


def ran(program: str, *command: str, code: int = 0, **environment: str) -> tuple[str, str]:
    """Run a program by a command; return what it printed and reported."""
    Path("program.py").write_text(PREAMBLE + textwrap.dedent(program), encoding="utf-8")
    ended = subprocess.run(
        [*command, "program.py"],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=LONGEST,
        check=False,
    )
    assert ended.returncode == code, ended.stdout + ended.stderr
    return ended.stdout, ended.stderr


GATHER = f"""
{AIOHTTP}
async def main():
    async with aiohttp.ClientSession() as session:
        print(await asyncio.gather(*[by_aiohttp(session) for _ in range(4)]))
asyncio.run(main())
"""


@pytest.mark.ci
def test_no_call_imports_an_httpx_that_the_sdk_does_not_use(model: NumberedServer) -> None:
    """openai 3 looks for it in sys.modules for each request, and fails while another thread imports it."""
    program = """
    import openai
    import llmcall
    by_urllib()
    llmcall.client().send_message("Fish?", on_error="raise")
    sdks = {base.__module__.partition(".")[0] for base in openai.DefaultHttpxClient.__mro__}
    print({"httpx", "httpx2"} & sys.modules.keys() <= sdks)
    """
    printed, _ = ran(program, *RUN, *A, OPENAI_BASE_URL=model.address)
    assert printed == "True\n"


@pytest.mark.parametrize(
    "program",
    [pytest.param("print(text(json.load(by_urllib())))\n" * 3, marks=pytest.mark.ci), GATHER],
)
def test_equal_requests_replay_their_own_answers(model: NumberedServer, program: str) -> None:
    """Those of tasks, too, although each waits for a random time first."""
    if program is GATHER:
        pytest.importorskip("aiohttp")
    live, _ = ran(program, *RUN, *A)
    calls = len(model.asked)
    replayed, reported = ran(program, *RUN, *NONE, PYTHONHASHSEED="1")
    assert (replayed, reported) == (live, f"{calls} calls replayed from a.jsonl\n")
    assert len(model.asked) == calls


@pytest.mark.ci
def test_a_miss_is_an_http_error_with_the_report(model: NumberedServer) -> None:
    """The library's own, and nothing is sent."""
    ran("by_urllib()", *RUN, *A)
    program = """
    try:
        by_urllib("Milk?")
    except urllib.error.HTTPError as error:
        print(error.code, error.url == ADDRESS, "not recorded" in error.read().decode())
    """
    printed, reported = ran(program, *RUN, *NONE, code=1)
    assert printed == "409 True True\n"
    assert "[-Bread-] {+Milk+}" in " ".join(reported.split())
    assert model.asked == ["Bread?"]


@pytest.mark.ci
def test_neither_a_proxy_nor_a_resolver_leads_past_it(
    model: NumberedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a replay, which asks neither."""
    pytest.importorskip("aiohttp")
    program = f"""
{AIOHTTP}
async def main():
    async with aiohttp.ClientSession(trust_env=True) as session:
        print(await by_aiohttp(session))
print(text(json.load(by_urllib())))
asyncio.run(main())
"""
    live, _ = ran(program, *RUN, *A)
    monkeypatch.setenv("MODEL_AT", "http://no-such-host.invalid/v1")
    dead = "http://127.0.0.1:9"
    proxies = {"HTTP_PROXY": dead, "http_proxy": dead, "HTTPS_PROXY": dead, "https_proxy": dead}
    assert ran(program, *RUN, *NONE, **proxies)[0] == live
    assert len(model.asked) == 2


@pytest.mark.ci
def test_a_stream_comes_line_by_line_and_replays(
    httpserver: HTTPServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the library's own response."""
    pieces = [event(chunk("Two ")), event(chunk("coins.")), event(chunk(None, "stop"))]

    def answer(request: Any) -> Response:
        return Response([*pieces, b"data: [DONE]\n\n"], content_type="text/event-stream")

    httpserver.expect_request("/v1/chat/completions").respond_with_handler(answer)
    monkeypatch.setenv("MODEL_AT", httpserver.url_for("/v1"))
    program = """
    with by_urllib(stream=True) as response:
        lines = [line for line in response if line.strip()]
    events = [json.loads(line[6:]) for line in lines[:-1]]
    print(lines[-1], "".join(event["choices"][0]["delta"].get("content") or "" for event in events))
    """
    live, _ = ran(program, *RUN, *A)
    assert live == "b'data: [DONE]\\n' Two coins.\n"
    httpserver.clear()
    assert ran(program, *RUN, *NONE)[0] == live


@pytest.mark.ci
def test_a_failure_of_the_model_is_the_librarys_own(model: NumberedServer) -> None:
    """With the status and the body that the model sent."""
    program = """
    try:
        by_urllib("wrongly")
    except urllib.error.HTTPError as error:
        print(error.code, "error" in json.load(error))
    """
    assert ran(program, *RUN, *A)[0] == "400 True\n"
