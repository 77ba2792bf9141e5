"""Arguments of a call: messages, parameters and options, checked by name before anything is sent,
and never changed.
"""

from __future__ import annotations

import fractions
import types
from typing import Any

import pytest

import llmcall
from llmcall.testing import ScriptedClient

ROLES = ["system", "developer", "user", "assistant", "tool", "function"]


def built(messages: Any = "Hello", settings: Any = None, **arguments: Any) -> llmcall.types.Request:
    """Build a request of a model that takes every parameter."""
    return ScriptedClient(**(settings or {})).build_request(
        messages, **{"model": "gpt-4o", **arguments}
    )


def sent(messages: Any = "Hello", settings: Any = None, **arguments: Any) -> dict[str, Any]:
    """Send a request and return what was sent beside model and messages."""
    client = ScriptedClient(["{}"], on_error="raise", **(settings or {}))
    client.send_message(messages, **{"model": "gpt-4o", **arguments})
    return {
        name: value
        for name, value in client.requests[0].body.items()
        if name not in ("model", "messages")
    }


def user(content: Any, **fields: Any) -> list[dict[str, Any]]:
    """Return a conversation in which the second message has this content."""
    return [
        {"role": "system", "content": "Be short."},
        {"role": "user", "content": content, **fields},
    ]


EVERY_ROLE = [{"role": role, "content": "Hello"} for role in ROLES]
CALLED = {"role": "assistant", "tool_calls": [{"id": "c1", "type": "function", "function": {}}]}


@pytest.mark.parametrize(
    ("messages", "found"),
    [
        pytest.param("Hello", [{"role": "user", "content": "Hello"}], id="a string"),
        pytest.param(EVERY_ROLE, EVERY_ROLE, id="every role"),
        pytest.param(tuple(EVERY_ROLE), EVERY_ROLE, id="a tuple"),
        pytest.param([CALLED], [CALLED], id="only a tool call"),
        pytest.param([{**CALLED, "content": None}], [{**CALLED, "content": None}], id="no content"),
    ],
)
def test_messages_are_taken_as_they_are(messages: Any, found: list[dict[str, Any]]) -> None:
    """A string is the user's message."""
    assert built(messages).messages == found


def test_dedenting_takes_the_common_indentation() -> None:
    """Of strings and of text parts; the given messages keep it."""
    picture = {"type": "image_url", "image_url": {"url": "u"}}
    messages = [
        {"role": "system", "content": "\n    You sell:\n      - apples\n    "},
        {"role": "user", "content": [{"type": "text", "text": "  a\n  b"}, picture]},
        {"role": "assistant", "content": None},
    ]
    found = [message["content"] for message in built(messages, dedent_messages=True).messages]
    assert found == ["\nYou sell:\n  - apples\n", [{"type": "text", "text": "a\nb"}, picture], None]
    assert messages[1]["content"] == [{"type": "text", "text": "  a\n  b"}, picture]


def test_a_value_is_checked_though_it_equals_an_earlier_one_of_another_type() -> None:
    """Python takes True as 1: a client that remembers arguments must not."""
    client = ScriptedClient(["yes", "yes"], on_error="raise")
    client.send_message("Hello", temperature=1)
    with pytest.raises(TypeError, match=r"^temperature is True; it must be a number"):
        client.send_message("Hello", temperature=True)


def test_a_changed_setting_applies_to_a_call_with_the_same_arguments() -> None:
    """A default that is set between two calls is in the second."""
    scripted = ScriptedClient(["yes", "yes"], on_error="raise", model="gpt-4o")
    scripted.send_message("Hello", max_tokens=8)
    with llmcall.configured(temperature=0.5):
        scripted.send_message("Hello", max_tokens=8)
    assert [request.body.get("temperature") for request in scripted.requests] == [None, 0.5]


class Word(str):
    """A string of one's own class."""


@pytest.mark.parametrize(
    ("name", "value", "found"),
    [
        *(
            (name, value, value)
            for name in ("temperature", "top_p", "frequency_penalty", "presence_penalty")
            for value in (0, 0.5)
        ),
        ("temperature", fractions.Fraction(1, 2), 0.5),
        *(
            (name, value, 2)
            for name in ("seed", "n", "max_tokens")
            for value in (2.0, fractions.Fraction(2))
        ),
        ("reasoning_effort", Word("low"), "low"),
        ("stop", "x", "x"),
        ("stop", ("x", Word("y")), ["x", "y"]),
        ("tools", ({"type": "function"},), [{"type": "function"}]),
        ("tool_choice", types.MappingProxyType({"type": "function"}), {"type": "function"}),
        ("extra_body", types.MappingProxyType({"top_k": [5]}), {"top_k": [5]}),
        ("response_format", {"type": "json_object"}, {"type": "json_object"}),
        ("metadata", {"run": "3"}, {"run": "3"}),
    ],
)
def test_a_value_is_sent_as_plain_data(name: str, value: Any, found: Any) -> None:
    """Numbers, strings and mappings may be of any kind."""
    assert sent(**{name: value}) == {name: found}
    assert type(sent(**{name: value})[name]) is type(found)


DEFAULTS = {"temperature": 0.5, "max_tokens": 100, "top_p": 1.0}


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"stop": [], "tools": [], "functions": (), "temperature": None},
        {"echo": True, "enable_pydantic_model_return": False},
    ],
    ids=str,
)
def test_empty_parameters_are_not_sent(arguments: dict[str, Any]) -> None:
    """Neither None, nor an empty list, nor what means nothing to a model."""
    assert sent(**arguments) == {}


def test_an_argument_stands_above_the_configured_parameter() -> None:
    """Without an argument, the configured value is sent."""
    assert sent(settings=DEFAULTS) == DEFAULTS
    assert sent(settings=DEFAULTS, top_p=0.25) == {**DEFAULTS, "top_p": 0.25}


def test_the_token_limit_has_two_names_and_one_value() -> None:
    """Either replaces what is configured."""
    assert sent(settings=DEFAULTS, max_completion_tokens=7) == {**DEFAULTS, "max_tokens": 7}


@pytest.mark.parametrize(
    ("model", "arguments", "without"),
    [
        ("gpt-4o", {}, {"max_completion_tokens"}),
        ("o3-mini", {"reasoning_effort": "low"}, {"max_tokens", "temperature", "presence_penalty"}),
        ("gpt-5.1", {}, {"max_tokens", "presence_penalty"}),
        ("gpt-5.1", {"reasoning_effort": "none"}, {"max_tokens", "presence_penalty"}),
        (
            "gpt-5.1",
            {"reasoning_effort": "high"},
            {"max_tokens", "temperature", "presence_penalty"},
        ),
        ("my-model", {}, {"max_completion_tokens", "seed", "stop"}),
    ],
)
def test_a_parameter_that_a_model_refuses_is_not_sent(
    model: str, arguments: dict[str, Any], without: set[str]
) -> None:
    """A reasoning model gets max_completion_tokens and no sampling parameters; [Model …] says so of
    other models.
    """
    settings = {"models": {"my-*": {"refused_parameters": "seed, stop"}}}
    asked = {
        "temperature": 0.5,
        "max_tokens": 50,
        "presence_penalty": 1,
        "stop": ["x"],
        "seed": 1,
        **arguments,
    }
    assert (
        sent(settings=settings, model=model, **asked).keys()
        == {*asked, "max_completion_tokens"} - without
    )


@pytest.mark.parametrize(
    ("model", "temperature", "said"), [("o3-mini", 0.5, 1), ("o3-mini", 1, 0), ("gpt-4o", 0.5, 0)]
)
def test_a_parameter_that_is_not_sent_is_said_once(
    model: str, temperature: float, said: int, caplog: pytest.LogCaptureFixture
) -> None:
    """Two temperatures would be paid for as two requests, and be one; 1 is what the API takes anyway."""
    for _ in range(2):
        sent(model=model, temperature=temperature)
    assert caplog.text.count(f"{model} does not support temperature") == said


@pytest.mark.parametrize("name", ["temperature", "response_format"])
@pytest.mark.parametrize("on_error", ["none", "return"])
@pytest.mark.parametrize("method", ["send_message", "stream_message"])
def test_a_wrong_argument_is_raised_whatever_on_error_says(
    method: str, on_error: str, name: str
) -> None:
    """A second time as the first; nothing is asked, and the next call has the first draw."""
    client = ScriptedClient(["yes"], cache_mode="auto")
    with llmcall.scope("a"):
        for _ in range(2):
            with pytest.raises(TypeError, match=rf"^{name} "):
                getattr(client, method)("Hello", **{name: b"5", "on_error": on_error})
        assert client.requests == []
        assert client.send_message("Hello", on_error="raise").sample == "a#0"
