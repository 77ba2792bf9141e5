"""Completion windows with a real server that has none: llama.cpp's, with a small model."""

from __future__ import annotations

from typing import TYPE_CHECKING

import llmcall
from llmcall.features.windows.awaited import Journal

if TYPE_CHECKING:
    from conftest import ModelServer


def test_a_server_without_windows_answers_at_once(model_server: ModelServer) -> None:
    """It is taken, and nothing is awaited."""
    client = llmcall.OpenAIClient(
        base_url=model_server.base_url,
        api_key=model_server.api_key,
        model=model_server.model,
        api="auto",
        cache_mode="auto",
        window="8h",
        on_error="raise",
    )
    question = [
        {"role": "system", "content": "You are a helpful assistant."},
        {"role": "user", "content": "What is the capital of France?"},
    ]
    reply = client.send_message(question, temperature=0, max_tokens=20)
    assert "Paris" in str(reply.content)
    assert len(client.cache.beside(Journal)) == 0
    assert client.send_message(question, temperature=0, max_tokens=20).cached
