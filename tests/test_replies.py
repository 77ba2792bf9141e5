"""What users hold: a reply is its message, a copy is whole, and a request is frozen."""

from __future__ import annotations

import copy
import json
import pickle
from typing import Any

import pydantic
import pytest
from servers import CALLING, TOOL_CALL, Responding, completion

import llmcall
from llmcall.testing import ScriptedClient

USAGE = {
    "prompt_tokens": 10,
    "completion_tokens": 5,
    "total_tokens": 15,
    "prompt_tokens_details": {"cached_tokens": 4},
    "completion_tokens_details": {"reasoning_tokens": 3},
}


def server(*messages: dict[str, Any], usage: Any = None) -> Responding:
    """Return a client that answers with one response, as an API gives it."""
    choices = [
        {"index": i, "message": {"role": "assistant", **m}, "finish_reason": "stop"}
        for i, m in enumerate(messages)
    ]
    response = completion(id="x", choices=choices, usage=usage)
    return Responding(response, prices={"gpt-4o-mini": (1, 2)}, cache_namespace=repr(messages))


def reply_of(*messages: dict[str, Any], usage: Any = None, **arguments: Any) -> Any:
    """Return the reply that a response gives."""
    return server(*messages, usage=usage).send_message("Hello", on_error="raise", **arguments)


def test_a_reply_is_its_message() -> None:
    """It is a dict with role and content, equal to a plain one, and goes where a message goes."""
    reply = reply_of(
        {
            "content": "3 coins",
            "refusal": None,
            "annotations": [],
            "audio": None,
            "tool_calls": None,
        }
    )
    assert isinstance(reply, dict) and reply == {
        "role": "assistant",
        "content": "3 coins",
    } == json.loads(json.dumps(reply))
    messages = [
        {"role": "user", "content": "How much?"},
        reply,
        {"role": "user", "content": "And now?"},
    ]
    client = ScriptedClient()
    request = client.build_request(messages)
    assert (
        request.messages[1] == {"role": "assistant", "content": "3 coins"}
        and type(request.messages[1]) is dict
    )
    assert (
        request.cache_key == client.build_request([dict(message) for message in messages]).cache_key
    )
    calling, refusing = (
        reply_of({"content": None, "tool_calls": [TOOL_CALL]}),
        reply_of({"refusal": "I won't."}),
    )
    assert calling == CALLING
    assert (calling.content, calling.tool_calls, calling.refusal) == (None, [TOOL_CALL], None)
    assert refusing == {"role": "assistant", "content": None, "refusal": "I won't."}


def test_attributes() -> None:
    """What is known of an answer are attributes, live and cached; the response itself is .raw."""
    client = server({"content": "a"}, {"content": "b", "refusal": None}, usage=USAGE)
    live, cached = (client.send_message("Hello", n=2, on_error="raise") for _ in range(2))
    assert (live.cached, live.endpoint, live.latency >= 0) == (False, "responding", True)
    assert (cached.cached, cached.endpoint, cached.latency, cached.request_id) == (
        True,
        None,
        0.0,
        None,
    )
    for reply in (live, cached):
        assert (reply.content, reply.finish_reason, reply.model) == (
            "a",
            "stop",
            "gpt-4o-mini-2024-07-18",
        )
        assert reply.usage == (10, 5, 4, 3) and reply.cost == pytest.approx(20e-6)
        assert (reply.usage.input_tokens, reply.usage.output_tokens) == (10, 5)
        assert (reply.usage.cached_tokens, reply.usage.reasoning_tokens) == (4, 3)
        assert reply.choices == [
            {"role": "assistant", "content": "a"},
            {"role": "assistant", "content": "b"},
        ]
        assert (reply.sample, reply.parsed, reply.raw["choices"][1]["index"]) == (None, None, 1)
        assert reply.cache_key == client.build_request("Hello", n=2).cache_key


class Decision(pydantic.BaseModel):
    """Be a decision."""

    buys: bool


def test_each_reply_has_a_response_of_its_own() -> None:
    """Whoever changes the response of one reply changes no other reply to the same request."""
    client = server({"content": "a"})
    first, second, third = (client.send_message("Hello") for _ in range(3))
    second.raw["choices"].clear()
    assert first.raw == third.raw
    assert first.choices == third.choices == [{"role": "assistant", "content": "a"}]


def test_a_reply_survives_pickling_with_its_response() -> None:
    """A pickled reply comes back with its message and everything else about the answer."""
    client = server({"content": "a"})
    for reply in (client.send_message("Hello"), client.send_message("Hello")):
        again = pickle.loads(pickle.dumps(reply))
        assert again == reply
        assert (again.raw, again.cached) == (reply.raw, reply.cached)
        assert (again.usage, again.cache_key) == (reply.usage, reply.cache_key)


def test_a_changed_reply_leaves_its_response() -> None:
    """The message is the caller's, its tool calls too; recorded or not, the response stays as the
    API gave it.
    """
    for mode in ("off", "auto", "auto"):
        with llmcall.configured(cache_mode=mode):
            reply = reply_of({"content": None, "tool_calls": [TOOL_CALL]})
        reply["tool_calls"][0]["function"]["arguments"] = "changed"
        assert reply.choices[0]["tool_calls"] == [TOOL_CALL]


@pytest.mark.parametrize(
    "again", [copy.copy, copy.deepcopy, lambda reply: pickle.loads(pickle.dumps(reply))]
)
def test_copies(again: Any) -> None:
    """A copy, also a pickled one, has the message and every attribute, .parsed too; a deep one
    shares nothing.
    """
    message = {"content": '{"buys": true}', "tool_calls": [TOOL_CALL]}
    reply = reply_of(message, usage=USAGE, response_format=Decision)
    other = again(reply)
    assert (
        type(other) is type(reply)
        and other == reply
        and other is not reply
        and other.parsed == Decision(buys=True)
    )
    for name in (
        "raw",
        "cached",
        "cache_key",
        "sample",
        "cost",
        "latency",
        "endpoint",
        "request_id",
        "usage",
    ):
        assert getattr(other, name) == getattr(reply, name)
    if again is not copy.copy:
        other.raw["choices"].clear()
        other["tool_calls"][0]["id"] = "changed"
        assert reply.choices[0]["tool_calls"][0]["id"] == "c1"
    # by a test, which may give it a response
    made: Any = again(llmcall.Reply(role="assistant", content="Hello"))
    made.raw = {"model": "m"}
    assert (made.content, made.model) == ("Hello", "m")


def test_in_a_notebook() -> None:
    """Replies, records, cassettes and misses show what they cost, all of it escaped; reprs are
    short.
    """
    usage = {"prompt_tokens": 1200, "completion_tokens": 5}
    client = server({"content": "<b>Yes</b>\u202e" + "!" * 500}, usage=usage)
    with llmcall.cassette("tape.jsonl") as tape, llmcall.scope("lisa"):
        reply: Any = client.send_message("<script>Bread?</script>")
        html = tape._repr_html_()
        assert (
            "lisa#0" in html
            and "1 recorded" in html
            and "<script>" not in html + reply._repr_html_()
        )
    with llmcall.cassette("tape.jsonl"), llmcall.scope("lisa"):
        again: Any = client.send_message("<script>Bread?</script>")
    for shown, replayed in ((reply._repr_html_(), False), (again._repr_html_(), True)):
        assert "&lt;b&gt;Yes&lt;/b&gt;\\u202e" in shown and ("replayed" in shown) == replayed
        assert "gpt-4o-mini-2024-07-18 · 1,200 input, 5 output tokens · $0.0012" in shown
    (record,) = tape.all_records()
    assert "&lt;script&gt;Bread" in record._repr_html_() and "lisa#0" in record._repr_html_()
    assert len(repr(record)) < 200 and "Bread?" in repr(record) and len(repr(tape)) < 60
    with (
        llmcall.cassette("tape.jsonl", mode="none"),
        pytest.raises(llmcall.CacheMissError) as missed,
    ):
        client.send_message("<script>Cheese?</script>")
    shown = missed.value.miss._repr_html_()  # type: ignore[union-attr]
    assert "&lt;script&gt;Cheese?" in shown and "<script>" not in shown
    # which may name the first miss of the process
    assert shown.removesuffix("</pre>") in missed.value._repr_html_()


def test_requests() -> None:
    """A request cannot be changed, and its repr shows no message."""
    request: Any = ScriptedClient().build_request(
        "a secret plan", temperature=1, extra_headers={"X-A": "b"}
    )
    assert "extra_headers" not in request.body
    assert "secret plan" not in repr(request) and request.cache_key in repr(request)
    with pytest.raises(AttributeError):
        request.model = "other"
