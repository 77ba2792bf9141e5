"""What a program gets while it is recorded: the server's own answer, byte for byte, and its headers."""

from __future__ import annotations

import asyncio
import contextlib
import json
import urllib.request
from collections.abc import Callable
from typing import Any

import pytest
from clients import QUESTION, http
from pytest_httpserver import HTTPServer
from servers import RawServer, sends
from servers import http as http_answer

import llmcall

aiohttp = pytest.importorskip("aiohttp")
requests = pytest.importorskip("requests")

Got = tuple[bytes, dict[str, str]]  # a body, and its headers
CHAT = {"model": "m", "messages": QUESTION}
# Order, spaces, numbers and fields are not those that llmcall would write.
WHOLE = b"""{"created": 1764000000,  "id":"chatcmpl-D1", "system_fingerprint": "fp_1", "own": 1.50, "model": "m-1",
 "choices": [{"message": {"role": "assistant", "content": "Zw\\u00f6lf"}, "index": 0, "finish_reason": "stop"}]}"""
EMBEDDED = b'{"model":"e-1", "own": [], "data":[ {"index": 0, "embedding": "AACAPwAAAEA="} ]}'
RESPONSE = (
    b'{"id": "resp_1",  "status": "completed", "output": [{"type": "message", "role": "assistant", '
    b'"content": [{"type": "output_text", "text": "Zw\\u00f6lf"}]}], "own": 1.50}'
)
ANSWERS = {
    "/v1/chat/completions": (CHAT, WHOLE),
    "/v1/embeddings": ({"model": "e", "input": "Bread?", "encoding_format": "base64"}, EMBEDDED),
    "/v1/responses": ({"model": "m", "input": "Bread?"}, RESPONSE),
}


def by_httpx(url: str, body: Any) -> Got:
    """Post by the HTTP library of the SDK."""
    with http.Client() as client:
        answer = client.post(url, json=body)
    return answer.content, {name.lower(): value for name, value in answer.headers.items()}


def by_requests(url: str, body: Any) -> Got:
    """Post by ``requests``."""
    answer = requests.post(url, json=body, timeout=30)
    return answer.content, {name.lower(): value for name, value in answer.headers.items()}


def by_urllib(url: str, body: Any) -> Got:
    """Post by ``urllib``."""
    headers = {"content-type": "application/json"}
    request = urllib.request.Request(url, json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=30) as answer:
        return answer.read(), {name.lower(): value for name, value in answer.headers.items()}


def by_aiohttp(url: str, body: Any) -> Got:
    """Post by ``aiohttp``."""

    async def post() -> Got:
        async with aiohttp.ClientSession() as session, session.post(url, json=body) as answer:
            return await answer.read(), {
                name.lower(): value for name, value in answer.headers.items()
            }

    return asyncio.run(post())


OF_FEATURES = [
    pytest.param(post, marks=pytest.mark.feature("http_libraries"), id=name)
    for name, post in (("urllib", by_urllib), ("aiohttp", by_aiohttp))
]


@pytest.mark.parametrize("path", ANSWERS)
@pytest.mark.parametrize("post", [by_httpx, by_requests, *OF_FEATURES])
def test_a_recorded_program_gets_the_servers_own_answer(
    path: str, post: Callable[[str, Any], Got], httpserver: HTTPServer
) -> None:
    """With its identifiers, its fields in their order, and its headers; no header is llmcall's."""
    body, content = ANSWERS[path]
    httpserver.expect_request(path).respond_with_data(
        content, content_type="application/json", headers={"x-request-id": "req-1"}
    )
    url = httpserver.url_for(path)
    plain, plain_headers = post(url, body)
    with llmcall.cassette("run.jsonl", mode="once"):
        recorded, headers = post(url, body)
    assert recorded == plain == content
    del headers["date"]
    assert headers.items() <= plain_headers.items()
    assert headers.keys() >= {"content-type", "content-length", "x-request-id"}


@pytest.mark.parametrize("path", ANSWERS)
def test_a_replayed_answer_has_its_length_and_no_advice_on_retries(
    path: str, httpserver: HTTPServer
) -> None:
    """The record has no identifier and no date of a chat."""
    body, content = ANSWERS[path]
    httpserver.expect_ordered_request(path).respond_with_data(
        content, content_type="application/json"
    )
    url = httpserver.url_for(path)
    with llmcall.cassette("run.jsonl", mode="once"):
        by_httpx(url, body)
    with llmcall.cassette("run.jsonl", mode="none"):
        replayed, headers = by_httpx(url, body)
    assert headers == {"content-type": "application/json", "content-length": f"{len(replayed)}"}


def test_a_server_that_advises_to_retry_is_heard(httpserver: HTTPServer) -> None:
    """A program reads its ``x-should-retry``, but for a failure that llmcall has retried."""
    advice = {"x-should-retry": "true"}
    failure = b'{"error": {"message": "no such model"}}'
    for status, content in ((200, WHOLE), (404, failure), (500, failure), (500, failure)):
        httpserver.expect_ordered_request("/v1/chat/completions").respond_with_data(
            content, status, advice, content_type="application/json"
        )
    url = httpserver.url_for("/v1/chat/completions")
    retries = llmcall.configured(retry_max_attempts=2, retry_waiting_time=0)
    with retries, llmcall.cassette("run.jsonl", mode="once"):
        found = [by_httpx(url, {**CHAT, "seed": seed})[1]["x-should-retry"] for seed in range(3)]
    assert found == ["true", "true", "false"]


@pytest.mark.parametrize("path", ANSWERS)
@pytest.mark.parametrize("post", [by_httpx, by_requests])
def test_a_failure_that_is_not_retried_reaches_the_program_unchanged(
    post: Callable[[str, Any], Got], path: str, httpserver: HTTPServer
) -> None:
    """It gets the body and the headers that it gets without llmcall; a connection has its own."""
    httpserver.expect_request(path).respond_with_data(
        b'{"error": {"message": "no such model"}}',
        404,
        {"x-request-id": "r1"},
        content_type="application/json",
    )
    url, body = httpserver.url_for(path), ANSWERS[path][0]
    found = [post(url, body)]
    with llmcall.cassette("run.jsonl", mode="once"):
        found.append(post(url, body))
    assert len(httpserver.log) == 2
    for _, headers in found:
        del headers["date"]
        headers.pop("connection", None)
    assert found[0] == found[1]


def test_an_answer_that_is_not_recorded_passes_as_it_is(httpserver: HTTPServer) -> None:
    """It is open until it is read, and no header of it is llmcall's."""
    httpserver.expect_request("/v1/responses").respond_with_data(b"ok", content_type="text/plain")
    body = {"model": "m", "input": "Bread?", "stream": True}
    found = []
    for block in (contextlib.nullcontext(), llmcall.patched()):
        url = httpserver.url_for("/v1/responses")
        with block, http.Client() as client, client.stream("POST", url, json=body) as answer:
            headers = {*answer.headers} - {"server", "connection"}
            found.append((answer.status_code, answer.is_closed, headers, answer.read()))
    assert found[0] == found[1]
    assert found[1][3] == b"ok"


@pytest.mark.parametrize("post", [by_requests, *OF_FEATURES])
def test_an_address_that_only_its_own_library_accepts_passes(
    post: Callable[[str, Any], Got],
) -> None:
    """What goes to no model meets no rule of another library: httpx's longest URL has 65,536 characters."""
    head = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\n"
    with RawServer(sends(head + b"ok")) as server, llmcall.patched():
        found, _ = post(f"{server.base_url}/{'a' * 70_000}", {"a": 1})
    assert found == b"ok"


STRUCTURED = (
    b'{"id": "c1", "model": "m-1", "choices": [{"message": {"role": "assistant", "content": '
    b'{"price": 3, "goods": "Oil"}}, "index": 0, "finish_reason": "stop"}]}'
)
MISFIT = (
    b'{"id": "c1", "model": "m-1", "choices": [{"message": {"role": "assistant", "content": "Three coins."}, '
    b'"index": 0, "finish_reason": "stop"}]}'
)
OF_SCHEMA = {
    "type": "json_schema",
    "json_schema": {"name": "offer", "schema": {"type": "object", "required": ["price"]}},
}


@pytest.mark.parametrize("answer", [STRUCTURED, MISFIT])
def test_a_program_reads_its_own_answers_which_are_recorded_as_they_came(answer: bytes) -> None:
    """An object as content, and what does not fit the program's own schema: nothing is asked again."""
    body = {**CHAT, "response_format": OF_SCHEMA}
    with RawServer(sends(http_answer(answer, stays=False))) as server:
        url = f"{server.base_url}/v1/chat/completions"
        with llmcall.cassette("tape.jsonl"):
            assert by_httpx(url, body)[0] == answer
        with llmcall.cassette("tape.jsonl", mode="none"):
            replayed = json.loads(by_httpx(url, body)[0])
        assert len(server.requests) == 1
    content = replayed["choices"][0]["message"]["content"]
    assert json.dumps(content).encode() in answer  # in its own order: the next prompt may quote it


def test_an_answer_without_choices_is_handed_over_and_not_asked_again() -> None:
    """A server may answer later, under the id that it gives. A body that says so has it recorded."""
    answer = b'{"request_id":  "r-17"}'
    with RawServer(sends(http_answer(answer, stays=False))) as server:
        url = f"{server.base_url}/v1/chat/completions"
        with llmcall.cassette("tape.jsonl") as tape:
            assert by_httpx(url, CHAT)[0] == answer
            assert by_httpx(url, {**CHAT, "deferred": True})[0] == answer
        assert (len(server.requests), tape.recorded) == (2, 1)
        with llmcall.cassette("tape.jsonl", mode="none"):
            assert by_httpx(url, {**CHAT, "deferred": True})[0] == answer
        assert len(server.requests) == 2


@pytest.mark.parametrize("path", ANSWERS)
def test_a_response_has_the_version_and_reason_that_httpx_notes(path: str) -> None:
    """Programs read both from its extensions."""
    body, content = ANSWERS[path]
    found = []
    with RawServer(sends(http_answer(content, stays=False))) as server, http.Client() as client:
        for mode in (None, "once", "none"):
            with llmcall.cassette("run.jsonl", mode=mode) if mode else contextlib.nullcontext():
                given = client.post(f"{server.base_url}{path}", json=body).extensions
            found.append((given["http_version"], given["reason_phrase"]))
    assert found == [(b"HTTP/1.1", b"OK")] * 3


def test_own_fields_of_embeddings_pass_while_recording_and_a_replay_has_an_id() -> None:
    """Mistral's SDK refuses an answer without one. The vectors are rounded, as a record has them."""
    answer = (
        b'{"id": "emb-1", "object": "list", "model": "e-1", "data": [{"object": "embedding", "index": 0, '
        b'"embedding": [0.1]}], "usage": {"prompt_tokens": 1, "total_tokens": 1, "prompt_audio_seconds": 2}}'
    )
    body, found = {"model": "e", "input": ["Bread?"]}, []
    with RawServer(sends(http_answer(answer, stays=False))) as server:
        for mode in ("once", "none"):
            with llmcall.cassette("tape.jsonl", mode=mode):
                got = by_httpx(f"{server.base_url}/v1/embeddings", body)[0]
            found.append(json.loads(got))
    recorded, replayed = found
    whole = json.loads(answer)
    assert recorded["data"] == replayed["data"]
    assert {**recorded, "data": whole["data"]} == whole
    assert replayed["id"].startswith("embd-")
    assert replayed["usage"] == {"prompt_tokens": 1, "total_tokens": 1}
