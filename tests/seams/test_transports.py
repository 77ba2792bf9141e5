"""Transports of one's own: which are taken, and how a wrong one is refused."""

from __future__ import annotations

import re
from typing import Any

import pytest

from llmcall import ConfigError, LLMClient, OpenAIClient, ServiceError
from llmcall.types import Transport

OFF: Any = {"model": "m", "cache_mode": "off", "on_error": "raise", "retry_max_attempts": 1}


class Letter:
    """Something that cannot send."""

    def post(self) -> None:
        """Do something else."""


class Unfinished(Transport):
    """A transport whose ``send`` is missing."""


class Mute:
    """A transport that returns no response."""

    def send(self, request: Any, timeout: float | None) -> Any:
        """Return no response."""
        return "Hello"


def letter(client: LLMClient, endpoint: Any) -> Letter:
    """Make a client's transport."""
    return Letter()


@pytest.mark.parametrize("base", [LLMClient, OpenAIClient])
def test_a_transport_without_send_is_refused_by_its_class_and_the_method(
    base: type[LLMClient],
) -> None:
    made = type("Posting", (base,), {"make_transport": letter})(**OFF)
    for client in (LLMClient(transport=Letter(), **OFF), made):  # type: ignore[arg-type]
        name = type(client).__name__
        with pytest.raises(
            ConfigError, match=rf"{name}.*Letter has no method send\(request, timeout"
        ):
            client.send_message("Hello")


def test_a_subclass_of_transport_without_send_cannot_be_made() -> None:
    with pytest.raises(TypeError, match=r"Unfinished .*send"):
        Unfinished()  # type: ignore[abstract]


def test_a_transport_that_returns_no_response_is_a_failure_that_names_class_and_method() -> None:
    with pytest.raises(ServiceError, match=re.escape("Mute.send returned Hello, not a dict")):
        LLMClient(transport=Mute(), **OFF).send_message("Hello")
