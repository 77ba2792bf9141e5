"""Programs on ``requests``, recorded by ``patched`` and replayed."""

from __future__ import annotations

import gzip
import itertools
import json
from typing import Any

import pytest
import werkzeug
from servers import chunks_of, completion, event

import llmcall

requests = pytest.importorskip("requests")

QUESTION = [{"role": "user", "content": "Bread for 3 coins?"}]
BODY = {"model": "gpt-4o-mini", "messages": QUESTION, "temperature": 1}


class Model:
    """A model's server on the loopback; each answer is another one.

    :ivar moved: how many requests were redirected.
    """

    def __init__(self, server: Any) -> None:
        self.address = server.url_for("/v1")
        self.requests: list[werkzeug.Request] = []
        self.moved = 0
        self._numbers = itertools.count()
        server.expect_request("/v1/chat/completions").respond_with_handler(self._chat)
        server.expect_request("/v1/responses").respond_with_data(
            'data: {"type": "response.completed", "delta": "Brötchen"}\n\n',
            content_type="text/event-stream; charset=utf-8",
        )
        server.expect_request("/v1/models").respond_with_handler(self._list)
        server.expect_request("/old/chat/completions").respond_with_handler(self._move)

    def _chat(self, request: werkzeug.Request) -> werkzeug.Response:
        self.requests.append(request)
        number = next(self._numbers)
        if request.get_json().get("stream"):
            pieces = [*chunks_of("answer ", f"{number}"), b"[DONE]"]
            return werkzeug.Response(map(event, pieces), content_type="text/event-stream")
        body = gzip.compress(json.dumps(completion(f"answer {number}")).encode())
        headers = {"content-encoding": "gzip"}
        return werkzeug.Response(body, headers=headers, content_type="application/json")

    def _list(self, request: werkzeug.Request) -> werkzeug.Response:
        self.requests.append(request)
        return werkzeug.Response('{"data": []}', content_type="application/json")

    def _move(self, request: werkzeug.Request) -> werkzeug.Response:
        self.moved += 1
        return werkzeug.Response("", 307, {"location": "/v1/chat/completions"})


@pytest.fixture
def model(httpserver: Any) -> Model:
    """A model's server."""
    return Model(httpserver)


def ask(model: Model) -> Any:
    """Ask by ``requests``, and return the response."""
    return requests.post(f"{model.address}/chat/completions", json=BODY, timeout=30)


def text_of(response: Any) -> str:
    """Return the answer's text."""
    return response.json()["choices"][0]["message"]["content"]  # type: ignore[no-any-return]


def test_a_chat_of_requests_is_recorded_and_replayed(model: Model) -> None:
    """By the function and by a session; the response is that of the API."""
    with llmcall.patched():
        live = ask(model)
    with llmcall.patched(), requests.Session() as session:
        session.headers["X-Other"] = "header"
        by_session = session.post(
            f"{model.address}/chat/completions",
            data=json.dumps(BODY).encode(),
            headers={"content-type": "application/json"},
        )
    with llmcall.patched(cache_mode="replay"):
        replayed = ask(model)
    assert text_of(live) == text_of(by_session) == text_of(replayed) == "answer 0"
    assert (live.ok, live.reason, live.url) == (True, "OK", replayed.url)
    assert len(model.requests) == 1


def test_a_redirect_that_the_library_follows_is_one_call_and_no_failure(
    model: Model, caplog: pytest.LogCaptureFixture
) -> None:
    """The server that redirects is asked once, too: llmcall retries no redirect."""
    url = model.address.replace("/v1", "/old/chat/completions")
    for mode in ("once", "none"):
        with llmcall.cassette("run.jsonl", mode=mode) as tape:
            assert text_of(requests.post(url, json=BODY, timeout=30)) == "answer 0"
        assert (tape.recorded, tape.replayed) == ((1, 0) if mode == "once" else (0, 1))
    assert (len(model.requests), model.moved) == (1, 1)
    assert "failed" not in caplog.text


def read_stream(model: Model, read: str) -> str:
    """Ask for a stream, read it in some way, and return the text of its deltas."""
    body = {"model": "gpt-4o-mini", "messages": QUESTION, "stream": True}
    with requests.post(f"{model.address}/chat/completions", json=body, stream=True) as response:
        if read == "iter_lines":
            lines = [line.decode() for line in response.iter_lines()]
        elif read.startswith("iter_content"):
            size = 7 if read.endswith("7") else None
            lines = b"".join(response.iter_content(size)).decode().splitlines()
        else:
            lines = response.text.splitlines()
    events = [line.removeprefix("data: ") for line in lines if line]
    assert events.pop() == "[DONE]"
    deltas = [
        choice["delta"] for event_data in events for choice in json.loads(event_data)["choices"]
    ]
    return "".join(delta.get("content") or "" for delta in deltas)


@pytest.mark.parametrize(
    "read", ["iter_lines", "iter_content of 7", "iter_content of any size", "text"]
)
def test_a_stream_gives_the_same_however_it_is_read(model: Model, read: str) -> None:
    for mode in ("auto", "replay"):
        with llmcall.patched(cache_mode=mode):
            assert read_stream(model, read) == "answer 0"
    assert len(model.requests) == 1


def test_a_list_is_recorded(model: Model) -> None:
    """A GET replays, too, once a request has shown that the host is a model's."""
    for mode in ("auto", "replay"):
        with llmcall.patched(cache_mode=mode):
            ask(model)
            assert requests.get(f"{model.address}/models").json() == {"data": []}
    assert len(model.requests) == 2
