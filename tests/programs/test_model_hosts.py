"""Requests to a model's host besides chats and the three APIs: recorded if they are JSON answered
in JSON, else named by their path.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import itertools
import json
import pathlib
import re
from collections.abc import Callable
from typing import Any

import openai
import pytest
from clients import KEY, QUESTION, http, needs_sdk
from servers import completion

import llmcall

TAPE = "run.jsonl"
KNOWN = "https://api.openai.com/v1"
UNKNOWN = "https://gateway.example/v1"  # no host that anybody knows as a model's


class API:
    """Answer as APIs of models do, each time another way.

    :ivar asked: method and path of each request.
    """

    def __init__(self) -> None:
        self.asked: list[str] = []
        self._numbers = itertools.count()
        self.transport = http.MockTransport(self.answer)

    def answer(self, request: Any) -> Any:
        """Answer a request."""
        number, path = next(self._numbers), request.url.path
        self.asked.append(f"{request.method} {path}")
        if path.endswith("/chat/completions"):
            return http.Response(200, json=completion(f"answer {number}"))
        if path.endswith("/traces/ingest"):
            return http.Response(204)
        if path.endswith("/oauth/token"):
            token = {"access_token": f"token-{number}-of-the-server", "expires_in": 600}
            return http.Response(200, json=token)
        if path.endswith(("/speech", "/content")):
            headers = {"content-type": "audio/mpeg"}
            return http.Response(200, headers=headers, content=b"sound %d" % number)
        if request.method == "DELETE" and path.endswith("/agents/a"):
            return http.Response(204)
        status = 201 if path.endswith("/agents") else 200
        return http.Response(status, json={"id": f"id_{number}", "object": "list", "data": []})


def client(api: API) -> Any:
    """Return an HTTP client that knows nothing of llmcall."""
    return http.Client(transport=api.transport)


def sdk(api: API, base_url: str = KNOWN) -> openai.OpenAI:
    """Return an SDK that knows nothing of llmcall."""
    return openai.OpenAI(api_key=KEY, base_url=base_url, http_client=client(api), max_retries=0)


def asdk(api: API, base_url: str = KNOWN) -> openai.AsyncOpenAI:
    """Return an asynchronous SDK that knows nothing of llmcall."""
    http_client = http.AsyncClient(transport=api.transport)
    return openai.AsyncOpenAI(
        api_key=KEY, base_url=base_url, http_client=http_client, max_retries=0
    )


OTHER_POSTS = {
    "/v1/moderations": {"input": "Bread?"},
    "/v1/images/generations": {"model": "gpt-image-1", "prompt": "Bread"},
    "/v1/conversations": {"items": []},
    "/v2/rerank": {"model": "r", "query": "Bread?", "documents": ["a"]},
    "/api/chat": {"model": "llama", "messages": QUESTION, "stream": False},
    "/v1/messages/count_tokens": {"model": "m", "messages": QUESTION},
}


@pytest.mark.parametrize("path", OTHER_POSTS)
def test_json_that_a_models_host_answers_in_json_is_recorded(path: str) -> None:
    """It replays at another model's host, too; inside a scope, each request is a draw."""
    found = []
    for mode, host in (("once", "https://api.openai.com"), ("none", "http://localhost:11434")):
        api = API()
        with llmcall.cassette(TAPE, mode=mode):
            post = client(api).post
            found.append([post(host + path, json=OTHER_POSTS[path]).json() for _ in range(2)])
    assert found[0] == found[1]
    assert len({answer["id"] for answer in found[0]}) == 2
    assert not api.asked


def keep_a_conversation(api: API, base_url: str) -> list[Any]:
    """Talk as the session of openai-agents does, and return what the API answers."""
    conversations = sdk(api, base_url).conversations
    made = conversations.create(items=[])
    item: Any = {"role": "user", "content": "Bread?", "type": "message"}
    conversations.items.create(made.id, items=[item])
    listed = [item.id for item in conversations.items.list(made.id, order="asc")]
    gone = conversations.delete(made.id)
    return [made.id, listed, gone.id]


async def akeep_a_conversation(api: API, base_url: str) -> list[Any]:
    """Talk likewise, asynchronously."""
    conversations = asdk(api, base_url).conversations
    made = await conversations.create(items=[])
    item: Any = {"role": "user", "content": "Bread?", "type": "message"}
    await conversations.items.create(made.id, items=[item])
    listed = [item.id async for item in conversations.items.list(made.id, order="asc")]
    gone = await conversations.delete(made.id)
    return [made.id, listed, gone.id]


@needs_sdk(1, 101)  # conversations
@pytest.mark.parametrize("base_url", [KNOWN, UNKNOWN])
@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_a_conversation_at_the_server_replays(base_url: str, is_async: bool) -> None:
    """It is posted, looked at and deleted; a call of the SDK shows that the host is a model's."""
    found = []
    for mode in ("once", "none"):
        api = API()
        with llmcall.cassette(TAPE, mode=mode):
            if is_async:
                found.append(asyncio.run(akeep_a_conversation(api, base_url)))
            else:
                found.append(keep_a_conversation(api, base_url))
    assert found[0] == found[1]
    assert not api.asked


@needs_sdk(1, 101)
def test_a_conversation_at_the_server_is_made_anew_while_recording() -> None:
    """The disk cache, which has the answer of an earlier run, does not supply it: a conversation of
    that run may be gone, or hold what was said there.
    """
    api, found = API(), []
    for path in ("one.jsonl", "two.jsonl"):
        with llmcall.cassette(path):
            found.append(sdk(api).conversations.create(items=[]).id)
    assert found == ["id_0", "id_1"]


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/batches/b"), ("DELETE", "/threads/t"), ("POST", "/batches/b/cancel")],
)
def test_a_request_without_a_body_is_answered_from_the_record_in_a_replay(
    method: str, path: str
) -> None:
    """To any path of a model's host."""
    found = []
    for mode in ("once", "none"):
        api = API()
        with llmcall.cassette(TAPE, mode=mode):
            found.append(client(api).request(method, KNOWN + path).json())
    assert found[0] == found[1]
    assert not api.asked


def test_an_answer_keeps_its_status_and_may_be_empty() -> None:
    """As Mistral's: 201, and 204 without a body."""
    found = []
    for mode in ("once", "none"):
        with llmcall.cassette(TAPE, mode=mode):
            made = client(API()).post("https://api.mistral.ai/v1/agents", json={"name": "a"})
            gone = client(API()).delete("https://api.mistral.ai/v1/agents/a")
            found.append((made.status_code, made.json(), gone.status_code, gone.content))
    assert found[0] == found[1] == (201, made.json(), 204, b"")


def lines(*data: Any) -> Any:
    """Return a server that streams lines of JSON as Ollama does."""
    content = "".join(f"{json.dumps(value)}\n" for value in data)
    headers = {"content-type": "application/x-ndjson"}
    return http.MockTransport(lambda _: http.Response(200, headers=headers, content=content))


SAID = {"message": {"role": "assistant", "content": "Two coins."}, "done": False}


@pytest.mark.parametrize(
    ("data", "records"),
    [
        ([SAID, {**SAID, "done": True}], 1),
        ([SAID], 0),
        ([SAID, {"error": "the model runner has stopped"}], 0),
    ],
    ids=["whole", "cut", "error"],
)
def test_a_stream_of_ollamas_own_api_is_recorded_if_it_is_whole(data: Any, records: int) -> None:
    """The program has it as it came, also in a replay."""
    found = []
    for transport in (lines(*data), lines()):
        with (
            llmcall.cassette(TAPE) as tape,
            http.Client(transport=transport) as ollama,
            ollama.stream(
                "POST", "http://localhost:11434/api/chat", json={"model": "m", "stream": True}
            ) as response,
        ):
            found.append([json.loads(line) for line in response.iter_lines()])
        if not records:
            break
    assert found == [data] * len(found)
    assert tape.records == records


# What is not recorded


def say(api: API) -> bytes:
    """Ask for speech, by the SDK."""
    return sdk(api).audio.speech.create(model="tts-1", voice="alloy", input="Bread?").read()


async def asay(api: API) -> bytes:
    """Ask for speech, by the asynchronous SDK."""
    speech = asdk(api).audio.speech
    return (await speech.create(model="tts-1", voice="alloy", input="Bread?")).read()


PASSING: dict[str, tuple[Any, str]] = {
    "speech": (say, "POST api.openai.com/v1/audio/speech"),
    "async speech": (lambda api: asyncio.run(asay(api)), "POST api.openai.com/v1/audio/speech"),
    "speech by httpx": (
        lambda api: client(api).post(f"{KNOWN}/audio/speech", json={"input": "Bread?"}).content,
        "POST api.openai.com/v1/audio/speech",
    ),
    "transcription": (
        lambda api: sdk(api).audio.transcriptions.create(model="w", file=("a.mp3", b"sound")),
        "POST api.openai.com/v1/audio/transcriptions",
    ),
    "file": (
        lambda api: sdk(api).files.create(file=("a", b"abc"), purpose="user_data"),
        "POST api.openai.com/v1/files",
    ),
    "a file's content": (
        lambda api: sdk(api).files.content("f").read(),
        "GET api.openai.com/v1/files/f/content",
    ),
    "a secret of WebSockets": (
        lambda api: client(api).post(f"{KNOWN}/realtime/client_secrets", json={}).json(),
        "POST api.openai.com/v1/realtime/client_secrets",
    ),
}


@pytest.mark.parametrize("name", PASSING)
def test_what_is_not_json_passes_while_recording_and_is_refused_in_a_replay(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Its path is reported once at the end, however often it was sent; it is no failure, and no file holds it. A replay
    sends nothing.
    """
    send, address = PASSING[name]
    api = API()
    with llmcall.cassette(TAPE) as tape:
        sdk(api).models.list()
        for _ in range(2):
            assert send(api)
        assert address not in caplog.text
    assert caplog.text.count(f"{address} was sent and not recorded") == 1
    assert "failed" not in caplog.text
    assert (len(api.asked), tape.records) == (3, 1)
    with pytest.raises(llmcall.LLMCallError) as caught, llmcall.cassette(TAPE, mode="none"):
        try:
            send(api)
        except openai.APIStatusError as error:
            assert error.status_code == 409
    assert f"{address} is not recorded" in str(caught.value)
    assert len(api.asked) == 3


def by_requests(url: str) -> Any:
    """Post a file, which requests reads piece by piece: it is no request without a body."""
    return pytest.importorskip("requests").post(url, data=io.BytesIO(b"abc"))


@pytest.mark.parametrize("post", [by_requests, lambda url: http.post(url, files={"file": b"abc"})])
def test_the_connection_of_what_passes_is_no_other_clients(
    post: Callable[[str], Any], httpserver: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """It is reported by its path alone."""
    httpserver.expect_request("/v1/files").respond_with_json({"id": "f"})
    with llmcall.configured(base_url=httpserver.url_for("/v1")), llmcall.cassette(TAPE) as tape:
        assert post(httpserver.url_for("/v1/files")).json() == {"id": "f"}
    assert tape.records == 0
    assert "POST localhost/v1/files was sent and not recorded" in caplog.text
    assert "other clients" not in caplog.text


def test_telemetry_passes_while_recording_and_gets_an_empty_204_in_a_replay(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It is neither reported nor a failure; only telemetry gets a 204."""
    api = API()
    for mode in ("once", "none"):
        with llmcall.cassette(TAPE, mode=mode):
            sdk(api).models.list()
            sent = client(api).post(f"{KNOWN}/traces/ingest", json={"data": []})
            assert (sent.status_code, sent.content) == (204, b"")
    assert api.asked == ["GET /v1/models", "POST /v1/traces/ingest"]
    assert not caplog.text


@pytest.mark.parametrize(("method", "attempts"), [("GET", 5), ("POST", 1)])
def test_what_llmcall_does_not_retry_is_retried_by_the_programs_sdk(
    method: str, attempts: int, httpserver: Any
) -> None:
    """A request without a body passes through; others are the SDK's if ``MAX_ATTEMPTS`` is 1. The program sees each
    answer of the server, and as many retries as without llmcall.
    """
    busy = {"error": {"message": "busy"}}
    at_once = {"retry-after-ms": "1"}  # which the SDK follows
    found = []
    for mode in (None, "once", "none"):
        if mode != "none":
            expected = httpserver.expect_ordered_request
            expected(re.compile("/v1/.*")).respond_with_json(busy, 503, at_once)
            expected(re.compile("/v1/.*")).respond_with_json(completion("hello"))
        with contextlib.ExitStack() as blocks:
            if mode is not None:
                blocks.enter_context(llmcall.configured(retry_max_attempts=attempts))
                blocks.enter_context(llmcall.cassette(TAPE, mode=mode))
            program = openai.OpenAI(api_key=KEY, base_url=httpserver.url_for("/v1"))
            if method == "GET":
                response: Any = program.models.with_raw_response.retrieve("m")
            else:
                chats = program.chat.completions.with_raw_response
                response = chats.create(model="m", messages=QUESTION)
        found.append((response.parse().object, response.retries_taken))
    kind = "chat.completion"
    assert found == [(kind, 1), (kind, 1), (kind, 0)]
    assert [request.method for request, _ in httpserver.log] == [method] * 4


@pytest.mark.parametrize(
    "url",
    [
        "https://api.anthropic.com/v1/oauth/token",
        "https://auth.openai.com/oauth/token",
        "https://gateway.example/oauth/token",
    ],
)
def test_an_access_token_is_not_recorded_and_a_placeholder_in_a_replay(
    url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The SDK gets one for its workload's identity: each run proves it anew, and neither may be in a file."""
    api = API()
    tokens = []
    for mode in ("once", "none"):
        with llmcall.cassette(TAPE, mode=mode, hosts=("gateway.example",)):
            sdk(api).models.list()
            proof = {"grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer", "assertion": mode}
            token = client(api).post(url, json=proof).raise_for_status().json()
            assert token["expires_in"] > 0
            tokens.append(token["access_token"])
    assert tokens[0] == "token-1-of-the-server"
    assert tokens[1] != tokens[0]
    assert api.asked == ["GET /v1/models", f"POST {http.URL(url).path}"]
    assert "oauth" not in pathlib.Path(TAPE).read_text(encoding="utf-8")
    assert not caplog.text


def test_other_hosts_are_left_alone() -> None:
    """Recording and in a replay, whatever is sent."""
    api = API()
    for mode in ("once", "none"):
        with llmcall.cassette(TAPE, mode=mode):
            sdk(api).models.list()
            client(api).post("https://shop.example/v1/moderations", json={"input": "Bread?"})
            client(api).get("https://shop.example/v1/files/f/content")
    assert api.asked.count("POST /v1/moderations") == 2
    assert api.asked.count("GET /v1/files/f/content") == 2


@pytest.mark.parametrize(
    ("path", "cost"),
    [("/v1/conversations", 0), ("/v1/moderations", 0), ("/v2/rerank", None), ("/api/chat", None)],
)
def test_a_request_to_a_model_without_a_price_has_an_unknown_cost(path: str, cost: Any) -> None:
    """It is unknown; what asks no model, and OpenAI's moderations, cost nothing."""
    asked = {"model": "m", **OTHER_POSTS[path]}
    if path == "/v1/conversations":
        del asked["model"]
    with llmcall.cassette(TAPE) as tape, llmcall.track() as usage:
        client(API()).post("https://api.openai.com" + path, json=asked)
    (record,) = tape.all_records()
    assert record.cost == cost
    assert (usage.calls, usage.cost) == (1, cost)
