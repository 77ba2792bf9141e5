"""Asking a model from end to end, over HTTP: the reply, what is stored, and what becomes of a failure."""

from __future__ import annotations

import copy
import json
import logging
import math
import re
from typing import Any

import pytest
from pytest_httpserver import HTTPServer
from servers import OK, QUESTION, Answer, ScriptedServer, client_for, completion, embeddings, refusal

import llmcall
from llmcall import (
    AuthenticationError,
    CacheMissError,
    ConfigError,
    InvalidRequestError,
    OpenAIClient,
    RateLimitError,
    ServiceError,
)

UNSUPPORTED = "Unsupported parameter: '{}' is not supported with this model."
TOOL_CALL = {"id": "c1", "type": "function", "function": {"name": "price", "arguments": '{"of": "apples"}'}}


def unsupported(name: str) -> Answer:
    """Return the refusal of a parameter as OpenAI gives it."""
    return refusal(400, UNSUPPORTED.format(name), param=name, code="unsupported_parameter")


def lines(caplog: pytest.LogCaptureFixture) -> list[tuple[int, str]]:
    """Return what was logged to llmcall."""
    return [(each.levelno, each.getMessage()) for each in caplog.records if each.name == "llmcall"]


def test_the_first_example(httpserver: HTTPServer, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    """The example that everybody begins with works as it stands."""
    server = ScriptedServer(httpserver, OK)
    monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
    client = llmcall.client()
    messages = QUESTION
    response = client.send_message(current_messages=messages, max_tokens=50)
    if response:
        print(response)
    assert capsys.readouterr().out == "{'role': 'assistant', 'content': 'Two coins.'}\n"
    assert server.requests[0].body == {"model": "gpt-4o-mini", "messages": QUESTION, "max_tokens": 50}


def test_the_reply(httpserver: HTTPServer) -> None:
    """The reply is the assistant's message itself, with all that is known of the answer."""
    usage = {"prompt_tokens": 12, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 4}}
    server = ScriptedServer(httpserver, OK._replace(body=completion(usage=usage)))
    with client_for(server.base_url, prices={"gpt-4o-mini": (0.15, 0.60)}) as client:
        reply = client.send_message(QUESTION, on_error="raise")
    assert reply == {"role": "assistant", "content": "Two coins."}
    assert json.loads(json.dumps(reply)) == reply
    assert (reply.content, reply.finish_reason, reply.tool_calls, reply.refusal) == ("Two coins.", "stop", None, None)
    assert (reply.model, reply.endpoint, reply.request_id) == ("gpt-4o-mini-2024-07-18", "127.0.0.1", "req-ok")
    assert (reply.cached, reply.sample, reply.latency > 0) == (False, None, True)
    assert reply.usage == (12, 3, 4, None)
    assert reply.cost == pytest.approx((12 * 0.15 + 3 * 0.60) / 1e6)
    assert reply.raw == completion(usage=usage)
    assert reply.cache_key == client.build_request(QUESTION).cache_key


def test_the_second_time(httpserver: HTTPServer) -> None:
    """The same question is answered from the cache, by another client too, as a copy that may be changed."""
    server = ScriptedServer(httpserver, OK)
    with client_for(server.base_url) as client:
        first = client.send_message(QUESTION, on_error="raise")
    with client_for(server.base_url) as client:
        again = client.send_message(QUESTION, on_error="raise")
        again.raw["choices"].clear()
        once_more = client.send_message(QUESTION, on_error="raise")
    assert first == again == once_more
    assert (again.cached, again.endpoint, again.request_id, again.latency) == (True, None, None, 0.0)
    assert once_more.raw == completion()
    assert len(server.requests) == 1
    assert (client.usage.calls, client.usage.cached_calls) == (0, 2)


def test_the_messages_are_not_changed(httpserver: HTTPServer) -> None:
    """What is given stays as it was, indentation included, and the reply can be appended to it."""
    server = ScriptedServer(httpserver, OK)
    messages = [{"role": "system", "content": "\n    Be short.\n"}, *copy.deepcopy(QUESTION)]
    before = copy.deepcopy(messages)
    with client_for(server.base_url) as client:
        reply = client.send_message(messages, dedent_messages=True, on_error="raise")
        assert messages == before
        messages.append(reply)
        client.send_message(messages, on_error="raise")
    assert server.requests[0].body["messages"][0]["content"] == "\nBe short.\n"
    assert server.requests[1].body["messages"] == [*before, {"role": "assistant", "content": "Two coins."}]


def test_one_string(httpserver: HTTPServer) -> None:
    """One string is one user message, with the same record."""
    server = ScriptedServer(httpserver, OK)
    with client_for(server.base_url) as client:
        assert not client.send_message(QUESTION, on_error="raise").cached
        assert client.send_message(QUESTION[0]["content"], on_error="raise").cached


def test_tool_calls_and_several_answers(httpserver: HTTPServer) -> None:
    """Tool calls are part of the message, and with n above 1 all messages are there."""
    response = completion(None, finish_reason="tool_calls")
    response["choices"][0]["message"]["tool_calls"] = [TOOL_CALL]
    response["choices"] += completion("Three coins.")["choices"]
    with client_for(ScriptedServer(httpserver, Answer(200, response)).base_url) as client:
        reply = client.send_message(QUESTION, n=2, on_error="raise")
    assert reply == {"role": "assistant", "content": None, "tool_calls": [TOOL_CALL]}
    assert reply.tool_calls == [TOOL_CALL]
    assert reply.choices == [reply, {"role": "assistant", "content": "Three coins."}]


def test_a_failure_is_logged_and_none(httpserver: HTTPServer, caplog: pytest.LogCaptureFixture) -> None:
    """By default a failure that remains is one error in the log and None, and the next call asks again."""
    server = ScriptedServer(httpserver, refusal(400, "no such thing"), OK)
    with client_for(server.base_url) as client:
        assert client.send_message(QUESTION) is None
        assert len(client.cache) == 0
        (level, line), *others = lines(caplog)
        assert (level, others) == (logging.ERROR, [])
        assert "400: no such thing" in line
        assert client.send_message(QUESTION) == {"role": "assistant", "content": "Two coins."}
    assert (client.usage.errors, client.usage.calls) == (1, 1)


@pytest.mark.parametrize(("configured", "given"), [("none", "raise"), ("raise", None)])
def test_a_failure_is_raised(httpserver: HTTPServer, configured: str, given: str | None) -> None:
    """A failure is raised where the call or the settings say so."""
    server = ScriptedServer(httpserver, refusal(401))
    with client_for(server.base_url, on_error=configured) as client, pytest.raises(AuthenticationError):
        client.send_message(QUESTION, on_error=given)


def test_a_failure_is_returned(httpserver: HTTPServer) -> None:
    """A failure is the result where the call says so, above the settings."""
    server = ScriptedServer(httpserver, refusal(422))
    with client_for(server.base_url, on_error="raise") as client:
        assert isinstance(client.send_message(QUESTION, on_error="return"), InvalidRequestError)


@pytest.mark.parametrize("on_error", ["none", "return", "raise"])
def test_what_is_always_raised(httpserver: HTTPServer, on_error: str) -> None:
    """A missing key, a miss in replay and a wrong argument are raised whatever is said of failures."""
    server = ScriptedServer(httpserver, OK)
    with (
        OpenAIClient(base_url="https://api.example.org/v1") as client,
        pytest.raises(ConfigError, match="OPENAI_API_KEY"),
    ):
        client.send_message(QUESTION, on_error=on_error)
    with client_for(server.base_url, cache_mode="replay") as client, pytest.raises(CacheMissError):
        client.send_message(QUESTION, on_error=on_error)
    with client_for(server.base_url) as client, pytest.raises(TypeError):
        client.send_message(QUESTION, temprature=1, on_error=on_error)
    assert server.requests == []


WRONG: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"current_messages": None}, TypeError, "messages"),
    ({"current_messages": {"role": "user", "content": "x"}}, TypeError, "messages"),
    ({"current_messages": []}, ValueError, "messages"),
    ({"current_messages": [*QUESTION, {"content": "x"}]}, ValueError, "messages[1] has no role"),
    ({"current_messages": [*QUESTION, {"role": "seller", "content": "x"}]}, ValueError, "messages[1].role"),
    ({"current_messages": [*QUESTION, {"role": "user", "content": 5}]}, TypeError, "messages[1].content"),
    ({"current_messages": [*QUESTION, {"role": "user", "content": math.nan}]}, TypeError, "messages[1].content"),
    ({"current_messages": [*QUESTION, {"role": "user", "content": b"x"}]}, TypeError, "messages[1].content"),
    ({"current_messages": [*QUESTION, {"role": "user", "content": None}]}, ValueError, "messages[1] has no content"),
    ({"current_messages": [{"role": "user", "content": "\ud800"}]}, ValueError, "messages[0].content"),
    ({"temperature": math.nan}, ValueError, "temperature"),
    ({"seed": b"1"}, TypeError, "seed"),
    ({"stop": ["x", object()]}, TypeError, "stop[1]"),
    ({"model": 4}, TypeError, "model"),
    ({"timeout": "5"}, TypeError, "timeout"),
    ({"deadline": -1}, ValueError, "deadline"),
    ({"max_attempts": 0}, ValueError, "max_attempts"),
    ({"on_error": "ignore"}, ValueError, "on_error"),
    ({"sample": 1.5}, TypeError, "sample"),
    ({"top_k": 4}, TypeError, "extra_body"),
    ({"stream": True}, TypeError, "stream_message()"),
]


@pytest.mark.parametrize(("arguments", "kind", "place"), WRONG)
def test_wrong_arguments(httpserver: HTTPServer, arguments: dict[str, Any], kind: type[Exception], place: str) -> None:
    """A wrong argument is refused by its place before any call, and takes nothing from the count of draws."""
    server = ScriptedServer(httpserver, OK)
    with client_for(server.base_url) as client, llmcall.scope("trial"):
        with pytest.raises(kind, match=re.escape(place)):
            client.send_message(**{"current_messages": QUESTION, **arguments})
        assert server.requests == []
        assert client.send_message(QUESTION, on_error="raise").sample == "trial#0"


def test_each_retry_is_one_line(httpserver: HTTPServer, caplog: pytest.LogCaptureFixture) -> None:
    """Each retry is one warning with its reason and wait, and what remains is one error."""
    server = ScriptedServer(httpserver, refusal(503, "busy"))
    with client_for(server.base_url) as client:
        client.send_message(QUESTION)
    levels, texts = zip(*lines(caplog), strict=True)
    assert levels == (logging.WARNING, logging.WARNING, logging.ERROR)
    assert all(re.search(r"ServiceError: 503: busy\); trying again in 0\.00 s$", text) for text in texts[:2])


@pytest.mark.parametrize(
    "headers", [{"retry-after-ms": "1"}, {"retry-after": "0"}, {"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}]
)
def test_the_servers_wait_is_obeyed(httpserver: HTTPServer, headers: dict[str, str]) -> None:
    """A rate limit that names its wait is tried again after it."""
    server = ScriptedServer(httpserver, refusal(429, headers=headers), OK)
    with client_for(server.base_url) as client:
        reply = client.send_message(QUESTION, on_error="raise")
    assert (reply.content, len(server.requests)) == ("Two coins.", 2)


def test_a_rate_limit_that_names_no_wait(httpserver: HTTPServer) -> None:
    """A rate limit that names no wait is tried again after ours, and raised after the attempts."""
    server = ScriptedServer(httpserver, refusal(429))
    with client_for(server.base_url) as client:
        error = client.send_message(QUESTION, on_error="return")
    assert type(error) is RateLimitError
    assert (error.attempts, error.retry_after, len(server.requests)) == (3, None, 3)


def test_a_wait_past_the_deadline(httpserver: HTTPServer) -> None:
    """A wait that would pass the deadline is not begun."""
    server = ScriptedServer(httpserver, refusal(429, headers={"retry-after": "3600"}))
    with client_for(server.base_url) as client:
        error = client.send_message(QUESTION, deadline=60, on_error="return")
    assert type(error) is RateLimitError
    assert (error.attempts, error.retry_after, len(server.requests)) == (1, 3600.0, 1)


def test_arguments_of_the_call_go_before_the_settings(httpserver: HTTPServer) -> None:
    """Attempts and waits of a call go before those of the client."""
    server = ScriptedServer(httpserver, refusal(500))
    with client_for(server.base_url, retry_waiting_time=3600, retry_max_attempts=1) as client:
        error = client.send_message(
            QUESTION, max_attempts=4, waiting_time=0, exponential_backoff_factor=1, on_error="return"
        )
    assert type(error) is ServiceError
    assert error.attempts == len(server.requests) == 4


def test_an_unsupported_parameter(httpserver: HTTPServer, caplog: pytest.LogCaptureFixture) -> None:
    """What a model does not support is dropped, said once, and the record is that of the request as asked."""
    answers = [unsupported("temperature"), unsupported("max_tokens"), OK, unsupported("temperature"), OK]
    server = ScriptedServer(httpserver, *answers)
    arguments = {"temperature": 0.5, "max_tokens": 50, "model": "my-model", "on_error": "raise"}
    with client_for(server.base_url) as client:
        reply = client.send_message(QUESTION, **arguments)
        assert reply.cache_key == client.build_request(QUESTION, **arguments).cache_key
        assert client.send_message(QUESTION, **arguments).cached
        assert len(server.requests) == 3
        client.send_message("And pears?", **arguments)
        record = next(client.cache.records())
    sent = server.requests[2].body
    assert sent == {"model": "my-model", "messages": QUESTION, "max_completion_tokens": 50}
    assert (record.request["temperature"], record.request["max_tokens"]) == (0.5, 50)
    assert len([line for _, line in lines(caplog) if "temperature" in line]) == 1


def test_past_the_cache(httpserver: HTTPServer) -> None:
    """With cache=False every call is sent, and nothing is stored."""
    server = ScriptedServer(httpserver, OK)
    with client_for(server.base_url) as client:
        replies = [client.send_message(QUESTION, cache=False, on_error="raise") for _ in range(2)]
        assert len(client.cache) == 0
    assert [reply.cached for reply in replies] == [False, False]
    assert len(server.requests) == 2


def test_embeddings_fail_alike(httpserver: HTTPServer, caplog: pytest.LogCaptureFixture) -> None:
    """A failed embedding is logged and None, raised or returned; afterwards only what is missing is asked for."""
    server = ScriptedServer(httpserver, refusal(400), refusal(400), refusal(400), Answer(200, embeddings([0.1], [0.2])))
    with client_for(server.base_url) as client:
        assert client.get_embedding(["a", "b"]) is None
        assert [level for level, _ in lines(caplog)] == [logging.ERROR]
        assert isinstance(client.get_embedding("a", on_error="return"), InvalidRequestError)
        with pytest.raises(InvalidRequestError):
            client.get_embedding("a", on_error="raise")
        assert client.get_embedding(["a", "b"]) == [[pytest.approx(0.1)], [pytest.approx(0.2)]]
        assert client.get_embedding("b") == client.get_embedding(["b"])[0]
    assert len(server.requests) == 4
