"""Streams that the query of a request asks for: of a background response, of another API. Each is compared with what
the same program gets unrecorded.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import httpx2
import pytest
from clients import http
from commands import LONGEST
from servers import Paused, RawServer, event, sends

import llmcall

aiohttp = pytest.importorskip("aiohttp")
httpx = pytest.importorskip("httpx")
requests = pytest.importorskip("requests")

LATE = 5.0  # seconds, after which a program that waits for what comes only later fails
OF_SDK = {"x-stainless-lang": "python"}  # a header of OpenAI's and Anthropic's SDKs
DELTA = {"type": "response.output_text.delta", "delta": "Two"}
COMPLETED = {"type": "response.completed", "response": {"id": "resp_1", "status": "completed"}}
EVENTS = event(DELTA) + event(COMPLETED) + event(b"[DONE]")
RESPONSE = "/responses/resp_1?stream=true", None
OWN = "/own?stream=true", {"model": "m", "query": "Bread?"}
REQUESTS = {"a response, read again": RESPONSE, "an API of its own": OWN}

Opened = Callable[[], None]


class Got(NamedTuple):
    """What a program got."""

    status: int
    pieces: list[bytes]


def sent(body: Any) -> tuple[str, dict[str, Any]]:
    """Return the method and the arguments that send a body, or none."""
    return ("GET", {}) if body is None else ("POST", {"json": body})


def by_httpx(library: Any) -> Callable[..., Got]:
    """Return a program of a library."""

    def read(url: str, body: Any, opened: Opened, *, is_left: bool = False) -> Got:
        method, options = sent(body)
        with (
            library.Client(timeout=LATE) as client,
            client.stream(method, url, headers=OF_SDK, **options) as answer,
        ):
            opened()
            return Got(answer.status_code, [] if is_left else [*answer.iter_bytes()])

    return read


def by_async_httpx(library: Any) -> Callable[..., Got]:
    """Return an asynchronous program of a library."""

    def read(url: str, body: Any, opened: Opened, *, is_left: bool = False) -> Got:
        async def aread() -> Got:
            method, options = sent(body)
            async with (
                library.AsyncClient(timeout=LATE) as client,
                client.stream(method, url, headers=OF_SDK, **options) as answer,
            ):
                opened()
                pieces = [] if is_left else [piece async for piece in answer.aiter_bytes()]
                return Got(answer.status_code, pieces)

        return asyncio.run(aread())

    return read


def by_requests(url: str, body: Any, opened: Opened, *, is_left: bool = False) -> Got:
    """Read by ``requests``."""
    method, options = sent(body)
    with requests.request(
        method, url, headers=OF_SDK, stream=True, timeout=LATE, **options
    ) as answer:
        opened()
        return Got(answer.status_code, [] if is_left else [*answer.iter_content(None)])


def by_urllib(url: str, body: Any, opened: Opened, *, is_left: bool = False) -> Got:
    """Read by ``urllib``."""
    method, _ = sent(body)
    content = None if body is None else json.dumps(body).encode()
    headers = {**OF_SDK, "content-type": "application/json"}
    request = urllib.request.Request(url, content, headers, method=method)
    with urllib.request.urlopen(request, timeout=LATE) as answer:
        opened()
        return Got(answer.status, [] if is_left else [answer.read()])


def by_aiohttp(url: str, body: Any, opened: Opened, *, is_left: bool = False) -> Got:
    """Read by ``aiohttp``."""

    async def aread() -> Got:
        method, options = sent(body)
        timeout = aiohttp.ClientTimeout(sock_read=LATE)
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.request(method, url, headers=OF_SDK, **options) as answer,
        ):
            opened()
            return Got(answer.status, [] if is_left else [await answer.read()])

    return asyncio.run(aread())


OF_CORE = {
    "httpx": by_httpx(httpx),
    "httpx2": by_httpx(httpx2),
    "async httpx": by_async_httpx(httpx),
    "async httpx2": by_async_httpx(httpx2),
    "requests": by_requests,
}
OF_FEATURES = {"urllib": by_urllib, "aiohttp": by_aiohttp}
LIBRARIES = {name: pytest.param(read, id=name) for name, read in OF_CORE.items()} | {
    name: pytest.param(read, marks=pytest.mark.feature("http_libraries"), id=name)
    for name, read in OF_FEATURES.items()
}
libraries = pytest.mark.parametrize("read", LIBRARIES.values())
both_requests = pytest.mark.parametrize(
    ("path", "body"), REQUESTS.values(), ids=[name.replace(" ", "-") for name in REQUESTS]
)


def nothing() -> None:
    """Do nothing."""


@libraries
@both_requests
def test_a_program_has_the_response_once_its_headers_are_there(
    read: Callable[..., Got], path: str, body: Any
) -> None:
    """The server sends no byte of the answer before that, and a replay has all of them."""
    found: list[bytes] = []
    asked: list[int] = []
    for mode in ("", "once", "none"):
        answer = Paused(DELTA, COMPLETED, after=0)
        block: Any = llmcall.cassette("run.jsonl", mode=mode) if mode else nullcontext()
        with RawServer(answer) as server, block:
            got = read(server.base_url + path, body, answer.go_on.set)
            found.append(b"".join(got.pieces))
            asked.append(len(server.requests))
        assert got.status == 200
    assert found == [EVENTS] * 3
    assert asked == [1, 1, 0]


@pytest.mark.parametrize("is_first", [True, False], ids=["first", "later"])
@libraries
def test_an_answer_that_breaks_off_is_not_recorded_and_comes_as_it_is(
    read: Callable[..., Got], is_first: bool
) -> None:
    """The program's own library raises its error, or none where the server closes in good order; nothing is sent
    again."""
    path, body = RESPONSE
    part = event(DELTA)
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n"
    chunked = b"Transfer-Encoding: chunked\r\n\r\n%x\r\n" % (len(part) + 9)
    behaviour = sends(head + (chunked if is_first else b"\r\n") + part)
    found: list[Any] = []
    for block in (nullcontext(), llmcall.cassette("run.jsonl", mode="once")):
        with RawServer(behaviour) as server:
            try:
                with block:
                    found.append(b"".join(read(server.base_url + path, body, nothing).pieces))
            except Exception as error:  # noqa: BLE001 - of any library
                found.append(type(error))
            assert len(server.requests) == 1
    assert found[0] == found[1]
    assert not Path("run.jsonl").exists()


@libraries
@both_requests
def test_a_program_that_leaves_early_has_closed_the_connection(
    read: Callable[..., Got], path: str, body: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """The end of the run says that the answer is not recorded."""
    answer = Paused(DELTA, COMPLETED, after=1)
    with RawServer(answer) as server, llmcall.cassette("run.jsonl", mode="once"):
        read(server.base_url + path, body, answer.paused.wait, is_left=True)
        assert answer.left.wait(LATE)
    assert "1 call ended before the whole answer arrived" in caplog.text
    assert not Path("run.jsonl").exists()


@both_requests
def test_an_answer_that_is_never_read_is_told(
    path: str, body: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """It is open when the block ends."""
    method, options = sent(body)
    answer = Paused(DELTA, COMPLETED, after=1)
    with RawServer(answer) as server, http.Client(timeout=LATE) as client:
        with llmcall.cassette("run.jsonl", mode="once"):
            request = client.build_request(
                method, server.base_url + path, headers=OF_SDK, **options
            )
            response = client.send(request, stream=True)
        response.close()
    assert "1 call ended before the whole answer arrived" in caplog.text


@pytest.mark.parametrize("read", [LIBRARIES["async httpx"], LIBRARIES["aiohttp"]])
def test_a_program_that_replaces_the_sleep_of_asyncio_sees_its_own_alone(
    read: Callable[..., Got], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A test of the program may count how often it waits."""
    path, _ = RESPONSE
    slept: list[float] = []
    monkeypatch.setattr(asyncio, "sleep", slept.append)
    with RawServer(sends(http_events())) as server, llmcall.cassette("run.jsonl", mode="once"):
        got = read(server.base_url + path, None, nothing)
    assert b"".join(got.pieces) == EVENTS
    assert slept == []


def test_a_reader_who_stops_at_the_last_event_has_it_recorded() -> None:
    """The SDK's helper for background responses reads no further, and leaves."""
    path, _ = RESPONSE
    found: list[list[bytes]] = []
    for mode in ("once", "none"):
        with (
            RawServer(sends(http_events())) as server,
            llmcall.cassette("run.jsonl", mode=mode),
            http.Client() as client,
            client.stream("GET", server.base_url + path, headers=OF_SDK) as answer,
        ):
            found.append([*until_completed(answer.iter_lines())])
    assert len(found[0]) == 2
    assert found[0] == found[1]


def http_events() -> bytes:
    """Return a response with the events."""
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
    return head + EVENTS


def until_completed(lines: Iterator[Any]) -> Iterator[Any]:
    """Yield the events up to the last."""
    for line in filter(None, lines):
        yield line
        if json.loads(line.removeprefix("data: "))["type"] == "response.completed":
            return


CHILD = """
import os, sys, httpx2
with httpx2.stream("GET", os.environ["MODEL_AT"], headers={"x-stainless-lang": "python"}, timeout=20) as answer:
    print(answer.status_code, file=sys.stderr, flush=True)
    print(answer.read())
"""


@pytest.mark.ci
def test_a_child_has_the_response_once_its_headers_are_there() -> None:
    """It sends the request itself; a replay asks nobody."""
    Path("child.py").write_text(CHILD, encoding="utf-8")
    Path("program.py").write_text(
        "import subprocess, sys; subprocess.run([sys.executable, 'child.py'], check=True)",
        encoding="utf-8",
    )
    path, _ = RESPONSE
    for mode in ("once", "none"):
        answer = Paused(DELTA, COMPLETED, after=0)
        command = [sys.executable, "-m", "llmcall", "run", "--cassette", "a.jsonl", "--mode", mode]
        with RawServer(answer) as server:
            with subprocess.Popen(
                [*command, "program.py"],
                env={**os.environ, "MODEL_AT": server.base_url + path},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            ) as program:
                assert program.stderr is not None
                assert program.stderr.readline() == b"200\n"
                answer.go_on.set()
                printed, reported = program.communicate(timeout=LONGEST)
            asked = len(server.requests)
        assert printed.strip() == repr(EVENTS).encode(), reported
        assert (
            reported == b"0 asked: a.jsonl\n"
        )  # a GET costs nothing; no word that no request was seen
        assert (program.returncode, asked) == (0, 1 if mode == "once" else 0)


@pytest.mark.ci
def test_a_run_that_leaves_a_stream_says_that_and_nothing_else() -> None:
    """Not that no request was seen."""
    path, _ = RESPONSE
    program = CHILD.replace("print(answer.read())", "sys.exit()")
    Path("program.py").write_text(program, encoding="utf-8")
    answer = Paused(DELTA, COMPLETED, after=1)
    command = [sys.executable, "-m", "llmcall", "run", "--cassette", "a.jsonl", "program.py"]
    with RawServer(answer) as server:
        ran = subprocess.run(
            command,
            env={**os.environ, "MODEL_AT": server.base_url + path},
            capture_output=True,
            text=True,
            timeout=LONGEST,
        )
    assert "1 call ended before the whole answer arrived" in ran.stderr
    assert "was seen" not in ran.stderr
