"""Replies, records and requests: a reply is its message, a copy is whole, and a request is frozen."""

from __future__ import annotations

import copy
import json
import pickle
from typing import Any

import pydantic
import pytest
from clients import Responding
from servers import CALLING, TOOL_CALL, completion

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
    return Responding(response, prices={"gpt-6-luna": (1, 2)}, cache_namespace=repr(messages))


def reply_of(*messages: dict[str, Any], usage: Any = None, **arguments: Any) -> Any:
    """Return the reply that a response gives."""
    return server(*messages, usage=usage).send_message("Hello", on_error="raise", **arguments)


def test_a_reply_is_its_message() -> None:
    """It is a dict with role and content, equal to a plain one; fields without a value are left out."""
    reply = reply_of(
        {
            "content": "3 coins",
            "refusal": None,
            "annotations": [],
            "audio": None,
            "tool_calls": None,
        }
    )
    plain = {"role": "assistant", "content": "3 coins"}
    assert isinstance(reply, dict)
    assert reply == plain == json.loads(json.dumps(reply))
    assert f"{reply}" == str(reply) == reply.content and repr(reply) == repr(plain)


def test_a_reply_can_be_sent_as_a_message() -> None:
    """A conversation with a reply is the same request as one with its plain message."""
    messages = [
        {"role": "user", "content": "How much?"},
        reply_of({"content": "3 coins"}),
        {"role": "user", "content": "And now?"},
    ]
    client = ScriptedClient()
    request = client.build_request(messages)
    assert request.messages[1] == {"role": "assistant", "content": "3 coins"}
    assert type(request.messages[1]) is dict
    plain = client.build_request([dict(message) for message in messages])
    assert request.cache_key == plain.cache_key


@pytest.mark.parametrize(
    ("message", "calls", "refusal"),
    [(CALLING, [TOOL_CALL], None), ({"content": None, "refusal": "I won't."}, None, "I won't.")],
)
def test_a_reply_has_its_tool_calls_or_its_refusal(message: Any, calls: Any, refusal: Any) -> None:
    """They stand in the message and in attributes; there is no text."""
    reply = reply_of(message)
    assert reply == {"role": "assistant", **message}
    assert (reply.content, reply.tool_calls, reply.refusal) == (None, calls, refusal)


PRICE: dict[str, Any] = {"type": "function", "function": {"name": "price_of", "parameters": {}}}
DETAILS = [{"type": "reasoning.encrypted", "data": "c2VjcmV0", "id": "rs_1", "index": 0}]
# As DeepSeek's guide to its thinking mode and OpenRouter's to reasoning tokens show them.
THOUGHTS: dict[str, dict[str, Any]] = {
    "DeepSeek": {"reasoning_content": "They want a price."},
    "DeepSeek without a thought": {"reasoning_content": ""},
    "OpenRouter": {"reasoning_details": DETAILS},
}


class Thinking(llmcall.LLMClient):
    """A server that thinks before it calls a tool, and refuses a history without its thoughts."""

    api_type = "thinking"

    def __init__(self, thoughts: dict[str, Any], **overrides: Any) -> None:
        super().__init__(**{"cache_mode": "auto", "on_error": "raise", **overrides})
        self.thoughts = thoughts

    def send(self, request: Any, timeout: float | None) -> dict[str, Any]:
        """Call the tool, then answer."""
        *_, before, last = [{}, *request.body["messages"]]
        if last["role"] == "user":
            return self.response({"content": None, "tool_calls": [TOOL_CALL]}, "tool_calls")
        for name, thought in self.thoughts.items():
            if before.get(name) != thought:
                raise llmcall.InvalidRequestError(f"{name} must be passed back", status_code=400)
        return self.response({"content": "3 coins"}, "stop")

    def response(self, message: dict[str, Any], reason: str) -> dict[str, Any]:
        """Return a response with the thoughts."""
        message = {"role": "assistant", **message, **self.thoughts}
        return {"choices": [{"index": 0, "message": message, "finish_reason": reason}]}


def loop_with_tools(client: Any) -> tuple[list[Any], bool]:
    """Ask, call the tool and ask again; return the messages, and whether both answers were recorded."""
    messages: list[Any] = [{"role": "user", "content": "How much?"}]
    first = client.send_message(messages, tools=[PRICE])
    messages += [first, {"role": "tool", "tool_call_id": TOOL_CALL["id"], "content": "3"}]
    second = client.send_message(messages, tools=[PRICE])
    return json.loads(json.dumps([*messages, second])), first.cached and second.cached


@pytest.mark.parametrize("thoughts", THOUGHTS.values(), ids=THOUGHTS)
def test_a_reply_to_a_call_with_tools_keeps_the_reasoning_that_the_server_wants_back(
    thoughts: dict[str, Any],
) -> None:
    """A replay gives the same messages, and asks nothing."""
    client = Thinking(thoughts)
    messages, was_cached = loop_with_tools(client)
    assert not was_cached
    assert messages[1] == {**CALLING, **thoughts}
    assert messages[3] == {"role": "assistant", "content": "3 coins", **thoughts}
    assert loop_with_tools(Thinking(thoughts, cache_mode="replay")) == (messages, True)


def test_a_reply_to_a_call_without_tools_is_its_message_alone() -> None:
    """So the keys of its conversations are those of the text; ``.raw`` has the reasoning."""
    reply = reply_of(
        {"content": "3 coins", "reasoning_content": "Hm.", "reasoning_details": DETAILS}
    )
    assert reply == {"role": "assistant", "content": "3 coins"}
    assert reply.raw["choices"][0]["message"]["reasoning_content"] == "Hm."


def test_a_thought_of_a_reply_is_its_callers_own() -> None:
    """To change it changes no record; each choice has its own."""
    message = {
        "content": None,
        "tool_calls": [TOOL_CALL],
        "reasoning_details": copy.deepcopy(DETAILS),
    }
    client = server(message, {**message, "reasoning_details": []})
    reply = client.send_message("Hello", on_error="raise", tools=[PRICE], n=2)
    assert [found["reasoning_details"] for found in reply.choices] == [DETAILS, []]
    reply["reasoning_details"].clear()
    assert reply.raw["choices"][0]["message"]["reasoning_details"] == DETAILS


def test_a_cached_reply_has_the_attributes_of_a_live_one() -> None:
    """A live one has its endpoint and latency, one of the cache has neither; all else is the same, and it costs
    what the live one did.
    """
    client = server({"content": "a"}, {"content": "b", "refusal": None}, usage=USAGE)
    live, cached = (client.send_message("Hello", n=2, on_error="raise") for _ in range(2))
    assert (live.cached, live.endpoint, live.latency >= 0) == (False, "responding", True)
    assert (cached.cached, cached.endpoint, cached.latency) == (True, None, 0.0)
    assert cached.request_id is None
    for reply in (live, cached):
        assert reply.cache_key == client.build_request("Hello", n=2).cache_key
        assert (reply.content, reply.finish_reason) == ("a", "stop")
        assert reply.model == "gpt-4o-mini-2024-07-18"
        assert (reply.sample, reply.parsed) == (None, None)
        assert reply.usage == (10, 5, 4, 3)
        assert (reply.usage.input_tokens, reply.usage.output_tokens) == (10, 5)
        assert (reply.usage.cached_tokens, reply.usage.reasoning_tokens) == (4, 3)
        assert reply.cost == pytest.approx(20e-6)
        assert [choice["content"] for choice in reply.choices] == ["a", "b"]
        assert {choice["role"] for choice in reply.choices} == {"assistant"}
        assert reply.raw["choices"][1]["index"] == 1


class Decision(pydantic.BaseModel):
    """A decision."""

    buys: bool


def test_a_changed_reply_leaves_its_response() -> None:
    """The message is the caller's, its tool calls too; recorded or not, the response stays as the
    API gave it.
    """
    for mode in ("off", "auto", "auto"):
        with llmcall.configured(cache_mode=mode):
            reply = reply_of({"content": None, "tool_calls": [TOOL_CALL]})
        reply["tool_calls"][0]["function"]["arguments"] = "changed"
        assert reply.choices[0]["tool_calls"] == [TOOL_CALL]


def pickled(reply: Any) -> Any:
    """Return what comes back of a pickled reply."""
    return pickle.loads(pickle.dumps(reply))


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, pickled])
def test_a_copy_has_the_message_and_every_attribute(copied: Any) -> None:
    """``.parsed`` too, whether the reply was copied or pickled."""
    message = {"content": '{"buys": true}', "tool_calls": [TOOL_CALL]}
    typed_reply = reply_of(message, usage=USAGE, response_format=Decision)
    other = copied(typed_reply)
    assert type(other) is type(typed_reply)
    assert other is not typed_reply
    assert other == typed_reply
    assert other.parsed == Decision(buys=True)
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
        assert getattr(other, name) == getattr(typed_reply, name)


def test_a_notebook_shows_an_answer_escaped_and_what_it_costs() -> None:
    """Live and replayed: below the answer, of which markup and invisible characters are shown as text. The reprs of a
    record and a cassette are short.
    """
    usage = {"prompt_tokens": 1200, "completion_tokens": 5}
    client = server({"content": "<b>Yes</b>\u202e" + "!" * 500}, usage=usage)
    for _ in range(2):
        with llmcall.cassette("tape.jsonl") as tape, llmcall.scope("lisa"):
            shown = client.send_message("<script>Bread?</script>")._repr_html_()  # type: ignore[union-attr]
        assert "gpt-4o-mini-2024-07-18 · 1,200 input, 5 output tokens · $0.0012" in shown
        assert "&lt;b&gt;Yes&lt;/b&gt;\\u202e" in shown
        assert "<script>" not in shown
        (found,) = tape.all_records()
        assert "Bread?" in repr(found)
        assert "!" * 200 not in repr(found) + repr(tape)


def test_a_request_cannot_be_changed_and_its_repr_shows_its_key_and_no_message() -> None:
    """Prompts do not get into logs."""
    request: Any = ScriptedClient().build_request("a secret plan", extra_headers={"X-A": "b"})
    assert request.cache_key in repr(request)
    assert "secret plan" not in repr(request)
    with pytest.raises(AttributeError):
        request.model = "other"
