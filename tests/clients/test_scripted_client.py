"""The client for users' unit tests: scripted answers, nothing sent, nothing stored unless asked."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pydantic
import pytest
from servers import CALLING

import llmcall
from llmcall import AuthenticationError, ServiceError
from llmcall.testing import ScriptedClient


class Decision(pydantic.BaseModel):
    """Decide."""

    buys: bool


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ("text", {"content": "text"}),
        ({"buys": True}, {"content": '{"buys": true}'}),
        ([1, 2], {"content": "[1, 2]"}),
        (3, {"content": "3"}),
        (CALLING, CALLING),
        (
            {"role": "assistant", "content": None, "refusal": "no"},
            {"content": None, "refusal": "no"},
        ),
        (Decision(buys=True), {"content": '{"buys":true}'}),
    ],
)
def test_an_answer_may_be_a_text_a_message_or_anything_that_becomes_json(
    answer: Any, message: dict[str, Any]
) -> None:
    """An instance of a pydantic model too, which the reply then has as ``.parsed``."""
    kind = Decision if isinstance(answer, Decision) else None
    reply = ScriptedClient([answer]).send_message("Hello", on_error="raise", response_format=kind)
    assert reply == {"role": "assistant", **message}
    assert reply.finish_reason == ("tool_calls" if "tool_calls" in message else "stop")
    assert reply.parsed == (answer if kind else None)


def test_scripted_failures_are_those_of_an_api() -> None:
    """A failure is tried again, a refusal follows ``on_error``, and any other exception stands for a bug."""
    client = ScriptedClient(
        [ServiceError("once"), "then", *[AuthenticationError("no")] * 2, ZeroDivisionError("a bug")]
    )
    assert client.send_message("a") == {"role": "assistant", "content": "then"}
    assert len(client.requests) == 2
    assert client.send_message("a") is None
    with pytest.raises(AuthenticationError):
        client.send_message("b", on_error="raise")
    with pytest.raises(ZeroDivisionError):
        client.send_message("c", on_error="none")


def test_a_call_too_many_fails_the_test() -> None:
    """It is an AssertionError that shows the request, whatever ``on_error`` says."""
    client = ScriptedClient([])
    with pytest.raises(AssertionError, match=r"no answer left; request 1 was .*'first'"):
        client.send_message("first", on_error="none")
    with pytest.raises(AssertionError, match="request 2 was 'text'"):
        client.get_embedding("text")
    with pytest.raises(AssertionError, match="request 3"):
        list(client.stream_message("third"))


LIMITS = {
    "limits_requests_per_minute": 1,
    "limits_tokens_per_minute": 1,
    "limits_max_concurrent_calls": 1,
}


def test_limits_among_the_clients_arguments_hold() -> None:
    """They are given for the test."""
    client = ScriptedClient(["one"], **LIMITS)
    assert {name: getattr(client.settings, name) for name in LIMITS} == LIMITS


def test_a_streamed_answer_comes_in_words() -> None:
    """They make up the text; a tool call has none, and is in the reply."""
    client = ScriptedClient(["Three coins,  please.", CALLING])
    said = {"role": "assistant", "content": "Three coins,  please."}
    for words, message in ((["Three", " coins,", "  please."], said), ([], CALLING)):
        with client.stream_message("a") as stream:
            assert list(stream) == words
        assert stream.reply == message


def test_from_many_threads_each_answer_is_given_once() -> None:
    """Threads share the script without losing or doubling an answer, and none is stored."""
    client = ScriptedClient([str(number) for number in range(200)])
    with ThreadPoolExecutor(8) as executor:
        replies = list(executor.map(client.send_message, ["Hello"] * 200))
    assert {reply.content for reply in replies if reply} == {str(number) for number in range(200)}


def test_a_scripted_client_takes_a_real_ones_place() -> None:
    """Registered under its name, ``llmcall.client()`` returns it."""
    llmcall.register_client("openai", ScriptedClient(["yes"]))
    assert llmcall.client().send_message("Hello") == {"role": "assistant", "content": "yes"}
