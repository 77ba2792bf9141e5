"""Programs on the OpenAI SDK that know nothing of llmcall, recorded and replayed."""

from __future__ import annotations

import asyncio
import base64
import gc
import json
import shutil
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import openai
import pydantic
import pytest
import werkzeug
from sdk_programs import (
    KEY,
    QUESTION,
    TOOLS,
    Server,
    ask,
    async_program,
    events,
    http,
    program,
    streamed_answer,
)
from servers import embeddings

import llmcall


@pytest.fixture
def server() -> Server:
    """Make a server."""
    return Server()


def test_a_recorded_answer_is_replayed(server: Server) -> None:
    """The same request is sent once, with the program's own credentials, and replayed without the
    server.
    """
    first = ask(program(server))
    assert ask(program(server)) == first == "answer number 0"
    assert ask(program(server, cache_mode="replay")) == first
    (sent,) = server.requests
    assert sent.headers["authorization"] == f"Bearer {KEY}" and str(sent.url).startswith(
        "https://api.openai.com/v1/"
    )
    assert KEY.encode() not in b"".join(
        path.read_bytes() for path in Path(".llmcall").rglob("*") if path.is_file()
    )


def test_what_is_sent_is_what_the_program_asks(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither defaults of llmcall's settings nor its own name of the limit get into it; what code
    adds here does.
    """
    monkeypatch.setenv("LLMCALL_REASONING_EFFORT", "high")
    llmcall.configure(top_p=0.5)
    asked: dict[str, Any] = {
        "model": "gpt-4o-mini",
        "messages": QUESTION,
        "n": 1,
        "max_completion_tokens": 9,
    }
    for overrides in ({}, {"temperature": 0.5}):
        program(server, **overrides).chat.completions.create(**asked)  # type: ignore[arg-type]
        assert json.loads(server.requests[-1].content) == {**asked, **overrides}


def test_an_answer_of_a_cassette_is_whole(server: Server, tmp_path: Path) -> None:
    """What a cassette leaves out of a response is there when a program reads it: some check each
    field.
    """
    answers = []
    for mode in ("once", "none", "none"):
        with llmcall.cassette(tmp_path / "run.jsonl", mode=mode):
            create = program(server, cache_mode="off").chat.completions.with_raw_response.create
            answers.append(json.loads(create(model="gpt-4o-mini", messages=QUESTION).content))  # type: ignore[arg-type]
    for answer in answers:
        openai.types.chat.ChatCompletion.model_validate(answer)
    assert answers[1] == answers[2] and answers[1]["choices"] == answers[0]["choices"]


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"max_tokens": 5, "stop": ["."], "seed": 3, "user": "u"},
        {"n": 2},
        {"extra_body": {"top_k": 3}},
        {"tools": TOOLS},
    ],
)
def test_keys_are_those_of_send_message(server: Server, params: dict[str, Any]) -> None:
    """What a program recorded send_message replays, and the other way round."""
    arguments = {"model": "gpt-4o-mini", "temperature": 1, **params}
    answer = program(server).chat.completions.create(messages=QUESTION, **arguments)
    client = llmcall.OpenAIClient(cache_mode="replay", on_error="raise")
    reply = client.send_message(QUESTION, **arguments)
    assert reply.cached and reply.content == answer.choices[0].message.content
    assert reply.raw["choices"] == answer.model_dump(exclude_unset=True)["choices"]
    other = {**arguments, "seed": 99}
    transport = llmcall.OpenAIClient(
        api_key=KEY, http_client=http.Client(transport=server.transport)
    )
    recorded = transport.send_message(QUESTION, on_error="raise", **other)
    replayed = program(server, cache_mode="replay").chat.completions.create(
        messages=QUESTION, **other
    )
    assert replayed.choices[0].message.content == recorded.content


def test_ways_to_read_an_answer(server: Server) -> None:
    """parse, with_raw_response, with_streaming_response and raw bytes work, live and replayed."""

    class Decision(pydantic.BaseModel):
        buys: bool
        coins: int

    def run(mode: str) -> list[Any]:
        create = program(server, cache_mode=mode).chat.completions
        parsed = create.parse(model="gpt-4o-mini", messages=QUESTION, response_format=Decision)
        raw = create.with_raw_response.create(model="gpt-4o-mini", messages=QUESTION)
        with create.with_streaming_response.create(model="gpt-4o", messages=QUESTION) as response:
            texts = [json.loads(response.read())["choices"][0]["message"]["content"]]
        with create.with_streaming_response.create(model="gpt-4", messages=QUESTION) as response:
            body = b"".join(response.http_response.iter_raw())
            texts.append(json.loads(body)["choices"][0]["message"]["content"])
        return [
            parsed.choices[0].message.parsed,
            raw.parse().choices[0].message.content,
            raw.status_code,
            *texts,
        ]

    expected = [
        Decision(buys=True, coins=0),
        "answer number 1",
        200,
        "answer number 2",
        "answer number 3",
    ]
    assert run("auto") == run("replay") == expected


def streamed(client: openai.OpenAI, **params: Any) -> tuple[str, Any, Any]:
    """Ask the question as a stream: its text, its finish reason and its usage."""
    text, reason, usage = "", None, None
    options = {"include_usage": True}
    chunks = client.chat.completions.create(
        model="gpt-4o-mini", messages=QUESTION, stream=True, stream_options=options, **params
    )
    for chunk in chunks:
        for choice in chunk.choices:
            text += choice.delta.content or ""
            reason = choice.finish_reason or reason
        usage = chunk.usage or usage
    return text, reason, usage and usage.total_tokens


def test_streams(server: Server) -> None:
    """A stream is recorded as the unstreamed call, and either replays as the other, with its tool
    calls.
    """
    live = streamed(program(server))
    assert live == ("answer number 0", "stop", 15)
    replay = program(server, cache_mode="replay")
    assert streamed(replay) == live
    create = replay.chat.completions.create
    assert create(model="gpt-4o-mini", messages=QUESTION).choices[0].message.content == live[0]
    asked: dict[str, Any] = {"model": "gpt-4o-mini", "messages": QUESTION, "tools": TOOLS}
    program(server).chat.completions.create(**asked)
    choices = [chunk.choices[0] for chunk in create(**asked, stream=True)]
    pieces = [
        each
        for choice in choices
        if not choice.finish_reason
        for each in choice.delta.tool_calls or ()
    ]
    assert [(piece.id, piece.function.name, piece.function.arguments) for piece in pieces] == [
        ("c1", "price_of", '{"item": "bread"}')
    ]
    assert len(server.requests) == 2


def leave(server: Server) -> None:
    """Leave two streams by ``break``."""
    client = program(server)
    for _ in range(2):
        for _ in client.chat.completions.create(model="m", messages=QUESTION, stream=True):
            break


async def aleave(server: Server) -> None:
    """Leave two streams by ``break``."""
    client = async_program(server)
    for _ in range(2):
        async for _ in await client.chat.completions.create(
            model="m", messages=QUESTION, stream=True
        ):
            break


@pytest.mark.parametrize(
    "leaving", [leave, lambda server: asyncio.run(aleave(server))], ids=["sync", "async"]
)
@pytest.mark.parametrize("collects", [False, True])
def test_streams_that_a_program_leaves(
    server: Server,
    caplog: pytest.LogCaptureFixture,
    leaving: Callable[[Server], None],
    collects: bool,
) -> None:
    """The SDK's own stream lives on in a cycle: each is told once, whether or not somebody has
    collected it.
    """
    gc.disable()
    try:
        with llmcall.cassette("left.jsonl"), llmcall.scope("s"):
            leaving(server)
            if collects:
                gc.collect()
    finally:
        gc.enable()
    assert "2 calls ended before the whole answer arrived (2 in scope 's'" in caplog.text


def test_embeddings(server: Server) -> None:
    """Embeddings are recorded text by text, whatever their encoding, and shared with get_embedding."""
    client = program(server)
    made = client.embeddings.create(model="text-embedding-3-small", input=["bread", "salt"])
    assert [each.embedding for each in made.data] == [[5, 0.5], [4, 0.5]]
    replay = program(server, cache_mode="replay")
    again = replay.embeddings.create(
        model="text-embedding-3-small", input="salt", encoding_format="float"
    )
    assert again.data[0].embedding == [4, 0.5] and len(server.requests) == 1
    own = llmcall.OpenAIClient(cache_mode="replay")
    assert own.get_embedding("bread", "text-embedding-3-small", on_error="raise") == [5, 0.5]


@pytest.mark.parametrize("mode", ["auto", "replay"])
def test_embeddings_are_encoded_as_the_program_asks(mode: str, server: Server) -> None:
    """As base64 of little-endian float32, for a program that decodes them itself."""
    asked: dict[str, Any] = {"model": "text-embedding-3-small", "input": "salt"}
    program(server).embeddings.create(**asked)
    http_client = llmcall.http_client(transport=server.transport, cache_mode=mode)
    made = http_client.post(
        "https://api.openai.com/v1/embeddings", json={**asked, "encoding_format": "base64"}
    )
    [item] = made.json()["data"]
    assert struct.unpack("<2f", base64.b64decode(item["embedding"])) == (4, 0.5)


def test_a_text_that_embeddings_repeat_is_billed_once(server: Server) -> None:
    """The usage of a replay is the server's, however often the program repeats a text."""
    asked: dict[str, Any] = {"model": "text-embedding-3-small", "input": ["salt", "bread", "salt"]}
    program(server).embeddings.create(**asked)
    replayed = program(server, cache_mode="replay").embeddings.create(**asked)
    assert replayed.usage.prompt_tokens == embeddings([0.5])["usage"]["prompt_tokens"]


def test_each_text_of_embeddings_gets_its_own_vector() -> None:
    """A server may return vectors in any order, and a program may repeat a text."""

    def answer(request: Any) -> Any:
        texts = json.loads(request.content)["input"]
        response = embeddings(*([len(text), 0.5] for text in texts))
        response["data"].reverse()
        return http.Response(200, json=response)

    with llmcall.http_client(transport=http.MockTransport(answer)) as http_client:
        client = openai.OpenAI(api_key=KEY, http_client=http_client)
        made = client.embeddings.create(
            model="text-embedding-3-small", input=["salt", "bread", "salt"]
        )
    assert [each.embedding[0] for each in made.data] == [4, 5, 4]
    assert [each.index for each in made.data] == [0, 1, 2]


def test_asynchronous_programs(server: Server) -> None:
    """Asynchronous clients take the same road: calls, streams, embeddings."""

    async def run(mode: str) -> list[Any]:
        async with async_program(server, cache_mode=mode) as client:
            made = await client.chat.completions.create(model="gpt-4o-mini", messages=QUESTION)
            text = ""
            async for chunk in await client.chat.completions.create(
                model="gpt-4o", messages=QUESTION, stream=True
            ):
                text += "".join(choice.delta.content or "" for choice in chunk.choices)
            vectors = await client.embeddings.create(model="text-embedding-3-small", input="bread")
            return [made.choices[0].message.content, text, vectors.data[0].embedding]

    live = asyncio.run(run("auto"))
    assert live == asyncio.run(run("replay")) == ["answer number 0", "answer number 1", [5, 0.5]]


def test_azure_addresses(server: Server) -> None:
    """Azure's addresses are chat completions; what is sent goes to the deployment with the
    program's key.
    """

    def run(mode: str) -> str | None:
        client = openai.AzureOpenAI(
            api_key=KEY,
            azure_endpoint="https://mine.openai.azure.com",
            api_version="2024-10-21",
            http_client=llmcall.http_client(transport=server.transport, cache_mode=mode),
        )
        return (
            client.chat.completions.create(model="four", messages=QUESTION)
            .choices[0]
            .message.content
        )

    assert run("auto") == run("replay") == "answer number 0"
    (sent,) = server.requests
    assert (
        sent.url.path == "/openai/deployments/four/chat/completions"
        and sent.headers["api-key"] == KEY
    )
    assert sent.url.params["api-version"] == "2024-10-21"
    with llmcall.http_client(
        transport=server.transport, cache_mode="replay"
    ) as client:  # the address names the model
        again = client.post(str(sent.url), json={"messages": QUESTION})
    assert again.json()["choices"][0]["message"]["content"] == "answer number 0"


# Who is asking

ORDERS = [("lisa", "bart"), ("bart", "lisa")]


@pytest.mark.parametrize(
    "actor", ["system", "header:X-Actor", lambda request: request.headers["x-actor"]]
)
def test_actors_in_threads(server: Server, actor: Any) -> None:
    """Threads that ask the same question have draws of their own, in whatever order they run."""

    def run(mode: str, order: tuple[str, ...]) -> dict[str, list[str | None]]:
        found: dict[str, list[str | None]] = {}
        client = program(server, actor=actor, cache_mode=mode)

        def act(name: str) -> None:
            messages: Any = [{"role": "system", "content": f"You are {name}."}, *QUESTION]
            for _ in range(4):
                made = client.chat.completions.create(
                    model="gpt-4o-mini",
                    messages=messages,
                    temperature=1,
                    extra_headers={"X-Actor": name},
                )
                found.setdefault(name, []).append(made.choices[0].message.content)

        for name in order:
            thread = threading.Thread(target=act, args=[name])
            thread.start()
            thread.join()
        return found

    live = run("auto", ORDERS[0])
    assert len({answer for answers in live.values() for answer in answers}) == 8
    assert run("replay", ORDERS[1]) == live
    for actor in ("persona", 3):
        with pytest.raises(ValueError, match=f"actor is {actor!r}; it must be a function"):
            llmcall.http_client(actor=actor)  # type: ignore[arg-type]


def test_threads_under_an_open_scope(server: Server) -> None:
    """Actors in threads that a library starts stand in the scope that was open when the client was
    made.
    """
    with llmcall.scope("rep-1"):
        client = program(server, actor="header:X-Actor")
        thread = threading.Thread(target=lambda: ask(client, extra_headers={"X-Actor": "lisa"}))
        thread.start()
        thread.join()
    samples = [record.sample for record in llmcall.client("openai").cache.records()]
    assert samples == ["rep-1/lisa#0"]


# Errors


def respond(client: openai.OpenAI) -> str:
    """Ask the question by another request of the SDK, and return the answer's name."""
    return client.responses.create(model="gpt-4o-mini", input="Bread?").id


@pytest.mark.parametrize("asking", [ask, respond])
def test_a_failure_of_the_api_comes_as_it_was(
    server: Server, asking: Callable[[openai.OpenAI], str]
) -> None:
    """A refusal reaches the program with its status, headers and body, after one try; a rate limit
    after ours.
    """
    client = program(server, retry_max_attempts=3, retry_waiting_time=0)
    server.failures = [
        (
            401,
            {"x-request-id": "r1"},
            {"error": {"message": "wrong key", "code": "invalid_api_key"}},
        )
    ]
    with pytest.raises(openai.AuthenticationError, match="wrong key") as refused:
        asking(client)
    assert refused.value.request_id == "r1" and len(server.requests) == 1
    limit = (429, {"retry-after": "0"}, {"error": {"message": "slow down"}})
    server.failures = [limit] * 3
    with pytest.raises(openai.RateLimitError, match="slow down"):
        asking(client)
    assert len(server.requests) == 4
    server.failures = [limit]
    assert asking(client).endswith("5")


@pytest.mark.parametrize(("broken", "status"), [(http.ConnectError, 503), (http.ReadTimeout, 504)])
def test_a_connection_that_fails_is_tried_by_llmcall_alone(
    server: Server, broken: Any, status: int
) -> None:
    """The SDK does not repeat it: the program gets a status, with what failed, where, and what to
    do.
    """
    server.broken = broken
    settings: dict[str, Any] = {"retry_max_attempts": 3, "retry_waiting_time": 0}
    with pytest.raises(
        openai.InternalServerError, match=r"https://api\.openai\.com/v1/chat/completions"
    ) as failed:
        ask(program(server, **settings))
    assert failed.value.status_code == status and len(server.requests) == 3

    async def ask_async() -> None:
        async with async_program(server, **settings) as client:
            await client.embeddings.create(model="text-embedding-3-small", input="bread")

    with pytest.raises(openai.InternalServerError):
        asyncio.run(ask_async())
    with pytest.raises(openai.InternalServerError):
        respond(program(server, **settings))
    assert len(server.requests) == 9


@pytest.mark.parametrize("host", ["market.example:99999", "a" * 64 + ".example"])
def test_an_address_that_cannot_be_is_refused(host: str, server: Server) -> None:
    """Nothing is sent there, not once; a chat, its stream and another request are refused by the
    same error.
    """
    client = program(server).with_options(base_url=f"http://{host}/v1")
    for asking in (ask, streamed, respond):
        with pytest.raises(openai.ConflictError, match=r"base_url: .* is not an address") as caught:
            asking(client)
        assert caught.value.code == "ConfigError"
    assert server.requests == []


def test_the_last_failure_counts(server: Server) -> None:
    """A connection that fails after a refusal is told as such: what came before is no answer to it."""
    server.failures = [(500, {}, {"error": {"message": "overloaded"}})]
    server.broken = http.ConnectError
    with pytest.raises(openai.InternalServerError, match="no route") as failed:
        ask(program(server, retry_max_attempts=2, retry_waiting_time=0))
    assert failed.value.status_code == 503


def test_an_answer_that_is_not_recorded_comes_as_it_was(server: Server) -> None:
    """An empty answer is a failure to send_message; a program gets what the server sent."""
    empty = {
        "choices": [
            {"index": 0, "message": {"role": "assistant", "content": ""}, "finish_reason": "stop"}
        ]
    }
    server.failures = [
        (200, {}, {"id": "c", "object": "chat.completion", "created": 1, "model": "m", **empty})
    ]
    client = program(server)
    assert ask(client) == "" and ask(client) == "answer number 1"


@pytest.mark.parametrize("stream", [False, True])
def test_the_time_that_the_program_gives(server: Server, stream: bool) -> None:
    """Each attempt has the timeouts of the program's own client, or the rest of a deadline where
    that is shorter.
    """
    client = program(server, retry_max_attempts=1).with_options(timeout=http.Timeout(50, connect=3))
    client.chat.completions.create(model="gpt-4o-mini", messages=QUESTION, stream=stream)
    assert server.requests[0].extensions["timeout"] == {
        "connect": 3,
        "read": 50,
        "write": 50,
        "pool": 50,
    }
    hurried = program(server, deadline=20).with_options(timeout=http.Timeout(50, connect=3))
    hurried.chat.completions.create(model="gpt-4o", messages=QUESTION, stream=stream)
    limits = server.requests[1].extensions["timeout"]
    assert limits["connect"] == 3 and 0 < limits["read"] <= 20
    patient = program(server).with_options(timeout=http.Timeout(5000))
    patient.chat.completions.create(model="gpt-4", messages=QUESTION, stream=stream)
    assert server.requests[2].extensions["timeout"]["read"] == 5000


@pytest.mark.parametrize(
    ("asked", "message", "code"),
    [
        ({}, "is not recorded", "CacheMissError"),
        ({"temperature": "hot"}, "temperature is", "TypeError"),
    ],
)
def test_errors_of_ours_reach_the_program_as_the_sdks(
    server: Server, asked: dict[str, Any], message: str, code: str
) -> None:
    """A miss, and what is refused before any call, are an APIStatusError with our report, once."""
    with pytest.raises(openai.APIStatusError, match=message) as refused:
        ask(program(server, cache_mode="replay"), **asked)
    assert refused.value.status_code == 409 and refused.value.body["code"] == code  # type: ignore[index]
    assert not server.requests


def test_a_stream_that_breaks_off() -> None:
    """After its first words the program gets an error of the SDK's, and no end that looks complete."""

    def cut(request: Any) -> Any:
        return streamed_answer(
            events(0).partition(b'"finish_reason": "stop"')[0].rpartition(b"data")[0]
        )

    client = openai.OpenAI(
        api_key=KEY, http_client=llmcall.http_client(transport=http.MockTransport(cut))
    )
    words = []
    with pytest.raises(openai.APIError, match="broke off"):
        for chunk in client.chat.completions.create(
            model="gpt-4o-mini", messages=QUESTION, stream=True
        ):
            words.append(chunk.choices[0].delta.content)
    assert "".join(filter(None, words)) == "answer number 0"


# Every client of the process


@pytest.fixture
def reached(server: Server, monkeypatch: pytest.MonkeyPatch) -> Server:
    """Let every HTTP client of the process reach the server, by its own transports."""
    below = server.transport
    monkeypatch.setattr(
        http.HTTPTransport, "handle_request", lambda _, request: below.handle_request(request)
    )
    asynchronous = lambda _, request: below.handle_async_request(request)  # noqa: E731
    monkeypatch.setattr(http.AsyncHTTPTransport, "handle_async_request", asynchronous)
    return server


def test_patched(reached: Server) -> None:
    """Every client of the process is recorded, also one that was made before, and none afterwards."""
    before = openai.OpenAI(api_key=KEY)
    with llmcall.patched():
        first = ask(before)
        assert ask(openai.OpenAI(api_key=KEY)) == first
        with pytest.raises(RuntimeError, match="is already active"), llmcall.patched():
            raise AssertionError("it must not be entered")
    assert len(reached.requests) == 1
    assert ask(before) != first and len(reached.requests) == 2


def test_patched_records_clients_with_transports_of_their_own(server: Server) -> None:
    """A client's transport is recorded like the library's own: LiteLLM and ``DefaultAioHttpClient`` bring
    one over aiohttp.
    """
    given = http.Client(transport=server.transport)
    mounted = http.Client(mounts={"https://api.openai.com": server.transport})
    asynchronous = http.AsyncClient(transport=server.transport)

    async def aask() -> str:
        client = openai.AsyncOpenAI(api_key=KEY, http_client=asynchronous)
        made = await client.chat.completions.create(
            model="gpt-4o-mini", messages=QUESTION, temperature=1
        )
        return made.choices[0].message.content  # type: ignore[no-any-return]

    with llmcall.patched():
        first = ask(openai.OpenAI(api_key=KEY, http_client=given))
        assert ask(openai.OpenAI(api_key=KEY, http_client=mounted)) == first
        assert asyncio.run(aask()) == first
    assert len(server.requests) == 1


def test_a_client_of_http_client_keeps_its_settings_inside_patched(server: Server) -> None:
    """A client that records itself does so by its own settings, once, inside ``patched`` too."""
    client = program(server, temperature=0.5)
    with llmcall.patched(temperature=0.25):
        client.chat.completions.create(model="gpt-4o-mini", messages=QUESTION)
    (sent,) = server.requests
    assert json.loads(sent.content)["temperature"] == 0.5


def test_redirects_cookies_and_hooks_of_a_client_work_inside_patched(server: Server) -> None:
    """A client's authentication, event hooks, cookies and redirects work; the request that is
    recorded is the last one.
    """
    seen: list[str] = []

    def answer(request: Any) -> Any:
        if request.url.path == "/old/chat/completions":
            moved = {"location": "/v1/chat/completions", "set-cookie": "place=market; Path=/"}
            return http.Response(307, headers=moved)
        assert request.headers["cookie"] == "place=market"
        assert request.headers["authorization"].startswith("Basic ")
        return server.answer(request)

    client = http.Client(
        transport=http.MockTransport(answer),
        auth=("user", "password"),
        follow_redirects=True,
        event_hooks={"request": [lambda request: seen.append(request.url.path)]},
    )
    body = {"model": "gpt-4o-mini", "messages": QUESTION}
    with llmcall.patched():
        posted = [
            client.post("http://api.example/old/chat/completions", json=body) for _ in range(2)
        ]
    texts = [each.json()["choices"][0]["message"]["content"] for each in posted]
    assert texts == ["answer number 0"] * 2
    # the second one is answered before it is redirected
    assert seen == ["/old/chat/completions", "/v1/chat/completions", "/old/chat/completions"]
    assert len(server.requests) == 1


def test_wrong_settings(reached: Server) -> None:
    """They are refused where they are given, under the name of what was called, and not in the
    program's request.
    """
    for make in (
        llmcall.http_client,
        llmcall.async_http_client,
        lambda **wrong: llmcall.patched(**wrong).__enter__(),
    ):
        with pytest.raises(
            TypeError, match=r"(client|patched)\(\) has no setting 'modl'; did you mean 'model'\?"
        ):
            make(modl="x")
        with pytest.raises(llmcall.ConfigError, match="cache_mode: 'never' is not one of auto"):
            make(cache_mode="never")
    with llmcall.patched(None, ["example.com"]):
        ask(openai.OpenAI(api_key=KEY))
    assert len(reached.requests) == 1


@pytest.mark.skipif(
    hasattr(getattr(http._utils, "Timer", None), "async_start"),
    reason="this httpx itself asks which asynchronous library runs",
)
def test_an_asynchronous_request_without_asyncio_is_refused(server: Server) -> None:
    """Another library than asyncio, such as trio, gets an error that names asyncio."""

    async def post() -> Any:
        async with http.AsyncClient(transport=server.transport) as client:
            body = {"model": "gpt-4o-mini", "messages": QUESTION}
            return await client.post("https://api.openai.com/v1/chat/completions", json=body)

    with (
        pytest.raises(llmcall.LLMCallError, match="on asyncio only"),
        llmcall.patched(cache_mode="off"),
    ):
        with pytest.raises(StopIteration) as ended:
            post().send(None)  # as trio would
        assert ended.value.value.status_code == 409
    assert not server.requests


def test_patched_raises_the_first_error_again(reached: Server) -> None:
    """A miss that the program swallowed is raised at the end of the block."""
    with (
        pytest.raises(llmcall.CacheMissError, match="is not recorded"),
        llmcall.patched(cache_mode="replay"),
    ):
        for _ in range(2):
            with pytest.raises(openai.APIStatusError):
                ask(openai.OpenAI(api_key=KEY))


def test_calls_of_llmcall_inside_patched(reached: Server) -> None:
    """A call of llmcall's own inside the block takes the road once."""
    with llmcall.patched(), llmcall.track() as usage:
        client = llmcall.OpenAIClient(api_key=KEY, on_error="raise")
        assert client.send_message(QUESTION, model="gpt-4o-mini").content == "answer number 0"
    assert (usage.calls, usage.cached_calls) == (1, 0)
    assert len(reached.requests) == 1 and llmcall.client("openai").cache.stats().records == 1


def test_other_requests_are_recorded_as_they_are(reached: Server) -> None:
    """The SDK's other requests are recorded by method, path and body; /models is live while
    recording.
    """

    def run(mode: str, order: Callable[[Any], Iterator[Any]] = iter) -> dict[str, Any]:
        with llmcall.patched(cache_mode=mode, actor="system"):
            client = openai.OpenAI(api_key=KEY)
            found: dict[str, Any] = {}
            for name in order(["lisa", "bart"]):
                made = client.responses.create(
                    model="gpt-4o-mini", instructions=f"You are {name}.", input="Bread?"
                )
                found[name] = made.id
            found["moderation"] = client.moderations.create(input="Bread?").id
            found["models"] = [model.id for model in client.models.list()]
            return found

    live = run("auto")
    assert live["lisa"] != live["bart"]
    assert run("replay", reversed) == live
    paths = [request.url.path for request in reached.requests]
    assert paths == ["/v1/responses", "/v1/responses", "/v1/moderations", "/v1/models"]
    assert {record.kind for record in llmcall.client("openai").cache.records()} == {"http"}
    says = r"http request to POST /v1/responses (?s:.*) asked +Milk\?"
    with pytest.raises(openai.APIStatusError, match=says), llmcall.patched(cache_mode="replay"):
        openai.OpenAI(api_key=KEY).responses.create(model="gpt-4o-mini", input="Milk?")


def test_uploads_pass(reached: Server, caplog: pytest.LogCaptureFixture) -> None:
    """A file that the program uploads is sent in a replay too, which a warning says once."""
    client = openai.OpenAI(api_key=KEY)
    for mode in ("auto", "replay"):
        with llmcall.patched(cache_mode=mode):
            assert client.files.create(file=("prices.txt", b"3 coins"), purpose="assistants").id
    assert len(reached.requests) == 2
    assert caplog.text.count("POST /v1/files is sent but not recorded") == 1


def test_requests_of_others_pass(reached: Server) -> None:
    """What is neither the SDK's nor a known API's is not recorded, unless its host is named."""
    asked = {"json": {"input": "Bread?"}}
    for hosts, sent in ((), 2), (("API.Example",), 1):
        with llmcall.patched(hosts=hosts), http.Client() as client:
            ids = {
                client.post("http://api.example/my%20moderations", **asked).json()["id"]
                for _ in range(2)
            }
        assert len(ids) == sent


# A server of others

FIXTURES = [
    *(
        {
            "match": {"userMessage": "Bread", "sequenceIndex": i},
            "response": {"content": f"loaf {i}"},
        }
        for i in range(4)
    ),
    {"match": {"userMessage": "Salt"}, "response": {"content": "A pinch of salt."}},
    {
        "match": {"userMessage": "Tools"},
        "response": {"toolCalls": [{"name": "price_of", "arguments": "{}"}]},
    },
    {"match": {"inputText": "Pepper"}, "response": {"embedding": [0.5, 0.25]}},
]


@pytest.fixture
def aimock(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Run aimock, a server of fixed answers on Node.js, of which llmock is the command."""
    command = shutil.which("llmock")
    if command is None:
        pytest.skip("no aimock: npm install -g @copilotkit/aimock")
    (tmp_path / "fixtures.json").write_text(json.dumps({"fixtures": FIXTURES}), encoding="utf-8")
    options = ["--port", "0", "--fixtures", str(tmp_path / "fixtures.json")]
    with subprocess.Popen([command, *options], stdout=subprocess.PIPE, text=True) as process:
        yield process
        process.terminate()


def test_aimock(aimock: subprocess.Popen[str]) -> None:
    """What aimock answers is recorded, and replayed in another order of the actors when it is gone."""
    assert aimock.stdout is not None
    address = next(line.split()[-1] for line in aimock.stdout if "listening on" in line)

    def run(mode: str, order: Callable[[Any], Iterator[Any]] = iter) -> dict[str, Any]:
        http_client = llmcall.http_client(cache_mode=mode)
        client = openai.OpenAI(api_key=KEY, base_url=f"{address}/v1", http_client=http_client)

        def said(text: str, **params: Any) -> Any:
            messages: Any = [{"role": "user", "content": text}]
            return client.chat.completions.create(model="gpt-4o-mini", messages=messages, **params)

        found: dict[str, Any] = {}
        for name in order(["lisa", "bart"]):
            with llmcall.scope(name):
                found[name] = [
                    said("Bread?", temperature=1).choices[0].message.content for _ in range(2)
                ]
        found["streamed"] = "".join(
            c.choices[0].delta.content or "" for c in said("Salt?", stream=True) if c.choices
        )
        call = said("Tools?", tools=TOOLS).choices[0].message.tool_calls[0]
        found["called"] = call.function.name, call.function.arguments
        found["response"] = client.responses.create(model="gpt-4o-mini", input="Salt?").output_text
        found["vector"] = (
            client.embeddings.create(model="text-embedding-3-small", input="Pepper?")
            .data[0]
            .embedding
        )
        client.close()
        return found

    live = run("auto")
    assert (live["lisa"], live["bart"]) == (["loaf 0", "loaf 1"], ["loaf 2", "loaf 3"])
    assert live["streamed"] == live["response"] == "A pinch of salt." and live["vector"] == [
        0.5,
        0.25,
    ]
    assert live["called"] == ("price_of", "{}")
    aimock.terminate()
    aimock.wait()
    assert run("replay", reversed) == live


# The command line

PROGRAM = """
import sys
import openai

client = openai.OpenAI(api_key="sk-of-the-program", base_url=sys.argv[1], max_retries=0)
for name in sys.argv[2:]:
    messages = [{"role": "system", "content": f"You are {name}."}, {"role": "user", "content": "Bread?"}]
    for _ in range(2):
        try:
            made = client.chat.completions.create(model="gpt-4o-mini", messages=messages, temperature=1)
            print(name, made.choices[0].message.content)
        except openai.OpenAIError:
            print(name, "gave up")
"""


def run_program(
    *options: str, names: tuple[str, ...] = ("lisa", "bart"), url: str
) -> subprocess.CompletedProcess[str]:
    """Run the program under ``llmcall run`` in a process of its own."""
    Path("program.py").write_text(PROGRAM, encoding="utf-8")
    command = [sys.executable, "-m", "llmcall", "run", *options, "program.py", url, *names]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_run(httpserver: Any) -> None:
    """A script that knows nothing of llmcall is recorded on a cassette, and replayed with the
    server gone.
    """
    server = Server()

    def answer(request: Any) -> Any:
        body = json.loads(request.get_data())
        made = server.answer(http.Request("POST", "http://server/v1/chat/completions", json=body))
        return werkzeug.Response(made.content, made.status_code, content_type="application/json")

    httpserver.expect_request("/v1/chat/completions").respond_with_handler(answer)
    options = ("--scope", "rep-1", "--cassette", "run.jsonl", "--actor", "system")
    live = run_program(*options, url=httpserver.url_for("/v1"))
    assert live.returncode == 0 and len(set(live.stdout.splitlines())) == 4, live.stderr
    gone = "http://127.0.0.1:9/v1"
    again = run_program(*options, "--mode", "none", names=("bart", "lisa"), url=gone)
    assert again.returncode == 0 and sorted(again.stdout.splitlines()) == sorted(
        live.stdout.splitlines()
    ), again.stderr
    missed = run_program(*options, "--mode", "none", names=("nora",), url=gone)
    assert (
        missed.returncode == 1
        and "nora gave up" in missed.stdout
        and "is not recorded" in missed.stderr
    )
    assert "Traceback" not in missed.stderr
