"""Cassettes of VCR's and batches: imported, and then found by the program that made them."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from clients import http
from commands import done
from files import written
from servers import completion

import llmcall
from llmcall.types import Record

MODEL = "gpt-4o"
OPENAI = "https://api.openai.com/v1"
ANTHROPIC = "https://api.anthropic.com/v1/messages"
GEMINI = "https://generativelanguage.googleapis.com/v1beta/models/gemini-2.5-flash:generateContent"

# What programs ask: the address, the body and the answer, as data or as the text of a stream.
TOOL = {"type": "function", "function": {"name": "price", "arguments": "{}"}, "id": "call_1"}
LOOP = [
    {"role": "user", "content": "2 + 2?"},
    {"role": "assistant", "content": "4"},
    {"role": "user", "content": "What is bread?"},
    {"role": "assistant", "content": None, "tool_calls": [TOOL]},
    {"role": "tool", "tool_call_id": "call_1", "content": "3 coins"},
]
ASKED = [{"role": "user", "content": "How much?"}]


def of_responses(text: str) -> dict[str, Any]:
    """Return a whole answer of the Responses API."""
    part = {"type": "output_text", "text": text, "annotations": []}
    message = {
        "id": "m",
        "type": "message",
        "role": "assistant",
        "status": "completed",
        "content": [part],
    }
    return {
        "id": "resp_1",
        "object": "response",
        "created_at": 1,
        "model": MODEL,
        "status": "completed",
        "output": [message],
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
    }


def of_claude(text: str, **fields: Any) -> dict[str, Any]:
    """Return a whole answer of the Messages API."""
    return {
        "type": "message",
        "role": "assistant",
        "model": "claude",
        "content": [{"type": "text", "text": text}],
        "stop_reason": "end_turn",
        "usage": {"input_tokens": 9, "output_tokens": 1},
        **fields,
    }


def of_gemini(text: str, **fields: Any) -> dict[str, Any]:
    """Return a whole answer of Gemini's."""
    content = {"role": "model", "parts": [{"text": text}]}
    return {
        "candidates": [{"content": content, "finishReason": "STOP"}],
        "usageMetadata": {"promptTokenCount": 9, "candidatesTokenCount": 1},
        "modelVersion": "gemini-2.5-flash",
        **fields,
    }


STREAM = "".join(
    f"event: {event['type']}\ndata: {json.dumps(event)}\n\n"
    for event in (
        {"type": "response.output_text.delta", "delta": "5"},
        {"type": "response.completed", "response": of_responses("5 streamed")},
    )
)
EMBEDDED = {
    "object": "list",
    "data": [{"object": "embedding", "index": 0, "embedding": [0.5, 1]}],
    "model": "e",
    "usage": {"prompt_tokens": 2, "total_tokens": 2},
}
EXCHANGES: dict[str, tuple[str, dict[str, Any], Any]] = {
    "chat": (f"{OPENAI}/chat/completions", {"messages": LOOP, "temperature": 1}, completion("5")),
    "responses": (f"{OPENAI}/responses", {"input": "How much?", "stream": True}, STREAM),
    "embeddings": (
        f"{OPENAI}/embeddings",
        {"input": ["bread"], "encoding_format": "float"},
        EMBEDDED,
    ),
    "messages": (ANTHROPIC, {"max_tokens": 9, "messages": ASKED}, of_claude("5 by Claude")),
    "gemini": (
        GEMINI,
        {"contents": [{"parts": [{"text": "How much?"}]}]},
        of_gemini("5 by Gemini"),
    ),
}


def body_of(kind: str) -> dict[str, Any]:
    """Return the body that a program posts."""
    body = EXCHANGES[kind][1]
    return body if kind == "gemini" else {"model": MODEL, **body}


def as_text(answer: Any) -> str:
    """Return an answer as it is on the wire."""
    return answer if isinstance(answer, str) else json.dumps(answer)


def media_type(answer: Any) -> dict[str, list[str]]:
    """Return the header of an answer."""
    kind = "text/event-stream; charset=utf-8" if isinstance(answer, str) else "application/json"
    return {"Content-Type": [kind]}


# Five forms of a cassette of VCR's


def in_yaml(url: str, body: Any, answer: Any) -> tuple[str, Any]:
    """Return the form of vcrpy on requests: bodies as strings; gzip as it was on the wire."""
    headers = {"Content-Encoding": ["gzip"], **media_type(answer)}
    content = gzip.compress(as_text(answer).encode(), mtime=0)
    return "run.yaml", {
        "request": {"method": "POST", "uri": url, "body": json.dumps(body), "headers": {}},
        "response": {
            "status": {"code": 200, "message": "OK"},
            "headers": headers,
            "body": {"string": content},
        },
    }


def of_httpx(url: str, body: Any, answer: Any) -> tuple[str, Any]:
    """Return the form of vcrpy 4 and 5 on httpx: decompressed content beside the header of what was not."""
    headers = {"content-encoding": ["gzip"], **media_type(answer)}
    return "run.yaml.gz", {
        "request": {"method": "POST", "uri": url, "body": json.dumps(body), "headers": {}},
        "response": {
            "status_code": 200,
            "http_version": "HTTP/1.1",
            "headers": headers,
            "content": as_text(answer),
        },
    }


def of_pydantic_ai(url: str, body: Any, answer: Any) -> tuple[str, Any]:
    """Return the form of pydantic-ai's serializer: bodies as data."""
    parsed = {"body": {"string": answer}} if isinstance(answer, str) else {"parsed_body": answer}
    return "run.yml", {
        "request": {
            "method": "POST",
            "uri": url,
            "parsed_body": body,
            "headers": {"content-type": ["application/json"]},
        },
        "response": {
            "status": {"code": 200, "message": "OK"},
            "headers": media_type(answer),
            **parsed,
        },
    }


def in_json(url: str, body: Any, answer: Any) -> tuple[str, Any]:
    """Return the form of the JSON serializer, without any headers."""
    return "run.json", {
        "request": {"method": "POST", "uri": url, "body": json.dumps(body)},
        "response": {"status": {"code": 200, "message": "OK"}, "body": {"string": as_text(answer)}},
    }


def of_go_vcr(url: str, body: Any, answer: Any) -> tuple[str, Any]:
    """Return the form of go-vcr 2: charmbracelet/fantasy has some 700 such files."""
    parts = {"proto": "HTTP/1.1", "content_length": -1, "headers": media_type({})}
    return "run.yaml", {
        "request": {**parts, "method": "POST", "url": url, "body": json.dumps(body)},
        "response": {**parts, "status": "200 OK", "code": 200, "body": as_text(answer)}
        | {"headers": media_type(answer)},
    }


Form = Callable[[str, Any, Any], tuple[str, Any]]


def cassette_of_vcr(form: Form, exchanges: Iterable[tuple[str, Any, Any]]) -> str:
    """Write a cassette of VCR's, and return its path."""
    forms = [form(*exchange) for exchange in exchanges]
    name = forms[0][0]
    data = {"version": 1, "interactions": [interaction for _, interaction in forms]}
    if name.endswith("json"):
        return written(name, json.dumps(data, indent=4))
    content: bytes = pytest.importorskip("yaml").safe_dump(data).encode()
    return written(name, gzip.compress(content) if name.endswith("gz") else content)


def records(path: str = "imported.jsonl") -> list[Record]:
    """Return the records of a cassette, in its order."""
    cache = llmcall.ResponseCache(f"{path}.cache")
    cache.load(path)
    return list(cache.records())


def asked_by_its_sdk(kind: str) -> object:
    """Ask as the program does, over a connection that sends nothing."""
    openai = pytest.importorskip("openai")
    httpx = pytest.importorskip("httpx")

    def refuse(request: Any) -> Any:
        pytest.fail(f"sent to {request.url}")

    transport = http.MockTransport(refuse)
    sdk = openai.OpenAI(api_key="none", http_client=http.Client(transport=transport))
    url, body = EXCHANGES[kind][0], body_of(kind)
    if kind == "chat":
        return sdk.chat.completions.create(**body).choices[0].message.content
    if kind == "responses":
        *_, last = sdk.responses.create(**body)
        return last.response.output_text
    if kind == "embeddings":
        return sdk.embeddings.create(**body).data[0].embedding
    with httpx.Client(transport=httpx.MockTransport(refuse)) as client:
        answer = client.post(url, json=body, headers={"x-api-key": "none"}).json()
    if kind == "messages":
        return answer["content"][0]["text"]
    return answer["candidates"][0]["content"]["parts"][0]["text"]


ANSWERS = {
    "chat": "5",
    "responses": "5 streamed",
    "embeddings": [0.5, 1],
    "messages": "5 by Claude",
    "gemini": "5 by Gemini",
}


@pytest.mark.parametrize("form", [in_yaml, of_httpx, of_pydantic_ai, in_json, of_go_vcr])
@pytest.mark.parametrize("kind", EXCHANGES)
def test_a_program_replays_its_cassette_of_vcr(kind: str, form: Form) -> None:
    url, _, answer = EXCHANGES[kind]
    path = cassette_of_vcr(form, [(url, body_of(kind), answer)])
    printed = done("import", path, "--to", "imported.jsonl")
    assert printed.startswith("1 record of 1 conversation")
    with llmcall.cassette("imported.jsonl", mode="none") as tape:
        assert asked_by_its_sdk(kind) == ANSWERS[kind]
    assert tape.replayed == 1


@pytest.mark.parametrize("unasked", [(), ("stream",)], ids=["as requested", "streams unasked"])
def test_an_import_of_a_recorded_program_is_its_recording(unasked: tuple[str, ...]) -> None:
    """A fresh recording of the same exchanges is the same file, also where a server streams of its own accord."""
    httpx = pytest.importorskip("httpx")
    made = [
        (url, {name: value for name, value in body_of(kind).items() if name not in unasked}, answer)
        for kind, (url, _, answer) in EXCHANGES.items()
        if not unasked or "stream" in body_of(kind)
    ]

    def answer(request: Any) -> Any:
        found = next(found for url, _, found in made if url == str(request.url))
        headers = {name: values[0] for name, values in media_type(found).items()}
        return httpx.Response(200, content=as_text(found), headers=headers)

    with (
        llmcall.cassette("recorded.jsonl"),
        httpx.Client(transport=httpx.MockTransport(answer)) as client,
    ):
        for url, body, _ in made:
            client.post(url, json=body).read()
    done("import", cassette_of_vcr(in_json, made), "--to", "imported.jsonl")
    lines = [
        Path(name).read_text(encoding="utf-8").splitlines()[1:]
        for name in ("recorded.jsonl", "imported.jsonl")
    ]
    without_cost = [[{**json.loads(line), "cost": None} for line in recorded] for recorded in lines]
    assert without_cost[0] == without_cost[1]


def test_the_deployment_of_azures_path_is_the_model() -> None:
    url = "https://mine.openai.azure.com/openai/deployments/gpt-4o-mine/chat/completions?api-version=2024-06-01"
    done(
        "import",
        cassette_of_vcr(in_json, [(url, {"messages": ASKED}, completion("5"))]),
        "--to",
        "imported.jsonl",
    )
    [record] = records()
    assert (record.model, record.answer) == ("gpt-4o-mine", "5")


def test_a_layout_may_yield_exchanges() -> None:
    """In the form of VCR's, also of Ruby's and R's, with a scope of their own."""
    body = {"encoding": "UTF-8", "string": json.dumps(of_claude("5"))}
    written(
        "exchanges_layout.py",
        "def exchanges(path):\n"
        f"    request = {{'uri': {ANTHROPIC!r}, 'body': {body_of('messages')!r}}}\n"
        f"    yield {{'scope': ('ann',), 'request': request, 'response': {{'body': {body!r}}}}}\n",
    )
    path = written("mine.txt", "")
    done("import", path, "--layout", "exchanges_layout:exchanges", "--to", "imported.jsonl")
    assert [(record.sample, record.answer) for record in records()] == [("ann#0", "5")]


def answered(kind: str, code: int, content: Any) -> dict[str, Any]:
    """Return an interaction with some answer."""
    url = EXCHANGES[kind][0] if kind in EXCHANGES else "https://example.org/search"
    request = in_json(url, body_of(kind if kind in EXCHANGES else "chat"), "")[1]["request"]
    return {"request": request, "response": {"status": {"code": code}, "body": {"string": content}}}


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        (5, "it has no request"),
        ({"request": {"uri": "http://[::1"}, "response": {}}, "has the uri 'http://[::1'"),
        (
            {"request": {"uri": OPENAI}, "response": {"status": {"code": "soon"}}},
            "its response has the status 'soon'",
        ),
        ({"request": {}, "response": None}, "would not be recorded"),
        (answered("chat", 429, '{"error": {"message": "slow down"}}'), "429: slow down"),
        (answered("embeddings", 200, '{"data": []}'), "a malformed answer without data"),
        ({**answered("chat", 0, ""), "response": {"code": 429, "body": "{}"}}, "429"),  # go-vcr's
        (answered("chat", 200, "<html>"), "a malformed answer, not JSON"),
        (answered("chat", 200, 5), "interaction 1: "),  # as YAML reads a text without quotes
        (answered("search", 200, "{}"), "POST example.org/search would not be recorded"),
    ],
)
def test_an_interaction_that_is_none_is_skipped_with_its_place(broken: Any, words: str) -> None:
    """The other one, a stream, is imported."""
    choices = [
        {"index": 0, "delta": {"role": "assistant", "content": "5 "}},
        {"index": 0, "delta": {"content": "coins"}, "finish_reason": "stop"},
    ]
    chunks = [json.dumps({"model": MODEL, "choices": [choice]}) for choice in choices]
    stream = "".join(f"data: {chunk}\n\n" for chunk in [*chunks, "[DONE]"])
    good = in_json(EXCHANGES["chat"][0], {**body_of("chat"), "stream": True}, stream)[1]
    path = written("run.json", json.dumps({"interactions": [broken, good]}))
    printed = done("import", path, "--to", "imported.jsonl")
    assert f"1: {path}, interaction 1: " in printed and words in printed
    assert [record.answer for record in records()] == ["5 coins"]


# Batches


def lines(name: str, *entries: dict[str, Any]) -> str:
    """Write JSON Lines, and return their path."""
    return written(name, "".join(f"{json.dumps(entry)}\n" for entry in entries))


def of_batch(name: str, body: Any) -> dict[str, Any]:
    """Return an output's line in OpenAI's form."""
    return {"custom_id": name, "response": {"status_code": 200, "body": body}, "error": None}


CHAT = {"messages": ASKED, "temperature": 1}
BATCHES = {
    "together": (
        {"custom_id": "ann", "body": {"model": MODEL, **CHAT}},
        of_batch("ann", completion("5")),
    ),
    "mistral": ({"custom_id": "ann", "body": CHAT}, of_batch("ann", completion("5", model=MODEL))),
    "azure": (
        {
            "custom_id": "ann",
            "method": "POST",
            "url": "/chat/completions",
            "body": {"model": MODEL, **CHAT},
        },
        of_batch("ann", completion("5")),
    ),
    "anthropic": (
        {"custom_id": "ann", "params": body_of("messages")},
        {"custom_id": "ann", "result": {"type": "succeeded", "message": of_claude("5")}},
    ),
    "gemini": (
        {"key": "ann", "request": body_of("gemini")},
        {"key": "ann", "response": of_gemini("5")},
    ),
}


@pytest.mark.parametrize("is_joined", [False, True])
@pytest.mark.parametrize("provider", BATCHES)
def test_a_batch_becomes_the_calls_of_its_api(provider: str, is_joined: bool) -> None:
    """Together's names no address, Mistral's and Gemini's no model. A line may have the request and its answer."""
    asked, answered = BATCHES[provider]
    if is_joined:
        files = [lines("batch.jsonl", asked | answered)]
    else:
        files = [lines("in.jsonl", asked), lines("out.jsonl", answered)]
    done("import", *files, "--to", "imported.jsonl")
    [record] = records()
    model = {"gemini": "gemini-2.5-flash"}.get(provider, MODEL)
    assert (record.sample, record.answer, record.model) == ("ann#0", "5", model)
    path = {"anthropic": "/messages", "gemini": "/models/gemini-2.5-flash:generateContent"}
    assert record.request.get("path") == path.get(provider)


@pytest.mark.parametrize(
    ("answered", "words"),
    [
        ({"custom_id": "ben", "result": {"type": "expired"}}, "expired"),
        (
            {
                "custom_id": "ben",
                "result": {
                    "type": "errored",
                    "error": {"type": "error", "error": {"message": "busy"}},
                },
            },
            "busy",
        ),
        (
            {"custom_id": "ben", "response": None, "error": {"code": 500, "message": "broken"}},
            "broken",
        ),
    ],
)
def test_an_error_of_a_batch_is_skipped_with_its_reason(answered: Any, words: str) -> None:
    body = body_of("messages")
    sent = lines(
        "in.jsonl", {"custom_id": "ann", "params": body}, {"custom_id": "ben", "params": body}
    )
    got = lines("out.jsonl", {"custom_id": "ann", "result": {"message": of_claude("5")}}, answered)
    printed = done("import", sent, got, "--to", "imported.jsonl")
    assert f"2: {sent}:2: {words}" in printed


@pytest.mark.parametrize("part", ["input", "output"])
def test_an_id_that_a_batch_has_twice_is_told(part: str) -> None:
    """Which answer belongs to it is not known; nothing is written."""
    asked, answered = BATCHES["together"]
    sent = lines("in.jsonl", *[asked] * (2 if part == "input" else 1))
    got = lines("out.jsonl", *[answered] * (2 if part == "output" else 1))
    printed = done("import", sent, got, "--to", "imported.jsonl", code=1)
    place = sent if part == "input" else got
    assert f"{place}:2: the id 'ann' is in the {part} twice" in printed
    assert not Path("imported.jsonl").exists()


def test_each_choice_of_a_batch_is_a_draw() -> None:
    choices = [
        {"index": index, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
        for index, text in enumerate("56")
    ]
    sent = lines("in.jsonl", {"custom_id": "ann", "body": {"model": MODEL, "n": 2, **CHAT}})
    got = lines("out.jsonl", of_batch("ann", completion("", choices=choices)))
    done("import", sent, got, "--to", "imported.jsonl")
    with llmcall.cassette("imported.jsonl", mode="none"), llmcall.scope("ann"):
        client = llmcall.OpenAIClient()
        answers = [client.send_message("How much?", temperature=1).content for _ in range(2)]
    assert answers == ["5", "6"]
