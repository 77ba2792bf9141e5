"""The client for users' unit tests: scripted answers, nothing sent, nothing stored unless asked."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import llmcall
from llmcall.errors import AuthenticationError, InvalidRequestError, ServiceError
from llmcall.testing import ScriptedClient

TOOL_CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}


def test_answers_in_turn() -> None:
    """Each call gets the next answer, whatever is asked, also where it repeats itself."""
    client = ScriptedClient(["one", "two", "three"])
    assert [client.send_message("Hello").content for _ in range(3)] == ["one", "two", "three"]  # type: ignore[union-attr]
    assert [request.messages[0]["content"] for request in client.requests] == ["Hello"] * 3


def test_a_function_of_the_messages() -> None:
    """A function sees the messages as they are sent."""
    client = ScriptedClient(lambda messages: f"{len(messages)}: {messages[-1]['content']}")
    history = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b"},
        {"role": "user", "content": "c"},
    ]
    assert [client.send_message(asked).content for asked in ("a", history)] == ["1: a", "3: c"]  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ("text", {"content": "text"}),
        ({"buys": True}, {"content": '{"buys": true}'}),
        ([1, 2], {"content": "[1, 2]"}),
        (3, {"content": "3"}),
        (
            {"role": "assistant", "content": None, "tool_calls": [TOOL_CALL]},
            {"content": None, "tool_calls": [TOOL_CALL]},
        ),
        ({"role": "assistant", "content": None, "refusal": "no"}, {"content": None, "refusal": "no"}),
    ],
)
def test_kinds_of_answers(answer: Any, message: dict[str, Any]) -> None:
    """A text, a message, or anything that becomes JSON."""
    reply = ScriptedClient([answer]).send_message("Hello", on_error="raise")
    assert reply == {"role": "assistant", **message}
    assert reply.finish_reason == ("tool_calls" if "tool_calls" in message else "stop")


def test_a_model_s_instance_becomes_json() -> None:
    """An instance of a pydantic model is the answer that is read as one."""
    pydantic = pytest.importorskip("pydantic")
    decision = pydantic.create_model("Decision", buys=(bool, ...))
    reply = ScriptedClient([decision(buys=True)]).send_message("Hello", on_error="raise", response_format=decision)
    assert reply.parsed == decision(buys=True)


def test_exceptions() -> None:
    """An exception is raised as the API's would be: retried, None, or raised."""
    client = ScriptedClient([ServiceError("once"), "then", AuthenticationError("no"), ZeroDivisionError("a bug")])
    assert client.send_message("a") == {"role": "assistant", "content": "then"}
    assert client.send_message("b") is None
    with pytest.raises(ZeroDivisionError):
        client.send_message("c")
    assert len(client.requests) == 4


def test_an_exhausted_script_is_a_failed_test() -> None:
    """A call too many is an AssertionError that shows it, whatever on_error says; embeddings too."""
    client = ScriptedClient(["one"])
    client.send_message("first")
    with pytest.raises(AssertionError, match=r"no answer left; request 2 was .*'second'"):
        client.send_message("second", on_error="none")
    with pytest.raises(AssertionError, match="request 3 was 'text'"):
        client.get_embedding("text")
    with pytest.raises(AssertionError, match="request 4"):
        list(client.stream_message("third"))


def test_nothing_is_stored_unless_asked() -> None:
    """By default no cache is read or made; with cache_mode it is a cache like any."""
    silent, storing = ScriptedClient(["one", "two"]), ScriptedClient(["one"], cache_mode="auto")
    assert [silent.send_message("a").cached for _ in range(2)] == [False, False]  # type: ignore[union-attr]
    assert not silent.cache.path.exists()
    assert [storing.send_message("a").cached for _ in range(2)] == [False, True]  # type: ignore[union-attr]


def test_limits_of_the_project_do_not_hold() -> None:
    """A unit test waits for no rate limit of the project; limits among the client's arguments hold."""
    limits = {"limits_requests_per_minute": 1, "limits_tokens_per_minute": 1, "limits_max_concurrent_calls": 1}
    with llmcall.configured(**limits):
        free, limited = ScriptedClient(lambda messages: "yes", deadline=30), ScriptedClient(["one"], **limits)
        unlimited = ScriptedClient(lambda messages: "yes", deadline=30, limits_requests_per_minute=None)
        replies = [client.send_message("a", on_error="raise") for client in (free, unlimited) for _ in range(3)]
    assert [reply.content for reply in replies] == ["yes"] * 6
    assert {name: getattr(limited.settings, name) for name in limits} == limits


def test_embeddings() -> None:
    """A vector answers one text, a list of vectors several; a function gets the texts."""
    assert ScriptedClient([[1, 2.5]]).get_embedding("a") == [1.0, 2.5]
    assert ScriptedClient([[[1.0], [2.0]]]).get_embedding(["a", "b"]) == [[1.0], [2.0]]
    assert ScriptedClient(lambda texts: [[float(len(text))] for text in texts]).get_embedding(["a", "bcd"]) == [
        [1.0],
        [3.0],
    ]
    assert ScriptedClient([InvalidRequestError("no")]).get_embedding("a") is None


def test_streams_come_in_words() -> None:
    """A streamed answer comes in pieces that make up the text; tool calls are in the reply."""
    client = ScriptedClient(
        ["Three coins,  please.", {"role": "assistant", "content": None, "tool_calls": [TOOL_CALL]}]
    )
    with client.stream_message("a") as stream:
        assert list(stream) == ["Three", " coins,", " ", " please."]
    assert stream.reply == {"role": "assistant", "content": "Three coins,  please."}
    with client.stream_message("b") as stream:
        assert list(stream) == []
    assert stream.reply == {"role": "assistant", "content": None, "tool_calls": [TOOL_CALL]}


def test_from_many_threads_each_answer_is_given_once() -> None:
    """Threads share the script without losing or doubling an answer; a function may block one and not the others."""
    client = ScriptedClient([str(number) for number in range(200)])
    with ThreadPoolExecutor(8) as executor:
        replies = list(executor.map(client.send_message, ["Hello"] * 200))
    assert {reply.content for reply in replies if reply} == {str(number) for number in range(200)}


def test_registered_it_takes_the_place_of_a_real_one() -> None:
    """Code that asks for llmcall.client() gets the script."""
    llmcall.register_client("openai", ScriptedClient(["scripted"]))
    assert llmcall.client().send_message("Hello") == {"role": "assistant", "content": "scripted"}


@pytest.mark.parametrize("answers", ["text"])
def test_a_text_is_no_script(answers: Any) -> None:
    """A single text would be answered letter by letter: it is a TypeError."""
    with pytest.raises(TypeError, match="list of answers"):
        ScriptedClient(answers)
