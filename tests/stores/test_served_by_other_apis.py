"""Which model gave the answers of the Responses and the Messages API, when, and how they ended: as
of chats, though their requests are recorded as they are.
"""

from __future__ import annotations

import json
import re
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import commands
import pytest
from clients import http

import llmcall

URL = "https://api.example/v1"
NOW = time.time()
ASKED: dict[str, dict[str, Any]] = {
    "responses": {"model": "m", "input": "Bread?", "max_output_tokens": 20},
    "messages": {
        "model": "m",
        "messages": [{"role": "user", "content": "Bread?"}],
        "max_tokens": 20,
    },
    "models/m:generateContent": {
        "contents": [{"parts": [{"text": "Bread?"}]}],
        "generationConfig": {"maxOutputTokens": 20},
    },
}
COMPLETION = {"completions": {"model": "m", "prompt": "Bread?", "max_tokens": 20}}
RESPONSE = {
    "object": "response",
    "model": "m-2026-05-01",
    "status": "completed",
    "output": [{"type": "message", "content": [{"type": "output_text", "text": "Yes."}]}],
    "usage": {"input_tokens": 12, "output_tokens": 3},
}
MESSAGE = {
    "type": "message",
    "model": "m-2026-05-01",
    "content": [{"type": "text", "text": "Yes."}],
    "stop_reason": "end_turn",
    "usage": {"input_tokens": 12, "output_tokens": 3},
}
GEMINI = {
    "modelVersion": "m-2026-05-01",
    "candidates": [
        {"content": {"parts": [{"text": "Yes."}], "role": "model"}, "finishReason": "STOP"}
    ],
    "usageMetadata": {"promptTokenCount": 12, "candidatesTokenCount": 2, "thoughtsTokenCount": 1},
}
CUT = {**RESPONSE, "status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}}
REFUSAL = [{"type": "message", "content": [{"type": "refusal", "refusal": "I cannot."}]}]
WHOLE = {"responses": RESPONSE, "messages": MESSAGE, "models/m:generateContent": GEMINI}
EVENTS = {
    "responses": [
        {"type": "response.created", "response": {**RESPONSE, "status": "in_progress"}},
        {"type": "response.output_text.delta", "delta": "Yes."},
        {"type": "response.completed", "response": RESPONSE},
    ],
    "messages": [
        {"type": "message_start", "message": {**MESSAGE, "stop_reason": None}},
        {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "Yes."}},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}},
        {"type": "message_stop"},
    ],
    "models/m:generateContent": [
        {"candidates": [{"content": {"parts": [{"text": "Ye"}]}}], "modelVersion": "m-2026-05-01"},
        {
            **GEMINI,
            "candidates": [{"content": {"parts": [{"text": "s."}]}, "finishReason": "STOP"}],
        },
    ],
}


@pytest.fixture(autouse=True)
def one_day(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stop the clock, so that no test runs over midnight."""
    monkeypatch.setattr(time, "time", lambda: NOW)


def today() -> str:
    """Return today's day in UTC."""
    return datetime.fromtimestamp(NOW, timezone.utc).date().isoformat()


def as_events(events: list[dict[str, Any]]) -> Any:
    """Return a streamed response."""
    lines = (
        f"event: {event_data.get('type', 'x')}\ndata: {json.dumps(event_data)}\n\n"
        for event_data in events
    )
    headers = {"content-type": "text/event-stream"}
    return http.Response(200, headers=headers, content="".join(lines).encode())


def record(
    path: str,
    answer: Any,
    api: str = "responses",
    url: str = URL,
    mode: str = "once",
    input: Any = None,
    **settings: Any,
) -> dict[str, Any]:
    """Record an answer to a request, and return the cassette's header.

    :param answer: the answer's JSON, or the events of its stream.
    :param mode: the cassette's.
    :param input: what is asked in place of the question.
    """
    asked = {**ASKED, **COMPLETION}[api]
    asked = asked if input is None else {**asked, "input": input}

    def answered(_: Any) -> Any:
        return as_events(answer) if isinstance(answer, list) else http.Response(200, json=answer)

    transport = http.MockTransport(answered)
    with (
        llmcall.cassette(path, mode=mode),
        llmcall.http_client(transport=transport, prices={"m": (1.0, 10.0)}, **settings) as client,
    ):
        client.post(f"{url}/{api}", json=asked).raise_for_status()
    header: dict[str, Any] = json.loads(Path(path).read_text(encoding="utf-8").partition("\n")[0])
    return header


@pytest.mark.parametrize("answers", [WHOLE, EVENTS], ids=["whole", "streamed"])
@pytest.mark.parametrize("api", ASKED)
def test_header_frame_and_show_have_what_they_have_of_a_chat(
    api: str, answers: dict[str, Any]
) -> None:
    """The model that was asked, the one that answered and when, what it used and cost, and why it ended."""
    header = record("tape.jsonl", answers[api], api)
    days = {"first": today(), "last": today(), "hosts": ["api.example"]}
    assert header["served"] == {"m-2026-05-01": days}
    (row,) = llmcall.cassette("tape.jsonl").to_frame().to_dict("records")
    assert (row["model"], row["served"]) == ("m", "m-2026-05-01")
    assert (row["input_tokens"], row["output_tokens"]) == (12, 3)
    assert row["cost"] == pytest.approx(42e-6)
    assert (row["prompt"], row["answer"]) == ("Bread?", "Yes.")
    ends = {"responses": "completed", "messages": "end_turn"}
    assert row["finish_reason"] == ends.get(api, "STOP")
    assert row["refusal"] is None
    shown = commands.done("show", "tape.jsonl")
    assert "user\n    Bread?\n→ assistant\n    Yes.\n" in shown
    assert 'model="m"' in shown or "/models/m:generateContent" in shown
    assert "okens" in shown


def test_a_model_that_the_answer_does_not_name_is_called_as_it_was_asked_for() -> None:
    """A known path means that a model answers there."""
    assert list(record("tape.jsonl", {"output": []})["served"]) == ["m"]


def test_the_cache_knows_an_answer_of_an_api_by_its_model() -> None:
    """Where records are selected, counted and listed, as an answer of a chat."""
    record("tape.jsonl", RESPONSE)
    assert commands.cache("export", "some.jsonl", "--model", "m").startswith("1 record ")
    assert json.loads(commands.cache("stats", "--json"))["models"] == {"m": 1}
    assert [row["model"] for row in json.loads(commands.cache("ls", "--json"))] == ["m"]
    assert commands.cache("ls").splitlines()[1].split()[1] == "m"


def test_the_items_of_tools_are_shown_as_those_of_a_chat() -> None:
    """The model calls a tool, and the tool answers."""
    items = [
        {"role": "user", "content": "Buy bread."},
        CALLED,
        {"type": "function_call_output", "call_id": "c1", "output": "bought"},
    ]
    record("tape.jsonl", RESPONSE, input=items)
    shown = commands.done("show", "tape.jsonl")
    assert 'assistant\n    buy({"coins": 3})\ntool\n    bought\n' in shown


SAID = {"type": "text", "text": "Let me buy."}
BOUGHT = {"type": "tool_use", "id": "call_1", "name": "buy", "input": {"coins": 3}}
CALLED = {"type": "function_call", "name": "buy", "arguments": '{"coins": 3}'}
WITH_TOOLS: dict[str, tuple[str, Any]] = {
    "response": (
        "responses",
        {**RESPONSE, "output": [{"type": "message", "content": [SAID]}, CALLED]},
    ),
    "message": ("messages", {**MESSAGE, "content": [SAID, BOUGHT]}),
    "streamed message": (
        "messages",
        [
            {"type": "message_start", "message": {**MESSAGE, "content": []}},
            {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "Let me buy."}},
            {"type": "content_block_start", "content_block": {**BOUGHT, "input": {}}},
            *(
                {"delta": {"type": "input_json_delta", "partial_json": piece}, "type": "delta"}
                for piece in ('{"coins"', ": 3}")
            ),
            {"type": "message_stop"},
        ],
    ),
}


@pytest.mark.parametrize(("api", "answer"), WITH_TOOLS.values(), ids=WITH_TOOLS)
def test_a_tool_call_stands_below_the_text_of_the_answer(api: str, answer: Any) -> None:
    record("tape.jsonl", answer, api, cache_mode="off")
    frame = llmcall.cassette("tape.jsonl").to_frame()
    assert frame["answer"].tolist() == ['Let me buy.\nbuy({"coins": 3})']
    shown = commands.done("show", "tape.jsonl")
    assert '→ assistant\n    Let me buy.\n    buy({"coins": 3})\n' in shown


def test_a_conversation_repeats_no_message() -> None:
    """Messages of the call before, its answer too, are not shown again."""
    history = [{"role": "user", "content": "Bread?"}]
    record("tape.jsonl", RESPONSE, input=[{"role": "system", "content": "You are Lisa."}, *history])
    history += [{"role": "assistant", "content": [{"type": "output_text", "text": "Yes."}]}]
    history += [{"role": "user", "content": "Milk?"}]
    asked = [{"role": "system", "content": "You are Lisa."}, *history]
    record("tape.jsonl", RESPONSE, mode="new", input=asked)
    shown = commands.done("show", "tape.jsonl")
    assert "    … 3 messages as above\nuser\n    Milk?\n→ assistant\n    Yes.\n" in shown


def played(path: str, answer: str) -> None:
    """Record a run in which Mona hears what Lisa said, in pieces."""
    pieces = [
        {
            "type": "content_block_delta",
            "delta": {"type": "text_delta", "text": answer[at : at + 7]},
        }
        for at in range(0, len(answer), 7)
    ]
    pieces.append({"type": "message_stop"})
    answers = {"Lisa": pieces, "Mona": EVENTS["messages"]}

    def answered(request: Any) -> Any:
        return as_events(answers[json.loads(request.content)["system"]])

    transport = http.MockTransport(answered)
    with (
        llmcall.cassette(path),
        llmcall.http_client(transport=transport, cache_mode="off") as client,
    ):
        for name, heard in (("Lisa", "Bread?"), ("Mona", f"Lisa said: {answer} Bread?")):
            asked = {"model": "m", "system": name, "messages": [{"role": "user", "content": heard}]}
            with llmcall.scope(name):
                client.post(f"{URL}/messages", json=asked).raise_for_status()


def test_a_streamed_answer_that_another_hears_is_one_cause() -> None:
    """Its words are known again in the later prompt, though the stream has them in pieces."""
    played("a.jsonl", "I bake three loaves of bread for the market.")
    played("b.jsonl", "I sleep until noon, and nobody gets any bread.")
    found = llmcall.compare("a.jsonl", "b.jsonl")
    assert [
        (divergence.scope, divergence.reason, divergence.caused_by)
        for divergence in found.divergences
    ] == [
        ("Lisa", "draw", None),
        ("Mona", "prompt", ("Lisa", 0)),
    ]


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (CUT, "→ assistant, ended by max_output_tokens\n    Yes."),
        ({**RESPONSE, "output": REFUSAL}, "→ assistant\n    refuses: I cannot."),
    ],
    ids=["cut", "refused"],
)
def test_an_answer_that_was_cut_or_refused_is_shown_so(answer: Any, expected: str) -> None:
    record("tape.jsonl", answer, cache_mode="off")
    assert expected in commands.done("show", "tape.jsonl")


def with_ids(data: Any, number: int) -> Any:
    """Return an answer with what is new in each: ids and times."""
    if isinstance(data, list):
        return [with_ids(event_data, number) for event_data in data]
    if not isinstance(data, dict):
        return data
    found = {name: with_ids(value, number) for name, value in data.items()}
    if data.get("object") == "response" or data.get("type") == "message":
        found |= {"id": f"id_{number}", "created_at": number}
    if "candidates" in data:
        found["responseId"] = f"id_{number}"
    return found


@pytest.mark.parametrize("answers", [WHOLE, EVENTS], ids=["whole", "streamed"])
@pytest.mark.parametrize("api", ASKED)
def test_ids_and_times_make_no_other_answer(api: str, answers: dict[str, Any]) -> None:
    """Two recordings with the same words are the same, as of chats."""
    for number, path in enumerate(("a.jsonl", "b.jsonl")):
        record(path, with_ids(answers[api], number), api, cache_mode="off")
    assert Path("a.jsonl").read_bytes() != Path("b.jsonl").read_bytes()
    assert "1 call: 1 the same" in commands.done("diff", "a.jsonl", "b.jsonl")


def facts_of(path: str) -> dict[str, str]:
    """Return what a report says of a run on top."""
    commands.done("report", path, "-o", "report.html")
    html = Path("report.html").read_text(encoding="utf-8")
    rows = re.findall(r'<tr><th scope="row">(.*?)</th><td dir="auto">(.*?)</td>', html)
    return dict(rows) | dict(re.findall(r'"label">(.*?)</span> (.*?)</span>', html))


@pytest.mark.feature("report")
def test_a_report_counts_models_tokens_and_cost_of_other_apis() -> None:
    """They stand among the facts of the run, as those of chats."""
    record("tape.jsonl", RESPONSE)
    facts = facts_of("tape.jsonl")
    assert (facts["model"], facts["answered by"]) == ("m", f"m-2026-05-01 ({today()})")
    assert (facts["tokens in"], facts["tokens out"]) == ("12", "3")
    assert facts["cost"] == "&lt;$0.0001"
    assert "failures" not in facts


ENDS = {
    "cut response": ("responses", CUT, "1 answer cut"),
    "cut message": (
        "messages",
        {**MESSAGE, "stop_reason": "max_tokens"},
        "1 answer cut",
    ),
    "refused response": ("responses", {**RESPONSE, "output": REFUSAL}, "1 answer refused"),
    "refused message": (
        "messages",
        {**MESSAGE, "stop_reason": "refusal"},
        "1 answer refused",
    ),
}


@pytest.mark.feature("report")
@pytest.mark.parametrize(("api", "answer", "counted"), ENDS.values(), ids=ENDS)
def test_answers_that_are_cut_or_refused_are_counted(
    api: str, answer: dict[str, Any], counted: str
) -> None:
    """As those of chats, whatever the API calls it."""
    record("tape.jsonl", answer, api)
    assert facts_of("tape.jsonl")["failures"] == counted


def candidate(text: str, index: int, **fields: Any) -> dict[str, Any]:
    """Return a candidate of Gemini's API, or a piece of one."""
    return {"content": {"parts": [{"text": text}]}, "index": index, **fields}


SEVERAL: dict[str, tuple[str, Any]] = {
    "completions": (
        "completions",
        {
            "choices": [
                {"index": 0, "text": "Yes.", "finish_reason": "stop"},
                {"index": 1, "text": "No", "finish_reason": "length"},
            ]
        },
    ),
    "streamed completions": (
        "completions",
        [
            {"choices": [{"index": 0, "text": "Ye"}]},
            {"choices": [{"index": 1, "text": "No", "finish_reason": "length"}]},
            {"choices": [{"index": 0, "text": "s.", "finish_reason": "stop"}]},
        ],
    ),
    "candidates": (
        "models/m:generateContent",
        {
            "candidates": [
                candidate("Yes.", 0, finishReason="STOP"),
                candidate("No", 1, finishReason="MAX_TOKENS"),
            ]
        },
    ),
    "streamed candidates": (
        "models/m:generateContent",
        [
            {"candidates": [candidate("Ye", 0), candidate("No", 1, finishReason="MAX_TOKENS")]},
            {"candidates": [candidate("s.", 0, finishReason="STOP")]},
        ],
    ),
}


@pytest.mark.feature("report")
@pytest.mark.parametrize(("api", "answer"), SEVERAL.values(), ids=SEVERAL)
def test_each_choice_of_an_answer_is_read_with_its_own_end(api: str, answer: Any) -> None:
    """As those of a chat, whole or in the pieces of a stream."""
    record("tape.jsonl", answer, api)
    (row,) = llmcall.cassette("tape.jsonl").to_frame().to_dict("records")
    assert row["answer"] == "Yes.\n\nNo"
    ends = ("stop", "length") if api == "completions" else ("STOP", "MAX_TOKENS")
    assert row["finish_reason"] == ", ".join(ends)
    assert facts_of("tape.jsonl")["failures"] == "1 answer cut"


def test_records_of_equal_answers_share_nothing_that_a_reader_may_change() -> None:
    """Each reads its own body."""
    record("tape.jsonl", WITH_TOOLS["message"][1], "messages")
    records = [next(llmcall.client("openai").cache.records()) for _ in range(2)]
    records[0].choices[0]["message"]["tool_calls"][0]["name"] = "sell"
    assert records[1].answer == 'Let me buy.\nbuy({"coins": 3})'
