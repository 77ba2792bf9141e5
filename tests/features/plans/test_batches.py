"""Batches of plans: the file that a provider gets, and its answers, read back."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from clients import Responding
from servers import completion

import llmcall
from llmcall import LLMCall, OpenAIClient
from llmcall.testing import ScriptedClient

LUNA = "gpt-6-luna"
PRICED = {"model": LUNA, "prices": {LUNA: (1.0, 10.0)}, "cache_mode": "auto"}
ROWS = [{"name": "Ann"}, {"name": "Ben"}]
USAGE = {"prompt_tokens": 1000, "completion_tokens": 100, "total_tokens": 1100}
IN, OUT = "in.jsonl", "out.jsonl"
NOVEMBER_30 = 1796040000  # 2026-11-30, 12:00 UTC


def a_client(**settings: Any) -> OpenAIClient:
    """Return a client whose requests would go nowhere."""
    return OpenAIClient(base_url="http://127.0.0.1:9/v1", **{**PRICED, **settings})


def counting(client: Any, **options: Any) -> LLMCall[int]:
    """Return a question whose answers are whole numbers."""
    user = "How many apples does {{ name }} eat?"
    return LLMCall(user=user, output_type=int, client=client, **options)


def answered(value: object, **fields: Any) -> dict[str, Any]:
    """Return the rest of a line with an answer, in the form of OpenAI's guide to batches."""
    choice = completion(json.dumps({"value": value}), usage=USAGE)
    body = {**choice, "model": LUNA, "created": NOVEMBER_30, **fields}
    return {
        "response": {"status_code": 200, "request_id": "req_1", "body": body},
        "error": None,
    }


def provider(answer: Callable[[int], Any]) -> None:
    """Play the provider: answer the lines of a batch, the last one first, as results come in any order."""
    lines = Path(IN).read_text("utf-8").splitlines()
    found = []
    for number, line in enumerate(lines):
        rest = answer(number)
        entry = {"id": f"batch_req_{number}", "custom_id": json.loads(line)["custom_id"], **rest}
        found.append(f"{json.dumps(entry)}\n")
    Path(OUT).write_text("".join(reversed(found)), "utf-8")


def test_a_batch_has_a_line_for_each_request_as_it_would_be_sent() -> None:
    plan = counting(a_client(), reasoning_effort="low", max_tokens=50).map(ROWS, dry_run=True)
    assert plan.write_batch(IN) == 2
    line = json.loads(Path(IN).read_text("utf-8").splitlines()[0])
    key = line.pop("custom_id")
    assert len(key) == 64
    schema = {
        "type": "object",
        "properties": {"value": {"type": "integer"}},
        "required": ["value"],
        "additionalProperties": False,
    }
    assert line == {
        "method": "POST",
        "url": "/v1/chat/completions",
        "body": {
            "model": LUNA,
            "messages": [{"role": "user", "content": "How many apples does Ann eat?"}],
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "int", "strict": True, "schema": schema},
            },
            "reasoning_effort": "low",
            "max_completion_tokens": 50,
        },
    }


def test_the_answers_of_a_batch_are_those_of_the_map_that_follows() -> None:
    """At half the price, on the day that they name."""
    count = counting(a_client())
    plan = count.map(ROWS, repeats=2, scope="study", dry_run=True)
    plan.write_batch(IN)
    provider(answered)
    with llmcall.track() as usage:
        assert str(plan.read_batch(OUT)) == "4 answers stored"
        with llmcall.cassette("study.jsonl") as tape:
            assert count.map(ROWS, repeats=2, scope="study") == [[0, 1], [2, 3]]
    cost = (1000 * 1.0 + 100 * 10.0) / 1e6 / 2
    assert [record.cost for record in llmcall.ResponseCache(".llmcall/cache").records()] == [
        pytest.approx(cost)
    ] * 4
    days = tape.served[LUNA]
    assert days is not None and (days.first, days.last) == ("2026-11-30", "2026-11-30")
    assert (usage.calls, usage.cached_calls, usage.cost) == (4, 4, pytest.approx(4 * cost))


def test_a_batch_of_the_responses_api_has_its_form() -> None:
    count = counting(a_client(api="responses"))
    plan = count.map(ROWS[:1], dry_run=True)
    plan.write_batch(IN)
    line = json.loads(Path(IN).read_text("utf-8"))
    assert line["url"] == "/v1/responses"
    assert line["body"]["text"]["format"]["type"] == "json_schema"
    message = {
        "type": "message",
        "role": "assistant",
        "status": "completed",
        "content": [{"type": "output_text", "text": '{"value": 3}', "annotations": []}],
    }
    body = {"id": "r", "object": "response", "status": "completed", "model": LUNA}
    response = {"status_code": 200, "body": {**body, "output": [message]}}
    provider(lambda number: {"response": response, "error": None})
    assert str(plan.read_batch(OUT)) == "1 answer stored"
    assert count.map(ROWS[:1]) == [3]


EXPIRED = {
    "response": None,
    "error": {"code": "batch_expired", "message": "This request could not be executed in time."},
}
REFUSED = {
    "response": {
        "status_code": 400,
        "body": {"error": {"message": "Too long", "code": "context_length_exceeded"}},
    },
    "error": None,
}
FILTERED = answered(1)
FILTERED["response"]["body"]["choices"][0]["finish_reason"] = "content_filter"
EMPTY = answered(1)
EMPTY["response"]["body"]["choices"][0]["message"]["content"] = ""


@pytest.mark.parametrize(
    ("rest", "reason"),
    [
        (EXPIRED, "batch_expired"),
        (REFUSED, "context_length_exceeded"),
        (FILTERED, "content_filter"),
        (EMPTY, "the answer is empty"),
        ({"response": {"status_code": 200, "body": {}}}, "an empty response"),
    ],
)
def test_a_failure_is_named_and_missing_in_the_next_plan(rest: Any, reason: str) -> None:
    count = counting(a_client())
    plan = count.map(ROWS, dry_run=True)
    plan.write_batch(IN)
    provider(lambda number: rest if number else answered(7))
    read = plan.read_batch(OUT)
    assert str(read) == f"1 answer stored, 1 failed (1 {reason})"
    assert [number for number, _ in read.skipped] == [1]
    assert count.map(ROWS, dry_run=True)[:2] == (1, 1)


def test_an_answer_that_does_not_fit_its_schema_is_not_stored() -> None:
    schema = {
        "type": "json_schema",
        "json_schema": {"name": "n", "strict": True, "schema": {"type": "integer"}},
    }
    call = LLMCall(user="{{ name }}?", client=a_client(), response_format=schema)
    plan = call.map(ROWS[:1], dry_run=True)
    plan.write_batch(IN)
    provider(answered)
    expected = "0 answers stored, 1 failed (1 the answer does not fit its response_format)"
    assert str(plan.read_batch(OUT)) == expected


def test_other_lines_are_counted_and_nothing_is_stored_twice() -> None:
    """A damaged line, a line of another plan, and a file that is read again."""
    count = counting(a_client())
    plan = count.map(ROWS, dry_run=True)
    plan.write_batch(IN)
    provider(answered)
    with open(OUT, "a", encoding="utf-8") as file:
        file.write('{"custom_id": "0", "response"\n')
        file.write(f"{json.dumps({'custom_id': 'x', **answered(9)})}\n")
    with llmcall.track() as usage:
        assert str(plan.read_batch(OUT, OUT)) == (
            "2 answers stored, 2 damaged, 2 for no request in this plan, 2 stored before"
        )
    assert (len(llmcall.ResponseCache(".llmcall/cache")), usage.calls) == (2, 2)


def test_a_batch_is_not_written_over_answers() -> None:
    """They were paid; a file of requests is made anew."""
    plan = counting(a_client()).map(ROWS, dry_run=True)
    assert [plan.write_batch(IN), plan.write_batch(IN)] == [2, 2]
    provider(answered)
    with pytest.raises(llmcall.CacheError, match="llmcall did not write it"):
        plan.write_batch(OUT)
    assert str(plan.read_batch(OUT)) == "2 answers stored"


def test_plans_that_are_added_have_the_requests_of_both() -> None:
    client = a_client()
    plans = [counting(client).map([row], dry_run=True) for row in ROWS]
    both = sum(plans)
    assert both.write_batch(IN) == 2
    provider(answered)
    assert str(both.read_batch(OUT)) == "2 answers stored"
    assert counting(client).map(ROWS) == [0, 1]


def test_an_image_travels_as_it_would_be_sent() -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}
    history = [{"role": "user", "content": [image]}, {"role": "assistant", "content": "An apple."}]
    call = LLMCall(user="{{ name }}?", history=history, client=a_client())
    call.map(ROWS[:1], dry_run=True).write_batch(IN)
    assert json.loads(Path(IN).read_text("utf-8"))["body"]["messages"][0]["content"] == [image]


def test_a_recording_does_not_call_the_answers_of_a_batch_those_of_an_earlier_run(
    caplog: pytest.LogCaptureFixture,
) -> None:
    count = counting(a_client())
    with llmcall.cassette("study.jsonl") as tape:
        plan = count.map(ROWS, scope="study", dry_run=True)
        plan.write_batch(IN)
        provider(answered)
        plan.read_batch(OUT)
        assert count.map(ROWS, scope="study") == [0, 1]
    assert (tape.asked, tape.supplied) == (2, 0)
    assert "reused from the disk cache" not in caplog.text


@pytest.mark.parametrize(("cache_mode", "cassette_mode"), [("off", "once"), ("auto", "rewrite")])
def test_a_batch_needs_a_disk_cache_that_is_read(cache_mode: str, cassette_mode: str) -> None:
    """Its answers would be paid twice."""
    count = counting(a_client(cache_mode=cache_mode))
    with llmcall.cassette("study.jsonl", mode=cassette_mode):
        plan = count.map(ROWS, dry_run=True)
    with pytest.raises(ValueError, match="from the disk cache"):
        plan.write_batch(IN)


def test_a_batch_with_too_many_requests_says_to_split_the_rows() -> None:
    """OpenAI takes 50,000."""
    names = [{"name": number} for number in range(50_001)]
    plan = LLMCall(user="{{ name }}", client=ScriptedClient(cache_mode="auto")).map(
        names, dry_run=True
    )
    with pytest.raises(ValueError, match=r"50,001 requests.*Split the rows"):
        plan.write_batch(IN)
    assert not Path(IN).exists()


def test_a_clients_own_api_has_the_form_of_chats() -> None:
    client = Responding(completion("Four."), **PRICED)
    call = LLMCall(user="{{ name }}?", client=client)
    call.map(ROWS[:1], dry_run=True).write_batch(IN)
    assert json.loads(Path(IN).read_text("utf-8"))["body"] == {
        "model": LUNA,
        "messages": [{"role": "user", "content": "Ann?"}],
        "reasoning_effort": "none",
    }
