"""What aiohttp and urllib send while they are recorded is what they send without llmcall: a server notes the bytes."""

from __future__ import annotations

import asyncio
import http.client
import io
import json
import socket
import socketserver
import threading
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest
from servers import completion

import llmcall

aiohttp = pytest.importorskip("aiohttp")

BODY = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Brot für 3 Münzen?"}]}
TEXT = json.dumps(BODY).encode()
JSON = {"Content-Type": "application/json"}
PATH = "/v1/chat/completions"
Asking = Callable[["Model"], tuple[int, str, str]]


class Model:
    """A model's server, on loopback and on a Unix socket.

    :ivar sent: the requests that it got, byte for byte.
    :ivar url: the address of its chats.
    :ivar socket: the path of its socket.
    """

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.socket = str(Path("model.sock").absolute())
        self._servers: list[Any] = [
            socketserver.ThreadingTCPServer(("127.0.0.1", 0), self._answer),
            socketserver.ThreadingUnixStreamServer(self.socket, self._answer),
        ]
        self.proxy = f"http://me:secret@127.0.0.1:{self._servers[0].server_address[1]}"
        self.url = self.proxy.replace("me:secret@", "") + PATH
        for server in self._servers:
            threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()

    def close(self) -> None:
        """Stop it."""
        for server in self._servers:
            server.shutdown()
            server.server_close()

    def _answer(self, connection: socket.socket, *_: object) -> None:
        with connection.makefile("rb") as file:
            first = file.readline()
            headers = http.client.parse_headers(head := io.BytesIO(_head(file)))
            if headers["Transfer-Encoding"]:
                body = b"".join(iter(lambda: _chunk(file), b""))
            else:
                body = file.read(int(headers["Content-Length"]))
        self.sent.append(first + head.getvalue() + body)
        moved = b"/moved" in first
        content = b"" if moved else json.dumps(completion("Two.")).encode()
        with closing(connection):
            connection.sendall(
                b"HTTP/1.1 %d x\r\nConnection: close\r\nLocation: %b\r\nContent-Type: application/json\r\n"
                b"Content-Length: %d\r\n\r\n%b"
                % (307 if moved else 200, PATH.encode(), len(content), content)
            )


def _head(file: Any) -> bytes:
    return b"".join(iter(file.readline, b"\r\n")) + b"\r\n"


def _chunk(file: Any) -> bytes:
    size: bytes = file.readline()
    chunk = size + file.read(int(size, 16) + 2)
    return chunk if int(size, 16) else b""


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Model]:
    """A model's server."""
    monkeypatch.chdir(tmp_path)
    made = Model()
    yield made
    made.close()


def by_aiohttp(
    url: Callable[[Model], str] = lambda model: model.url,
    session: Callable[[Model], dict[str, Any]] = lambda model: {},
    **options: Any,
) -> Asking:
    """Return what asks by a session of aiohttp. Functions among the options make what is sent once."""

    async def ask(model: Model) -> tuple[int, str, str]:
        given = {
            name: value(model) if callable(value) else value for name, value in options.items()
        }
        async with (
            aiohttp.ClientSession(**session(model)) as client,
            client.post(url(model), **({"json": BODY} | given)) as response,
        ):
            answer = await response.json()
            return response.status, str(response.url), answer["choices"][0]["message"]["content"]

    return lambda model: asyncio.run(ask(model))


def by_urllib(
    url: Callable[[Model], str] = lambda model: model.url,
    data: Callable[[], Any] = lambda: TEXT,
    headers: dict[str, str] = JSON,
    handlers: Callable[[Model], list[Any]] = lambda model: [],
) -> Asking:
    """Return what asks by an opener of urllib."""

    def ask(model: Model) -> tuple[int, str, str]:
        opener = urllib.request.build_opener(*handlers(model))
        with opener.open(urllib.request.Request(url(model), data(), headers)) as response:
            answer = json.load(response)
            return response.status, response.url, answer["choices"][0]["message"]["content"]

    return ask


async def in_pieces(_: Model) -> AsyncIterator[bytes]:
    """Yield the body."""
    yield TEXT[:9]
    yield TEXT[9:]


def elsewhere(_: Model) -> str:
    """Return an address that only a proxy or a socket leads to."""
    return f"http://models.invalid{PATH}"


class Fixed(urllib.request.HTTPHandler):
    """A handler of a program's own, which asks no server."""

    handler_order = 1
    asked: list[Any]

    def http_open(self, req: urllib.request.Request) -> Any:
        """Return an answer."""
        self.asked.append(req.data)
        raise urllib.error.HTTPError(
            req.full_url, HTTPStatus.GONE, "mine", http.client.HTTPMessage(), io.BytesIO(b"{}")
        )


NO_JSON: dict[str, Any] = {"json": None, "headers": JSON}
ASKING = {
    "JSON": by_aiohttp(),
    "text": by_aiohttp(data=TEXT.decode(), **NO_JSON),
    "pairs of headers": by_aiohttp(headers=[("X-One", "1"), ("X-One", "2"), ("x-lower", "é")]),
    "host and origin": by_aiohttp(headers={"Host": "a.example", "Origin": "https://b.example"}),
    "password in the address": by_aiohttp(lambda model: model.proxy + PATH),
    "parameters": by_aiohttp(params={"api-version": "1 2"}),
    "compressed": by_aiohttp(compress="gzip"),
    "proxy": by_aiohttp(elsewhere, proxy=lambda model: model.proxy),
    "Unix socket": by_aiohttp(
        elsewhere, lambda model: {"connector": aiohttp.UnixConnector(model.socket)}
    ),
    "no TLS checks": by_aiohttp(ssl=False),
    "urllib": by_urllib(),
    "urllib's host and origin": by_urllib(headers={**JSON, "Host": "a.example", "Origin": "b"}),
    "urllib's proxy": by_urllib(
        elsewhere, handlers=lambda model: [urllib.request.ProxyHandler({"http": model.proxy})]
    ),
}


@pytest.mark.parametrize("ask", ASKING.values(), ids=ASKING)
def test_a_recorded_request_is_sent_as_it_is_without_llmcall_and_replays(
    model: Model, ask: Asking
) -> None:
    """The address of the response is the program's, too."""
    plain = ask(model)
    with llmcall.cassette("a.jsonl"):
        recorded = ask(model)
    with llmcall.cassette("a.jsonl", mode="none"):
        replayed = ask(model)
    assert plain == recorded == replayed
    without, with_llmcall = model.sent
    assert with_llmcall == without


IN_PIECES = {
    "generator": by_aiohttp(data=in_pieces, **NO_JSON),
    "file": by_aiohttp(data=lambda _: io.BytesIO(TEXT), **NO_JSON),
    "urllib's generator": by_urllib(data=lambda: iter([TEXT[:9], TEXT[9:]])),
    "urllib's file": by_urllib(data=lambda: io.BytesIO(TEXT)),
}


@pytest.mark.parametrize("ask", IN_PIECES.values(), ids=IN_PIECES)
def test_a_request_whose_body_comes_in_pieces_passes_and_is_reported(
    model: Model, ask: Asking, caplog: pytest.LogCaptureFixture
) -> None:
    """It is sent as it is without llmcall."""
    plain = ask(model)
    with llmcall.cassette("a.jsonl") as cassette:
        assert ask(model) == plain
    assert not cassette.asked
    assert PATH in caplog.text
    without, with_llmcall = model.sent
    assert with_llmcall == without


def test_a_redirect_is_followed_by_aiohttp_itself(model: Model) -> None:
    """Both requests are sent as without llmcall."""
    ask = by_aiohttp(lambda model: model.url.replace("/v1", "/moved"))
    plain = ask(model)
    with llmcall.patched():
        assert ask(model) == plain
    assert model.sent[:2] == model.sent[2:]


def test_an_openers_own_handler_answers(model: Model) -> None:
    """Its error passes through the processors of errors."""
    Fixed.asked = []
    with llmcall.patched(), pytest.raises(urllib.error.HTTPError) as raised:
        by_urllib(handlers=lambda _: [Fixed])(model)
    assert (raised.value.code, raised.value.url) == (HTTPStatus.GONE, model.url)
    assert Fixed.asked == [TEXT]
    raised.value.close()
    assert not model.sent


ERRORS = {
    "aiohttp": by_aiohttp(lambda _: f"http://127.0.0.1:9{PATH}"),
    "urllib": by_urllib(lambda _: f"http://127.0.0.1:9{PATH}"),
}


@pytest.mark.parametrize("ask", ERRORS.values(), ids=ERRORS)
def test_a_refused_connection_raises_what_it_raises_without_llmcall(
    model: Model, ask: Asking
) -> None:
    """The library's own error."""
    with pytest.raises((aiohttp.ClientError, urllib.error.URLError)) as plain:
        ask(model)
    with llmcall.patched(), pytest.raises(plain.type) as recorded:
        ask(model)
    assert str(recorded.value) == str(plain.value)
