"""The clients against a real model: what is asked, what is recorded, what happens when a server
fails.
"""

from __future__ import annotations

import contextlib
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


MOST_RUNS = 10
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


def test_the_local_client_answers_in_this_process(tmp_path: Path) -> None:
    """The same model, without key, server or network."""
    with llmcall.LocalClient(cache_path=tmp_path / "cache") as client:
        reply = client.send_message(QUESTION, on_error="raise", **ASKED)
        assert "Paris" in (reply.content or "")
        assert reply.model == client.model_named(None) == "SmolLM2-135M-Instruct.Q4_1"
        assert len(client.get_embedding("bread") or ()) == 576


def counted_shares(question: llmcall.types.Choice, row: Any, count: int) -> Any:
    """Return the shares of draws. A draw may be empty, which is a failure: then go on with those that
    are recorded, as another run does.
    """
    for _ in range(MOST_RUNS):
        with contextlib.suppress(llmcall.EmptyAnswerError), llmcall.scope("draws"):
            return question.shares(row, method="draws", repeats=count)
    raise AssertionError(f"an answer was empty in each of {MOST_RUNS} runs")


def test_shares_by_log_probabilities_are_those_of_draws(client: llmcall.OpenAIClient) -> None:
    """The shares that the log probabilities give are those of 200 draws, within sampling error."""
    pytest.importorskip("pandas")
    count = 201
    question = llmcall.choice(
        "The village has money for one thing. Which one do you want?",
        ["a bus", "a library", "a well"],
        system="You are a {{ trade }}.",
        order="rotate",
        client=client,
        temperature=1,
        top_p=1,
        extra_body={"top_k": 0, "min_p": 0},  # the server would leave out unlikely tokens
        max_tokens=1,
    )
    row = [{"trade": "baker"}]
    reported = question.shares(row)
    drawn = counted_shares(question, row, count)
    for column in ("p_a bus", "p_a library", "p_a well", "p_other"):
        share = reported[column][0]
        standard_error = (share * (1 - share) / count) ** 0.5
        assert drawn[column][0] == pytest.approx(share, abs=4 * standard_error)
