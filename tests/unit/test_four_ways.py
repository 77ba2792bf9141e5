"""Four ways of asking, one table: blocking or not, streamed or not, they agree on everything."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from servers import OK, QUESTION, Answer, Behaviour, RawServer, answers, client_for, completion, refusal
from streaming import TWO_COINS, WAYS, chunk, chunks_of, streams

import llmcall
from llmcall.errors import APIError, InvalidRequestError, RateLimitError, ServiceError
from llmcall.testing import ScriptedClient

TOOL_CALL = {"id": "c1", "type": "function", "function": {"name": "price", "arguments": "{}"}}
CALLING = {"role": "assistant", "content": None, "tool_calls": [TOOL_CALL]}
CHOICE = {"index": 0, "message": CALLING, "finish_reason": "tool_calls", "logprobs": None}


def whole(content: str | None = None, **fields: Any) -> Behaviour:
    """Send an answer as a whole."""
    return answers(Answer(200, completion(content, **fields)))


# What a scripted model answers to each attempt, and what is asked.
SCRIPTS: dict[str, tuple[list[Any], dict[str, Any]]] = {
    "a text": (["Two coins."], {}),
    "a text with parameters": (["Two coins."], {"temperature": 0.5, "max_tokens": 9, "stop": "x", "seed": 3}),
    "blanks": (["  a  b\n\n c "], {}),
    "a tool call": ([CALLING], {}),
    "a refusal": ([{"role": "assistant", "content": None, "refusal": "I won't."}], {}),
    "a sample": (["Two coins."], {"sample": 7}),
    "past the cache": (["Two coins."], {"cache": False}),
    "a second attempt": ([ServiceError("no"), RateLimitError("no", retry_after=0.0), "Two coins."], {}),
    "no attempt left": ([ServiceError("no")] * 3, {}),
    "a request refused": ([InvalidRequestError("no", status_code=400)], {}),
    "an empty answer": ([{"role": "assistant", "content": ""}], {}),
    "a bug": ([ZeroDivisionError("a bug")], {}),
}

# What a server does to each attempt, streamed or not.
SERVED: dict[str, list[tuple[Any, Any]]] = {
    "an answer": [(streams(*TWO_COINS), answers(OK))],
    "an answer cut at its limit": [
        (streams(*chunks_of("Two", finish_reason="length")), whole("Two", finish_reason="length"))
    ],
    "a filtered answer": [
        (streams(*chunks_of("I", finish_reason="content_filter")), whole("I", finish_reason="content_filter"))
    ],
    "an empty answer": [(streams(*chunks_of()), whole(""))],
    "a tool call": [
        (
            streams(chunk(None, role="assistant", tool_calls=[{"index": 0, **TOOL_CALL}]), chunk(None, "tool_calls")),
            whole(choices=[CHOICE], usage=None),
        )
    ],
    "a second attempt": [(answers(refusal(503)),) * 2, (streams(*TWO_COINS), answers(OK))],
    "refused": [(answers(refusal(400, "no such thing", code="no_such_thing")),) * 2],
    "refused by name": [(answers(refusal(404, "no such model")),) * 2],
    "a wrong key": [(answers(refusal(401, "wrong key")),) * 2],
    "too many": [(answers(refusal(429, "slow down", headers={"retry-after-ms": "1"})),) * 2],
    "the quota": [(answers(refusal(429, "pay first", code="insufficient_quota")),) * 2],
    "too long": [(answers(refusal(400, "maximum context length is 10", code="context_length_exceeded")),) * 2],
    "down": [(answers(refusal(500)),) * 2],
    "an answer sent as a whole": [(answers(OK),) * 2],
    "a tool call sent as a whole": [(whole(choices=[CHOICE]),) * 2],
    "HTML": [(answers(Answer(200, "<html>Sign in</html>")),) * 2],
    "an error with status 200": [(answers(Answer(200, {"error": {"message": "loading", "code": 503}})),) * 2],
    "too long, with status 200": [(answers(Answer(200, {"error": "exceeds the available context size"})),) * 2],
    "vLLM's error with status 200": [(answers(Answer(200, {"object": "error", "message": "no", "code": 400})),) * 2],
}  # fmt: skip


def outcome(way: str, client: llmcall.LLMClient, arguments: dict[str, Any]) -> Any:
    """Return all that a caller can tell: the reply with its attributes, or the error."""
    try:
        reply = WAYS[way](client, QUESTION, **arguments)
    except (APIError, ZeroDivisionError) as error:
        # Of a response with status 200 a stream does not know the head.
        head = ("status_code", "request_id") if getattr(error, "status_code", None) not in (None, 200) else ()
        told = {name: getattr(error, name, None) for name in (*head, "attempts", "endpoint", "code", "retry_after")}
        return type(error), str(error), told
    if reply is None:
        return None
    names = (
        "cached",
        "cache_key",
        "sample",
        "cost",
        "finish_reason",
        "model",
        "usage",
        "choices",
        "endpoint",
        "parsed",
    )
    return dict(reply), {name: getattr(reply, name) for name in names}


def recorded(client: llmcall.LLMClient) -> list[Any]:
    """Return the records of a client's cache, apart from when they were stored and what a stream does not say."""
    return [
        record.replace(stored_at=None, response={name: record.response[name] for name in ("model", "choices")})
        for record in client.cache.records()
    ]


def all_ways(make: Any, arguments: dict[str, Any]) -> list[Any]:
    """Ask twice in each way with a client of its own; return what each gave, recorded and counted."""
    found = []
    for way in WAYS:
        client = make(way)
        twice = [outcome(way, client, arguments) for _ in range(2)]
        usage = client.usage
        found.append(
            (twice, recorded(client), usage._replace(cost=round(usage.cost, 12) if usage.cost else usage.cost))
        )
    return found


@pytest.mark.parametrize("on_error", ["none", "raise"])
@pytest.mark.parametrize("name", SCRIPTS)
def test_a_scripted_model(name: str, on_error: str) -> None:
    """Reply, key, record, usage and error are the same in all four ways, and so is what a second call gets."""
    script, arguments = SCRIPTS[name]

    def make(way: str) -> ScriptedClient:
        return ScriptedClient(script * 2, cache_mode="auto", cache_path=way, retry_max_attempts=3, retry_waiting_time=0)

    found = all_ways(make, {**arguments, "on_error": on_error})
    assert found == [found[0]] * 4
    for way in WAYS:
        assert make(way).cache.verify() == []


@pytest.mark.parametrize("name", SERVED)
def test_a_server(name: str, caplog: pytest.LogCaptureFixture) -> None:
    """Over a real socket, too."""
    found = []
    for way in WAYS:
        streamed = "stream" in way
        with RawServer(*[pair[0] if streamed else pair[1] for pair in SERVED[name]]) as server:
            caplog.clear()
            client = client_for(
                server.base_url, cache_path=way, prices={"gpt-4o-mini": (1.0, 1.0)}, retry_max_attempts=2
            )
            told = outcome(way, client, {"on_error": "raise"})
            usage = client.usage
            logged = [
                (record.levelname, record.getMessage()[:60]) for record in caplog.records if record.name == "llmcall"
            ]
            found.append((told, recorded(client), usage, len(server.requests), logged))
            client.close()
    assert found == [found[0]] * 4


@pytest.mark.parametrize("recorder", WAYS)
@pytest.mark.parametrize("player", WAYS)
def test_what_one_records_another_plays(recorder: str, player: str) -> None:
    """Whichever way an answer was recorded, every way finds it, in a scope too."""
    replies = []
    for way, mode in ((recorder, "auto"), (player, "replay")):
        client = ScriptedClient(["one", "two"] if mode == "auto" else [], cache_mode=mode)
        with llmcall.scope("a"):
            replies.append([WAYS[way](client, QUESTION) for _ in range(2)])
    assert replies[0] == replies[1]
    assert [reply.sample for reply in replies[1] if reply] == ["a#0", "a#1"]
    assert all(reply is not None and reply.cached for reply in replies[1])


@pytest.mark.parametrize("way", WAYS)
def test_on_error_return(way: str) -> None:
    """The error in the reply's place where there is one; a stream, which has none, raises it."""
    client = ScriptedClient([InvalidRequestError("no")])
    if "stream" in way:
        with pytest.raises(InvalidRequestError):
            WAYS[way](client, QUESTION, on_error="return")
    else:
        assert isinstance(WAYS[way](client, QUESTION, on_error="return"), InvalidRequestError)


@pytest.mark.parametrize("way", WAYS)
def test_failures_are_logged_once(way: str, caplog: pytest.LogCaptureFixture) -> None:
    """With on_error none a failure is one line of the log, and no reply."""
    assert WAYS[way](ScriptedClient([InvalidRequestError("no such thing")]), QUESTION) is None
    errors = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert len(errors) == 1
    assert "no such thing" in errors[0]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("arguments", "kind"),
    [
        ({"temprature": 1}, TypeError), ({"timeout": 0}, ValueError),
        ({"on_error": "no"}, ValueError), ({"stream": True}, TypeError),
        ({"logit_bias": {50256: -100}}, TypeError), ({"sample": 1.5}, TypeError),
        ({"extra_body": {"a": float("inf")}}, ValueError),
    ],
)  # fmt: skip
def test_wrong_arguments(way: str, arguments: dict[str, Any], kind: type[Exception]) -> None:
    """A wrong argument is refused before anything is sent, in the same words."""
    client = ScriptedClient(["never"])
    with pytest.raises(kind) as expected:
        client.send_message(QUESTION, **arguments)
    with pytest.raises(kind) as caught:
        WAYS[way](client, QUESTION, **arguments)
    assert str(caught.value) == str(expected.value)
    assert not client.requests
