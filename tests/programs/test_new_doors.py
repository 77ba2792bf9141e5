"""APIs that came later: Gemini's interactions and OpenAI's decisions, and doors that nobody knows yet.

The bodies are those of the SDKs' own types (google-genai 3.6, openai 3.57).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import openai
import pytest
from clients import http, streamed_answer
from commands import done
from files import read_records
from servers import event

import llmcall

TAPE = "tape.jsonl"
GEMINI = {"user-agent": "google-genai-sdk/3.6.1 gl-python/3.11.7"}
WEATHER = {"id": "c", "name": "weather", "arguments": {"city": "Ulm"}, "type": "function_call"}
STEPS: list[dict[str, Any]] = [
    {"type": "user_input", "content": [{"type": "text", "text": "Bread?"}]},
    {"type": "thought", "signature": "s", "summary": [{"type": "text", "text": "Hm."}]},
    {"type": "model_output", "content": [{"type": "text", "text": "One moment."}]},
    WEATHER,
    {"type": "model_output", "content": [{"type": "text", "text": "Yes, "}]},
    {"type": "model_output", "content": [{"type": "text", "text": "two."}]},
]
USAGE = {
    "total_input_tokens": 1000,
    "total_tool_use_tokens": 100,
    "total_output_tokens": 20,
    "total_thought_tokens": 3,
    "total_cached_tokens": 400,
    "total_tokens": 1123,
    "input_tokens_by_modality": [{"modality": "text", "tokens": 1000}],
}
INTERACTION = {
    "id": "v1_abc",
    "object": "interaction",
    "status": "completed",
    "model": "gemini-2.5-flash",
    "created": "2026-11-20T10:00:00Z",
    "steps": STEPS,
    "usage": USAGE,
}
ASKED = {"model": "gemini-2.5-flash", "system_instruction": "Sell.", "input": "Bread?"}


def streamed(status: str = "completed", *, ends: bool = True) -> bytes:
    """Return the same interaction as a stream, whose last event leaves the steps out."""
    events: list[dict[str, Any]] = [
        {"event_type": "interaction.created", "interaction": {"id": "v1_abc", "status": "queued"}}
    ]
    for index, step in enumerate(STEPS):
        bare = {name: value for name, value in step.items() if name not in ("content", "arguments")}
        events.append({"event_type": "step.start", "index": index, "step": bare})
        deltas = list(step.get("content", ()))
        if "arguments" in step:
            written = json.dumps(step["arguments"])
            deltas = [
                {"type": "arguments_delta", "arguments": written[:4]},
                {"type": "arguments_delta", "arguments": written[4:]},
            ]
        events += [{"event_type": "step.delta", "index": index, "delta": delta} for delta in deltas]
        events.append({"event_type": "step.stop", "index": index})
    last = {name: value for name, value in INTERACTION.items() if name != "steps"}
    if ends:
        completed = {**last, "status": status}
        events.append({"event_type": "interaction.completed", "interaction": completed})
    return b"".join(map(event, events)) + (b"data: [DONE]\n\n" if ends else b"")


def answering(*answers: Any) -> tuple[Any, list[Any]]:
    """Return a transport that gives answers in turn, and the requests that it got."""
    requests: list[Any] = []

    def answer(request: Any) -> Any:
        requests.append(request)
        given = answers[min(len(requests), len(answers)) - 1]
        return (
            streamed_answer(given) if isinstance(given, bytes) else http.Response(200, json=given)
        )

    return http.MockTransport(answer), requests


def interact(transport: Any, base: str, mode: str, **fields: Any) -> Any:
    """Ask Gemini, in a cassette, and return the response."""
    with llmcall.cassette(TAPE, mode=mode), http.Client(transport=transport) as client:
        return client.post(f"{base}/interactions", json={**ASKED, **fields}, headers=GEMINI)


def only_record() -> Any:
    (record,) = read_records(Path(TAPE))
    return record


@pytest.mark.parametrize("stream", [False, True])
def test_an_interaction_is_recorded_read_and_replayed_at_any_base_url(stream: bool) -> None:
    """Google's SDK gives "Yes, two." as the output_text of these steps."""
    transport, requests = answering(streamed() if stream else INTERACTION)
    google = "https://generativelanguage.googleapis.com/v1beta"
    recorded = interact(transport, google, "new", stream=stream, store=False)
    replayed = interact(transport, "http://proxy.example/g/v1", "none", stream=stream)
    assert len(requests) == 1
    assert replayed.content == recorded.content
    record = only_record()
    assert (record.prompt, record.model, record.served) == (
        "Bread?",
        "gemini-2.5-flash",
        "gemini-2.5-flash",
    )
    assert record.answer == 'Yes, two.\nweather({"city": "Ulm"})'
    assert record.usage == (1100, 23, 400, 3)
    # Google's price list: 0.30 a million tokens, 0.03 of the cache's, 2.50 of output with thoughts
    assert record.cost == pytest.approx((700 * 0.3 + 400 * 0.03 + 23 * 2.5) / 1e6)
    assert record.finish_reason == "completed"
    assert record.days.first == "2026-11-20"


def test_an_agents_interaction_is_recorded_without_a_model() -> None:
    """Deep Research has none; ``input`` may be contents, or steps with a tool's result."""
    transport, requests = answering({**INTERACTION, "model": None, "agent": "deep-research"})
    contents = [{"type": "text", "text": "Look "}, {"type": "text", "text": "it up."}]
    result = {"type": "function_result", "call_id": "c", "name": "weather", "result": "rain"}
    for asked in (contents, contents[0], [STEPS[0], STEPS[1], WEATHER, result]):
        body = {"model": None, "agent": "deep-research", "input": asked}
        first = interact(transport, "http://proxy.example", "new", **body)
        assert interact(transport, "http://proxy.example", "none", **body).text == first.text
    assert len(requests) == 3
    records = read_records(Path(TAPE))
    assert {(record.model, record.served) for record in records} == {("deep-research",) * 2}
    assert [record.prompt for record in records] == ["Look \nit up.", "Look ", "rain"]
    shown = done("show", TAPE)
    assert "rain" in shown and "weather(" in shown


def test_ids_of_an_interactions_tool_calls_are_no_part_of_its_key() -> None:
    """A program that makes ids of its own replays."""
    transport, requests = answering(INTERACTION)

    def turns(call: str) -> list[dict[str, Any]]:
        return [STEPS[0], {**WEATHER, "id": call}, {"type": "function_result", "call_id": call}]

    interact(transport, "http://proxy.example", "new", input=turns("a"))
    assert interact(transport, "http://proxy.example", "none", input=turns("b")).is_success
    assert len(requests) == 1


@pytest.mark.parametrize(
    "answer",
    [
        {**INTERACTION, "status": "failed"},
        {**INTERACTION, "status": "cancelled"},
        {**INTERACTION, "status": "budget_exceeded"},
        streamed("failed"),
        streamed(ends=False),
        event({"event_type": "error", "error": {"code": "500", "message": "lost"}}),
    ],
    ids=str,
)
def test_an_interaction_that_failed_or_broke_off_is_not_recorded(
    answer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLMCALL_RETRY_MAX_ATTEMPTS", "1")
    transport, _ = answering(answer)
    stream = isinstance(answer, bytes)
    with llmcall.patched(), http.Client(transport=transport) as client:
        client.post("http://proxy.example/interactions", json={**ASKED, "stream": stream})
    assert not list(llmcall.client("openai").cache.records())


QUESTIONS: list[Any] = [
    {
        "type": "choice",
        "name": "buys",
        "instructions": "Does Ann buy?",
        "choices": [{"value": "yes"}, {"value": False}],
    },
    {"type": "predicate", "name": "sad", "instructions": "Is she sad?"},
    {
        "type": "score",
        "instructions": "How hungry?",
        "levels": [{"label": "not"}, {"label": "very"}],
    },
    {"type": "predicate", "name": "secret", "instructions": "What is her PIN?"},
]
DECISION = {
    "answers": [
        {
            "type": "choice",
            "name": "buys",
            "choice": "yes",
            "confidence": 0.9,
            "probabilities": [{"value": "yes", "probability": 0.9}],
        },
        {"type": "predicate", "name": "sad", "probability": 0.25},
        {"type": "score", "name": None, "score": 0.75, "confidence": 0.5, "probabilities": []},
        {"type": "refusal", "name": "secret"},
    ],
    "model": "gpt-6-luna",
    "usage": {
        "input_tokens": 1000,
        "input_tokens_details": {"cached_tokens": 400, "cache_write_tokens": 0},
        "output_tokens": 30,
        "output_tokens_details": {"reasoning_tokens": 20},
        "total_tokens": 1030,
    },
}


def decide(transport: Any, base_url: str, mode: str, **fields: Any) -> Any:
    """Ask for decisions by OpenAI's SDK, in a cassette."""
    http_client = openai.DefaultHttpxClient(transport=transport)
    client = openai.OpenAI(api_key="k", base_url=base_url, http_client=http_client, max_retries=0)
    with llmcall.cassette(TAPE, mode=mode):
        return client.decisions.create(
            model="gpt-6-luna", input="Ann is hungry.", questions=QUESTIONS, **fields
        )


needs_decisions = pytest.mark.skipif(
    not hasattr(openai.OpenAI, "decisions"),
    reason="this openai has no decisions: pip install -U openai",
)


@needs_decisions
def test_decisions_are_recorded_and_replayed_at_any_base_url() -> None:
    """What counts is the path and the body; the answer stays as it came."""
    transport, requests = answering(DECISION)
    first = decide(transport, "https://api.openai.com/v1", "new", safety_identifier="ann")
    assert decide(transport, "http://proxy.example/x", "none", prompt_cache_key="1") == first
    assert len(requests) == 1
    record = only_record()
    assert record.kind == "http"
    assert (record.model, record.served) == ("gpt-6-luna", "gpt-6-luna")
    assert record.usage == (1000, 30, 400, 20)


STAINLESS = {"x-stainless-lang": "python"}
FERN = {"x-fern-language": "Python", "user-agent": "cohere/5.2"}
MISTRAL = {"user-agent": "mistral-client-python/2.1.0"}


def posting(path: str, body: Any, headers: dict[str, str] = STAINLESS) -> Callable[[Any], Any]:
    """Return what posts to a host that nobody knows."""
    return lambda client: client.post(f"https://gw.example{path}", json=body, headers=headers)


@pytest.mark.parametrize(
    "ask",
    [
        posting("/v3/verdicts", {"model": "m", "matter": "Bread?"}),
        posting("/v3/verdicts", {"model": "m", "matter": "Bread?", "stream": True}),
        posting("/v3/verdicts", {"model": "m"}, FERN),
        posting("/v3/verdicts", {"model": "m"}, MISTRAL),
        posting("/v3/verdicts", {"agent": "a"}, GEMINI),
        posting("/v3/verdicts", {"model": "m"}, {"x-goog-api-client": "genai/9"}),
        posting("/v1beta/interactions", ASKED, {}),
        posting("/decisions", {"model": "m", "input": "Bread?", "questions": []}, {}),
        posting("/responses", {"model": None, "input": ""}, {}),
    ],
)
def test_what_an_sdk_asks_of_a_model_does_not_leave_in_mode_none(
    ask: Callable[[Any], Any],
) -> None:
    """Whatever the door, the host and the base URL; it is recorded else, and replays."""
    transport, requests = answering({"verdict": "yes", "output": [], "status": "completed"})
    with llmcall.cassette("empty.jsonl", mode="new"):
        pass
    with (
        pytest.raises(llmcall.CacheMissError),
        llmcall.patched(),
        llmcall.cassette("empty.jsonl", mode="none"),
        http.Client(transport=transport) as client,
    ):
        ask(client)
    assert not requests
    with llmcall.cassette(TAPE), http.Client(transport=transport) as client:
        first = ask(client)
    with llmcall.cassette(TAPE, mode="none"), http.Client(transport=transport) as client:
        assert ask(client).content == first.content
    assert len(requests) == 1


@pytest.mark.parametrize(
    "ask",
    [
        posting("/v3/zones", {"name": "a"}),
        posting("/v3/zones", {"model": 3}),
        posting("/v3/zones", ["model"]),
        posting("/v3/zones", {"model": "m"}, {}),
    ],
)
def test_what_asks_no_model_of_an_unknown_host_passes(ask: Callable[[Any], Any]) -> None:
    """Other generated SDKs send the same headers."""
    transport, requests = answering({"zone": 1})
    with llmcall.patched(), http.Client(transport=transport) as client:
        ask(client)
        ask(client)
    assert len(requests) == 2
    assert not list(llmcall.client("openai").cache.records())
