"""The Responses API of a real server: llama.cpp's, with a small model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

import llmcall

if TYPE_CHECKING:
    from conftest import ModelServer

QUESTION = [
    {"role": "system", "content": "You are a helpful assistant."},
    {"role": "user", "content": "What is the capital of France?"},
]
ASKED: dict[str, Any] = {"temperature": 0, "max_tokens": 20, "on_error": "raise"}
CALLED = {"id": "c1", "type": "function", "function": {"name": "capital_of", "arguments": "{}"}}
CONVERSATION = [
    *QUESTION,
    {"role": "assistant", "content": "Let me look.", "tool_calls": [CALLED]},
    {"role": "tool", "tool_call_id": "c1", "content": "Paris"},
    {"role": "user", "content": "So which city is it?"},
]


def client_of(server: ModelServer, **settings: Any) -> llmcall.OpenAIClient:
    """Return a client that sends by the Responses API."""
    return llmcall.OpenAIClient(
        base_url=server.base_url,
        api_key=server.api_key,
        model=server.model,
        **{"api": "responses", "cache_mode": "off", **settings},
    )


@pytest.mark.parametrize("messages", [QUESTION, CONVERSATION], ids=["question", "tool result"])
def test_both_wires_give_the_same_text(model_server: ModelServer, messages: Any) -> None:
    """At temperature 0, a conversation with turns and a tool's result too."""
    by_wire = [
        client_of(model_server, api=api).send_message(messages, **ASKED).content
        for api in ("responses", "chat")
    ]
    assert by_wire[0] == by_wire[1]


def test_a_stream_comes_in_pieces_with_its_usage(model_server: ModelServer) -> None:
    """Its pieces make up the reply."""
    with client_of(model_server).stream_message(QUESTION, **ASKED) as stream:
        pieces = list(stream)
    assert len(pieces) > 3
    assert "".join(pieces) == stream.reply.content
    assert stream.reply.usage.input_tokens == 27
    assert stream.reply.usage.output_tokens


def test_too_long_a_prompt_is_a_context_length_error(model_server: ModelServer) -> None:
    with pytest.raises(llmcall.ContextLengthError):
        client_of(model_server).send_message("word " * 5000, **ASKED)
