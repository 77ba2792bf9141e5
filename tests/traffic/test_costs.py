"""Costs of answers, by the whole usage that they report.

The right amounts are computed by hand from published prices, in USD per million tokens:

* gpt-6-luna (OpenAI): prompt 0.10, cached 0.01, written to the cache 0.125, answer 0.50; from 272,001
  prompt tokens on 0.20, 0.02, 0.25 and 0.75; a web search 0.01, a file search 0.0025.
* gpt-audio (OpenAI): prompt 2.50, its audio 32, answer 10, its audio 64.
* text-embedding-3-small (OpenAI): 0.02.
* claude-haiku-4-5 (Anthropic): prompt 1, cached 0.10, written for 5 minutes 1.25, for an hour 2, answer 5;
  a web search 0.01.
* gemini-2.5-flash (Google): text, images and video 0.30, audio 1, cached 0.03, answer with its thoughts
  2.50; a prompt with searches 0.035.
* gemini-3-flash-preview (Google): prompt 0.50, answer 3; a search 0.014.
"""

from __future__ import annotations

import asyncio
import json
import logging
import textwrap
from typing import Any, NamedTuple

import genai_prices
import pytest
from clients import Responding, Streamed, client_for, http
from commands import ran
from pytest_httpserver import HTTPServer
from servers import Answer, ScriptedServer, chunk, completion, embeddings

import llmcall
from llmcall.errors import BudgetExceededError

MILLION = 1_000_000
OPENAI, ANTHROPIC = "https://api.openai.com/v1", "https://api.anthropic.com/v1"
GOOGLE = "https://generativelanguage.googleapis.com/v1beta/models"
QUESTION = [{"role": "user", "content": "Bread?"}]


class Billed(NamedTuple):
    """An answer of an API, and what it costs.

    :param url: what is posted to.
    :param body: what is posted.
    :param answer: the response, or the events of a streamed one.
    :param millionths: of a USD; ``None`` is unknown.
    :param tokens: the prompt's and the answer's.
    """

    url: str
    body: dict[str, Any]
    answer: dict[str, Any] | list[dict[str, Any]]
    millionths: float | None
    tokens: tuple[int, int]


def chat(millionths: float | None, *, model: str = "gpt-6-luna", **fields: Any) -> Billed:
    """Return an answer of chat completions."""
    answer = completion(model=model, **fields)
    usage = answer["usage"]
    tokens = usage["prompt_tokens"], usage["completion_tokens"]
    body = {"model": model, "messages": QUESTION}
    return Billed(f"{OPENAI}/chat/completions", body, answer, millionths, tokens)


def chat_usage(prompt: int, answer: int, **details: Any) -> dict[str, Any]:
    """Return a usage of chat completions with such details of the prompt."""
    return {
        "prompt_tokens": prompt,
        "completion_tokens": answer,
        "total_tokens": prompt + answer,
        "prompt_tokens_details": {"audio_tokens": 0, "cached_tokens": 0, **details},
        "completion_tokens_details": {"audio_tokens": 0, "reasoning_tokens": 0},
    }


def responses(
    millionths: float | None,
    prompt: int,
    answer: int,
    items: list[dict[str, Any]] | None = None,
    *,
    details: dict[str, Any] | None = None,
    **fields: Any,
) -> Billed:
    """Return an answer of the Responses API."""
    text = {"type": "output_text", "text": "Yes.", "annotations": []}
    message = {"type": "message", "role": "assistant", "status": "completed", "content": [text]}
    usage = {
        "input_tokens": prompt,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0, **(details or {})},
        "output_tokens": answer,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": prompt + answer,
    }
    response = {
        "id": "resp_1",
        "object": "response",
        "status": "completed",
        "model": "gpt-6-luna",
        "output": [*(items or []), message],
        "usage": usage,
        **fields,
    }
    body = {"model": "gpt-6-luna", "input": "Bread?"}
    return Billed(f"{OPENAI}/responses", body, response, millionths, (prompt, answer))


def messages(millionths: float | None, tokens: tuple[int, int], **usage: Any) -> Billed:
    """Return an answer of the Messages API."""
    answer = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude-haiku-4-5-20251001",
        "content": [{"type": "text", "text": "Yes."}],
        "stop_reason": "end_turn",
        "usage": {"output_tokens": tokens[1], "service_tier": "standard", **usage},
    }
    body = {"model": "claude-haiku-4-5", "messages": QUESTION, "max_tokens": 20}
    return Billed(f"{ANTHROPIC}/messages", body, answer, millionths, tokens)


def gemini(
    millionths: float | None,
    tokens: tuple[int, int],
    *,
    model: str = "gemini-2.5-flash",
    queries: list[str] | None = None,
    **metadata: Any,
) -> Billed:
    """Return an answer of Gemini's API."""
    candidate: dict[str, Any] = {
        "content": {"role": "model", "parts": [{"text": "Yes."}]},
        "finishReason": "STOP",
    }
    if queries:
        candidate["groundingMetadata"] = {"webSearchQueries": queries}
    answer = {"candidates": [candidate], "modelVersion": model, "usageMetadata": metadata}
    body = {"contents": [{"role": "user", "parts": [{"text": "Bread?"}]}]}
    return Billed(f"{GOOGLE}/{model}:generateContent", body, answer, millionths, tokens)


def of_modality(**counts: int) -> list[dict[str, Any]]:
    """Return tokens by their modality, as Gemini's API reports them."""
    return [{"modality": name, "tokenCount": count} for name, count in counts.items()]


SEARCH = {"id": "ws_1", "type": "web_search_call", "status": "completed"}
SEARCHES = [
    {**SEARCH, "action": {"type": "search", "query": "bread"}},
    {**SEARCH, "action": {"type": "open_page", "url": "https://bread.example"}},
    {**SEARCH, "action": {"type": "search", "query": "price of bread"}},
]
CITING = {
    "role": "assistant",
    "content": "Yes.",
    "annotations": [{"type": "url_citation", "url_citation": {"url": "https://bread.example"}}],
}
MESSAGES_EVENTS: list[dict[str, Any]] = [
    {
        "type": "message_start",
        "message": {
            "id": "msg_1",
            "type": "message",
            "role": "assistant",
            "model": "claude-haiku-4-5-20251001",
            "content": [],
            "usage": {
                "input_tokens": 100,
                "cache_creation_input_tokens": 1000,
                "cache_read_input_tokens": 0,
                "cache_creation": {
                    "ephemeral_5m_input_tokens": 1000,
                    "ephemeral_1h_input_tokens": 0,
                },
                "output_tokens": 1,
            },
        },
    },
    {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Yes."}},
    {"type": "content_block_stop", "index": 0},
    {
        "type": "message_delta",
        "delta": {"stop_reason": "end_turn"},
        "usage": {
            "output_tokens": 50,
            "server_tool_use": {"web_search_requests": 2, "web_fetch_requests": 1},
        },
    },
    {"type": "message_stop"},
]


def streamed(billed: Billed, *data: dict[str, Any]) -> Billed:
    """Return the same answer, streamed as such events."""
    url = billed.url.replace(":generateContent", ":streamGenerateContent?alt=sse")
    body = billed.body if "contents" in billed.body else {**billed.body, "stream": True}
    return billed._replace(url=url, body=body, answer=list(data))


def chunks(usage: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the chunks of a streamed chat whose last one reports a usage."""
    fields = {"id": "c1", "object": "chat.completion.chunk", "created": 0, "model": "gpt-6-luna"}
    choice = {"index": 0, "delta": {"role": "assistant", "content": "Yes."}, "finish_reason": None}
    end = {"index": 0, "delta": {}, "finish_reason": "stop"}
    return [
        {**fields, "choices": [choice]},
        {**fields, "choices": [end]},
        {**fields, "choices": [], "usage": usage},
    ]


WRITTEN = chat_usage(2000, 100, cached_tokens=500, cache_write_tokens=1400)
WRITTEN_RESPONSE = responses(
    # 600 · 0.1 + 500 · 0.01 + 900 · 0.125 + 100 · 0.5
    60 + 5 + 112.5 + 50,
    2000,
    100,
    details={"cached_tokens": 500, "cache_write_tokens": 900},
)
GEMINI_WITH_TOOLS = gemini(
    # (1000 + 300) · 0.3 + (20 + 40) · 2.5
    390 + 150,
    (1300, 60),
    promptTokenCount=1000,
    toolUsePromptTokenCount=300,
    candidatesTokenCount=20,
    thoughtsTokenCount=40,
    totalTokenCount=1360,
    promptTokensDetails=of_modality(TEXT=1000),
    toolUsePromptTokensDetails=of_modality(TEXT=300),
)
AUDIO = {
    **chat_usage(110, 60, audio_tokens=100),
    "completion_tokens_details": {"audio_tokens": 40, "reasoning_tokens": 0, "text_tokens": 20},
}

# Google's OpenAI address has its thoughts in the total alone: seen in November 2026.
THOUGHTS_IN_TOTAL = {"prompt_tokens": 20, "completion_tokens": 424, "total_tokens": 1460}
# xAI's answer of an issue, with what it was billed (1 USD is 10^10 ticks): Wei-Shaw/sub2api, 5771.
THOUGHTS_BESIDE = {
    "prompt_tokens": 10_120,
    "completion_tokens": 1499,
    "total_tokens": 14_428,
    "prompt_tokens_details": {"cached_tokens": 128},
    "completion_tokens_details": {"reasoning_tokens": 2809},
}
OF_A_GATEWAY = {
    **THOUGHTS_BESIDE,
    "completion_tokens": 1499 + 2809,
}  # it counts them as OpenAI does
OF_MISTRAL = {  # its sounds
    "prompt_tokens": 20,
    "completion_tokens": 10,
    "total_tokens": 430,
    "prompt_audio_seconds": 32,
}
ZEROS = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}


def at_host(
    url: str, model: str, millionths: float | None, tokens: tuple[int, int], usage: Any
) -> Billed:
    """Return an answer of chat completions of another host."""
    answer = completion(model=model, usage=usage)
    return Billed(
        f"{url}/chat/completions",
        {"model": model, "messages": QUESTION},
        answer,
        millionths,
        tokens,
    )


XAI = "https://api.x.ai/v1"
BILLED = {
    # 20 · 0.3 + (1460 - 20) · 2.5
    "chat of Gemini, thoughts in the total alone": at_host(
        "https://generativelanguage.googleapis.com/v1beta/openai",
        "gemini-2.5-flash",
        6 + 3600,
        (20, 1440),
        THOUGHTS_IN_TOTAL,
    ),
    "chat of xAI, thoughts beside the answer": at_host(
        XAI, "grok-4.20", 23_285.6, (10_120, 4308), THOUGHTS_BESIDE
    ),
    "chat of xAI, counted by a gateway": at_host(
        XAI, "x-ai/grok-4.20", None, (10_120, 4308), OF_A_GATEWAY
    ),
    # sounds are billed by the minute
    "chat of Mistral, sounds in the total": at_host(
        "https://api.mistral.ai/v1", "voxtral-small-latest", None, (20, 10), OF_MISTRAL
    ),
    # 1000 · 0.1 + 100 · 0.5
    "chat": chat(150, usage=chat_usage(1000, 100)),
    # 100 · 0.1 + 500 · 0.01 + 1400 · 0.125 + 100 · 0.5
    "chat, cached and written": chat(10 + 5 + 175 + 50, usage=WRITTEN),
    # half of it
    "chat, flex": chat(120, usage=WRITTEN, service_tier="flex"),
    # 272,001 · 0.25 + 100 · 0.75
    "chat, a long prompt written": chat(
        68_000.25 + 75, usage=chat_usage(272_001, 100, cache_write_tokens=272_001)
    ),
    # 10 · 2.5 + 100 · 32 + 20 · 10 + 40 · 64
    "chat, audio": chat(25 + 3200 + 200 + 2560, model="gpt-audio", usage=AUDIO),
    "chat, audio without a price": chat(None, model="gpt-6-luna", usage=AUDIO),
    "chat, written without a price": chat(
        None, model="gpt-4o", usage=chat_usage(2000, 100, cache_write_tokens=1400)
    ),
    # 1000 · 0.1 + 100 · 0.5 + 10,000
    "chat, with a search": chat(
        10_150,
        usage=chat_usage(1000, 100),
        choices=[{"index": 0, "message": CITING, "finish_reason": "stop"}],
    ),
    "chat, with a search without a price": chat(
        None,
        model="gpt-4o-search-preview",
        usage=chat_usage(1000, 100),
        choices=[{"index": 0, "message": CITING, "finish_reason": "stop"}],
    ),
    "chat, tokens that contradict each other": chat(
        None, usage=chat_usage(100, 10, cached_tokens=200)
    ),
    "chat, streamed": streamed(chat(10 + 5 + 175 + 50, usage=WRITTEN), *chunks(WRITTEN)),
    "responses": WRITTEN_RESPONSE,
    # 60 % of it
    "responses, streamed": streamed(
        WRITTEN_RESPONSE,
        {"type": "response.created", "response": {"id": "resp_1", "status": "in_progress"}},
        {"type": "response.completed", "response": WRITTEN_RESPONSE.answer},
    ),
    # 1000 · 0.1 + 100 · 0.5, and two searches
    "responses, searches": responses(150 + 20_000, 1000, 100, SEARCHES),
    # searches at half of the price are not counted
    "responses, billed searches": responses(
        150 + 10_000, 1000, 100, SEARCHES, tool_usage={"web_search": {"num_requests": 1}}
    ),
    "responses, file search": responses(150 + 2500, 1000, 100, [{"type": "file_search_call"}]),
    # the tier is that of tokens
    "responses, searches at flex": responses(75 + 20_000, 1000, 100, SEARCHES, service_tier="flex"),
    "responses, images": responses(None, 1000, 100, [{"type": "image_generation_call"}]),
    "responses, code": responses(None, 1000, 100, [{"type": "code_interpreter_call"}]),
    # 100 · 1 + 50 · 5
    "messages": messages(
        100 + 250,
        (100, 50),
        input_tokens=100,
        cache_creation_input_tokens=0,
        cache_read_input_tokens=0,
    ),
    # 100 · 1 + 2000 · 0.1 + 1000 · 1.25 + 400 · 2 + 50 · 5
    "messages, cached and written": messages(
        100 + 200 + 1250 + 800 + 250,
        (3500, 50),
        input_tokens=100,
        cache_creation_input_tokens=1400,
        cache_read_input_tokens=2000,
        cache_creation={"ephemeral_5m_input_tokens": 1000, "ephemeral_1h_input_tokens": 400},
    ),
    # 100 · 1 + 50 · 5, and two searches; to fetch a page costs its tokens alone
    "messages, searches": messages(
        100 + 250 + 20_000,
        (100, 50),
        input_tokens=100,
        server_tool_use={"web_search_requests": 2, "web_fetch_requests": 1},
    ),
    "messages, in the United States": messages(
        None, (100, 50), input_tokens=100, inference_geo="us"
    ),
    "messages, fast": messages(None, (100, 50), input_tokens=100, speed="fast"),
    # 100 · 1 + 1000 · 1.25 + 50 · 5, and two searches
    "messages, streamed": streamed(
        messages(100 + 1250 + 250 + 20_000, (1100, 50)), *MESSAGES_EVENTS
    ),
    "gemini, tools": GEMINI_WITH_TOOLS,
    "gemini, streamed": streamed(
        GEMINI_WITH_TOOLS,
        {
            "candidates": [{"content": {"role": "model", "parts": [{"text": "Yes"}]}}],
            "usageMetadata": {"promptTokenCount": 1000, "candidatesTokenCount": 1},
            "modelVersion": "gemini-2.5-flash",
        },
        GEMINI_WITH_TOOLS.answer,  # type: ignore[arg-type]
    ),
    # (200 + 258 + 100) · 0.3 + 442 · 1 + 20 · 2.5
    "gemini, images and audio": gemini(
        167.4 + 442 + 50,
        (1000, 20),
        promptTokenCount=1000,
        candidatesTokenCount=20,
        promptTokensDetails=of_modality(TEXT=200, IMAGE=258, VIDEO=100, AUDIO=442),
    ),
    # 100 · 0.3 + 900 · 0.03 + 20 · 2.5
    "gemini, cached": gemini(
        30 + 27 + 50,
        (1000, 20),
        promptTokenCount=1000,
        cachedContentTokenCount=900,
        candidatesTokenCount=20,
        promptTokensDetails=of_modality(TEXT=1000),
        cacheTokensDetails=of_modality(TEXT=900),
    ),
    # 1000 · 0.3 + 20 · 2.5, and a prompt with searches
    "gemini 2, searches": gemini(
        300 + 50 + 35_000,
        (1000, 20),
        queries=["bread", "price of bread"],
        promptTokenCount=1000,
        candidatesTokenCount=20,
    ),
    # 1000 · 0.5 + 20 · 3, and two different searches
    "gemini 3, searches": gemini(
        500 + 60 + 28_000,
        (1000, 20),
        model="gemini-3-flash-preview",
        queries=["bread", "", "price of bread", "bread"],
        promptTokenCount=1000,
        candidatesTokenCount=20,
    ),
    "gemini, at a dearer tier": gemini(
        None, (1000, 20), promptTokenCount=1000, candidatesTokenCount=20, serviceTier="priority"
    ),
}
ALL = pytest.mark.parametrize("billed", BILLED.values(), ids=list(BILLED))


def usd(billed: Billed) -> Any:
    """Return the right cost."""
    return None if billed.millionths is None else pytest.approx(billed.millionths / MILLION)


def answering(billed: Billed) -> Any:
    """Return the HTTP client of a program, whose server gives the answer."""

    def answer(_: Any) -> Any:
        if isinstance(billed.answer, dict):
            return http.Response(200, json=billed.answer)
        lines = [f"data: {json.dumps(data)}\n\n" for data in billed.answer]
        if "chat" in billed.url:
            lines.append("data: [DONE]\n\n")
        headers = {"content-type": "text/event-stream"}
        return http.Response(200, headers=headers, content="".join(lines).encode())

    return llmcall.http_client(transport=http.MockTransport(answer))


@ALL
def test_an_answer_costs_what_all_that_it_reports_costs(billed: Billed) -> None:
    """A part without a price makes the cost unknown; the record has it, a budget spends it, and a replay saves
    it.
    """
    for mode in ("once", "none"):
        with (
            llmcall.cassette("tape.jsonl", mode=mode) as tape,
            llmcall.track() as usage,
            llmcall.budget(calls=1) as budget,
            answering(billed) as client,
        ):
            assert client.post(billed.url, json=billed.body).status_code == 200
        (record,) = tape.all_records()
        assert record.cost == usd(billed)
        assert (usage.saved if mode == "none" else usage.cost) == usd(billed)
        assert budget.spent.usd == (0 if mode == "none" else usd(billed))
        assert record.usage[:2] == billed.tokens
        assert usage.input_tokens == (billed.tokens[0] if mode == "once" else 0)
        assert usage.output_tokens == (billed.tokens[1] if mode == "once" else 0)


@pytest.mark.parametrize("reported", [ZEROS, chat_usage(3, 2**64 - 1), chat_usage(10**400, 1)])
def test_a_usage_that_cannot_be_is_no_usage(reported: dict[str, Any]) -> None:
    """Zeros beside a text, as gateways answer whose upstream reports nothing, and counts beyond all bounds."""
    client = Responding(completion(usage=reported), model="gpt-6-luna")
    with llmcall.cassette("tape.jsonl"), llmcall.track() as usage:
        client.send_message("Bread?")
    assert (usage.cost, usage.input_tokens) == (None, None)
    with llmcall.cassette("tape.jsonl"):
        reply = client.send_message("Bread?")
    assert reply is not None
    assert (*reply.usage, reply.cost) == (None,) * 5


def test_an_answer_without_a_price_ends_a_budget_of_usd() -> None:
    """Nobody knows what is left of it."""
    billed = BILLED["chat, written without a price"]
    with answering(billed) as client, llmcall.budget(usd=1) as budget:
        statuses = [
            client.post(billed.url, json={**billed.body, "max_tokens": 5, "user": user}).status_code
            for user in "ab"
        ]
    assert statuses[0] == 200
    assert budget.spent.usd is None
    with answering(billed) as client, budget, llmcall.scope("again"):
        refused = client.post(billed.url, json={**billed.body, "max_tokens": 5})
    assert refused.json()["error"]["code"] == BudgetExceededError.__name__


# The other routes


@pytest.mark.parametrize("api", ["chat", "responses"])
@pytest.mark.parametrize("is_streamed", [False, True], ids=["whole", "streamed"])
def test_a_reply_costs_the_same_over_both_wires(
    api: str, is_streamed: bool, httpserver: HTTPServer
) -> None:
    billed = BILLED["chat, cached and written"] if api == "chat" else WRITTEN_RESPONSE
    server = ScriptedServer(httpserver, Answer(200, billed.answer))
    with client_for(server.base_url, api=api, api_key="k", model="gpt-6-luna") as client:
        if is_streamed:
            client.send_message(QUESTION)
            with client.stream_message(QUESTION) as stream:
                "".join(stream)
            reply: Any = stream.reply
        else:
            reply = client.send_message(QUESTION)
        assert reply.cost == usd(billed)
        assert client.usage.cost == usd(billed)


@pytest.mark.parametrize(
    ("price", "millionths"), [((1.0, 2.0), 2000 + 200), ((1.0, 2.0, 0.5), 1500 + 250 + 200)]
)
def test_prices_of_ones_own_go_before_those_of_the_package(
    price: tuple[float, ...], millionths: float
) -> None:
    """Tokens written to the cache cost as much as input."""
    client = Responding(
        BILLED["chat, cached and written"].answer, model="gpt-6-luna", prices={"gpt-6-luna": price}
    )
    reply = client.send_message(QUESTION)
    assert reply is not None
    assert reply.cost == pytest.approx(millionths / MILLION)


def test_a_search_has_no_price_of_ones_own() -> None:
    """``[Prices]`` are those of tokens."""
    client = Responding(BILLED["chat, with a search"].answer, model="m", prices={"m": (1.0, 2.0)})
    reply = client.send_message(QUESTION)
    assert reply is not None
    assert reply.cost is None


# Before the call


@pytest.mark.feature("plans")
def test_a_plan_counts_on_what_is_written_to_the_cache() -> None:
    """The least is a cached prompt and no answer, the most a written one and the longest answer."""
    call = llmcall.LLMCall(
        user="{{ n }}?", client=Responding(completion(), model="gpt-6-luna"), max_tokens=100
    )
    plan: Any = call.map([{"n": number} for number in range(3)], dry_run=True)
    assert plan.cost == pytest.approx(
        (plan.input_tokens * 0.01 / MILLION, (plan.input_tokens * 0.125 + 300 * 0.5) / MILLION)
    )


@pytest.mark.feature("plans")
def test_a_plan_expects_that_as_much_is_written_as_before() -> None:
    """A prompt's token costs what those of the recorded answers cost on average."""
    client = Responding(BILLED["chat, cached and written"].answer, model="gpt-6-luna")
    call = llmcall.LLMCall(user="{{ n }}?", client=client, max_tokens=100)
    call.map([{"n": 1}, {"n": 2}])
    plan: Any = call.map([{"n": 1}, {"n": 2}, {"n": 3}], dry_run=True)
    token = (10 + 5 + 175) / 2000
    assert plan.expected_cost == pytest.approx((plan.input_tokens * token + 50) / MILLION)


@pytest.mark.feature("plans")
def test_a_plan_counts_on_the_dearest_endpoint_of_a_pool() -> None:
    """Nobody knows which one will answer."""
    model, costs = "openai/gpt-oss-120b", []
    addresses = ["https://api.groq.com/openai/v1", "https://openrouter.ai/api/v1"]
    for urls in ([addresses[0]], [addresses[1]], addresses):
        endpoints = [
            {"name": url, "models": [model], "api_key": "k", "base_url": url} for url in urls
        ]
        client = llmcall.OpenAIClient(model=model, endpoints=endpoints, cache_mode="off")
        call = llmcall.LLMCall(user="{{ n }}?", client=client, max_tokens=100)
        plan: Any = call.map([{"n": 1}], dry_run=True)
        costs.append(plan.cost[1])
    assert costs[0] != costs[1]
    assert costs[2] == max(costs)


def test_a_budget_reserves_for_what_is_written_to_the_cache() -> None:
    """A call that would fit only if its prompt were not written is refused."""
    client = Responding(completion(), model="gpt-6-luna", on_error="raise", max_tokens=1)
    text = "bread " * 10_000
    tokens = client.count_tokens([{"role": "user", "content": text}])
    with llmcall.budget(usd=tokens * 0.11 / MILLION), pytest.raises(BudgetExceededError):
        client.send_message(text)
    with llmcall.budget(usd=tokens * 0.126 / MILLION + 1 / MILLION):
        client.send_message(text)


def test_a_budget_reserves_for_audio() -> None:
    """An answer that is to be spoken may be audio to its end."""
    asked = {"modalities": ["text", "audio"], "audio": {"voice": "ash", "format": "wav"}}
    client = Responding(completion(), model="gpt-audio", on_error="raise", max_tokens=1000)
    with llmcall.budget(usd=0.05), pytest.raises(BudgetExceededError):
        client.send_message(QUESTION, **asked)
    with llmcall.budget(usd=0.05):
        client.send_message(QUESTION)


@pytest.mark.parametrize(
    "params",
    [{"tools": [{"type": "web_search"}]}, {"web_search_options": {}}],
    ids=["tools", "options"],
)
def test_a_budget_refuses_searches(params: dict[str, Any]) -> None:
    """Nobody knows how many there will be."""
    client = Responding(completion(), model="gpt-6-luna", on_error="raise")
    with (
        llmcall.budget(usd=1),
        pytest.raises(BudgetExceededError, match="does not say how much it may use"),
    ):
        client.send_message(QUESTION, **params)


# What goes wrong after an answer came


def replayed(**settings: Any) -> Any:
    """Return the stored reply to the question."""
    return Responding(None, cache_mode="replay", **settings).send_message(QUESTION)


def failing(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    """Make genai-prices fail."""

    def calc_price(*_: Any, **__: Any) -> Any:
        raise error

    monkeypatch.setattr(genai_prices, "calc_price", calc_price)


ROUTES = [
    "chat, cached and written",
    "chat, streamed",
    "responses",
    "responses, streamed",
    "gemini, tools",
]
KINDS = pytest.mark.parametrize("billed", [BILLED[name] for name in ROUTES], ids=ROUTES)


@KINDS
@pytest.mark.parametrize(
    "error", [ZeroDivisionError("a fault"), KeyboardInterrupt()], ids=["fault", "Ctrl-C"]
)
def test_a_price_that_raises_loses_no_answer(
    billed: Billed, error: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer is stored, with an unknown cost."""
    failing(monkeypatch, error)
    with pytest.raises(type(error)), llmcall.track() as usage, answering(billed) as client:
        client.post(billed.url, json=billed.body)
    assert usage.calls == 1
    with llmcall.http_client(transport=None, cache_mode="replay") as client:
        assert client.post(billed.url, json=billed.body).status_code == 200


def test_a_price_that_raises_loses_no_embedding(monkeypatch: pytest.MonkeyPatch) -> None:
    """All texts of the batch are stored."""
    failing(monkeypatch, ZeroDivisionError("a fault"))
    model = "text-embedding-3-small"
    answer = embeddings([1.0, 0.5], [2.0, 0.5])
    with pytest.raises(ZeroDivisionError):
        Responding(answer).get_embedding(["a", "b"], model)
    replayed = Responding(None, cache_mode="replay").get_embedding(["a", "b"], model)
    assert replayed == [[1.0, 0.5], [2.0, 0.5]]


@pytest.mark.parametrize("is_async", [False, True], ids=["thread", "loop"])
def test_a_price_that_raises_loses_no_reply(
    is_async: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing(monkeypatch, ZeroDivisionError("a fault"))
    client = Responding(completion("yes", usage=WRITTEN), model="gpt-6-luna")
    with pytest.raises(ZeroDivisionError):
        if is_async:
            asyncio.run(client.asend_message(QUESTION))
        else:
            client.send_message(QUESTION)
    reply = replayed(model="gpt-6-luna")
    assert (reply.content, reply.cost) == ("yes", None)


@pytest.mark.parametrize(
    "error", [ValueError("no such usage"), UserWarning("no such key")], ids=["refused", "warning"]
)
def test_a_usage_that_the_package_refuses_has_no_cost(
    error: Exception, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The answer comes, and a line says why, once."""
    answer = completion("yes", usage=chat_usage(12, 3, cache_write_tokens=12))
    client = Responding(answer, model="gpt-6-luna", cache_mode="off")
    client.send_message(QUESTION)
    failing(monkeypatch, error)
    replies: list[Any] = [client.send_message(QUESTION) for _ in range(2)]
    assert [(reply.content, reply.cost) for reply in replies] == [("yes", None)] * 2
    (line,) = [text for text in caplog.messages if "genai-prices" in text]
    assert str(error) in line


def test_without_the_package_costs_are_unknown() -> None:
    """A line says so, once; a budget of USD refuses."""
    program = """
        import contextlib, io, logging
        sys.modules["genai_prices"] = None
        log = io.StringIO()
        logging.basicConfig(stream=log)
        client = ScriptedClient(["yes"] * 2, model="gpt-6-sol")
        for _ in range(2):
            reply = client.send_message("Hello")
            assert (reply.content, reply.cost) == ("yes", None)
        with llmcall.budget(usd=1), contextlib.suppress(llmcall.ConfigError):
            client.send_message("Hello")
            raise AssertionError
        print(log.getvalue())
    """
    assert ran(textwrap.dedent(program)).count("genai-prices cannot be imported") == 1


def test_a_warning_that_raises_loses_no_answer() -> None:
    """A handler of the log may raise: the answer is stored before anything is said of it."""

    class Raising(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            raise RuntimeError(record.getMessage())

    handler = Raising()
    logger = logging.getLogger("llmcall")
    logger.addHandler(handler)
    cut = completion("yes", finish_reason="length")
    try:
        with pytest.raises(RuntimeError, match="cut off at max_tokens"):
            Responding(cut, model="cut").send_message(QUESTION)
    finally:
        logger.removeHandler(handler)
    assert replayed(model="cut").content == "yes"


def test_a_reader_that_leaves_when_the_answer_is_whole_loses_nothing() -> None:
    """Where a transport does not stream, its answer comes as a whole."""
    stream = Responding(completion("yes")).stream_message(QUESTION)
    assert next(stream) == "yes"
    stream.close()
    assert replayed().content == "yes"


def test_a_reader_that_leaves_an_answer_without_text_loses_nothing() -> None:
    """Its chunks come when it is whole: until then another attempt could be made."""
    call = {"index": 0, "id": "1", "type": "function", "function": {"name": "buy", "arguments": ""}}
    pieces = [chunk(None, tool_calls=[call]), chunk(None, "tool_calls")]
    stream = Streamed(*pieces).stream_message(QUESTION)
    next(stream.chunks())
    stream.close()
    assert len(replayed(model="gpt-4o-mini").tool_calls) == 1


def test_a_task_that_is_cancelled_when_its_answer_came_loses_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The answer is stored, counted, and paid for out of the budget."""
    calculate = genai_prices.calc_price

    def calculate_and_cancel(*args: Any, **options: Any) -> Any:
        asyncio.get_running_loop().call_soon(asking.cancel)
        return calculate(*args, **options)

    async def ask() -> None:
        nonlocal asking
        asking = asyncio.ensure_future(client.asend_message(QUESTION))
        await asyncio.sleep(0)  # it has reserved when this goes on
        monkeypatch.setattr(genai_prices, "calc_price", calculate_and_cancel)
        await asyncio.wait([asking])

    asking: Any = None
    settings: Any = {"model": "gpt-6-luna", "max_tokens": 100}
    usage = chat_usage(1000, 100, cache_write_tokens=1000)
    client = Responding(completion("yes", usage=usage), **settings)
    with llmcall.budget(calls=1) as budget:
        asyncio.run(ask())
    assert client.usage.cost == budget.spent.usd == pytest.approx(175 / MILLION)
    assert replayed(**settings).cost == pytest.approx(175 / MILLION)
