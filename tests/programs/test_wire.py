"""Requests of a program on the wire, through each of the doors: as the plain SDK sends them."""

from __future__ import annotations

import asyncio
import inspect
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import openai
import pytest
from clients import KEY, QUESTION, Server, http, program, streamed_answer
from hypothesis import given
from hypothesis import strategies as st
from servers import chunks_of, event

import llmcall

TEXTS = ["Brot für 3 Münzen?", "", "🥖"]
# of the parameters that take no object; the SDK sends whatever it is given
VALUES: dict[str, Any] = {
    "frequency_penalty": 0.0,
    "logprobs": True,
    "max_completion_tokens": 9,
    "max_tokens": 9,
    "n": 2,
    "parallel_tool_calls": False,
    "presence_penalty": -1.0,
    "prompt_cache_key": "ключ",
    "reasoning_effort": "low",
    "seed": 2**60,
    "service_tier": "flex",
    "stop": ["\n", "é"],
    "store": None,
    "temperature": 1.0,
    "tools": [{"type": "function", "function": {"name": "f", "parameters": {"maximum": 1.0}}}],
    "top_logprobs": 3,
    "top_p": 1e-7,
    "user": "Jürgen",
    "verbosity": "low",
    "dimensions": 2,
    "encoding_format": "float",
}
OBJECT = {"z": None, "a": [1.0, True, 1e-7, {"é": "🥖"}]}
SENT_OTHERWISE = {"self", "messages", "input", "model", "stream", "extra_headers", "extra_query"}


def parameters_of(method: Any) -> list[str]:
    """Return the names of the parameters that a method of the installed SDK puts into the body."""
    return sorted(inspect.signature(method).parameters.keys() - SENT_OTHERWISE - {"timeout"})


CHAT = parameters_of(openai.resources.chat.Completions.create)
EMBEDDINGS = parameters_of(openai.resources.Embeddings.create)


def value_of(name: str) -> Any:
    """Return a value for a parameter; one that a later SDK adds gets an object."""
    return VALUES.get(name, OBJECT)


class Wire(Server):
    """Answer whatever is asked, also embeddings of token numbers and of texts that occur twice."""

    def bodies(self) -> list[bytes]:
        """Return what was sent, as bytes, and forget it."""
        with self._lock:
            sent, self.requests = [request.content for request in self.requests], []
        return sent


Call = Callable[[Any], Any]


def sent_plainly(server: Wire, call: Call) -> list[bytes]:
    """Return what the SDK sends by itself."""
    call(openai.OpenAI(api_key=KEY, http_client=http.Client(transport=server.transport)))
    return server.bodies()


def by_http_client(server: Wire, call: Call) -> None:
    """Call through ``http_client()``."""
    call(program(server, cache_mode="off"))


def by_async_http_client(server: Wire, call: Call) -> None:
    """Call through ``async_http_client()``."""

    async def run() -> None:
        http_client = llmcall.async_http_client(transport=server.transport, cache_mode="off")
        async with openai.AsyncOpenAI(api_key=KEY, http_client=http_client) as client:
            answer = await call(client)
            if hasattr(answer, "__aiter__"):
                assert [chunk async for chunk in answer]

    asyncio.run(run())


def by_patched(server: Wire, call: Call) -> None:
    """Call under ``patched()``, by a client that knows nothing of it."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        below = server.transport
        monkeypatch.setattr(
            http.HTTPTransport, "handle_request", lambda _, request: below.handle_request(request)
        )
        with llmcall.patched(cache_mode="off"):
            call(openai.OpenAI(api_key=KEY))


DOORS = [by_http_client, by_async_http_client, by_patched]


def check_sent(door: Callable[[Wire, Call], None], call: Call) -> None:
    """Check that a door sends what the plain SDK sends, byte for byte."""
    server = Wire()
    plain = sent_plainly(server, call)
    door(server, call)
    assert server.bodies() == plain
    assert len(plain) == 1


def chat(stream: bool = False, **params: Any) -> Call:
    """Return a call of the chat method, which reads a stream to its end."""

    def call(client: Any) -> Any:
        answer = client.chat.completions.create(
            **{"model": "gpt-4o-mini", "messages": QUESTION, **params},
            **({"stream": True} if stream else {}),
        )
        return [*answer] if hasattr(answer, "__iter__") and stream else answer

    return call


def test_each_chat_parameter_is_sent_as_the_sdk_sends_it() -> None:
    """Each parameter of the installed SDK's chat method reaches the server as its bytes."""
    for name in CHAT:
        check_sent(by_http_client, chat(**{name: value_of(name)}))


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_a_chat_is_sent_as_the_sdk_sends_it(
    stream: bool, door: Callable[[Wire, Call], None]
) -> None:
    check_sent(door, chat(stream, temperature=1.0, seed=2**60, stop=["é"], extra_body=OBJECT))


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("texts", ["bread", TEXTS[:1], ["a", "b", "a"], [[1, 2], [3]]], ids=str)
def test_embeddings_are_sent_as_the_sdk_sends_them(
    texts: Any, door: Callable[[Wire, Call], None]
) -> None:
    """The input may be anything, equal texts too."""
    params = {name: value_of(name) for name in EMBEDDINGS}
    check_sent(door, lambda client: client.embeddings.create(model="e", input=texts, **params))


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**60), 2**60)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.text(st.characters(exclude_categories=["Cs"]), max_size=5), inner, max_size=3
        )
    ),
    max_leaves=6,
)
# of llmcall's own arguments, which a server may call its fields too
OWN_NAMES = [
    "timeout",
    "deadline",
    "sample",
    "cache",
    "on_error",
    "echo",
    "extra_body",
    "extra_headers",
    "extra_query",
    "dedent_messages",
    "current_messages",
    "text",
]


FIELDS = st.dictionaries(st.sampled_from([*OWN_NAMES, "top_k", "chat_template_kwargs", "é"]), JSON)


@given(fields=FIELDS)
def test_unknown_fields_of_a_chat_are_sent_as_the_sdk_sends_them(fields: dict[str, Any]) -> None:
    """A field beyond the API stays at its place, whatever its name is and whatever it holds."""
    check_sent(by_http_client, chat(extra_body=fields))


@pytest.mark.parametrize("model", ["o3-mini", "gpt-5", "gpt-4o-search-preview"])
def test_a_programs_parameter_that_a_model_refuses_is_sent(model: str) -> None:
    """A parameter that the API of a model refuses is sent: the program asked for it."""
    check_sent(by_http_client, chat(model=model, temperature=0.5, max_tokens=9, top_p=1))


def test_a_retry_takes_out_one_field() -> None:
    """A parameter that the API does not support is taken out; the others stay as they were."""
    server = Wire()
    refused = {"code": "unsupported_parameter", "param": "top_p", "message": "no top_p"}
    server.failures = [(400, {}, {"error": refused})]
    chat(temperature=1.0, top_p=0.5, extra_body={"é": OBJECT})(program(server))
    first, second = server.bodies()
    assert b"top_p" in first
    assert [second] == sent_plainly(server, chat(temperature=1.0, extra_body={"é": OBJECT}))


def test_an_alias_changes_the_model_and_nothing_else() -> None:
    """The body is that of a program that names the model."""
    server = Wire()
    with llmcall.configured(aliases={"four": "gpt-4o-mini"}):
        chat(model="four", temperature=1.0, extra_body=OBJECT)(program(server))
    assert server.bodies() == sent_plainly(server, chat(temperature=1.0, extra_body=OBJECT))


def test_an_override_adds_what_the_program_does_not_say() -> None:
    """An override stands at the end of the body, and replaces nothing that the program says."""
    server = Wire()
    chat(temperature=1.0)(program(server, temperature=0, top_p=0.5))
    (sent,) = server.bodies()
    (plain,) = sent_plainly(server, chat(temperature=1.0))
    assert sent.startswith(plain[:-1])
    assert json.loads(sent) == {**json.loads(plain), "top_p": 0.5}


@pytest.mark.parametrize(
    "style",
    [{"ensure_ascii": False, "separators": (",", ":")}, {}],
    ids=["compact", "spaces and escapes"],
)
def test_a_changed_body_is_written_as_the_program_writes_json(style: dict[str, Any]) -> None:
    """An override adds its field, and no other byte changes."""
    server = Wire()
    body = {"model": "gpt-4o-mini", "messages": QUESTION, "user": "Jürgen"}
    overrides = {"temperature": 0, "cache_mode": "off"}
    with llmcall.http_client(transport=server.transport, **overrides) as client:
        client.post(
            "http://127.0.0.1:1/v1/chat/completions",
            content=json.dumps(body, **style).encode(),
            headers={"content-type": "application/json"},
        )
    assert server.bodies() == [json.dumps({**body, "temperature": 0}, **style).encode()]


def test_get_embedding_replays_a_field_beyond_the_api() -> None:
    program(Wire()).embeddings.create(model="e", input="bread", extra_body={"task": "query"})
    client = llmcall.OpenAIClient(cache_mode="replay", on_error="raise")
    assert client.get_embedding("bread", "e", extra_body={"task": "query"}) == [5, 0.5]


def test_recorded_texts_are_not_asked_for_again() -> None:
    """Of several texts to embed only those that are not recorded are sent: the one field that
    changes.
    """
    server = Wire()
    client = program(server)
    client.embeddings.create(model="e", input=["bread", "salt"])
    made = client.embeddings.create(model="e", input=["salt", "oil", "salt", "oil"])
    assert [vector.embedding for vector in made.data] == [[4, 0.5], [3, 0.5], [4, 0.5], [3, 0.5]]
    _, sent = server.bodies()
    plain = sent_plainly(server, lambda one: one.embeddings.create(model="e", input=["oil"]))
    assert [sent] == plain


def test_a_budget_keeps_what_it_reserved_if_no_usage_is_reported() -> None:
    """A stream that asks for no usage reports none: what it reserved counts as spent."""
    quiet = chunks_of("Two", " coins.", usage=None)
    content = b"".join(map(event, [*quiet, b"[DONE]"]))
    transport = http.MockTransport(lambda request: streamed_answer(content))
    client = openai.OpenAI(api_key=KEY, http_client=llmcall.http_client(transport=transport))
    with llmcall.budget(tokens=10_000) as budget:
        chat(stream=True, max_tokens=500)(client)
    assert budget.spent.tokens is not None
    assert 500 < budget.spent.tokens < 600


def test_a_program_that_names_no_effort_is_sent_and_recorded_without_one(tmp_path: Path) -> None:
    """Only llmcall's own calls of the packaged default model ask for none."""
    server, tape = Wire(), tmp_path / "tape.jsonl"
    with llmcall.cassette(tape):
        program(server).chat.completions.create(model="gpt-6-luna", messages=QUESTION)
    assert "reasoning_effort" not in json.loads(server.bodies()[0])
    _, record = tape.read_text(encoding="utf-8").splitlines()
    assert "reasoning_effort" not in json.loads(record)["request"]
