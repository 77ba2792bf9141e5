"""The arguments that steer a call: told apart from those of the API, and checked by name."""

from __future__ import annotations

import re
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given

from llmcall.engine.prepare import Options
from llmcall.engine.prepare import split_options as split

TIMES = ["timeout", "deadline", "waiting_time", "exponential_backoff_factor"]


def test_told_apart() -> None:
    """What steers the call becomes options, the rest is left for the API, and None is not given."""
    arguments = {"timeout": 2, "temperature": 0.5, "sample": 3, "cache": False, "model": None, "deadline": None}
    assert split(arguments) == (Options(timeout=2, sample="3", cache=False), {"temperature": 0.5})


def test_nothing_given() -> None:
    """Without an option, all are as the settings say; the arguments are not changed."""
    arguments = {"temperature": 0.5, "on_error": None}
    assert split(arguments) == (Options(), {"temperature": 0.5})
    assert arguments == {"temperature": 0.5, "on_error": None}


@pytest.mark.parametrize(
    "arguments",
    [
        {"timeout": 0.001},
        {"deadline": 1},
        {"max_attempts": 1},
        {"waiting_time": 0},
        {"exponential_backoff_factor": 0.5},
        {"sample": "third"},
        {"cache": True},
        {"on_error": "raise"},
        {"on_error": "none"},
        {"on_error": "return"},
        {"dedent_messages": True},
    ],
)
def test_what_is_allowed(arguments: dict[str, Any]) -> None:
    """A value within its bounds is taken as it is."""
    options, _ = split(arguments)
    assert {name: getattr(options, name) for name in arguments} == arguments


@pytest.mark.parametrize(
    ("arguments", "kind"),
    [
        *(({name: value}, TypeError) for name in TIMES for value in ("5", True, b"5", [5], 1j)),
        *(({name: value}, ValueError) for name in TIMES for value in (-1, float("nan"), float("inf"))),
        *(({name: 0}, ValueError) for name in TIMES if name != "waiting_time"),
        ({"max_attempts": 0}, ValueError),
        ({"max_attempts": -2}, ValueError),
        ({"max_attempts": 2.0}, TypeError),
        ({"max_attempts": "3"}, TypeError),
        ({"sample": 1.0}, TypeError),
        ({"sample": True}, TypeError),
        ({"sample": b"1"}, TypeError),
        ({"sample": ""}, ValueError),
        ({"cache": 0}, TypeError),
        ({"cache": "no"}, TypeError),
        ({"dedent_messages": 1}, TypeError),
        ({"on_error": "Raise"}, ValueError),
        ({"on_error": True}, ValueError),
        ({"on_error": ["raise"]}, ValueError),
    ],
)
def test_what_is_refused(arguments: dict[str, Any], kind: type[Exception]) -> None:
    """A value of the wrong type or out of range is refused by its name."""
    (name,) = arguments
    with pytest.raises(kind, match=rf"^{re.escape(name)} is "):
        split(arguments)


def test_the_allowed_words_are_named() -> None:
    """Who misspells on_error is told the words that there are."""
    with pytest.raises(ValueError, match="'raise', 'none', 'return'"):
        split({"on_error": "ignore"})


@given(st.integers())
def test_a_sample_is_its_text(sample: int) -> None:
    """The sample 1 is the sample "1"."""
    assert split({"sample": sample})[0] == split({"sample": str(sample)})[0]
