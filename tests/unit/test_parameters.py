"""Parameters: checked by name, in one form for the key, and in the model's own spelling when sent."""

from __future__ import annotations

import fractions
import math
import re
import types
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given

import llmcall
from llmcall.models.capabilities import CHAT_PARAMETERS, EMBEDDING_PARAMETERS, Capabilities, capabilities
from llmcall.requests.parameters import UNKEYED, asked_parameters, check_names, given_parameters, sent_body
from llmcall.testing import ScriptedClient

BODY = {"model": "m", "messages": [], "temperature": 0.5, "max_tokens": 50, "stop": ["x"], "seed": 1}
NUMBERS = st.integers(-(10**6), 10**6) | st.floats(-1e6, 1e6)


def test_every_parameter_of_the_api_is_known() -> None:
    """All parameters of the API pass, and those that older scripts give."""
    check_names(dict.fromkeys(CHAT_PARAMETERS | {"echo", "enable_pydantic_model_return"}))
    check_names(dict.fromkeys(EMBEDDING_PARAMETERS), embedding=True)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("temprature", "did you mean 'temperature'?"),
        ("max_token", "did you mean 'max_tokens'?"),
        ("logit_biases", "did you mean 'logit_bias'?"),
        ("top_k", "extra_body={'top_k': …}"),
        ("repetition_penalty", "extra_body={'repetition_penalty': …}"),
        ("stream", "stream_message()"),
        ("stream_options", "stream_message()"),
    ],
)
def test_an_unknown_name(name: str, hint: str) -> None:
    """An unknown name is refused with the nearest known one, or the place for what a server has beyond the API."""
    with pytest.raises(TypeError, match=re.escape(hint)) as caught:
        check_names({"temperature": 1, name: 5})
    assert repr(name) in str(caught.value)


@pytest.mark.parametrize("name", ["verbosity", "temperature", "tools"])
def test_embeddings_have_names_of_their_own(name: str) -> None:
    """A parameter that only chats have is unknown to embeddings."""
    with pytest.raises(TypeError, match=repr(name)):
        check_names({name: 1}, embedding=True)


@pytest.mark.parametrize(
    ("parameters", "kind", "place"),
    [
        ({"temperature": math.nan}, ValueError, "temperature"),
        ({"top_p": -math.inf}, ValueError, "top_p"),
        ({"temperature": b"1"}, TypeError, "temperature"),
        ({"seed": object()}, TypeError, "seed"),
        ({"stop": ["x", b"y"]}, TypeError, "stop[1]"),
        ({"logit_bias": {50256: -100}}, TypeError, "logit_bias"),
        ({"logit_bias": {"50256": math.nan}}, ValueError, "logit_bias.50256"),
        ({"tools": [{"type": "function", "function": {"x": {1}}}]}, TypeError, "tools[0].function.x"),
        ({"extra_body": {"top_k": math.inf}}, ValueError, "extra_body.top_k"),
        ({"max_tokens": 5, "max_completion_tokens": 6}, ValueError, "max_tokens"),
    ],
)
def test_what_is_refused(parameters: dict[str, Any], kind: type[Exception], place: str) -> None:
    """A value that JSON has no form for is refused, naming its place."""
    with pytest.raises(kind, match=rf"^{re.escape(place)}( |\b)"):
        given_parameters(parameters, None)


NUMBERS_ONLY = ("temperature", "top_p", "frequency_penalty", "presence_penalty")
WHOLE_ONLY = ("max_tokens", "max_completion_tokens", "seed", "n", "dimensions")


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        *((name, "1", f"{name} is a str; it must be a number") for name in NUMBERS_ONLY),
        *((name, True, f"{name} is True; it must be a number") for name in NUMBERS_ONLY),
        *((name, [1], f"{name} is a list; it must be a number") for name in NUMBERS_ONLY),
        *((name, "1", f"{name} is a str; it must be a whole number") for name in WHOLE_ONLY),
        *((name, 1.5, f"{name} is 1.5; it must be a whole number") for name in WHOLE_ONLY),
        *((name, False, f"{name} is False; it must be a whole number") for name in WHOLE_ONLY),
        ("reasoning_effort", 5, "reasoning_effort is 5; it must be a string"),
        ("stop", 5, "stop is 5; it must be a string or a list of strings"),
        ("stop", {"x": "y"}, "stop is a dict; it must be a string or a list of strings"),
        ("stop", ["x", 5], "stop[1] is 5; it must be a string"),
        ("tools", 5, "tools is 5; it must be a list of dicts and functions"),
        ("tools", "search", "tools is a str; it must be a list of dicts and functions"),
        ("tools", {"type": "function"}, "tools is a dict; it must be a list of dicts and functions"),
        ("tools", [{}, 5], "tools[1] is 5; it must be a dict or a function"),
        ("tool_choice", 5, "tool_choice is 5; it must be a string or a dict"),
        ("tool_choice", ["auto"], "tool_choice is a list; it must be a string or a dict"),
        ("extra_body", 5, "extra_body is 5; it must be a dict"),
        ("extra_body", [("top_k", 5)], "extra_body is a list; it must be a dict"),
        ("extra_headers", "x: y", "extra_headers is a str; it must be a dict"),
        ("response_format", 5, "response_format takes a dict, a pydantic model, a dataclass or a TypedDict, not 5"),
        ("response_format", "json", "response_format takes a dict, a pydantic model, a dataclass or a TypedDict, not"),
        ("response_format", True, "response_format takes a dict, a pydantic model, a dataclass or a TypedDict, not"),
    ],
)
def test_a_value_of_the_wrong_type(name: str, value: Any, said: str) -> None:
    """A value that the API cannot take is refused by its name, with what it is and what it must be."""
    with pytest.raises(TypeError, match=rf"^{re.escape(said)}"):
        given_parameters({name: value}, None)


class Word(str):
    """Be a string of one's own."""


@pytest.mark.parametrize(
    ("name", "value", "sent"),
    [
        *((name, value, value) for name in NUMBERS_ONLY for value in (0, 1, 0.5, -2)),
        *((name, fractions.Fraction(1, 2), 0.5) for name in NUMBERS_ONLY),
        *((name, value, 2) for name in ("seed", "n", "max_tokens") for value in (2, 2.0, fractions.Fraction(2))),
        ("reasoning_effort", Word("low"), "low"),
        ("stop", "x", "x"),
        ("stop", ("x", Word("y")), ["x", "y"]),
                ("tools", ({"type": "function"},), [{"type": "function"}]),
        ("tools", [], []),
        ("tool_choice", "auto", "auto"),
        ("tool_choice", types.MappingProxyType({"type": "function"}), {"type": "function"}),
        ("extra_body", types.MappingProxyType({"top_k": [5]}), {"top_k": [5]}),
        ("response_format", {"type": "json_object"}, {"type": "json_object"}),
        ("logit_bias", {"5": 1}, {"5": 1}),
        ("parallel_tool_calls", True, True),
    ],
)
def test_what_is_taken(name: str, value: Any, sent: Any) -> None:
    """What the API takes is taken, whatever kind of number, string or mapping it is, and sent as plain data."""
    (found,) = given_parameters({name: value}, None).values()
    assert found == sent
    assert type(found) is type(sent)


def test_numbers_of_numpy() -> None:
    """A scalar of numpy is the number that it holds."""
    numpy = pytest.importorskip("numpy")
    given = {"temperature": numpy.float32(0.5), "seed": numpy.int64(3), "top_p": numpy.float64(1)}
    assert given_parameters(given, None) == {"temperature": 0.5, "seed": 3, "top_p": 1}
    with pytest.raises(TypeError, match=r"^temperature is "):
        given_parameters({"temperature": numpy.bool_(True)}, None)


@pytest.mark.parametrize(
    "wrong",
    [{"temperature": "1"}, {"stop": 5}, {"tools": 5}, {"extra_body": 5}, {"response_format": 5}, {"tool_choice": 5}],
    ids=str,
)
@pytest.mark.parametrize("on_error", ["none", "raise", "return"])
def test_wrong_arguments_are_raised_before_any_call(wrong: dict[str, Any], on_error: str) -> None:
    """Whatever on_error says, and a second time as the first; nothing is asked, and no draw is taken."""
    client = ScriptedClient(["yes"], cache_mode="auto")
    with llmcall.scope("a"):
        for ask in (client.send_message, client.send_message, client.stream_message, client.build_request):
            with pytest.raises(TypeError, match=rf"^{next(iter(wrong))} "):
                ask("Hello", on_error=on_error, **wrong)  # type: ignore[operator]
        reply = client.send_message("Hello")
    with pytest.raises(TypeError):
        client.send_message("Hello", on_error=on_error, **wrong)
    assert reply is not None and reply.sample == "a#0"
    assert len(client.requests) == 1


def test_wrong_arguments_of_embeddings() -> None:
    """Embeddings check theirs likewise."""
    client = ScriptedClient([[1.0]])
    for wrong, said in (({"extra_body": 5}, "dict"), ({"dimensions": "5"}, "number"), ({"temperature": 1}, "unknown")):
        with pytest.raises(TypeError, match=said):
            client.get_embedding("Hello", **wrong)
    assert client.get_embedding("Hello", dimensions=1.0) == [1.0]
    assert [request.body["dimensions"] for request in client.requests] == [1]


def test_defaults_of_the_settings() -> None:
    """What is configured holds where nothing is given; None gives nothing."""
    settings = llmcall.settings().replace(temperature=0.5, max_tokens=100, top_p=1.0)
    assert given_parameters({}, settings) == {"temperature": 0.5, "max_tokens": 100, "top_p": 1}
    assert given_parameters({"temperature": None, "top_p": 0.25, "n": None}, settings) == {
        "temperature": 0.5,
        "max_tokens": 100,
        "top_p": 0.25,
    }
    assert given_parameters({"max_completion_tokens": 7}, settings)["max_tokens"] == 7


def test_nothing_is_configured() -> None:
    """Without a configured value, nothing is sent that was not asked for."""
    assert given_parameters({}, llmcall.settings()) == {}


def test_the_token_limit_has_two_names() -> None:
    """Both names of the token limit are one parameter, and may be given together where they agree."""
    assert given_parameters({"max_completion_tokens": 5}, None) == {"max_tokens": 5}
    assert given_parameters({"max_tokens": 5, "max_completion_tokens": 5}, None) == {"max_tokens": 5}


def test_older_scripts() -> None:
    """What TinyTroupe's scripts give beside the API's parameters is accepted and goes nowhere."""
    assert given_parameters({"echo": True, "enable_pydantic_model_return": True, "seed": 1}, None) == {"seed": 1}


def test_what_does_not_matter_to_the_key() -> None:
    """Who pays and what is logged is no part of the key; nor is n=1, or how a single stop is written."""
    parameters = dict.fromkeys(UNKEYED, "x")
    assert asked_parameters({**parameters, "n": 1, "stop": "x", "seed": 3}) == {"stop": ["x"], "seed": 3}
    assert asked_parameters({"n": 2, "stop": ["x"]}) == {"n": 2, "stop": ["x"]}


def test_what_is_not_keyed_is_sent() -> None:
    """A parameter that does not enter the key is sent all the same."""
    body = {**BODY, "user": "u1", "metadata": {"run": "3"}, "n": 1}
    assert sent_body(body, Capabilities()) == body


def test_a_model_that_reasons() -> None:
    """A reasoning model gets max_completion_tokens and none of the parameters that it refuses."""
    sent = sent_body({**BODY, "presence_penalty": 1, "reasoning_effort": "low"}, capabilities("o3-mini"))
    assert sent == {"model": "m", "messages": [], "max_completion_tokens": 50, "stop": ["x"], "seed": 1,
                    "reasoning_effort": "low"}  # fmt: skip


def test_a_model_that_reasons_only_if_asked() -> None:
    """A model that reasons only if asked takes a temperature until then."""
    known = capabilities("gpt-5.1")
    assert "temperature" in sent_body(BODY, known)
    assert "temperature" in sent_body({**BODY, "reasoning_effort": "none"}, known)
    assert "temperature" not in sent_body({**BODY, "reasoning_effort": "high"}, known)


def test_the_table_can_be_overridden() -> None:
    """A user's entry for a model goes before the packaged table."""
    own = {"refused_parameters": frozenset({"seed", "stop"}), "max_completion_tokens": True}
    known = capabilities("my-model", {"my-*": own})
    assert sent_body(BODY, known) == {"model": "m", "messages": [], "temperature": 0.5, "max_completion_tokens": 50}


def test_sending_changes_nothing() -> None:
    """The body that is sent is a copy: the request stays as it was asked."""
    before = dict(BODY)
    sent = sent_body(BODY, capabilities("o3-mini"))
    sent.clear()
    assert before == BODY


@given(st.dictionaries(st.sampled_from(["temperature", "top_p", "presence_penalty"]), NUMBERS))
def test_how_a_number_is_written_does_not_matter(parameters: dict[str, float]) -> None:
    """A whole number gives the same parameters as an int and as a float."""
    floats = {name: float(value) for name, value in parameters.items()}
    assert repr(asked_parameters(given_parameters(floats, None))) == repr(
        asked_parameters(given_parameters({name: _shortest(value) for name, value in parameters.items()}, None))
    )


def _shortest(value: float) -> float:
    return int(value) if value == int(value) else value
