"""Programs on the OpenAI SDK that know nothing of llmcall, recorded and replayed."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import openai
import pytest
from clients import (
    KEY,
    QUESTION,
    TOOLS,
    Server,
    ask,
    http,
    program,
)

import llmcall


@pytest.fixture
def server() -> Server:
    """A model's server."""
    return Server()


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
def test_settings_of_llmcall_do_not_enter_a_programs_request(
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
    """Fields that a cassette leaves out of a response are there when a program reads it: some check
    each field.
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


def test_embeddings_are_recorded_text_by_text(server: Server) -> None:
    """One of them is replayed alone, in another encoding."""
    asked: Any = {"model": "text-embedding-3-small"}
    made = program(server).embeddings.create(**asked, input=["bread", "salt"])
    assert [vector.embedding for vector in made.data] == [[5, 0.5], [4, 0.5]]
    replay = program(server, cache_mode="replay")
    made = replay.embeddings.create(**asked, input="salt", encoding_format="float")
    assert made.data[0].embedding == [4, 0.5]
    assert len(server.requests) == 1


def test_a_call_of_azure_goes_to_its_deployment_which_names_the_model(server: Server) -> None:
    """A program need not name it in the body."""
    client = openai.AzureOpenAI(
        api_key=KEY,
        azure_endpoint="https://mine.openai.azure.com",
        api_version="2024-10-21",
        http_client=llmcall.http_client(transport=server.transport),
    )
    client.chat.completions.create(model="four", messages=QUESTION)  # type: ignore[arg-type]
    (sent,) = server.requests
    assert sent.url.path == "/openai/deployments/four/chat/completions"
    assert sent.headers["api-key"] == KEY
    assert sent.url.params["api-version"] == "2024-10-21"
    with llmcall.http_client(transport=server.transport, cache_mode="replay") as replay:
        replayed = replay.post(str(sent.url), json={"messages": QUESTION})
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
        client = program(server, actor=actor)

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

        with llmcall.cassette("run.jsonl", mode=mode):
            for name in order:
                thread = threading.Thread(target=act, args=[name])
                thread.start()
                thread.join()
        return found

    live = run("once", ORDERS[0])
    assert len({answer for answers in live.values() for answer in answers}) == 8
    assert run("none", ORDERS[1]) == live


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


SECRETS = {
    "bearer": {"Authorization": "Bearer plain-words-of-lisa"},
    "any scheme": {"Authorization": "Token plain/words/of/lisa"},
    "digest": {"Authorization": 'Digest username="me", response="plain-words-of-lisa"'},
    "no scheme": {"Authorization": "plain-words-of-lisa"},
    "Azure": {"api-key": "plain-words-of-lisa"},
    "Google": {"x-goog-api-key": "plain-words-of-lisa"},
    "cookie": {"Cookie": "theme=dark; session=plain-words-of-lisa"},
    "key": {"?key": "plain-words-of-lisa"},
    "signature": {"?sig": "plain/words/of/lisa"},
}


@pytest.mark.parametrize("asking", [ask, respond])
@pytest.mark.parametrize("sent", SECRETS.values(), ids=SECRETS)
def test_the_line_of_a_retry_has_no_credential_that_the_server_repeats(
    server: Server,
    caplog: pytest.LogCaptureFixture,
    sent: dict[str, str],
    asking: Callable[[openai.OpenAI], str],
) -> None:
    """They are masked by their value, as it was sent and without its name; the program gets what came."""
    headers = {name: text for name, text in sent.items() if name[0] != "?"}
    query = {name[1:]: text for name, text in sent.items() if name[0] == "?"}
    secret = next(iter(sent.values())).split()[-1].removeprefix("session=")
    echo = f"cannot serve {sent}, {json.dumps(sent)}: {secret} or {quote(secret, safe='')}"
    server.failures = [(500, {}, {"error": {"message": echo}})] * 2
    client = program(server, retry_max_attempts=2, retry_waiting_time=0).with_options(
        default_headers=headers, default_query=query, max_retries=0
    )
    with pytest.raises(openai.InternalServerError, match="lisa"):
        asking(client)
    assert "Retrying in" in caplog.text
    assert "lisa" not in caplog.text


def limits_of(server: Server, timeout: Any, stream: bool, **settings: Any) -> Any:
    """Return the timeouts of a call of a program whose client has some."""
    client = program(server, **settings).with_options(timeout=timeout)
    made = client.chat.completions.create(model="gpt-4o-mini", messages=QUESTION, stream=stream)  # type: ignore[call-overload]
    if stream:
        made.close()
    (sent,) = server.requests
    return sent.extensions["timeout"]


@pytest.mark.parametrize("stream", [False, True])
def test_a_deadline_shortens_the_timeouts_of_the_programs_client(
    server: Server, stream: bool
) -> None:
    """Those that are longer than what is left of it."""
    limits = limits_of(server, http.Timeout(50, connect=3), stream, deadline=20)
    assert limits["connect"] == 3
    assert 0 < limits["read"] <= 20


def test_errors_of_llmcall_reach_the_program_as_the_sdks(server: Server) -> None:
    """A miss is an APIStatusError with our report."""
    with pytest.raises(openai.APIStatusError, match="is not recorded") as refused:
        ask(program(server, cache_mode="replay"))
    assert refused.value.status_code == 409
    assert refused.value.body["code"] == "CacheMissError"  # type: ignore[index]
    assert not server.requests


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


def test_a_call_passes_one_recorder_only(reached: Server) -> None:
    """The innermost one, with the actor of the innermost that names one."""
    with llmcall.patched(actor="header:x-who"), llmcall.cassette("run.jsonl") as tape:
        ask(openai.OpenAI(api_key=KEY, default_headers={"x-who": "Lisa"}))
    (record,) = tape.all_records()
    assert (record.scope, tape.asked) == ("Lisa", 1)


def own_transport(server: Server) -> str:
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


@pytest.mark.parametrize("asking", [own_transport, mounted_transport, asynchronous_transport])
def test_patched_records_clients_with_transports_of_their_own(
    asking: Callable[[Server], str], server: Server
) -> None:
    """LiteLLM and ``DefaultAioHttpClient`` bring one over aiohttp."""
    for _ in range(2):
        with llmcall.patched():
            assert asking(server) == "answer number 0"
    assert len(server.requests) == 1


def test_an_error_of_a_request_that_passes_reaches_the_program_as_it_is() -> None:
    """It is none of llmcall's."""

    def fail(request: Any) -> Any:
        raise UnicodeError("label empty or too long")

    with (
        llmcall.patched(),
        http.Client(transport=http.MockTransport(fail)) as client,
        pytest.raises(UnicodeError, match="label empty"),
    ):
        client.get("https://example.org/page")


def test_a_client_of_http_client_keeps_its_settings_inside_patched(server: Server) -> None:
    """A client that records itself does so by its own settings, once, inside ``patched`` too."""
    client = program(server, temperature=0.5)
    with llmcall.patched(temperature=0.25):
        client.chat.completions.create(model="gpt-4o-mini", messages=QUESTION)
    (sent,) = server.requests
    assert json.loads(sent.content)["temperature"] == 0.5


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
    unknown = r"(client|patched)\(\) has no setting 'modl'\. Did you mean 'model'\?"
    with pytest.raises(TypeError, match=unknown):
        make(modl="x")


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


def test_the_models_are_asked_for_while_recording_only(reached: Server) -> None:
    """A replay has the list that was recorded last."""
    found = []
    for mode in ("auto", "auto", "replay"):
        with llmcall.patched(cache_mode=mode):
            found.append([model.id for model in openai.OpenAI(api_key=KEY).models.list()])
    assert found[1] == found[2]
    assert [request.url.path for request in reached.requests] == ["/v1/models"] * 2


def test_actors_of_other_requests_have_draws_of_their_own(reached: Server) -> None:
    found = []
    for mode, names in (("auto", ["lisa", "bart"]), ("replay", ["bart", "lisa"])):
        with llmcall.patched(cache_mode=mode, actor="system"):
            found.append({name: respond_as(name) for name in names})
    live, replayed = found
    assert live["lisa"] != live["bart"]
    assert replayed == live
    assert len(reached.requests) == 2


def test_a_miss_of_another_request_is_explained(reached: Server) -> None:
    with llmcall.patched():
        respond_as("lisa")
    says = r"http request to POST /responses (?s:.*) asked +user: Milk\?"
    with pytest.raises(openai.APIStatusError, match=says), llmcall.patched(cache_mode="replay"):
        respond_as("lisa", "Milk?")
