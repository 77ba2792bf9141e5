"""The values that users hold: a reply is its message, a record and a request are plain and frozen."""

from __future__ import annotations

import copy
import json
import pickle
from typing import Any

import pytest

from llmcall.testing import ScriptedClient
from llmcall.types import Record, Reply, Request, Response, TokenUsage

TOOL_CALL = {"id": "c1", "type": "function", "function": {"name": "price_of", "arguments": '{"item": "bread"}'}}


def raw(*messages: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """Return a response as the API gives it."""
    choices = [
        {"index": i, "message": {"role": "assistant", **m}, "finish_reason": "stop"} for i, m in enumerate(messages)
    ]
    return {"id": "x", "model": "gpt-4o-mini-2024-07-18", "choices": choices, **fields}


def reply_of(*messages: dict[str, Any], **fields: Any) -> Reply:
    """Return the reply that a recorded response gives."""
    return Reply.of(Record("k" * 64, "chat", "a#0", {}, raw(*messages, **fields), 0.25))


def test_a_reply_is_its_message() -> None:
    """It is a dict with role and content, equal to a plain one, and goes where a message goes."""
    reply = reply_of({"content": "3 coins", "refusal": None, "annotations": [], "audio": None})
    assert isinstance(reply, dict)
    assert reply == {"role": "assistant", "content": "3 coins"}
    assert json.loads(json.dumps(reply)) == reply
    messages: list[Any] = [{"role": "user", "content": "How much?"}]
    messages.append(reply)
    messages.append({"role": "user", "content": "And now?"})
    client = ScriptedClient(["4"])
    request = client.build_request(messages)
    assert request.messages[1] == {"role": "assistant", "content": "3 coins"}
    assert type(request.messages[1]) is dict
    assert request.cache_key == client.build_request([dict(message) for message in messages]).cache_key
    assert bool(reply)
    assert {**reply} == dict(reply) == reply.copy()


def test_tool_calls_and_refusals_are_there_only_when_given() -> None:
    """A reply has tool_calls and refusal only where the answer has; the attributes are None otherwise."""
    plain, calling, refusing = (
        reply_of({"content": "a", "tool_calls": None}),
        reply_of({"content": None, "tool_calls": [TOOL_CALL]}),
        reply_of({"refusal": "I won't."}),
    )
    assert (list(plain), plain.tool_calls, plain.refusal) == (["role", "content"], None, None)
    assert calling == {"role": "assistant", "content": None, "tool_calls": [TOOL_CALL]}
    assert (calling.content, calling.tool_calls) == (None, [TOOL_CALL])
    assert (refusing, refusing.refusal) == ({"role": "assistant", "content": None, "refusal": "I won't."}, "I won't.")


def test_attributes() -> None:
    """What is known of an answer are attributes; the response itself is .raw."""
    usage = {
        "prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15,
        "prompt_tokens_details": {"cached_tokens": 4}, "completion_tokens_details": {"reasoning_tokens": 3},
    }  # fmt: skip
    reply = reply_of({"content": "a"}, {"content": "b", "refusal": None}, usage=usage)
    assert (reply.content, reply.finish_reason, reply.model) == ("a", "stop", "gpt-4o-mini-2024-07-18")
    assert reply.usage == TokenUsage(10, 5, 4, 3)
    assert (reply.usage.input_tokens, reply.usage.output_tokens) == (10, 5)
    assert (reply.usage.cached_tokens, reply.usage.reasoning_tokens) == (4, 3)
    assert reply.choices == [{"role": "assistant", "content": "a"}, {"role": "assistant", "content": "b"}]
    assert (reply.cached, reply.cache_key, reply.sample, reply.cost) == (True, "k" * 64, "a#0", 0.25)
    assert (reply.latency, reply.endpoint, reply.request_id, reply.parsed) == (0.0, None, None, None)
    assert reply.raw["id"] == "x"


def test_a_live_reply_knows_where_it_came_from() -> None:
    """A reply that was just made has a latency and an endpoint, a cached one has not."""
    client = ScriptedClient(["a"], cache_mode="auto")
    live, cached = (client.send_message("Hello", on_error="raise") for _ in range(2))
    assert (live.cached, live.endpoint, live.latency >= 0) == (False, "scripted", True)
    assert (cached.cached, cached.endpoint, cached.latency, cached.cache_key) == (True, None, 0.0, live.cache_key)
    assert live == cached


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        (None, TokenUsage()),
        ({}, TokenUsage()),
        ({"prompt_tokens": 0, "completion_tokens": 0}, TokenUsage(0, 0)),
        ({"prompt_tokens": 7, "total_tokens": 7}, TokenUsage(7)),
        ({"prompt_tokens": 7, "prompt_tokens_details": None, "completion_tokens_details": {}}, TokenUsage(7)),
        ({"prompt_tokens": "7", "completion_tokens": True, "prompt_tokens_details": []}, TokenUsage()),
        ("many", TokenUsage()),
        ([7], TokenUsage()),
    ],
)
def test_token_usage(usage: Any, expected: TokenUsage) -> None:
    """What a server did not report, or not as a number, is None."""
    assert TokenUsage.of({"usage": usage}) == expected
    assert TokenUsage.of({}) == TokenUsage()


def parse(text: str) -> list[str]:
    """Read an answer as words."""
    return text.split()


@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, lambda reply: pickle.loads(pickle.dumps(reply))])
def test_replies_are_copied_and_pickled_whole(again: Any) -> None:
    """A copy has the message and every attribute."""
    reply = Reply.of(
        Record("k", "chat", None, {}, raw({"content": "a b", "tool_calls": [TOOL_CALL]}), 0.5),
        cached=False, latency=1.5, endpoint="east", request_id="r1", parse=parse,
    )  # fmt: skip
    other = again(reply)
    assert type(other) is Reply
    assert other == reply
    assert other is not reply
    for name in (
        "raw",
        "cached",
        "cache_key",
        "sample",
        "cost",
        "latency",
        "endpoint",
        "request_id",
        "parsed",
        "usage",
    ):
        assert getattr(other, name) == getattr(reply, name)
    assert other.parsed == ["a", "b"]


def test_a_deep_copy_is_one() -> None:
    """Changing a deep copy changes nothing else."""
    reply = reply_of({"content": "a", "tool_calls": [copy.deepcopy(TOOL_CALL)]})
    other = copy.deepcopy(reply)
    other.raw["choices"].clear()
    other["tool_calls"][0]["id"] = "changed"
    assert reply.choices[0]["tool_calls"][0]["id"] == "c1"


def test_parsed() -> None:
    """With a pydantic model .parsed is its instance, live and cached; in a pickled reply too."""
    pydantic = pytest.importorskip("pydantic")
    decision = pydantic.create_model("Decision", buys=(bool, ...), price=(float, ...))
    client = ScriptedClient([{"buys": True, "price": 3}], cache_mode="auto")
    for _ in range(2):
        reply = client.send_message("Hello", on_error="raise", response_format=decision)
        assert reply.parsed == decision(buys=True, price=3.0)


def test_requests_are_frozen() -> None:
    """A request cannot be changed, shows no message in its repr, and tells its messages."""
    messages = [{"role": "user", "content": "a secret plan"}]
    request = ScriptedClient().build_request(messages, temperature=1, extra_headers={"X-A": "b"})
    assert isinstance(request, Request)
    with pytest.raises(AttributeError):
        request.model = "other"  # type: ignore[misc]
    assert "secret plan" not in repr(request)
    assert request.cache_key in repr(request)
    assert (request.kind, request.sample, request.headers) == ("chat", None, {"X-A": "b"})
    assert request.messages == messages
    assert "extra_headers" not in request.body
    messages[0]["content"] = "changed"
    assert request.messages[0]["content"] == "a secret plan"


def test_records_are_frozen() -> None:
    """A record's fields are those of the contract."""
    assert Record._fields == (
        "cache_key", "kind", "sample", "request", "response", "cost", "api_type", "host", "version", "stored_at",
    )  # fmt: skip
    with pytest.raises(AttributeError):
        Record("k", "chat", None, {}, {}).cost = 1.0  # type: ignore[misc]


def test_a_response_is_a_dict_with_headers() -> None:
    """A transport's response is the body, and knows its request id."""
    response = Response({"a": 1}, "r1", {"x-request-id": "r1"})
    assert (response, response.request_id, response.headers) == ({"a": 1}, "r1", {"x-request-id": "r1"})
    assert (Response({}).request_id, Response({}).headers) == (None, {})
