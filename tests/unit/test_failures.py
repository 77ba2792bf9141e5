"""What a server's refusal becomes: every class of the tree, from a server that refuses so."""

from __future__ import annotations

import time
from email.utils import formatdate
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings
from overflows import OVERFLOWS
from pytest_httpserver import HTTPServer
from servers import OK, QUESTION, RETRY_AT_ONCE, Answer, ScriptedServer, client_for, refusal

from llmcall import (
    APIError,
    AuthenticationError,
    AzureClient,
    ContentFilterError,
    ContextLengthError,
    InvalidRequestError,
    OpenAIClient,
    QuotaExceededError,
    RateLimitError,
    ServiceError,
)
from llmcall.clients.api_errors import failure, seconds_to_wait

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["error", "message", "code", "type", "param", "innererror", "n_ctx"]), inner)
    ),
    max_leaves=8,
)


# Status, fields of the error, class, requests that the server sees of three possible ones.
STATUSES: list[tuple[int, dict[str, Any], type[APIError], int]] = [
    (400, {}, InvalidRequestError, 1),
    (400, {"code": "string_above_max_length"}, InvalidRequestError, 1),
    (401, {"code": "invalid_api_key"}, AuthenticationError, 1),
    (402, {}, QuotaExceededError, 1),
    (403, {}, AuthenticationError, 1),
    (404, {"code": "model_not_found"}, InvalidRequestError, 1),
    (408, {}, ServiceError, 3),
    (409, {}, ServiceError, 3),
    (413, {}, InvalidRequestError, 1),
    (422, {}, InvalidRequestError, 1),
    (429, {"code": "insufficient_quota", "type": "insufficient_quota"}, QuotaExceededError, 1),
    (429, {"code": "billing_not_active"}, QuotaExceededError, 1),
    (500, {}, ServiceError, 3),
    (501, {}, ServiceError, 3),
    (502, {}, ServiceError, 3),
    (503, {}, ServiceError, 3),
    (504, {}, ServiceError, 3),
    (529, {}, ServiceError, 3),
    (503, {"code": "insufficient_quota"}, ServiceError, 3),
    (400, {"code": "content_filter"}, ContentFilterError, 1),
    (400, {"code": "content_policy_violation"}, ContentFilterError, 1),
]


def asked(httpserver: HTTPServer, *answers: Answer, **settings: Any) -> tuple[Any, ScriptedServer, OpenAIClient]:
    """Ask a server that gives these answers; return the reply or error, the server and the client."""
    server = ScriptedServer(httpserver, *answers)
    with client_for(server.base_url, **settings) as client:
        return client.send_message(QUESTION, on_error="return"), server, client


@pytest.mark.parametrize(("status", "fields", "kind", "requests"), STATUSES)
def test_statuses(
    httpserver: HTTPServer, status: int, fields: dict[str, Any], kind: type[APIError], requests: int
) -> None:
    """A status becomes its class, with all that is known of the refusal; only what may pass is tried again."""
    error, server, client = asked(httpserver, refusal(status, "said so", **fields))
    assert type(error) is kind
    assert (error.status_code, error.request_id, error.endpoint) == (status, f"req-{status}", "127.0.0.1")
    assert error.attempts == len(server.requests) == requests
    assert type(error.__cause__).__module__ == "openai"
    assert str(error) == f"{status}: said so"
    assert len(client.cache) == 0


@pytest.mark.parametrize("name", OVERFLOWS)
def test_a_prompt_that_is_too_long(httpserver: HTTPServer, name: str) -> None:
    """Each server's way to say that a prompt is too long is known, with its numbers, and never tried again."""
    answer, prompt, window = OVERFLOWS[name]
    error, server, client = asked(httpserver, answer)
    assert type(error) is ContextLengthError
    assert (error.prompt_tokens, error.context_window) == (prompt, window)
    assert error.status_code == answer.status
    assert len(server.requests) == 1
    assert len(client.cache) == 0


@pytest.mark.parametrize(
    "words", ["Invalid 'messages[0].content': string too long.", "max_tokens is too large: 100000."]
)
def test_other_lengths_are_no_overflow(words: str) -> None:
    """A text or a limit that is too long for another reason is an ordinary bad request."""
    assert type(failure(400, {"error": {"message": words}})) is InvalidRequestError


@pytest.mark.parametrize("status", [401, 403, 429])
def test_a_status_goes_before_words(status: int) -> None:
    """A refused key or a rate limit that happens to speak of the context stays what it is."""
    words = "Tier 1 allows a maximum context length of 8192 tokens"
    assert not isinstance(failure(status, {"error": {"message": words}}), ContextLengthError)


def test_azure_filters_a_prompt(httpserver: HTTPServer) -> None:
    """Azure's refusal of a prompt, which names its policy in an inner error, is a filtered prompt."""
    body = {"error": {
        "message": "The response was filtered due to the prompt triggering Azure OpenAI's content management policy.",
        "type": None, "param": "prompt", "code": "content_filter", "status": 400,
        "innererror": {"code": "ResponsibleAIPolicyViolation", "content_filter_result": {"hate": {"filtered": True}}},
    }}  # fmt: skip
    server = ScriptedServer(httpserver, Answer(400, body, {"apim-request-id": "req-azure"}))
    settings = {"azure_endpoint": server.base_url.removesuffix("/v1"), "azure_api_version": "2024-10-21"}
    with AzureClient(api_key="secret-azure-key", **settings, **RETRY_AT_ONCE) as client:
        error = client.send_message(QUESTION, on_error="return")
    assert type(error) is ContentFilterError
    assert (error.request_id, len(server.requests)) == ("req-azure", 1)
    assert server.requests[0].path == "/openai/deployments/gpt-4o-mini/chat/completions?api-version=2024-10-21"
    assert server.requests[0].headers["api-key"] == "secret-azure-key"


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "1.5"}, 1.5),
        ({"retry-after-ms": "250"}, 0.25),
        ({"retry-after-ms": "250", "retry-after": "1"}, 0.25),
        ({"retry-after-ms": "soon", "retry-after": "2"}, 2.0),
        ({"retry-after": "-3"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "later"}, None),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0.0),
    ],
)
def test_the_wait_that_a_server_asks_for(headers: dict[str, str], seconds: float | None) -> None:
    """The wait is read in milliseconds or seconds; what is no wait is none, a date in the past is no time."""
    assert seconds_to_wait(headers) == seconds


def test_a_wait_until_a_date() -> None:
    """A date in the future is the time until then, to the second that HTTP dates have."""
    waited = seconds_to_wait({"retry-after": formatdate(time.time() + 100, usegmt=True)})
    assert waited is not None
    assert 98 < waited <= 100


@pytest.mark.parametrize("minutes", [-30 * 525_960, -10, 0, 10, 100 * 525_960])
def test_a_wait_until_a_date_of_the_servers_clock(minutes: int) -> None:
    """Where the response tells its date, the wait is the time between the two, whatever the clock here says."""
    sent = time.time() + minutes * 60
    headers = {"date": formatdate(sent, usegmt=True), "retry-after": formatdate(sent + 100, usegmt=True)}
    assert seconds_to_wait(headers) == 100.0


@pytest.mark.parametrize("date", ["", "yesterday", "Mon, 32 Foo 2020 99:99:99 +9999"])
def test_a_response_whose_date_is_none(date: str) -> None:
    """Then the clock here counts."""
    waited = seconds_to_wait({"date": date, "retry-after": formatdate(time.time() + 3600, usegmt=True)})
    assert waited is not None
    assert 3500 < waited <= 3600


def test_a_date_without_a_zone() -> None:
    """It is one of Greenwich, as all of HTTP are, wherever this machine is."""
    headers = {"date": "Fri, 20 Nov 2026 12:00:00 GMT", "retry-after": "Fri, 20 Nov 2026 12:00:30 -0000"}
    assert seconds_to_wait(headers) == 30.0


def test_the_wait_is_kept(httpserver: HTTPServer) -> None:
    """The error of a rate limit tells how long the server asked to wait."""
    answer = refusal(429, headers={"retry-after": "7"})
    error, _, _ = asked(httpserver, answer, OK, retry_max_attempts=1)
    assert type(error) is RateLimitError
    assert error.retry_after == 7.0


@settings(max_examples=50)
@given(status=st.integers(400, 599), body=JSON)
def test_any_refusal_has_a_class(status: int, body: Any) -> None:
    """Whatever the body is, a refusal is an error of the tree that tells its status."""
    error = failure(status, body)
    assert error.status_code == status
    assert str(error).startswith(f"{status}: ")


@given(st.text(max_size=40))
def test_any_wait_is_a_time(text: str) -> None:
    """Whatever a server writes into Retry-After, it is a number of seconds that can be waited, or none."""
    waited = seconds_to_wait({"retry-after": text})
    assert waited is None or 0 <= waited < float("inf")
