"""Two wires: a chat is sent by chat completions or by the Responses API, and all else is the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from clients import needs_sdk
from pydantic import BaseModel, TypeAdapter
from pytest_httpserver import HTTPServer
from servers import Answer, ScriptedServer, completion, refusal

import llmcall
from llmcall import AzureClient, OpenAIClient

CALL = {
    "type": "function_call",
    "call_id": "c1",
    "name": "price_of",
    "arguments": '{"item": "bread"}',
}
TOOL = {
    "type": "function",
    "function": {"name": "price_of", "parameters": {"type": "object", "properties": {}}},
}
USAGE = {
    "input_tokens": 12,
    "input_tokens_details": {"cached_tokens": 2},
    "output_tokens": 3,
    "output_tokens_details": {"reasoning_tokens": 1},
    "total_tokens": 15,
}


def text_item(text: str, **fields: Any) -> dict[str, Any]:
    """Return the item of an output that says a text."""
    part = {"type": "output_text", "text": text, "annotations": [], **fields}
    return {"id": "msg_1", "type": "message", "role": "assistant", "content": [part]}


def response(*output: Any, **fields: Any) -> dict[str, Any]:
    """Return a response as OpenAI's Responses API gives it, the request repeated in it."""
    return {
        "id": "resp_1",
        "object": "response",
        "created_at": 1764000000,
        "status": "completed",
        "model": "gpt-6-luna-2026-09-01",
        "output": list(output),
        "usage": USAGE,
        "error": None,
        "instructions": None,
        "tools": [],
        "text": {"format": {"type": "text"}},
        "temperature": 1.0,
        **fields,
    }


def server_of(httpserver: HTTPServer, *answers: Any) -> ScriptedServer:
    """Return a server that gives these responses."""
    return ScriptedServer(
        httpserver,
        *(answer if isinstance(answer, Answer) else Answer(200, answer) for answer in answers),
    )


def client_at(server: ScriptedServer, **settings: Any) -> OpenAIClient:
    """Return a client that sends by the Responses API."""
    return OpenAIClient(base_url=server.base_url, **{"api": "responses", **settings})


def sent(httpserver: HTTPServer, messages: Any = "Hello", **arguments: Any) -> dict[str, Any]:
    """Return the body that a call sends."""
    server = server_of(httpserver, response(text_item("Hi")))
    client_at(server, cache_mode="off").send_message(messages, on_error="raise", **arguments)
    return server.requests[0].body


def test_a_chat_is_sent_whole_and_not_kept_by_the_server(httpserver: HTTPServer) -> None:
    """System and developer messages stay messages, and an image keeps its detail."""
    image = {"type": "image_url", "image_url": {"url": "https://x.example/a.png", "detail": "low"}}
    parts = [
        {"type": "input_text", "text": "Hello"},
        {"type": "input_image", "image_url": "https://x.example/a.png", "detail": "low"},
    ]
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "Hello"}, image]},
        {"role": "assistant", "content": "Hi"},
        {"role": "user", "content": "Again"},
    ]
    body = sent(httpserver, messages, model="my-model")
    assert (body["model"], body["store"]) == ("my-model", False)
    assert body["input"] == [
        {"type": "message", "role": "system", "content": "Be brief."},
        {"type": "message", "role": "user", "content": parts},
        {
            "type": "message",
            "role": "assistant",
            "content": [{"type": "output_text", "text": "Hi"}],
        },
        {"type": "message", "role": "user", "content": "Again"},
    ]


def test_tool_calls_and_their_results_are_items(httpserver: HTTPServer) -> None:
    """A call and its result have the same identifier."""
    called = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    messages = [
        {"role": "user", "content": "Price?"},
        {"role": "assistant", "content": None, "tool_calls": [called]},
        {"role": "tool", "tool_call_id": "c1", "content": "3"},
    ]
    assert sent(httpserver, messages)["input"][1:] == [
        {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c1", "output": "3"},
    ]


def test_parameters_have_the_names_of_the_responses_api(httpserver: HTTPServer) -> None:
    """So have tools, whose schema stays as lax as on chat completions, and the choice of one."""
    schema = {"type": "json_schema", "json_schema": {"name": "a", "schema": {}, "strict": False}}
    body = sent(
        httpserver,
        model="my-model",
        max_tokens=90,
        reasoning_effort="low",
        verbosity="low",
        response_format=schema,
        tools=[TOOL],
        tool_choice={"type": "function", "function": {"name": "price_of"}},
        logprobs=True,
        top_logprobs=2,
        temperature=0.5,
        n=1,
        presence_penalty=0,
    )
    del body["input"]
    assert body == {
        "model": "my-model",
        "store": False,
        "max_output_tokens": 90,
        "reasoning": {"effort": "low"},
        "text": {
            "verbosity": "low",
            "format": {"type": "json_schema", "name": "a", "schema": {}, "strict": False},
        },
        "tools": [{"type": "function", "strict": False, **TOOL["function"]}],
        "tool_choice": {"type": "function", "name": "price_of"},
        "include": ["message.output_text.logprobs"],
        "top_logprobs": 2,
        "temperature": 0.5,
    }


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"n": 2}, "n=2"),
        ({"stop": "x"}, "stop="),
        ({"seed": 1}, "seed=1"),
        ({"frequency_penalty": 0.5}, "frequency_penalty=0.5"),
        ({"logit_bias": {"1": 2}}, "logit_bias="),
        ({"functions": [{"name": "f"}]}, "functions="),
        (
            {"current_messages": [{"role": "user", "content": "Hello", "name": "Ann"}]},
            r"messages\[0\]\.name",
        ),
        (
            {
                "current_messages": [
                    {
                        "role": "user",
                        "content": [{"type": "input_audio", "input_audio": {"data": ""}}],
                    }
                ]
            },
            "input_audio",
        ),
    ],
)
def test_a_parameter_that_the_responses_api_lacks_is_refused_before_it_is_sent(
    httpserver: HTTPServer, arguments: dict[str, Any], named: str
) -> None:
    """The error names it and what to change, whatever ``on_error`` is."""
    server = server_of(httpserver, response(text_item("Hi")))
    asked = {"current_messages": "Hello", "model": "my-model", **arguments}
    with pytest.raises(ValueError, match=rf"{named}.*API = chat"):
        client_at(server).send_message(**asked)
    assert server.requests == []


def test_a_reply_is_read_as_that_of_a_chat(httpserver: HTTPServer) -> None:
    """Text, reason, model, usage and cost are where they are after a chat."""
    server = server_of(httpserver, response({"type": "reasoning", "summary": []}, text_item("Hi")))
    client = client_at(server, prices={"gpt-6-luna": (1.0, 2.0)})
    reply = client.send_message("Hello")
    assert reply == {"role": "assistant", "content": "Hi"}
    assert (reply.finish_reason, reply.model) == ("stop", "gpt-6-luna-2026-09-01")
    assert reply.usage == llmcall.types.TokenUsage(12, 3, 2, 1)
    assert reply.cost == pytest.approx(18e-6)
    assert server.requests[0].path == "/v1/responses"


TOKEN = {"token": "Hi", "logprob": -0.1, "top_logprobs": []}
CALLED = {"name": "price_of", "arguments": '{"item": "bread"}'}


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        (
            response(CALL),
            {
                "tool_calls": [{"id": "c1", "type": "function", "function": CALLED}],
                "finish_reason": "tool_calls",
            },
        ),
        (
            response({"type": "message", "content": [{"type": "refusal", "refusal": "I cannot."}]}),
            {"content": None, "refusal": "I cannot."},
        ),
        (response(text_item("Hi", logprobs=[TOKEN])), {"logprobs": {"content": [TOKEN]}}),
        (
            response(
                text_item("Once upon"),
                status="incomplete",
                incomplete_details={"reason": "max_output_tokens"},
            ),
            {"content": "Once upon", "finish_reason": "length"},
        ),
    ],
    ids=["tool call", "refusal", "log probabilities", "cut"],
)
def test_what_a_reply_has_stands_where_a_chats_stands(
    answer: Any, found: dict[str, Any], httpserver: HTTPServer
) -> None:
    reply = client_at(server_of(httpserver, answer)).send_message(
        "Price?", model="my-model", tools=[TOOL], logprobs=True, max_tokens=20, on_error="raise"
    )
    assert {name: getattr(reply, name) for name in found} == found


def test_a_type_is_read_from_the_answer(httpserver: HTTPServer) -> None:
    """Its schema is the text's format."""

    class Price(BaseModel):
        coins: int

    server = server_of(httpserver, response(text_item('{"coins": 3}')))
    reply = client_at(server).send_message("Price?", response_format=Price)
    assert reply.parsed == Price(coins=3)
    assert server.requests[0].body["text"]["format"]["name"] == "Price"


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (
            response(
                text_item("No"),
                status="incomplete",
                incomplete_details={"reason": "content_filter"},
            ),
            llmcall.ContentFilterError,
        ),
        (response({"type": "reasoning", "summary": []}), llmcall.EmptyAnswerError),
        (response(status="cancelled"), llmcall.ServiceError),
        ({"hello": 1}, llmcall.ServiceError),
        (refusal(400, code="context_length_exceeded"), llmcall.ContextLengthError),
    ],
)
def test_failures_are_those_of_a_chat(
    httpserver: HTTPServer, answer: Any, error: type[Exception]
) -> None:
    """Nothing is stored."""
    client = client_at(server_of(httpserver, answer), retry_max_attempts=1)
    with pytest.raises(error):
        client.send_message("Hello", on_error="raise")
    assert len(client.cache) == 0


def test_a_parameter_that_the_api_does_not_support_is_dropped(httpserver: HTTPServer) -> None:
    """It is named by this API's name."""
    no = refusal(400, code="unsupported_parameter", param="reasoning.effort")
    server = server_of(httpserver, no, response(text_item("Hi")))
    reply = client_at(server).send_message("Hello", model="my-model", reasoning_effort="low")
    assert reply.content == "Hi"
    assert ["reasoning" in seen.body for seen in server.requests] == [True, False]


def test_the_record_is_the_apis_own_without_what_repeats_the_request(
    httpserver: HTTPServer,
) -> None:
    """The reply's ``raw`` is recorded."""
    client = client_at(server_of(httpserver, response(text_item("Hi"))))
    reply = client.send_message("Hello")
    (record,) = client.cache.records()
    assert record.response == reply.raw
    assert record.response["output"] == [text_item("Hi")]
    assert record.response.keys() & {"instructions", "tools", "text", "temperature"} == set()
    assert (record.answer, record.finish_reason, record.served) == (
        "Hi",
        "stop",
        "gpt-6-luna-2026-09-01",
    )


@pytest.mark.parametrize(
    ("one", "other", "arguments"),
    [("chat", "responses", {"seed": 1}), ("responses", "chat", {})],
)
def test_an_answer_recorded_by_one_wire_serves_the_other(
    httpserver: HTTPServer, tmp_path: Path, one: str, other: str, arguments: dict[str, Any]
) -> None:
    """The wire is no part of the key. Nothing is sent, so what it has no place for is not refused."""
    answers = {"chat": completion("Hi"), "responses": response(text_item("Hi"))}
    server = server_of(httpserver, answers[one])
    path = tmp_path / "tape.jsonl"
    with llmcall.cassette(path):
        client_at(server, api=one, cache_mode="off").send_message("Hello", **arguments)
    with llmcall.cassette(path, mode="none"):
        reply = client_at(server, api=other).send_message("Hello", stop=[], **arguments)
    assert (reply.content, reply.cached, len(server.requests)) == ("Hi", True, 1)


def test_a_cassette_holds_no_time_and_no_identifier_of_a_response(
    httpserver: HTTPServer, tmp_path: Path
) -> None:
    """Recording twice gives the same bytes."""
    path = tmp_path / "tape.jsonl"
    with llmcall.cassette(path):
        client_at(server_of(httpserver, response(text_item("Hi"), CALL))).send_message("Hello")
    (line,) = [json.loads(text) for text in path.read_text().splitlines() if '"request"' in text]
    assert "created_at" not in line["response"] and "id" not in line["response"]
    assert "id" not in line["response"]["output"][0]
    assert line["response"]["output"][1]["call_id"] == "c1"


def events(*data: dict[str, Any]) -> Answer:
    """Return a stream of events as the API sends them."""
    text = "".join(
        f"event: {event_data['type']}\ndata: {json.dumps(event_data)}\n\n" for event_data in data
    )
    text += "data: [DONE]\n\n"  # as some servers end it, whole or not
    return Answer(200, text, {"Content-Type": "text/event-stream"})


WHOLE = response(text_item("Two coins"))
STREAMED = (
    {"type": "response.created", "response": response(status="in_progress")},
    {"type": "response.output_text.delta", "delta": "Two"},
    {"type": "response.output_text.delta", "delta": " coins"},
    {"type": "response.completed", "response": WHOLE},
)


@pytest.mark.parametrize("answer", [events(*STREAMED), WHOLE], ids=["events", "in one piece"])
def test_a_stream_is_the_same_record_as_the_unstreamed_call(
    httpserver: HTTPServer, answer: Any
) -> None:
    """Its text comes in pieces, and its record is the whole response."""
    server = server_of(httpserver, answer)
    client = client_at(server)
    with client.stream_message("Price?") as stream:
        text = "".join(stream)
    assert text == "Two coins"
    assert stream.reply.usage.output_tokens == 3
    assert server.requests[0].body["stream"] is True
    again = client.send_message("Price?")
    assert (again.content, again.cached, again.raw["output"]) == (
        "Two coins",
        True,
        [text_item(text)],
    )
    assert "".join(client.stream_message("Price?")) == "Two coins"


def test_a_stream_that_breaks_off_is_an_error_and_is_not_stored(httpserver: HTTPServer) -> None:
    client = client_at(server_of(httpserver, events(*STREAMED[:3])), retry_max_attempts=1)
    with (
        pytest.raises(llmcall.ServiceError),
        client.stream_message("Price?", on_error="raise") as stream,
    ):
        list(stream)
    assert len(client.cache) == 0


@pytest.mark.parametrize(
    ("code", "error", "attempts"),
    [
        ("rate_limit_exceeded", llmcall.RateLimitError, 2),
        ("insufficient_quota", llmcall.QuotaExceededError, 1),
        ("invalid_image_url", llmcall.InvalidRequestError, 1),
        ("image_content_policy_violation", llmcall.ContentFilterError, 1),
        ("server_error", llmcall.ServiceError, 2),
        ("of_tomorrow", llmcall.ServiceError, 2),
    ],
)
@pytest.mark.parametrize("how", ["whole", "streamed", "error event"])
def test_a_failure_with_the_status_200_is_the_one_that_its_code_names(
    httpserver: HTTPServer, code: str, error: type[Exception], attempts: int, how: str
) -> None:
    """It is tried again only where another attempt may help."""
    failed = response(status="failed", error={"code": code, "message": "no"})
    answers = {
        "whole": failed,
        "streamed": events({"type": "response.failed", "response": failed}),
        "error event": events({"type": "error", "code": code, "message": "no"}),
    }
    server = server_of(httpserver, answers[how])
    client = client_at(server, retry_max_attempts=2, retry_waiting_time=0)
    with pytest.raises(llmcall.APIError) as raised:
        if how == "whole":
            client.send_message("Price?", on_error="raise")
        else:
            list(client.stream_message("Price?", on_error="raise"))
    assert (type(raised.value), len(server.requests)) == (error, attempts)
    assert len(client.cache) == 0


GPT_6 = {"model": "gpt-6-sol", "tools": [TOOL]}
# Of the type ResponsesModel of openai 3.57, and of OpenAI's pages of its models.
ONLY_ON_RESPONSES = (
    *(
        "o1-pro",
        "o1-pro-2025-03-19",
        "o3-pro",
        "o3-deep-research-2025-06-26",
        "o4-mini-deep-research",
    ),
    *("gpt-5-pro-2025-10-06", "gpt-5-codex", "gpt-5.1-codex-max", "gpt-5.5-pro-2026-04-23"),
    *("codex-mini-latest", "computer-use-preview-2025-03-11", "openai/o3-pro"),
)
RELATIVES = ("o1", "o3", "o4-mini", "gpt-5", "gpt-5-mini", "gpt-5.1", "codex")
CHAT, RESPONSES = "/v1/chat/completions", "/v1/responses"


@pytest.mark.parametrize(
    ("section", "arguments", "path"),
    [
        ("", {"model": "gpt-6-sol"}, CHAT),
        ("", GPT_6, RESPONSES),
        ("", {**GPT_6, "reasoning_effort": "none"}, CHAT),
        ("", {**GPT_6, "model": "my-model"}, CHAT),
        ("TOOLS_ON_RESPONSES = yes", {**GPT_6, "model": "my-model"}, RESPONSES),
        ("ONLY_ON_RESPONSES = yes", {"model": "my-model"}, RESPONSES),
        *(("", {"model": model}, RESPONSES) for model in ONLY_ON_RESPONSES),
        *(("", {"model": model}, CHAT) for model in RELATIVES),
    ],
)
def test_auto_takes_responses_only_where_chat_cannot_do_what_is_asked(
    httpserver: HTTPServer, section: str, arguments: dict[str, Any], path: str
) -> None:
    """GPT-6 calls tools while it reasons on the Responses API only, and some models are served by it alone; a
    section of config.ini says so of others.
    """
    Path("config.ini").write_text(f"[Model my-model]\n{section}\n" if section else "")
    server = server_of(httpserver, {**completion("Hi"), **response(text_item("Hi"))})
    client = OpenAIClient(base_url=server.base_url)
    assert client.send_message("Hello", on_error="raise", **arguments).content == "Hi"
    assert [seen.path for seen in server.requests] == [path]


@pytest.mark.parametrize(("asked", "limit"), [(1, 16), (15, 16), (16, 16), (17, 17)])
def test_the_responses_api_gets_its_least_limit_of_tokens_and_the_key_the_one_that_was_asked(
    httpserver: HTTPServer, asked: int, limit: int
) -> None:
    server = server_of(httpserver, response(text_item("Hi")), completion("Hi"))
    client = client_at(server)
    request = client.build_request("Hello", max_tokens=asked)
    assert client.send_message("Hello", max_tokens=asked).cache_key == request.cache_key
    assert server.requests[0].body["max_output_tokens"] == limit
    assert request.hashed["max_tokens"] == asked
    by_chat = client_at(server, api="chat")
    assert by_chat.send_message("Hello", max_tokens=asked).cached


CUSTOM_TOOL = {
    "type": "custom",
    "custom": {
        "name": "run",
        "format": {"type": "grammar", "grammar": {"syntax": "regex", "definition": "a+"}},
    },
}


@needs_sdk(1, 99)  # their types
def test_a_custom_tool_goes_to_the_responses_api_with_its_calls_and_results(
    httpserver: HTTPServer,
) -> None:
    """Each result is an item of the call's type; the SDK's types say which fields each has."""
    messages = [
        {"role": "user", "content": "Run it."},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {"id": "c1", "type": "custom", "custom": {"name": "run", "input": "aa"}},
                {"id": "c2", "type": "function", "function": {"name": "f", "arguments": "{}"}},
            ],
        },
        {"role": "tool", "tool_call_id": "c2", "content": "two"},
        {"role": "tool", "tool_call_id": "c1", "content": "one"},
    ]
    body = sent(
        httpserver,
        messages,
        tools=[CUSTOM_TOOL],
        tool_choice={"type": "custom", "custom": {"name": "run"}},
    )
    _, custom_call, call, result, custom_result = body["input"]
    expected: dict[str, Any] = {
        "ResponseCustomToolCallParam": custom_call,
        "ResponseFunctionToolCallParam": call,
        "FunctionCallOutput": result,
        "ResponseCustomToolCallOutputParam": custom_result,
    }
    from openai.types.responses import response_input_item_param

    for name, item in expected.items():
        item_type = getattr(response_input_item_param, name)
        TypeAdapter(item_type).validate_python(item)
    assert (custom_result["call_id"], custom_result["output"]) == ("c1", "one")
    assert (result["call_id"], result["output"]) == ("c2", "two")
    assert body["tool_choice"] == {"type": "custom", "name": "run"}
    [tool] = body["tools"]
    assert tool == {
        "type": "custom",
        "name": "run",
        "format": {"type": "grammar", "syntax": "regex", "definition": "a+"},
    }


def test_azure_has_the_responses_api(httpserver: HTTPServer) -> None:
    """The body's model is the deployment."""
    server = server_of(httpserver, response(text_item("Hi")))
    endpoint = server.base_url.removesuffix("/v1")
    azure = llmcall.types.Endpoint(
        "east",
        models=("gpt-6-luna",),
        azure_endpoint=endpoint,
        deployment="luna-east",
        azure_api_version="2026-03-01",
        api_key="k",
        api_type="azure",
    )
    with llmcall.configured(endpoints=[azure], api="responses", model="gpt-6-luna"):
        reply = AzureClient().send_message("Hello", on_error="raise")
    assert reply.content == "Hi"
    assert server.requests[0].path == "/openai/responses?api-version=2026-03-01"
    assert server.requests[0].body["model"] == "luna-east"


def test_a_programs_sdk_reads_an_answer_recorded_by_responses(httpserver: HTTPServer) -> None:
    """The program asks by chat completions, and gets their shape."""
    import openai

    server = server_of(httpserver, response(text_item("Hi")))
    messages = [{"role": "user", "content": "Hello"}]
    client_at(server).send_message(messages, model="my-model")
    program = openai.OpenAI(
        base_url=server.base_url, api_key="k", http_client=llmcall.http_client()
    )
    with program:
        answer = program.chat.completions.create(model="my-model", messages=messages)
    assert answer.choices[0].message.content == "Hi"
    assert len(server.requests) == 1
