"""The clients against a real model: what is asked, what is recorded, what happens when a server
fails.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pytest
from pydantic import BaseModel

import llmcall

if TYPE_CHECKING:
    from collections.abc import Iterator

    from conftest import ModelServer

QUESTION = [
    {"role": "system", "content": "You are a helpful assistant."},
    {"role": "user", "content": "What is the capital of France?"},
]


@pytest.fixture
def client(model_server: ModelServer, tmp_path: Path) -> Iterator[llmcall.OpenAIClient]:
    """A client of the server, with a cache of its own."""
    with llmcall.OpenAIClient(
        base_url=model_server.base_url,
        api_key=model_server.api_key,
        model=model_server.model,
        cache_path=tmp_path / "cache",
        retry_waiting_time=0.05,
    ) as client:
        yield client


ASKED: dict[str, Any] = {"temperature": 0, "max_tokens": 20}


def test_a_streamed_answer_comes_in_pieces(client: llmcall.OpenAIClient) -> None:
    """They make up the reply, which says where it came from, how it ended and what it used."""
    with client.stream_message(QUESTION, **ASKED) as stream:
        pieces = list(stream)
    reply = stream.reply
    assert reply is not None
    assert len(pieces) > 3
    assert "".join(pieces) == reply.content
    assert "Paris" in reply.content
    assert (reply.cached, reply.endpoint, reply.finish_reason) == (False, "127.0.0.1", "stop")
    assert reply.usage.input_tokens == 27
    assert reply.usage.output_tokens


class Person(BaseModel):
    """Somebody."""

    name: str
    trade: Literal["baker", "farmer", "captain"]


def test_a_class_comes_back_by_structured_output(client: llmcall.OpenAIClient) -> None:
    """The server gives JSON that fits."""
    with llmcall.configured(models={client.model_named(None): {"structured_output": True}}):
        who = llmcall.LLMCall(
            user="Maria bakes bread. Who is she?", output_type=Person, client=client, temperature=0
        )
        assert isinstance(who(), Person)


def test_a_truth_is_read_from_the_answers_words(client: llmcall.OpenAIClient) -> None:
    """The prompt asks for yes or no."""
    fact = llmcall.LLMCall(
        system="You say yes or no.",
        user="{{ text }}",
        output_type=bool,
        client=client,
        temperature=0,
        max_tokens=12,
    )
    assert fact(text="Is water wet?") in (True, False)


def test_a_list_of_embeddings_asks_only_for_what_is_new(client: llmcall.OpenAIClient) -> None:
    """The recorded embedding equals the live one."""
    first, both = client.get_embedding("bread"), client.get_embedding(["bread", "a ship at sea"])
    assert first is not None
    assert both is not None
    assert len(first) == 576
    assert both[0] == first
    assert client.get_embedding(["a ship at sea", "bread"]) == both[::-1]
    assert client.usage.calls == 2


@pytest.mark.feature("local_model")
def test_the_local_client_answers_in_this_process(tmp_path: Path) -> None:
    """The same model, without key, server or network."""
    with llmcall.LocalClient(cache_path=tmp_path / "cache") as client:
        reply = client.send_message(QUESTION, on_error="raise", **ASKED)
        assert "Paris" in (reply.content or "")
        assert reply.model == client.model_named(None) == "SmolLM2-135M-Instruct.Q4_1"
        assert len(client.get_embedding("bread") or ()) == 576
