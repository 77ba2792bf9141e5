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
def test_kinds_of_answers(answer: Any, message: dict[str, Any]) -> None:
    """A text, a message, or anything that becomes JSON, an instance of a pydantic model too."""
    kind = Decision if isinstance(answer, Decision) else None
    reply = ScriptedClient([answer]).send_message("Hello", on_error="raise", response_format=kind)
    assert reply == {"role": "assistant", **message}
    assert reply.finish_reason == ("tool_calls" if "tool_calls" in message else "stop")
    assert reply.parsed == (answer if kind else None)


def test_exceptions() -> None:
    """An exception is raised as the API's would be: retried, None, or raised."""
    client = ScriptedClient(
        [ServiceError("once"), "then", AuthenticationError("no"), ZeroDivisionError("a bug")]
    )
    assert client.send_message("a") == {"role": "assistant", "content": "then"}
    assert client.send_message("b") is None
    with pytest.raises(ZeroDivisionError):
        client.send_message("c")
    assert len(client.requests) == 4


def test_an_exhausted_script_is_a_failed_test() -> None:
    """A call too many is an AssertionError that shows it, whatever on_error says; a single text is
    no script.
    """
    client = ScriptedClient([])
    with pytest.raises(AssertionError, match=r"no answer left; request 1 was .*'first'"):
        client.send_message("first", on_error="none")
    with pytest.raises(AssertionError, match="request 2 was 'text'"):
        client.get_embedding("text")
    with pytest.raises(AssertionError, match="request 3"):
        list(client.stream_message("third"))
    with pytest.raises(TypeError, match="list of answers"):
        ScriptedClient("text")


def test_limits_of_the_project_do_not_hold() -> None:
    """A unit test waits for no rate limit of the project; limits among the client's arguments hold."""
    limits = {
        "limits_requests_per_minute": 1,
        "limits_tokens_per_minute": 1,
        "limits_max_concurrent_calls": 1,
    }
    with llmcall.configured(**limits):
        free, limited = (
            ScriptedClient(lambda messages: "yes", deadline=30),
            ScriptedClient(["one"], **limits),
        )
        replies = [free.send_message("a", on_error="raise") for _ in range(3)]
    assert [reply.content for reply in replies] == ["yes"] * 3
    assert {name: getattr(limited.settings, name) for name in limits} == limits


def test_streams_come_in_words() -> None:
    """A streamed answer comes in pieces that make up the text; tool calls are in the reply."""
    client = ScriptedClient(["Three coins,  please.", CALLING])
    with client.stream_message("a") as stream:
        assert list(stream) == ["Three", " coins,", "  please."]
    assert stream.reply == {"role": "assistant", "content": "Three coins,  please."}
    with client.stream_message("b") as stream:
        assert list(stream) == []
    assert stream.reply == CALLING


def test_from_many_threads_each_answer_is_given_once() -> None:
    """Threads share the script without losing or doubling an answer, none is stored; it takes a
    real one's place.
    """
    llmcall.register_client("openai", ScriptedClient([str(number) for number in range(200)]))
    with ThreadPoolExecutor(8) as executor:
        replies = list(executor.map(llmcall.client().send_message, ["Hello"] * 200))
    assert {reply.content for reply in replies if reply} == {str(number) for number in range(200)}
