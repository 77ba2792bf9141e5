"""What matters to a key, and what does not."""

from __future__ import annotations

import base64
import random
from typing import Any

import pytest
from golden_requests import SAMPLING, TOOL, asked, embedded
from hypothesis import given
from hypothesis import strategies as st

import llmcall
from llmcall.testing import ScriptedClient

KEY = asked().cache_key
PNG = base64.b64encode(bytes(range(200))).decode()
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
NUMBERS = st.integers(-1000, 1000) | st.floats(-1000, 1000)
DATA = st.recursive(
    NUMBERS | TEXTS | st.booleans(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)


def shuffled(value: Any, chance: random.Random) -> Any:
    """Copy data with every dict in another order, and every whole number written the other way."""
    if isinstance(value, dict):
        items = list(value.items())
        chance.shuffle(items)
        return {name: shuffled(item, chance) for name, item in items}
    if isinstance(value, list):
        return [shuffled(item, chance) for item in value]
    if type(value) is int:
        return float(value)
    return int(value) if type(value) is float and value.is_integer() else value


def image(data: str, detail: str | None = None, kind: str = "image/png") -> list[dict[str, Any]]:
    """Return messages with a picture in a data URL."""
    url = {"url": f"data:{kind};base64,{data}", **({"detail": detail} if detail else {})}
    return [{"role": "user", "content": [{"type": "image_url", "image_url": url}]}]


@given(st.dictionaries(TEXTS, DATA, min_size=1, max_size=4), st.randoms(use_true_random=False))
def test_order_and_spelling_do_not_matter(data: dict[str, Any], chance: random.Random) -> None:
    """Neither the order of keys nor 1 or 1.0 matters, however deep, wherever data may stand."""
    tool = {**TOOL, "function": {**TOOL["function"], "parameters": data}}  # type: ignore[dict-item]
    message = {"role": "user", "content": "Hello", "extra": data}
    for arguments in (
        {"tools": [tool]},
        {"response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": data}}},
        {"extra_body": data},
        {"logit_bias": data},
        {"messages": [message]},
    ):
        assert asked(**shuffled(arguments, chance)).cache_key == asked(**arguments).cache_key


@given(st.dictionaries(TEXTS, DATA, min_size=1, max_size=3), st.dictionaries(TEXTS, DATA, min_size=1, max_size=3))
def test_different_data_matters(one: dict[str, Any], other: dict[str, Any]) -> None:
    """Keys agree exactly where the data does, True being no number."""
    same = repr(shuffled_plain(one)) == repr(shuffled_plain(other))
    assert (asked(extra_body=one).cache_key == asked(extra_body=other).cache_key) == same


def shuffled_plain(value: Any) -> Any:
    """Copy data in one order and one spelling."""
    if isinstance(value, dict):
        return "an object", [(name, shuffled_plain(value[name])) for name in sorted(value)]
    if isinstance(value, list):
        return [[shuffled_plain(item)] for item in value]
    return int(value) if type(value) is float and value.is_integer() else value


@pytest.mark.parametrize(
    ("arguments", "same"),
    [
        (dict.fromkeys(SAMPLING), {}),
        ({"n": 1}, {}),
        ({"n": 1.0}, {}),
        ({"temperature": 1}, {"temperature": 1.0}),
        ({"temperature": 0}, {"temperature": -0.0}),
        ({"stop": "x"}, {"stop": ["x"]}),
        ({"stop": ("x", "y")}, {"stop": ["x", "y"]}),
        ({"max_tokens": 5}, {"max_completion_tokens": 5}),
        ({"max_tokens": 5, "max_completion_tokens": 5.0}, {"max_tokens": 5}),
        ({"sample": 1}, {"sample": "1"}),
        ({"messages": "Hello"}, {"messages": [{"content": "Hello", "role": "user"}]}),
        ({"messages": ({"role": "user", "content": "Hello"},)}, {}),
        ({"messages": [{"role": "user", "content": "Hello", "name": None, "refusal": None}]}, {}),
        (
            {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": None, "tool_calls": []}]},
            {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "tool_calls": []}]},
        ),
        ({"messages": "  a\n  b", "dedent_messages": True}, {"messages": "a\nb"}),
    ],
)  # fmt: skip
def test_other_spellings_of_the_same(arguments: dict[str, Any], same: dict[str, Any]) -> None:
    """Two spellings of one request share its key."""
    assert asked(**arguments).cache_key == asked(**same).cache_key


@pytest.mark.parametrize(
    "arguments",
    [
        {"user": "u1"}, {"metadata": {"run": "1"}}, {"store": True}, {"service_tier": "flex"},
        {"safety_identifier": "s"},
        {"prompt_cache_key": "p"}, {"extra_headers": {"X-Run": "1"}}, {"timeout": 3}, {"deadline": 9},
        {"max_attempts": 2},
        {"waiting_time": 0.5}, {"exponential_backoff_factor": 3}, {"cache": False}, {"on_error": "raise"},
        {"echo": True}, {"enable_pydantic_model_return": True},
        {"settings": {"api_key": "sk-one"}}, {"settings": {"base_url": "http://localhost:1/v1"}},
        {"settings": {"timeout": 3}},
        {"settings": {"organization": "o"}}, {"settings": {"cache_mode": "refresh"}},
        {"settings": {"retry_max_attempts": 9}},
        {"settings": {"azure_endpoint": "https://a.example"}},
    ],
    ids=str,
)  # fmt: skip
def test_what_does_not_matter(arguments: dict[str, Any]) -> None:
    """Who pays, who is asked, how long and how often: none of it is part of the question."""
    assert asked(**arguments).cache_key == KEY


def test_streaming_and_other_clients_do_not_matter() -> None:
    """A stream, an OpenAI, an Azure and a scripted client ask the same question."""
    deployment = llmcall.Endpoint("east", ("gpt-4o-mini",), azure_endpoint="https://a.example", deployment="mine")
    assert deployment.deployment == "mine"
    for client in (llmcall.OpenAIClient(api_key="sk-x"), llmcall.AzureClient(azure_endpoint="https://a.example")):
        assert client.build_request("Hello", model="gpt-4o-mini").cache_key == KEY
    scripted = ScriptedClient(["a"])
    with scripted.stream_message("Hello", model="gpt-4o-mini") as stream:
        assert "".join(stream) == "a"
    assert scripted.requests[0].cache_key == KEY


@pytest.mark.parametrize("name", SAMPLING)
def test_each_parameter_matters(name: str) -> None:
    """Every sampling parameter enters the key, and so does its value."""
    value = SAMPLING[name]
    other = (
        not value
        if isinstance(value, bool)
        else value + 1
        if isinstance(value, (int, float))
        else {**value, "7": 1}
        if isinstance(value, dict)
        else value[:1]
    )
    assert len({KEY, asked(**{name: value}).cache_key, asked(**{name: other}).cache_key}) == 3


def test_whatever_else_is_asked_matters() -> None:
    """No two of these requests share a key."""
    user = {"role": "user", "content": "Hello"}
    requests = [
        {}, {"model": "gpt-4o"}, {"messages": "hello"}, {"messages": "Hello "}, {"messages": "Hello\n"},
        {"messages": "Hello\r\n"},
        {"messages": "Caf\u00e9"}, {"messages": "Cafe\u0301"}, {"messages": "\ufb01"}, {"messages": "fi"},
        {"messages": [{**user, "role": "system"}]}, {"messages": [{**user, "name": "lisa"}]},
        {"messages": [user, user]},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "Hello"}]}]},
        {"messages": [{"role": "user", "content": ""}]}, {"messages": [{"role": "user", "content": "None"}]},
        {"tools": [TOOL]}, {"tools": []}, {"tools": [TOOL, TOOL]}, {"tools": [TOOL], "tool_choice": "required"},
        {"response_format": {"type": "json_object"}}, {"reasoning_effort": "low"}, {"verbosity": "low"},
        {"seed": 0}, {"seed": 1},
        {"logprobs": False}, {"logprobs": True}, {"parallel_tool_calls": False}, {"extra_body": {"top_k": 1}},
        {"extra_body": {}},
        {"temperature": 0}, {"temperature": 0.1}, {"temperature": 0.1 + 2**-54}, {"stop": "a"},
        {"stop": ["a", "b"]}, {"stop": ["b", "a"]},
        {"sample": 0}, {"sample": "a"}, {"settings": {"cache_namespace": "a"}}, {"settings": {"cache_namespace": "b"}},
        {"settings": {"temperature": 0.5}}, {"settings": {"max_tokens": 7}},
    ]  # fmt: skip
    keys = [asked(**request).cache_key for request in requests]  # type: ignore[arg-type]
    keys += [embedded("Hello").cache_key, embedded("Hello", dimensions=8).cache_key]
    assert len(set(keys)) == len(keys)


def test_configured_defaults_are_asked_for() -> None:
    """A default from the settings is the same question as the argument."""
    assert asked(settings={"temperature": 0.5}).cache_key == asked(temperature=0.5).cache_key
    assert asked(settings={"temperature": 0.5}, temperature=0.25).cache_key == asked(temperature=0.25).cache_key
    assert asked(settings={"max_tokens": 9}, max_completion_tokens=5).cache_key == asked(max_tokens=5).cache_key


def test_aliases_are_resolved_before() -> None:
    """An alias is the model that it stands for."""
    settings = {"aliases": {"cheap": "gpt-4o-mini"}}
    assert asked(model="cheap", settings=settings).cache_key == KEY
    assert asked(model="cheap").cache_key != KEY
    assert embedded("x").cache_key == embedded("x").cache_key


@given(st.integers(1, 70), st.sampled_from(["\n", "\r\n", " "]), st.integers(0, 2))
def test_base64_has_many_spellings(width: int, between: str, dropped: int) -> None:
    """An image is its bytes: wrapped, padded or not."""
    wrapped = between.join(PNG[start : start + width] for start in range(0, len(PNG), width))
    respelt = wrapped.rstrip("=") + "=" * (dropped % 2)
    assert asked(image(respelt)).cache_key == asked(image(PNG)).cache_key


def test_what_an_image_is_matters() -> None:
    """Its bytes, its type and its detail matter; a URL of the network is text."""
    other = base64.b64encode(bytes(range(1, 201))).decode()
    web = [
        {"role": "user", "content": [{"type": "image_url", "image_url": {"url": f"https://e.x/{name}"}}]}
        for name in "ab"
    ]
    requests = [
        image(PNG),
        image(other),
        image(PNG, "low"),
        image(PNG, kind="image/jpeg"),
        image("!"),
        image("?"),
        web[:1],
        web[1:],
    ]
    assert len({asked(request).cache_key for request in requests}) == len(requests)


def test_a_text_that_looks_like_an_image_is_a_text() -> None:
    """What is said is compared letter by letter, also where it looks like a data URL."""
    padded, unpadded = (
        asked([{"role": "user", "content": [{"type": "text", "text": f"data:image/png;base64,{text}"}]}]).cache_key
        for text in ("QQ==", "QQ")
    )
    assert padded != unpadded


def test_images_are_sent_as_given_and_keyed_by_digest() -> None:
    """The body holds the image itself, what is hashed only its digest."""
    request = asked(image(PNG))
    assert PNG in str(request.body)
    assert PNG not in str(request.asked)
    assert "sha256," in str(request.asked)
