"""Typed calls: what a user sees where a template or an answer does not fit."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

import llmcall
from llmcall.testing import ScriptedClient


class Person(BaseModel):
    """Somebody."""

    name: str
    age: int


def test_single_braces_are_an_error() -> None:
    """A parameter that no template uses, while a text holds {name}, would reach the model as braces."""
    client = ScriptedClient(["Yes."])

    @llmcall.llm(client=client)
    def would_buy(name: str, price: int) -> bool:
        """You are {name}.

        Would you buy it for {{ price }}?
        """
        raise NotImplementedError

    with pytest.raises(llmcall.TemplateError, match=r"<user>, line 1: \{name\} is no variable; write \{\{ name \}\}"):
        would_buy("Lisa", 3)
    with pytest.raises(llmcall.TemplateError, match=r"\{\{ name \}\}"):
        would_buy.map([{"name": "Lisa", "price": 3}])
    assert not client.requests


def test_braces_that_are_meant_pass() -> None:
    """JSON in a template, and the braces of what is no parameter, are text."""
    client = ScriptedClient(["Yes."] * 2)

    @llmcall.llm(client=client)
    def would_buy(name: str, note: str = "") -> bool:
        """Answer {{ name }} like {"name": "Lisa"} or {name}, {other}."""
        raise NotImplementedError

    assert would_buy("Lisa") is True
    assert "{name}, {other}" in client.requests[0].messages[0]["content"]


def test_an_output_error_says_all(tmp_path: Path) -> None:
    """It shows the answer, what was expected, scope, item and tries, and how to ask anew."""
    client = ScriptedClient(lambda _: "Perhaps.", cache_mode="auto", cache_path=tmp_path)
    call = llmcall.LLMCall(user="Would {{ name }}?", output_type=bool, client=client)
    with llmcall.scope("trial"), pytest.raises(llmcall.OutputError) as failed:
        call(name="Lisa", unused="x")
    text = str(failed.value)
    for said in (
        "neither yes nor no",
        "answer: 'Perhaps.'",
        "expected: Answer with yes or no.",
        "scope: trial#0",
        "item: name='Lisa'",
        "after 3 tries",
        "llmcall cache delete ",
    ):
        assert said in text, said
    assert "max_tokens" not in text and "unused" not in text
    assert (failed.value.text, failed.value.expected) == ("Perhaps.", "Answer with yes or no.")
    assert str(pickle.loads(pickle.dumps(failed.value))) == text
    begun = text.partition("llmcall cache delete ")[2].split()
    deleted = client.cache.delete(where=lambda record: record.cache_key.startswith(tuple(begun)))
    assert deleted == 3 == len(begun)


def test_an_answer_that_was_cut_names_max_tokens() -> None:
    """The token limit is the cause, and is named; nothing is said of records where none are kept."""
    response = {
        "choices": [
            {"index": 0, "message": {"role": "assistant", "content": '{"name": "Li'}, "finish_reason": "length"}
        ]
    }

    class Cut(ScriptedClient):
        """Answer with half an answer."""

        def send(self, request: Any, timeout: float | None) -> dict[str, Any]:
            """Return it."""
            return response

    call = llmcall.LLMCall(user="Who?", output_type=Person, output_retries=0, client=Cut(), max_tokens=5)
    with pytest.raises(llmcall.OutputError, match="raise max_tokens") as failed:
        call()
    assert "after 1 try" in str(failed.value) and "recorded" not in str(failed.value)


def test_functions_have_tables() -> None:
    """A row for each row and repeat, with the arguments' defaults."""
    pytest.importorskip("pandas")
    client = ScriptedClient(lambda messages: "yes" if "bread" in messages[0]["content"] else "no")

    @llmcall.llm(client=client)
    def would_buy(product: str, price: int = 3) -> bool:
        """Would you buy {{ product }} for {{ price }}?"""
        raise NotImplementedError

    table = would_buy.table([{"product": "bread"}, {"product": "salt"}], repeats=2)
    assert list(table.columns) == ["product", "repeat", "value", "error", "cached", "cost", "cache_key"]
    assert table["value"].tolist() == [True, True, False, False]
    assert table["repeat"].tolist() == [0, 1, 0, 1]


def test_short_reprs() -> None:
    """A call and a function show what they are in one line."""
    assert repr(llmcall.LLMCall(user="Would you?", output_type=bool)) == "LLMCall(user='Would you?', output_type=bool)"
    assert len(repr(llmcall.LLMCall("system.md", user="long " * 1000, output_type=list[int]))) < 150

    @llmcall.llm
    def greeting(name: str) -> str:
        """Greet {{ name }}."""
        raise NotImplementedError

    assert repr(greeting).endswith("greeting(name: 'str') -> 'str'>")
