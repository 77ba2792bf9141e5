"""One contract for the answers of all APIs: they are read, counted, compared, and refused if they broke off.

The bodies have the fields of the SDKs' own types (openai 3.57, anthropic 2.14, google-genai 3.6, cohere 7.3) and of
Ollama's documentation.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from clients import http, streamed_answer
from commands import done
from files import read_records
from servers import event

import llmcall
from llmcall.types import Record

USAGE = {"prompt_tokens": 12, "completion_tokens": 3, "total_tokens": 15}
OF_INPUT = {"input_tokens": 12, "output_tokens": 3}
CREATED = 1_780_000_000


class Api(NamedTuple):
    """An API and its answer "Yes, two.", whole and as a stream.

    :param path: of its request.
    :param body: its request.
    :param whole: returns the whole answer with an id.
    :param events: returns the events of the same answer as a stream, of which the last one ends it.
    :param is_read: whether llmcall knows its answers; others are recorded as they came.
    """

    path: str
    body: dict[str, Any]
    whole: Callable[[str], dict[str, Any]]
    events: Callable[[str], list[dict[str, Any]]]
    is_read: bool = True


def chat(identifier: str) -> dict[str, Any]:
    message = {"role": "assistant", "content": "Yes, two."}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    fields = {"id": identifier, "object": "chat.completion", "created": CREATED, "model": "m"}
    return {**fields, "choices": [choice], "usage": USAGE}


def chat_chunks(identifier: str) -> list[dict[str, Any]]:
    fields = {"id": identifier, "object": "chat.completion.chunk", "created": CREATED, "model": "m"}
    deltas = [({"role": "assistant", "content": "Yes,"}, None), ({"content": " two."}, None)]
    return [
        {**fields, "choices": [{"index": 0, "delta": delta, "finish_reason": end}], **more}
        for delta, end, more in [
            *((delta, end, {}) for delta, end in deltas),
            ({}, "stop", {"usage": USAGE}),
        ]
    ]


def completion(
    identifier: str, text: str = "Yes, two.", end: str | None = "stop"
) -> dict[str, Any]:
    choice = {"index": 0, "text": text, "finish_reason": end, "logprobs": None}
    fields = {"id": identifier, "object": "text_completion", "created": CREATED, "model": "m"}
    return {**fields, "choices": [choice], **({"usage": USAGE} if end else {})}


def response(identifier: str, status: str = "completed") -> dict[str, Any]:
    part = {"type": "output_text", "text": "Yes, two.", "annotations": []}
    item = {"type": "message", "id": f"msg_{identifier}", "role": "assistant", "content": [part]}
    fields = {"id": identifier, "object": "response", "created_at": CREATED, "model": "m"}
    return {**fields, "status": status, "output": [item], "usage": OF_INPUT}


def response_events(identifier: str) -> list[dict[str, Any]]:
    begun = {**response(identifier, "in_progress"), "output": [], "usage": None}
    delta = {"type": "response.output_text.delta", "item_id": f"msg_{identifier}"}
    return [
        {"type": "response.created", "response": begun},
        *({**delta, "delta": text} for text in ("Yes,", " two.")),
        {"type": "response.completed", "response": response(identifier)},
    ]


def message(identifier: str, end: str | None = "end_turn") -> dict[str, Any]:
    fields = {"id": identifier, "type": "message", "role": "assistant", "model": "m"}
    content = [{"type": "text", "text": "Yes, two."}] if end else []
    return {**fields, "content": content, "stop_reason": end, "usage": OF_INPUT}


def message_events(identifier: str) -> list[dict[str, Any]]:
    block = {
        "type": "content_block_start",
        "index": 0,
        "content_block": {"type": "text", "text": ""},
    }
    delta = {"type": "content_block_delta", "index": 0}
    return [
        {"type": "message_start", "message": message(identifier, None)},
        block,
        *({**delta, "delta": {"type": "text_delta", "text": text}} for text in ("Yes,", " two.")),
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": OF_INPUT},
        {"type": "message_stop"},
    ]


def gemini(identifier: str, text: str = "Yes, two.", end: str | None = "STOP") -> dict[str, Any]:
    candidate = {"content": {"role": "model", "parts": [{"text": text}]}, "index": 0}
    counts = {"promptTokenCount": 12, "candidatesTokenCount": 2, "thoughtsTokenCount": 1}
    return {
        "candidates": [{**candidate, "finishReason": end} if end else candidate],
        **({"usageMetadata": counts} if end else {}),
        "modelVersion": "m",
        "responseId": identifier,
    }


def interaction(identifier: str) -> dict[str, Any]:
    step = {"type": "model_output", "content": [{"type": "text", "text": "Yes, two."}]}
    usage = {"total_input_tokens": 12, "total_output_tokens": 3, "total_tokens": 15}
    times = {"created": "2026-11-20T10:00:00Z", "updated": f"2026-11-20T10:00:0{len(identifier)}Z"}
    fields = {"id": identifier, "object": "interaction", "status": "completed", "model": "m"}
    return {**fields, **times, "steps": [step], "usage": usage}


def interaction_events(identifier: str) -> list[dict[str, Any]]:
    begun = {"id": identifier, "status": "in_progress", "model": "m"}
    completed = {name: field for name, field in interaction(identifier).items() if name != "steps"}
    delta = {"event_type": "step.delta", "index": 0, "event_id": f"{identifier}-1"}
    return [
        {"event_type": "interaction.created", "interaction": begun},
        {"event_type": "step.start", "index": 0, "step": {"type": "model_output"}},
        *({**delta, "delta": {"type": "text", "text": text}} for text in ("Yes,", " two.")),
        {"event_type": "step.stop", "index": 0},
        {"event_type": "interaction.completed", "interaction": completed},
    ]


def ollama(identifier: str, text: str = "Yes, two.", *, is_done: bool = True) -> dict[str, Any]:
    """Its answers have no id, and times of their own."""
    created = f"2026-11-20T10:00:0{len(identifier)}.123456789Z"
    said = {"role": "assistant", "content": text}
    fields = {"model": "m", "created_at": created, "message": said, "done": is_done}
    if not is_done:
        return fields
    names = ("total_duration", "load_duration", "prompt_eval_duration", "eval_duration")
    durations = dict.fromkeys(names, len(identifier))
    counts = {"done_reason": "stop", "prompt_eval_count": 12, "eval_count": 3}
    return {**fields, **durations, **counts}


def cohere(identifier: str) -> dict[str, Any]:
    said = {"role": "assistant", "content": [{"type": "text", "text": "Yes, two."}]}
    tokens = {"billed_units": OF_INPUT, "tokens": OF_INPUT}
    return {"id": identifier, "finish_reason": "COMPLETE", "message": said, "usage": tokens}


def cohere_events(identifier: str) -> list[dict[str, Any]]:
    delta = {"type": "content-delta", "index": 0}
    return [
        {"type": "message-start", "id": identifier, "delta": {"message": {"role": "assistant"}}},
        *(
            {**delta, "delta": {"message": {"content": {"text": text}}}}
            for text in ("Yes,", " two.")
        ),
        {"type": "message-end", "id": identifier, "delta": {"finish_reason": "COMPLETE"}},
    ]


ASKED = {"model": "m", "messages": [{"role": "user", "content": "Bread?"}]}
PARTS = {"contents": [{"role": "user", "parts": [{"text": "Bread?"}]}]}
APIS = {
    "chat": Api("v1/chat/completions", ASKED, chat, chat_chunks),
    "completions": Api(
        "v1/completions",
        {"model": "m", "prompt": "Bread?"},
        completion,
        lambda name: [completion(name, "Yes,", None), completion(name, " two.")],
    ),
    "responses": Api("v1/responses", {"model": "m", "input": "Bread?"}, response, response_events),
    "messages": Api("v1/messages", {**ASKED, "max_tokens": 9}, message, message_events),
    "gemini": Api(
        "v1beta/models/m:generateContent",
        PARTS,
        gemini,
        lambda name: [gemini(name, "Yes,", None), gemini(name, " two.")],
    ),
    "interactions": Api(
        "v1beta/interactions", {"model": "m", "input": "Bread?"}, interaction, interaction_events
    ),
    "ollama": Api(
        "api/chat",
        ASKED,
        ollama,
        lambda name: [
            *(ollama(name, text, is_done=False) for text in ("Yes,", " two.")),
            ollama(name, ""),
        ],
    ),
    "cohere": Api("v2/chat", ASKED, cohere, cohere_events, is_read=False),
}
ANSWERS = [
    pytest.param(name, stream, id=f"{name}-{'stream' if stream else 'whole'}")
    for name in APIS
    for stream in (False, True)
]
each_answer = pytest.mark.parametrize(("name", "stream"), ANSWERS)
each_read_answer = pytest.mark.parametrize(
    ("name", "stream"), [answer for answer in ANSWERS if APIS[str(answer.values[0])].is_read]
)
each_read_stream = pytest.mark.parametrize("name", [name for name in APIS if APIS[name].is_read])
SDK = {"user-agent": "cohere/7.3", "x-fern-language": "Python"}  # by which unknown APIs are known


@pytest.fixture(autouse=True)
def no_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ask the server each time, once."""
    monkeypatch.setenv("LLMCALL_CACHE_MODE", "off")
    monkeypatch.setenv("LLMCALL_RETRY_MAX_ATTEMPTS", "1")


def sent(name: str, events: list[dict[str, Any]]) -> bytes:
    if name == "ollama":
        return b"".join(json.dumps(line).encode() + b"\n" for line in events)
    ends = b"data: [DONE]\n\n" if name in ("chat", "completions", "interactions") else b""
    return b"".join(map(event, events)) + ends


def ask(name: str, answer: Any, tape: str = "tape.jsonl", mode: str = "new") -> Any:
    """Post the request of an API in a cassette; the server gives an answer, or bytes as a stream."""
    api, stream = APIS[name], isinstance(answer, bytes)
    lines = ["application/x-ndjson"] if name == "ollama" else []
    given = streamed_answer(answer, *lines) if stream else http.Response(200, json=answer)
    path, body = api.path, api.body
    if name == "gemini":
        path = path.replace(":generate", ":streamGenerate") + "?alt=sse" if stream else path
    elif stream or name == "ollama":
        body = {**body, "stream": stream}
    transport = http.MockTransport(lambda request: given)
    with llmcall.cassette(tape, mode=mode), http.Client(transport=transport) as client:
        return client.post(f"https://gateway.example/{path}", json=body, headers=SDK)


def recorded(name: str, identifier: str, *, stream: bool, tape: str = "tape.jsonl") -> Record:
    api = APIS[name]
    ask(name, sent(name, api.events(identifier)) if stream else api.whole(identifier), tape)
    (record,) = read_records(Path(tape))
    return record


@each_read_answer
def test_an_answer_is_read_and_counted(name: str, stream: bool) -> None:
    record = recorded(name, "a", stream=stream)
    assert record.answer == "Yes, two."
    assert record.usage[:2] == (12, 3)
    assert record.served == "m"


@each_answer
def test_an_answer_with_another_id_is_the_same_answer(name: str, stream: bool) -> None:
    """``compare`` says so, and ``merge`` takes them."""
    recorded(name, "one", stream=stream, tape="one.jsonl")
    recorded(name, "other", stream=stream, tape="other.jsonl")
    comparison = llmcall.compare("one.jsonl", "other.jsonl")
    assert (comparison.same, comparison.changed) == (1, 0)
    done("cassette", "merge", "one.jsonl", "other.jsonl", "--to", "both.jsonl")
    assert len(read_records(Path("both.jsonl"))) == 1


@each_read_stream
def test_a_stream_is_read_as_the_whole_answer(name: str) -> None:
    whole, streamed = (
        recorded(name, "a", stream=stream, tape=f"{stream}.jsonl") for stream in (False, True)
    )
    for field in ("answer", "usage", "finish_reason", "refusal", "served"):
        assert getattr(whole, field) == getattr(streamed, field)


@each_read_stream
def test_a_stream_that_broke_off_is_not_recorded(name: str) -> None:
    """Without the event that ends the answer."""
    ends = 2 if name == "messages" else 1  # the event before the last one has the stop_reason
    events = APIS[name].events("a")[:-ends]
    ask(name, sent(name, events).removesuffix(b"data: [DONE]\n\n"))
    assert not Path("tape.jsonl").exists() or not read_records(Path("tape.jsonl"))


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("name", [name for name in APIS if APIS[name].is_read and name != "chat"])
@pytest.mark.feature("overrides")
def test_an_override_puts_its_text_into_the_recorded_answer(name: str, stream: bool) -> None:
    """All else is as it was recorded; the replay is the same, and no token counts as the model's."""
    override = llmcall.override({("run", 1): "No, \u201cthree\u201d."})
    with llmcall.configured(cache_mode="auto"):
        recorded(name, "a", stream=stream)
        with override:
            given = ask(name, b"" if stream else {}, "other.jsonl").text
    assert ask(name, b"" if stream else {}, "other.jsonl", mode="none").text == given
    (record,) = read_records(Path("other.jsonl"))
    assert (record.answer, record.served, record.usage[:2]) == (
        "No, \u201cthree\u201d.",
        None,
        (None, None),
    )
    assert not {"Yes", "two"} & {*re.findall(r"\w+", given)}


def test_an_id_that_a_model_wrote_is_part_of_its_answer() -> None:
    """In the arguments of a tool call."""
    for number, tape in enumerate(("one.jsonl", "other.jsonl")):
        call = {"type": "tool_use", "id": f"toolu_{number}", "name": "buy"}
        said = {**message(f"msg_{number}"), "content": [{**call, "input": {"id": number}}]}
        ask("messages", said, tape)
    comparison = llmcall.compare("one.jsonl", "other.jsonl")
    assert (comparison.same, comparison.changed) == (0, 1)


def test_the_latency_of_an_answer_of_converse_is_not_part_of_it() -> None:
    """Bedrock measures it; it has no id."""
    said = {"message": {"role": "assistant", "content": [{"text": "Yes, two."}]}}
    for milliseconds, tape in ((100, "one.jsonl"), (200, "other.jsonl")):
        answer = {"output": said, "stopReason": "end_turn", "metrics": {"latencyMs": milliseconds}}
        transport = http.MockTransport(lambda _, answer=answer: http.Response(200, json=answer))
        with llmcall.cassette(tape, mode="new"), http.Client(transport=transport) as client:
            client.post(
                "https://bedrock-runtime.eu-west-1.amazonaws.com/model/m/converse", json=ASKED
            )
    comparison = llmcall.compare("one.jsonl", "other.jsonl")
    assert (comparison.same, comparison.changed) == (1, 0)
