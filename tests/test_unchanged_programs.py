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
from programs import LONGEST
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
    """A model's server."""
    return Server()


def test_a_recorded_answer_is_replayed(server: Server) -> None:
    """The same request is sent once, and replayed without the server."""
    first = ask(program(server))
    assert first == "answer number 0"
    assert ask(program(server)) == first
    assert ask(program(server, cache_mode="replay")) == first
    assert len(server.requests) == 1


def test_a_program_sends_its_own_credentials(server: Server) -> None:
    """To the address of the API, and nothing of them is recorded."""
    ask(program(server))
    (sent,) = server.requests
    assert sent.headers["authorization"] == f"Bearer {KEY}"
    assert str(sent.url).startswith("https://api.openai.com/v1/")
    stored = [path.read_bytes() for path in Path(".llmcall").rglob("*") if path.is_file()]
    assert stored
    assert KEY.encode() not in b"".join(stored)


@pytest.mark.parametrize("overrides", [{}, {"temperature": 0.5}])
def test_what_is_sent_is_what_the_program_asks(
    server: Server, monkeypatch: pytest.MonkeyPatch, overrides: dict[str, Any]
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
    program(server, **overrides).chat.completions.create(**asked)
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
    live, replayed, again = answers
    for answer in answers:
        openai.types.chat.ChatCompletion.model_validate(answer)
    assert replayed == again
    assert replayed["choices"] == live["choices"]


PARAMETERS = pytest.mark.parametrize(
    "params",
    [
        {},
        {"max_tokens": 5, "stop": ["."], "seed": 3, "user": "u"},
        {"n": 2},
        {"extra_body": {"top_k": 3}},
        {"tools": TOOLS},
    ],
)


@PARAMETERS
def test_send_message_replays_what_a_program_recorded(
    server: Server, params: dict[str, Any]
) -> None:
    """Their keys are the same."""
    arguments = {"model": "gpt-4o-mini", "temperature": 1, **params}
    answer = program(server).chat.completions.create(messages=QUESTION, **arguments)
    client = llmcall.OpenAIClient(cache_mode="replay", on_error="raise")
    reply = client.send_message(QUESTION, **arguments)
    assert reply.cached
    assert reply.content == answer.choices[0].message.content
    assert reply.raw["choices"] == answer.model_dump(exclude_unset=True)["choices"]


@PARAMETERS
def test_a_program_replays_what_send_message_recorded(
    server: Server, params: dict[str, Any]
) -> None:
    """Their keys are the same."""
    arguments = {"model": "gpt-4o-mini", "temperature": 1, **params}
    client = llmcall.OpenAIClient(api_key=KEY, http_client=http.Client(transport=server.transport))
    reply = client.send_message(QUESTION, on_error="raise", **arguments)
    replay = program(server, cache_mode="replay")
    answer = replay.chat.completions.create(messages=QUESTION, **arguments)
    assert answer.choices[0].message.content == reply.content


class Decision(pydantic.BaseModel):
    """A decision, as the server gives it."""

    buys: bool
    coins: int


def parse(completions: Any) -> Any:
    """Read an answer as a class."""
    made = completions.parse(model="gpt-4o-mini", messages=QUESTION, response_format=Decision)
    return made.choices[0].message.parsed


def read_raw(completions: Any) -> Any:
    """Read an answer with its status."""
    raw = completions.with_raw_response.create(model="gpt-4o-mini", messages=QUESTION)
    return raw.status_code, raw.parse().choices[0].message.content


def read_streaming(completions: Any) -> Any:
    """Read the body of an answer."""
    create = completions.with_streaming_response.create
    with create(model="gpt-4o-mini", messages=QUESTION) as response:
        return json.loads(response.read())["choices"][0]["message"]["content"]


def read_bytes(completions: Any) -> Any:
    """Read the bytes of an answer as they were sent."""
    create = completions.with_streaming_response.create
    with create(model="gpt-4o-mini", messages=QUESTION) as response:
        body = b"".join(response.http_response.iter_raw())
    return json.loads(body)["choices"][0]["message"]["content"]


@pytest.mark.parametrize(
    ("read", "expected"),
    [
        (parse, Decision(buys=True, coins=0)),
        (read_raw, (200, "answer number 0")),
        (read_streaming, "answer number 0"),
        (read_bytes, "answer number 0"),
    ],
)
def test_every_way_to_read_an_answer_works(
    server: Server, read: Callable[[Any], Any], expected: Any
) -> None:
    """Live, and replayed."""
    for mode in ("auto", "replay"):
        assert read(program(server, cache_mode=mode).chat.completions) == expected


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


def test_a_stream_is_replayed_as_a_stream_and_as_a_call(server: Server) -> None:
    """It is recorded as the unstreamed call."""
    live = streamed(program(server))
    assert live == ("answer number 0", "stop", 15)
    replay = program(server, cache_mode="replay")
    assert streamed(replay) == live
    made = replay.chat.completions.create(model="gpt-4o-mini", messages=QUESTION)  # type: ignore[arg-type]
    assert made.choices[0].message.content == live[0]
    assert len(server.requests) == 1


def test_a_call_with_tool_calls_is_replayed_as_a_stream(server: Server) -> None:
    """Its pieces have the tool calls."""
    asked: dict[str, Any] = {"model": "gpt-4o-mini", "messages": QUESTION, "tools": TOOLS}
    program(server).chat.completions.create(**asked)
    replay = program(server, cache_mode="replay")
    choices = [chunk.choices[0] for chunk in replay.chat.completions.create(**asked, stream=True)]
    pieces = [
        each
        for choice in choices
        if not choice.finish_reason
        for each in choice.delta.tool_calls or ()
    ]
    assert [(piece.id, piece.function.name, piece.function.arguments) for piece in pieces] == [
        ("c1", "price_of", ""),
        (None, None, '{"item": "bread"}'),
    ]
    assert len(server.requests) == 1


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
def test_a_stream_that_a_program_leaves_is_told_once(
    server: Server,
    caplog: pytest.LogCaptureFixture,
    leaving: Callable[[Server], None],
    collects: bool,
) -> None:
    """The SDK's own stream lives on in a cycle: it is told whether or not somebody has collected it."""
    gc.disable()
    try:
        with llmcall.cassette("left.jsonl"), llmcall.scope("s"):
            leaving(server)
            if collects:
                gc.collect()
    finally:
        gc.enable()
    assert "2 calls ended before the whole answer arrived (2 in scope 's'" in caplog.text


@pytest.fixture
def embedded(server: Server) -> Server:
    """A server that was asked for the embeddings of two texts at once."""
    client = program(server)
    made = client.embeddings.create(model="text-embedding-3-small", input=["bread", "salt"])
    assert [each.embedding for each in made.data] == [[5, 0.5], [4, 0.5]]
    return server


def test_embeddings_are_recorded_text_by_text(embedded: Server) -> None:
    """One of them is replayed alone, in another encoding."""
    replay = program(embedded, cache_mode="replay")
    made = replay.embeddings.create(
        model="text-embedding-3-small", input="salt", encoding_format="float"
    )
    assert made.data[0].embedding == [4, 0.5]
    assert len(embedded.requests) == 1


@pytest.mark.usefixtures("embedded")
def test_embeddings_are_shared_with_get_embedding() -> None:
    """Their keys are the same."""
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


async def ask_asynchronously(client: Any) -> Any:
    """Ask the question."""
    made = await client.chat.completions.create(model="gpt-4o-mini", messages=QUESTION)
    return made.choices[0].message.content


async def stream_asynchronously(client: Any) -> Any:
    """Ask the question as a stream."""
    chunks = await client.chat.completions.create(
        model="gpt-4o-mini", messages=QUESTION, stream=True
    )
    pieces = [choice.delta.content or "" async for chunk in chunks for choice in chunk.choices]
    return "".join(pieces)


async def embed_asynchronously(client: Any) -> Any:
    """Ask for an embedding."""
    made = await client.embeddings.create(model="text-embedding-3-small", input="bread")
    return made.data[0].embedding


@pytest.mark.parametrize(
    ("asking", "expected"),
    [
        (ask_asynchronously, "answer number 0"),
        (stream_asynchronously, "answer number 0"),
        (embed_asynchronously, [5, 0.5]),
    ],
)
def test_asynchronous_programs_are_recorded_and_replayed(
    server: Server, asking: Callable[[Any], Any], expected: Any
) -> None:
    """Their calls, streams and embeddings."""

    async def run(mode: str) -> Any:
        async with async_program(server, cache_mode=mode) as client:
            return await asking(client)

    assert asyncio.run(run("auto")) == asyncio.run(run("replay")) == expected
    assert len(server.requests) == 1


def ask_azure(server: Server, mode: str) -> str | None:
    """Ask a deployment of Azure."""
    client = openai.AzureOpenAI(
        api_key=KEY,
        azure_endpoint="https://mine.openai.azure.com",
        api_version="2024-10-21",
        http_client=llmcall.http_client(transport=server.transport, cache_mode=mode),
    )
    made = client.chat.completions.create(model="four", messages=QUESTION)  # type: ignore[arg-type]
    return made.choices[0].message.content


def test_a_call_of_azure_goes_to_its_deployment(server: Server) -> None:
    """With the program's key and version."""
    ask_azure(server, "auto")
    (sent,) = server.requests
    assert sent.url.path == "/openai/deployments/four/chat/completions"
    assert sent.headers["api-key"] == KEY
    assert sent.url.params["api-version"] == "2024-10-21"


def test_azures_addresses_are_those_of_chats(server: Server) -> None:
    """What was asked there is recorded, and replayed."""
    assert ask_azure(server, "auto") == ask_azure(server, "replay") == "answer number 0"
    assert len(server.requests) == 1


def test_azures_address_names_the_model(server: Server) -> None:
    """A program need not name it in the body."""
    ask_azure(server, "auto")
    (sent,) = server.requests
    with llmcall.http_client(transport=server.transport, cache_mode="replay") as client:
        replayed = client.post(str(sent.url), json={"messages": QUESTION})
    assert replayed.json()["choices"][0]["message"]["content"] == "answer number 0"


# Who is asking

ORDERS = [("lisa", "bart"), ("bart", "lisa")]


@pytest.mark.parametrize(
    "actor", ["system", "header:X-Actor", lambda request: request.headers["x-actor"]]
)
def test_actors_in_threads_have_draws_of_their_own(server: Server, actor: Any) -> None:
    """Threads that ask the same question get theirs, in whatever order they run."""

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


@pytest.mark.parametrize("actor", ["persona", 3])
def test_an_actor_that_cannot_be_is_refused(actor: Any) -> None:
    """The error says what it must be."""
    with pytest.raises(ValueError, match=f"actor is {actor!r}; it must be a function"):
        llmcall.http_client(actor=actor)


def test_actors_in_threads_stand_in_the_scope_in_which_the_client_was_made(
    server: Server,
) -> None:
    """A library starts the threads, and knows no scope."""
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
def test_a_refusal_of_the_api_comes_as_it_was(
    server: Server, asking: Callable[[openai.OpenAI], str]
) -> None:
    """With its status, headers and body, after one try."""
    error = {"error": {"message": "wrong key", "code": "invalid_api_key"}}
    server.failures = [(401, {"x-request-id": "r1"}, error)]
    with pytest.raises(openai.AuthenticationError, match="wrong key") as refused:
        asking(program(server, retry_max_attempts=3, retry_waiting_time=0))
    assert refused.value.request_id == "r1"
    assert len(server.requests) == 1


@pytest.mark.parametrize("asking", [ask, respond])
def test_a_rate_limit_is_tried_again_by_llmcall(
    server: Server, asking: Callable[[openai.OpenAI], str]
) -> None:
    """The program gets the answer, or the last refusal after llmcall's attempts."""
    client = program(server, retry_max_attempts=3, retry_waiting_time=0)
    limit = (429, {"retry-after": "0"}, {"error": {"message": "slow down"}})
    server.failures = [limit] * 3
    with pytest.raises(openai.RateLimitError, match="slow down"):
        asking(client)
    assert len(server.requests) == 3
    server.failures = [limit]
    assert asking(client).endswith("4")


async def embed_once(client: openai.AsyncOpenAI) -> None:
    """Ask for an embedding with an asynchronous client."""
    async with client:
        await client.embeddings.create(model="text-embedding-3-small", input="bread")


BROKEN = pytest.mark.parametrize(
    ("broken", "status"), [(http.ConnectError, 503), (http.ReadTimeout, 504)]
)


@BROKEN
@pytest.mark.parametrize(
    "asking",
    [
        lambda server, **settings: ask(program(server, **settings)),
        lambda server, **settings: respond(program(server, **settings)),
        lambda server, **settings: asyncio.run(embed_once(async_program(server, **settings))),
    ],
    ids=["chat", "response", "asynchronous embedding"],
)
def test_a_connection_that_fails_is_tried_by_llmcall_alone(
    server: Server, asking: Callable[..., Any], broken: Any, status: int
) -> None:
    """The program gets a status, and the SDK does not repeat the call."""
    server.broken = broken
    with pytest.raises(openai.InternalServerError) as failed:
        asking(server, retry_max_attempts=3, retry_waiting_time=0)
    assert failed.value.status_code == status
    assert len(server.requests) == 3


@BROKEN
def test_a_connection_that_fails_is_told_with_its_address(
    server: Server, broken: Any, status: int
) -> None:
    """The error says where it failed."""
    server.broken = broken
    address = r"https://api\.openai\.com/v1/chat/completions"
    with pytest.raises(openai.InternalServerError, match=address):
        ask(program(server, retry_max_attempts=1))


@pytest.mark.parametrize("asking", [ask, streamed, respond])
@pytest.mark.parametrize("host", ["market.example:99999", "a" * 64 + ".example"])
def test_an_address_that_cannot_be_is_refused(
    host: str, asking: Callable[[openai.OpenAI], Any], server: Server
) -> None:
    """Nothing is sent there, not once; chats, streams and other requests get the same error."""
    client = program(server).with_options(base_url=f"http://{host}/v1")
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


def test_an_empty_answer_comes_as_it_was_and_is_not_recorded(server: Server) -> None:
    """It is a failure to send_message; a program gets what the server sent."""
    empty = {
        "choices": [
            {"index": 0, "message": {"role": "assistant", "content": ""}, "finish_reason": "stop"}
        ]
    }
    server.failures = [
        (200, {}, {"id": "c", "object": "chat.completion", "created": 1, "model": "m", **empty})
    ]
    client = program(server)
    assert ask(client) == ""
    assert ask(client) == "answer number 1"


def limits_of(server: Server, timeout: Any, stream: bool, **settings: Any) -> Any:
    """Return the timeouts of a call of a program whose client has some."""
    client = program(server, **settings).with_options(timeout=timeout)
    made = client.chat.completions.create(model="gpt-4o-mini", messages=QUESTION, stream=stream)  # type: ignore[call-overload]
    if stream:
        made.close()
    (sent,) = server.requests
    return sent.extensions["timeout"]


@pytest.mark.parametrize("stream", [False, True])
def test_a_call_has_the_timeouts_of_the_programs_client(server: Server, stream: bool) -> None:
    """Each of them."""
    limits = limits_of(server, http.Timeout(50, connect=3), stream)
    assert limits == {"connect": 3, "read": 50, "write": 50, "pool": 50}


@pytest.mark.parametrize("stream", [False, True])
def test_a_deadline_shortens_the_timeouts_of_the_programs_client(
    server: Server, stream: bool
) -> None:
    """Those that are longer than what is left of it."""
    limits = limits_of(server, http.Timeout(50, connect=3), stream, deadline=20)
    assert limits["connect"] == 3
    assert 0 < limits["read"] <= 20


@pytest.mark.parametrize("stream", [False, True])
def test_the_programs_client_may_wait_longer_than_llmcall(server: Server, stream: bool) -> None:
    """llmcall's own timeout does not shorten it."""
    assert limits_of(server, http.Timeout(5000), stream)["read"] == 5000


def test_errors_of_llmcall_reach_the_program_as_the_sdks(server: Server) -> None:
    """A miss is an APIStatusError with our report."""
    with pytest.raises(openai.APIStatusError, match="is not recorded") as refused:
        ask(program(server, cache_mode="replay"))
    assert refused.value.status_code == 409
    assert refused.value.body["code"] == "CacheMissError"  # type: ignore[index]
    assert not server.requests


def test_a_stream_that_breaks_off_is_an_error_of_the_sdk() -> None:
    """After its first words, and no end that looks complete."""

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
    """The server, which every HTTP client of the process reaches by its own transports."""
    below = server.transport
    monkeypatch.setattr(
        http.HTTPTransport, "handle_request", lambda _, request: below.handle_request(request)
    )
    monkeypatch.setattr(
        http.AsyncHTTPTransport,
        "handle_async_request",
        lambda _, request: below.handle_async_request(request),
    )
    return server


def test_patched_records_every_client_of_the_process(reached: Server) -> None:
    """Also one that was made before."""
    before = openai.OpenAI(api_key=KEY)
    with llmcall.patched():
        first = ask(before)
        assert ask(openai.OpenAI(api_key=KEY)) == first
    assert len(reached.requests) == 1


def test_patched_records_nothing_after_its_end(reached: Server) -> None:
    """A client that it recorded asks again."""
    client = openai.OpenAI(api_key=KEY)
    with llmcall.patched():
        first = ask(client)
    assert ask(client) != first
    assert len(reached.requests) == 2


def test_a_call_passes_one_recorder_only(reached: Server) -> None:
    """The innermost one, with the actor of the innermost that names one."""
    with llmcall.patched(actor="header:x-who"), llmcall.cassette("run.jsonl") as tape:
        ask(openai.OpenAI(api_key=KEY, default_headers={"x-who": "Lisa"}))
    (record,) = tape.all_records()
    assert (record.scope, tape.asked) == ("Lisa", 1)


def given_transport(server: Server) -> str:
    """Ask by a client that was given a transport."""
    client = http.Client(transport=server.transport)
    return ask(openai.OpenAI(api_key=KEY, http_client=client))


def mounted_transport(server: Server) -> str:
    """Ask by a client that has a transport for the host."""
    client = http.Client(mounts={"https://api.openai.com": server.transport})
    return ask(openai.OpenAI(api_key=KEY, http_client=client))


def asynchronous_transport(server: Server) -> str:
    """Ask by an asynchronous client that was given a transport."""
    client = http.AsyncClient(transport=server.transport)
    asking = openai.AsyncOpenAI(api_key=KEY, http_client=client).chat.completions.create(
        model="gpt-4o-mini",
        messages=QUESTION,  # type: ignore[arg-type]
        temperature=1,
    )

    async def aask() -> Any:
        return (await asking).choices[0].message.content

    return str(asyncio.run(aask()))


@pytest.mark.parametrize("asking", [given_transport, mounted_transport, asynchronous_transport])
def test_patched_records_clients_with_transports_of_their_own(
    asking: Callable[[Server], str], server: Server
) -> None:
    """LiteLLM and ``DefaultAioHttpClient`` bring one over aiohttp."""
    with llmcall.patched():
        assert asking(server) == asking(server) == "answer number 0"
    assert len(server.requests) == 1


def test_a_client_of_http_client_keeps_its_settings_inside_patched(server: Server) -> None:
    """A client that records itself does so by its own settings, once, inside ``patched`` too."""
    client = program(server, temperature=0.5)
    with llmcall.patched(temperature=0.25):
        client.chat.completions.create(model="gpt-4o-mini", messages=QUESTION)
    (sent,) = server.requests
    assert json.loads(sent.content)["temperature"] == 0.5


@pytest.fixture
def moved(server: Server) -> tuple[Any, list[str]]:
    """A client with authentication, hooks, cookies and redirects, for an API that has moved; and
    the paths that its hook saw.
    """
    seen: list[str] = []

    def answer(request: Any) -> Any:
        if request.url.path == "/old/chat/completions":
            headers = {"location": "/v1/chat/completions", "set-cookie": "place=market; Path=/"}
            return http.Response(307, headers=headers)
        return server.answer(request)

    client = http.Client(
        transport=http.MockTransport(answer),
        auth=("user", "password"),
        follow_redirects=True,
        event_hooks={"request": [lambda request: seen.append(request.url.path)]},
    )
    return client, seen


def post_to(client: Any) -> str:
    """Ask the question at the old address, and return the answer."""
    body = {"model": "gpt-4o-mini", "messages": QUESTION}
    response = client.post("http://api.example/old/chat/completions", json=body)
    return str(response.json()["choices"][0]["message"]["content"])


def test_authentication_cookies_and_redirects_of_a_client_work_inside_patched(
    moved: tuple[Any, list[str]], server: Server
) -> None:
    """The request that reaches the API has them."""
    with llmcall.patched():
        assert post_to(moved[0]) == "answer number 0"
    (sent,) = server.requests
    assert sent.url.path == "/v1/chat/completions"
    assert sent.headers["cookie"] == "place=market"
    assert sent.headers["authorization"].startswith("Basic ")


def test_a_recorded_answer_comes_before_a_redirect(
    moved: tuple[Any, list[str]], server: Server
) -> None:
    """The second request is answered at its first address; the client's hooks see both."""
    client, seen = moved
    with llmcall.patched():
        assert post_to(client) == post_to(client) == "answer number 0"
    assert seen == ["/old/chat/completions", "/v1/chat/completions", "/old/chat/completions"]
    assert len(server.requests) == 1


def test_a_redirect_that_the_programs_client_does_not_follow_is_not_tried_again() -> None:
    """The program gets it as it came."""
    asked: list[str] = []

    def move(request: Any) -> Any:
        asked.append(request.url.path)
        return http.Response(307, headers={"location": "/v1/chat/completions"})

    body = {"model": "gpt-4o-mini", "messages": QUESTION}
    with (
        llmcall.patched(retry_waiting_time=0),
        http.Client(transport=http.MockTransport(move)) as client,
    ):
        response = client.post("http://api.example/old/chat/completions", json=body)
    assert response.status_code == 307
    assert asked == ["/old/chat/completions"]


TAKES_SETTINGS = pytest.mark.parametrize(
    "make",
    [
        llmcall.http_client,
        llmcall.async_http_client,
        lambda **wrong: llmcall.patched(**wrong).__enter__(),
    ],
    ids=["http_client", "async_http_client", "patched"],
)


@TAKES_SETTINGS
def test_an_unknown_setting_is_refused_where_it_is_given(make: Callable[..., Any]) -> None:
    """Under the name of what was called, with the nearest setting."""
    unknown = r"(client|patched)\(\) has no setting 'modl'; did you mean 'model'\?"
    with pytest.raises(TypeError, match=unknown):
        make(modl="x")


@TAKES_SETTINGS
def test_a_wrong_setting_is_refused_where_it_is_given(make: Callable[..., Any]) -> None:
    """And not in the program's request."""
    with pytest.raises(llmcall.ConfigError, match="cache_mode: 'never' is not one of auto"):
        make(cache_mode="never")


def test_patched_takes_its_settings_and_hosts_by_position(reached: Server) -> None:
    """No settings, and a host."""
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


def test_a_call_of_llmcall_inside_patched_is_made_and_recorded_once(reached: Server) -> None:
    """It is not recorded a second time on its way out."""
    with llmcall.patched(), llmcall.track() as usage:
        client = llmcall.OpenAIClient(api_key=KEY, on_error="raise")
        assert client.send_message(QUESTION, model="gpt-4o-mini").content == "answer number 0"
    assert (usage.calls, usage.cached_calls) == (1, 0)
    assert len(reached.requests) == 1
    assert llmcall.client("openai").cache.stats().records == 1


def respond_as(name: str, question: str = "Bread?") -> str:
    """Ask as an actor by /responses, and return the answer's name."""
    client = openai.OpenAI(api_key=KEY)
    made = client.responses.create(
        model="gpt-4o-mini", instructions=f"You are {name}.", input=question
    )
    return made.id


def test_other_requests_of_the_sdk_are_recorded(reached: Server) -> None:
    """Those to models, as records of a kind of their own."""
    made = []
    for mode in ("auto", "replay"):
        with llmcall.patched(cache_mode=mode):
            made.append(respond(openai.OpenAI(api_key=KEY)))
    assert made[0] == made[1]
    assert len(reached.requests) == 1
    assert {record.kind for record in llmcall.client("openai").cache.records()} == {"http"}


def test_the_models_are_asked_for_while_recording_only(reached: Server) -> None:
    """A replay has the list that was recorded last."""
    found = []
    for mode in ("auto", "auto", "replay"):
        with llmcall.patched(cache_mode=mode):
            found.append([model.id for model in openai.OpenAI(api_key=KEY).models.list()])
    assert found[1] == found[2]
    assert [request.url.path for request in reached.requests] == ["/v1/models"] * 2


def test_actors_of_other_requests_have_draws_of_their_own(reached: Server) -> None:
    """In whatever order they ask."""
    found = []
    for mode, names in (("auto", ["lisa", "bart"]), ("replay", ["bart", "lisa"])):
        with llmcall.patched(cache_mode=mode, actor="system"):
            found.append({name: respond_as(name) for name in names})
    live, replayed = found
    assert live["lisa"] != live["bart"]
    assert replayed == live
    assert len(reached.requests) == 2


def test_a_miss_of_another_request_is_explained(reached: Server) -> None:
    """By its path, and what was asked."""
    with llmcall.patched():
        respond_as("lisa")
    says = r"http request to POST /responses (?s:.*) asked +Milk\?"
    with pytest.raises(openai.APIStatusError, match=says), llmcall.patched(cache_mode="replay"):
        respond_as("lisa", "Milk?")


def test_what_is_no_models_passes_while_recording_and_is_empty_in_a_replay(
    reached: Server, caplog: pytest.LogCaptureFixture
) -> None:
    """Such as the traces that openai-agents sends: they are neither told nor a failure."""
    url = "https://api.openai.com/v1/traces/ingest"
    statuses = []
    for mode in ("once", "none"):
        with llmcall.cassette("run.jsonl", mode=mode), http.Client() as client:
            ask(openai.OpenAI(api_key=KEY))
            statuses.append(client.post(url, json={"data": []}).status_code)
    assert statuses == [200, 204]
    assert len(reached.requests) == 2
    assert not caplog.text


@pytest.mark.parametrize(("hosts", "sent"), [((), 2), (("API.Example",), 1)])
def test_an_unknown_api_is_recorded_only_if_its_host_is_named(
    reached: Server, hosts: tuple[str, ...], sent: int
) -> None:
    """In capital or small letters; else each request is sent."""
    with llmcall.patched(hosts=hosts), http.Client() as client:
        for _ in range(2):
            client.post("http://api.example/my%20moderations", json={"input": "Bread?"})
    assert len(reached.requests) == sent


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


@pytest.fixture
def aimock_replayed(aimock: subprocess.Popen[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """What aimock answered, and what is replayed in another order of the actors when it is gone."""
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
    aimock.terminate()
    aimock.wait(LONGEST)
    return live, run("replay", reversed)


def test_a_program_gets_what_aimock_answers(
    aimock_replayed: tuple[dict[str, Any], dict[str, Any]],
) -> None:
    """Draws, a stream, a tool call, a response and an embedding."""
    assert aimock_replayed[0] == {
        "lisa": ["loaf 0", "loaf 1"],
        "bart": ["loaf 2", "loaf 3"],
        "streamed": "A pinch of salt.",
        "called": ("price_of", "{}"),
        "response": "A pinch of salt.",
        "vector": [0.5, 0.25],
    }


def test_what_aimock_answered_is_replayed_when_it_is_gone(
    aimock_replayed: tuple[dict[str, Any], dict[str, Any]],
) -> None:
    """In another order of the actors."""
    live, replayed = aimock_replayed
    assert replayed == live


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
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=LONGEST)


RECORDED = ("--scope", "rep-1", "--cassette", "run.jsonl", "--actor", "system")
GONE = "http://127.0.0.1:9/v1"


@pytest.fixture
def recorded_run(httpserver: Any) -> subprocess.CompletedProcess[str]:
    """A run of the program, recorded on a cassette."""
    server = Server()

    def answer(request: Any) -> Any:
        body = json.loads(request.get_data())
        made = server.answer(http.Request("POST", "http://server/v1/chat/completions", json=body))
        return werkzeug.Response(made.content, made.status_code, content_type="application/json")

    httpserver.expect_request("/v1/chat/completions").respond_with_handler(answer)
    live = run_program(*RECORDED, url=httpserver.url_for("/v1"))
    assert live.returncode == 0, live.stderr
    return live


def test_a_recorded_script_is_replayed_with_the_server_gone(
    recorded_run: subprocess.CompletedProcess[str],
) -> None:
    """Though it knows nothing of llmcall; its actors have draws of their own in any order."""
    lines = recorded_run.stdout.splitlines()
    assert len(set(lines)) == 4
    replayed = run_program(*RECORDED, "--mode", "none", names=("bart", "lisa"), url=GONE)
    assert replayed.returncode == 0, replayed.stderr
    assert sorted(replayed.stdout.splitlines()) == sorted(lines)


@pytest.mark.newest_only
@pytest.mark.usefixtures("recorded_run")
def test_a_script_that_swallows_a_miss_is_told_of_it() -> None:
    """The run fails with the explanation, and without a traceback."""
    missed = run_program(*RECORDED, "--mode", "none", names=("nora",), url=GONE)
    assert missed.returncode == 1
    assert "nora gave up" in missed.stdout
    assert "is not recorded" in missed.stderr
    assert "Traceback" not in missed.stderr
