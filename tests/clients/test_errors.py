"""Errors of APIs: every class of the tree, by the real bodies of many servers."""

from __future__ import annotations

import asyncio
import itertools
import json
import pickle
import socket
import threading
import time
import traceback
from base64 import b64encode
from email.utils import formatdate
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import openai
import pytest
from clients import client_for, http
from hypothesis import given
from pytest_httpserver import HTTPServer
from servers import QUESTION, Answer, ScriptedServer, completion, refusal, refusing

import llmcall
from llmcall import (
    APIError,
    AuthenticationError,
    ContentFilterError,
    ContextLengthError,
    InvalidRequestError,
    OpenAIClient,
    QuotaExceededError,
    RateLimitError,
    ServiceError,
)
from llmcall.testing import ScriptedClient

TOO_LARGE = (
    "Request too large for gpt-4o in organization org-1 on tokens per min (TPM): Limit 30000, Requested 36278. The "
    "input or output tokens must be reduced in order to run successfully."
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
    (422, {}, InvalidRequestError, 1),
    (429, {}, RateLimitError, 3),
    (429, {"code": "insufficient_quota", "type": "insufficient_quota"}, QuotaExceededError, 1),
    (429, {"code": "billing_not_active"}, QuotaExceededError, 1),
    (429, {"message": TOO_LARGE}, RateLimitError, 1),
    (429, {"message": "on tokens per min. Limit: 9, Requested: 10."}, RateLimitError, 1),
    (429, {"message": "on tokens per min. Limit: 9, Requested: 8."}, RateLimitError, 3),
    (500, {}, ServiceError, 3),
    (500, {"message": "image input is not supported"}, InvalidRequestError, 1),  # llama.cpp's
    (503, {}, ServiceError, 3),
    (529, {}, ServiceError, 3),
    (503, {"code": "insufficient_quota"}, ServiceError, 3),
    (400, {"code": "content_filter"}, ContentFilterError, 1),
    (400, {"code": "content_policy_violation"}, ContentFilterError, 1),
]


def asked(
    httpserver: HTTPServer, *answers: Answer, **settings: Any
) -> tuple[Any, ScriptedServer, OpenAIClient]:
    """Ask a server that gives these answers; return the reply or error, the server and the client."""
    server = ScriptedServer(httpserver, *answers)
    with client_for(server.base_url, **settings) as client:
        return client.send_message(QUESTION, on_error="return"), server, client


PORTS = itertools.count(1)


def error_of(status: int, body: Any = None, **headers: str) -> Any:
    """Return the error of a call that a server answers so: another one each time, since one that names a wait rests."""
    written = {name: text.encode() for name, text in headers.items()}
    transport = http.MockTransport(lambda _: http.Response(status, json=body, headers=written))
    address = f"http://localhost:{next(PORTS)}/v1"
    with openai.DefaultHttpxClient(transport=transport, verify=False) as http_client:
        client = OpenAIClient(base_url=address, http_client=http_client, retry_max_attempts=1)
        return client.send_message(QUESTION, on_error="return")


@pytest.mark.parametrize(("status", "fields", "kind", "requests"), STATUSES)
def test_a_status_becomes_the_class_of_its_error(
    httpserver: HTTPServer, status: int, fields: dict[str, Any], kind: type[APIError], requests: int
) -> None:
    """It has all that is known of the refusal, with the SDK's error as its cause. Only what may pass, a rate limit
    and a failing service, is tried again; no failure is stored.
    """
    fields = {"message": "said so", **fields}
    error, server, client = asked(httpserver, refusal(status, **fields))
    assert type(error) is kind
    assert error.status_code == status
    assert error.request_id == f"req-{status}"
    assert error.endpoint == "127.0.0.1"
    assert str(error) == f"{status}: {fields['message']}"
    assert type(error.__cause__).__module__ == "openai"
    assert error.attempts == len(server.requests) == requests
    assert len(client.cache) == 0


# How servers say that a prompt is too long, in full: their form, their words, and the numbers that
# these tell.
OVERFLOWS = json.loads(
    (Path(__file__).parent / "context_overflows.json").read_text(encoding="utf-8")
)


def test_the_sdks_error_behind_an_error_of_llmcall_holds_no_key(httpserver: HTTPServer) -> None:
    """It is shown with ours, as its cause, so what a server repeats of the key is masked in it too."""
    key = "SESAME-open-1234567890-SESAME"
    echo = refusal(400, f"you sent {key}", code=key, param=key)
    error, _, _ = asked(httpserver, echo, api_key=key)
    cause = error.__cause__
    assert isinstance(cause, openai.BadRequestError)
    assert "you sent" in str(cause)
    shown = [*traceback.format_exception(error), repr(cause), *map(str, vars(cause).values())]
    assert key not in "".join(shown)


def test_an_error_does_not_show_the_password_of_basic_authentication(
    httpserver: HTTPServer,
) -> None:
    """The header has it in Base64, and a server may repeat it in plain letters."""
    header = "Basic " + b64encode(b"lisa:open-sesame").decode()
    server = ScriptedServer(httpserver, refusal(400, "wrong password: open-sesame"))
    with client_for(server.base_url) as client:
        error = client.send_message(
            "Hello", on_error="return", extra_headers={"Authorization": header}
        )
    assert "wrong password: " in str(error)
    assert "sesame" not in str(error)


ESCAPES = "\x1b[31mred\x1b[0m\x07\x9b2J\u202e"


@pytest.mark.parametrize(
    "answer",
    [
        refusal(400, ESCAPES),
        Answer(400, ESCAPES),
        Answer(200, completion("Half", finish_reason=ESCAPES)),
        Answer(200, {"error": {"message": ESCAPES}}),
    ],
    ids=["an error", "a text", "an ending", "an error with the status 200"],
)
def test_a_servers_words_cannot_command_a_terminal(
    answer: Answer, httpserver: HTTPServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither in the log line of a failed call nor in the traceback of its error and the SDK's."""
    with client_for(ScriptedServer(httpserver, answer).base_url, retry_max_attempts=1) as client:
        assert client.send_message(QUESTION, on_error="none") is None
        with pytest.raises(APIError) as caught:
            client.send_message(QUESTION, on_error="raise")
    logged = [entry.getMessage() for entry in caplog.records if entry.name == "llmcall"]
    for text in (*logged, *traceback.format_exception(caught.value)):
        assert not {*"\x1b\x07\x9b\u202e"} & {*text}
    assert "\\x1b[31mred" in logged[0]
    assert "\\x1b[31mred" in str(caught.value)


def test_a_name_that_cannot_be_resolved_is_told_with_two_questions(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The machine is offline, or the address wrong; behind a proxy it may be the proxy's name."""

    def look_up(host: Any, *_: Any, **__: Any) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    nowhere = "https://api.nowhere.invalid/v1"
    with client_for(nowhere, api_key="any", retry_max_attempts=1) as client:
        failure = client.send_message(QUESTION, on_error="return")
        assert str(failure) == (
            "Cannot resolve api.nowhere.invalid. Is this machine online? Is BASE_URL right?"
        )
        monkeypatch.setenv("HTTPS_PROXY", "http://proxy.nowhere.invalid:3128")
    with client_for(nowhere, api_key="any", retry_max_attempts=1) as client:
        failure = client.send_message(QUESTION, on_error="return")
    assert "Cannot resolve" not in str(failure)
    assert "the proxy http://proxy.nowhere.invalid:3128" in str(failure)


def test_a_failed_connection_may_be_among_its_own_causes() -> None:
    """An error that a library raises again, while it handles what it led to."""

    def fail(request: Any) -> Any:
        error, other = http.ConnectError("oops"), ValueError("again")
        error.__cause__, other.__context__ = other, error
        raise error

    body = {"model": "m", "messages": [{"role": "user", "content": "Bread?"}]}
    own = http.Client(transport=http.MockTransport(fail))
    with llmcall.cassette("tape.jsonl"), own, pytest.raises(http.ConnectError, match="oops"):
        own.post("https://api.openai.com/v1/chat/completions", json=body)


def test_a_refused_connection_is_tried_as_often_as_any_failure(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A server of this machine may be about to start; the log names the attempts."""
    with refusing() as address, client_for(address, retry_max_attempts=5) as client:
        failure = client.send_message(QUESTION, on_error="return")
    assert isinstance(failure, ServiceError) and failure.attempts == 5
    assert "(attempt 1 of 5)" in caplog.text


@pytest.mark.parametrize("answers", [True, False], ids=["a proxy that answers", "no proxy there"])
def test_the_environment_s_proxy_before_a_server_is_named(
    answers: bool, httpserver: HTTPServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For a server of this machine, by whatever the proxy answers; without its password."""
    server = ScriptedServer(httpserver, *[Answer(503, "<html>no such host</html>")] * 9)
    with refusing() as nobody, client_for("http://localhost:1/v1") as client:
        proxy = (server.base_url if answers else nobody).removesuffix("/v1")
        monkeypatch.setenv("HTTP_PROXY", proxy.replace("//", "//me:secret@"))
        failure = str(client.send_message(QUESTION, on_error="return"))
    assert proxy.replace("//", "//***@") in failure and "set NO_PROXY=localhost " in failure


def test_a_proxy_that_the_environment_goes_past_is_not_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The server was asked itself."""
    monkeypatch.setenv("HTTP_PROXY", "http://proxy.example:3128")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with refusing() as nobody, client_for(nobody) as client:
        assert "proxy.example" not in str(client.send_message(QUESTION, on_error="return"))


def overflow(form: str, server_error: Any) -> Answer:
    """Return the refusal of a prompt that is too long: in OpenAI's form, vLLM's flat one, or as it
    came.
    """
    kind, _, status = form.partition(" ")
    flat = {
        "object": "error",
        "message": server_error,
        "type": "BadRequestError",
        "param": None,
        "code": 400,
    }
    forms = {
        "azure": refusal(400, str(server_error), param="messages", code="context_length_exceeded"),
        "message": refusal(400, str(server_error)),
        "flat": Answer(400, flat),
        "body": Answer(400, server_error),
    }
    return forms[kind]._replace(status=int(status or 400))


@pytest.mark.parametrize(
    ("form", "server_error", "prompt", "window"),
    [tuple(overflow.values()) for overflow in OVERFLOWS],
)
def test_each_servers_way_to_say_that_a_prompt_is_too_long_is_known(
    httpserver: HTTPServer, form: str, server_error: Any, prompt: int | None, window: int | None
) -> None:
    """The error has its numbers; the call is not tried again."""
    answer = overflow(form, server_error)
    error, server, client = asked(httpserver, answer)
    assert type(error) is ContextLengthError
    assert (error.prompt_tokens, error.context_window) == (prompt, window)
    assert error.status_code == answer.status
    assert (len(server.requests), len(client.cache)) == (1, 0)


# Errors that some servers send with the status 200, and what their code says of them.
WITH_200: list[tuple[dict[str, Any], type[APIError]]] = [
    ({"code": 429, "message": "slow down"}, RateLimitError),
    ({"code": 502, "message": "provider down"}, ServiceError),
    ({"code": 402, "message": "no credits"}, QuotaExceededError),
    ({"code": "server_error", "message": "oops"}, ServiceError),
]


@pytest.mark.parametrize(("server_error", "kind"), WITH_200)
def test_an_error_with_the_status_200_gets_the_class_of_its_code(
    httpserver: HTTPServer, server_error: dict[str, Any], kind: type[APIError]
) -> None:
    """The error keeps the status 200."""
    answer = Answer(200, {"error": server_error}, {"x-request-id": "req-200"})
    error, _, _ = asked(httpserver, answer, retry_max_attempts=1)
    assert (type(error), error.status_code, error.request_id) == (kind, 200, "req-200")
    assert server_error["message"] in str(error)


# As the providers write them: a status, and a body.
FILTERS: dict[str, tuple[int, Any]] = {
    "Azure": (
        400,
        {
            "error": {
                "message": "The response was filtered",
                "type": None,
                "code": None,
                "innererror": {
                    "code": "ResponsibleAIPolicyViolation",
                    "content_filter_result": {"hate": {"filtered": True}},
                },
            }
        },
    ),
    "OpenAI": (
        400,
        {
            "error": {
                "message": "Invalid prompt: your prompt was flagged as potentially violating our usage policy.",
                "type": "invalid_request_error",
                "param": None,
                "code": "invalid_prompt",
            }
        },
    ),
    "Anthropic": (
        400,
        {
            "type": "error",
            "error": {
                "type": "invalid_request_error",
                "message": "Output blocked by content filtering policy",
            },
        },
    ),
    "Anthropic, in a stream": (
        500,
        {
            "type": "error",
            "error": {"type": "api_error", "message": "Output blocked by content filtering policy"},
        },
    ),
    "DeepSeek": (
        400,
        {"error": {"message": "Content Exists Risk", "type": "invalid_request_error"}},
    ),
    "DashScope": (
        400,
        {
            "error": {
                "code": "data_inspection_failed",
                "message": "Input data may contain inappropriate content.",
                "type": "data_inspection_failed",
            }
        },
    ),
    "xAI": (
        403,
        {
            "code": "The caller does not have permission to execute the specified operation",
            "error": "Content violates usage guidelines. Failed check: SAFETY_CHECK_TYPE_BIO",
        },
    ),
    "OpenRouter": (
        403,
        {
            "error": {
                "code": 403,
                "message": "Your input was flagged",
                "metadata": {"reasons": ["violence"], "flagged_input": "a knife"},
            }
        },
    ),
}


@pytest.mark.parametrize(("status", "body"), FILTERS.values(), ids=FILTERS)
def test_a_filtered_prompt_is_known_by_each_providers_words(
    httpserver: HTTPServer, status: int, body: Any
) -> None:
    """It is asked once, and neither the model's name nor the key is in doubt."""
    gateways = {"apim-request-id": "req-azure"}
    error, server, _ = asked(httpserver, Answer(status, body, gateways))
    assert (type(error), error.status_code) == (ContentFilterError, status)
    assert error.request_id == "req-azure"
    assert len(server.requests) == 1
    assert "Change the prompt" in error.remedy


# Refusals of a place: OpenAI's, and Azure's rule for a network.
PLACES = {
    "country": {
        "code": "unsupported_country_region_territory",
        "message": "Country, region, or territory not supported",
    },
    "network": {
        "code": "403",
        "message": "Access denied due to Virtual Network/Firewall rules.",
    },
}


@pytest.mark.parametrize("fields", PLACES.values(), ids=PLACES)
def test_a_refused_place_is_told_in_the_servers_words(
    httpserver: HTTPServer, fields: dict[str, str]
) -> None:
    """The key is not to blame."""
    error, _, _ = asked(httpserver, refusal(403, **fields))
    assert type(error) is AuthenticationError
    assert fields["message"] in str(error)
    assert "Check the API key" not in error.remedy
    assert "network" in error.remedy


SENT = 1_780_000_000  # seconds since 1970
DATE = {"date": formatdate(SENT, usegmt=True)}
RETRY_INFO = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "31s"}
# What names a wait after a 429: headers, fields of the error, seconds.
NAMED: dict[str, tuple[dict[str, str], dict[str, Any], float | None]] = {
    "minutes": ({"x-ratelimit-reset-requests": "6m0s"}, {}, 360.0),
    "seconds": ({"x-ratelimit-reset-tokens": "1.2s"}, {}, 1.2),
    "milliseconds": ({"x-ratelimit-reset-tokens": "250ms"}, {}, 0.25),
    "a number": ({"x-ratelimit-reset-tokens": "10"}, {}, 10.0),
    "the longer of two": (
        {"x-ratelimit-reset-requests": "2m59.5s", "x-ratelimit-reset-tokens": "7s"},
        {},
        179.5,
    ),
    "tokens, while requests are left": (
        {
            "x-ratelimit-reset-requests": "2m59.5s",
            "x-ratelimit-remaining-requests": "14370",
            "x-ratelimit-reset-tokens": "7s",
        },
        {},
        7.0,
    ),
    "milliseconds since 1970": ({**DATE, "x-ratelimit-reset": f"{SENT + 42}000"}, {}, 42.0),
    "seconds since 1970": ({**DATE, "x-ratelimit-reset": f"{SENT + 42}"}, {}, 42.0),
    "a time that is over": ({**DATE, "x-ratelimit-reset": f"{SENT - 42}000"}, {}, 0.0),
    "OpenRouter's body": (
        DATE,
        {"metadata": {"headers": {"X-RateLimit-Reset": f"{SENT + 42}000"}}},
        42.0,
    ),
    "Google's body": ({}, {"details": [{"@type": "other"}, RETRY_INFO]}, 31.0),
    "Retry-After first": ({"retry-after": "3", "x-ratelimit-reset-requests": "6m0s"}, {}, 3.0),
    "no duration": ({"x-ratelimit-reset-requests": "soon"}, {"details": "none"}, None),
}


@pytest.mark.parametrize(("headers", "fields", "seconds"), NAMED.values(), ids=NAMED)
def test_a_429_names_the_wait_in_many_ways(
    headers: dict[str, str], fields: dict[str, Any], seconds: float | None
) -> None:
    """The error has it in seconds, computed from the server's own date. OpenAI sends some of these headers with
    every response.
    """
    assert error_of(500, **{"x-ratelimit-reset-requests": "6m0s"}).retry_after is None
    error = error_of(429, {"error": fields}, **headers)
    assert error.retry_after == (None if seconds is None else pytest.approx(seconds, abs=1e-6))


def test_a_wait_that_googles_body_names_is_kept_by_the_deadline(httpserver: HTTPServer) -> None:
    """It would end later, so the call fails at once; Gemini wraps its error in a list."""
    body = [{"error": {"code": 429, "message": "slow down", "details": [RETRY_INFO]}}]
    error, server, _ = asked(httpserver, Answer(429, body, {}), deadline=20)
    assert (type(error), len(server.requests)) == (RateLimitError, 1)
    assert error.retry_after == 31.0


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "1.5"}, 1.5),
        ({"retry-after-ms": "250"}, 0.25),
        ({"retry-after-ms": "250", "retry-after": "1"}, 0.25),
        ({"retry-after-ms": "soon", "retry-after": "2"}, 2.0),
    ],
)
def test_a_wait_is_read_in_milliseconds_or_seconds(headers: dict[str, str], seconds: float) -> None:
    """Milliseconds, being more exact, go before."""
    assert error_of(503, **headers).retry_after == seconds


YEARS = {"retry-after": str(10 * 365 * 86400)}


def test_a_wait_of_years_fails_at_once_before_a_deadline(
    httpserver: HTTPServer, caplog: pytest.LogCaptureFixture
) -> None:
    """A line says how long the server asks to wait, and how long llmcall would."""
    answer = refusal(429, "slow down", headers=YEARS)
    error, server, _ = asked(httpserver, answer, deadline=60)
    assert (type(error), len(server.requests)) == (RateLimitError, 1)
    assert "asks for a wait of 315,360,000 s; llmcall waits at most 3,600 s" in caplog.text


@pytest.mark.parametrize("minutes", [-30 * 525_960, -10, 0, 10, 100 * 525_960])
def test_a_wait_until_a_date_is_the_time_from_the_responses_own_date(minutes: int) -> None:
    """The clock here may be wrong."""
    sent = time.time() + minutes * 60
    headers = {
        "date": formatdate(sent, usegmt=True),
        "retry-after": formatdate(sent + 100, usegmt=True),
    }
    assert error_of(503, **headers).retry_after == 100.0


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["error", "message", "code", "type", "param", "innererror", "n_ctx"]),
            inner,
        )
    ),
    max_leaves=8,
)


@given(status=st.integers(400, 599), body=JSON)
def test_any_refusal_is_an_error_that_has_its_status(status: int, body: Any) -> None:
    """The body may be anything."""
    error = error_of(status, body)
    assert error.status_code == status
    assert str(error).startswith(f"{status}: ")


@given(
    name=st.sampled_from(
        ["retry-after", "retry-after-ms", "x-ratelimit-reset", "x-ratelimit-reset-tokens"]
    ),
    text=st.text(max_size=40)
    | st.sampled_from(["1e300", "9" * 400, "Mon, 01 Jan 99999 00:00:00 GMT", "1e400"]),
)
def test_any_retry_after_is_a_number_of_seconds_or_ignored(name: str, text: str) -> None:
    """A server may write anything into Retry-After."""
    body = {"error": {"details": [{**RETRY_INFO, "retryDelay": text}]}}
    waited = error_of(429, body, **{name: text}).retry_after
    assert waited is None or 0 <= waited < float("inf")


# The files of the functions that programs call, and what raises their errors.
@pytest.mark.parametrize(
    ("path", "code", "meant"),
    [
        ("", None, "/v1"),
        ("/", None, "/v1"),
        ("/v1/chat/completions", None, "/v1"),
        ("/chat/completions", None, "/v1"),
        ("/v1/embeddings/", None, "/v1"),
        ("/v1", None, None),
        ("", "model_not_found", None),
    ],
)
@pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])
def test_a_404_names_the_address_that_was_probably_meant(
    path: str, code: str | None, meant: str | None, asynchronous: bool, httpserver: HTTPServer
) -> None:
    """It does not if the address is right or if the model is missing."""
    server = ScriptedServer(httpserver, refusal(404, "not found", code=code))
    root = server.base_url.removesuffix("/v1")
    client = OpenAIClient(base_url=root + path, api_key="k", cache_mode="off")
    ask = client.asend_message(QUESTION, on_error="return") if asynchronous else None
    error = asyncio.run(ask) if ask else client.send_message(QUESTION, on_error="return")
    assert isinstance(error, InvalidRequestError)
    assert ("did you mean" in str(error)) is (meant is not None)
    assert meant is None or f"did you mean {root}{meant}?" in str(error)


# Errors that leave a process


@pytest.mark.parametrize(
    "error",
    [
        llmcall.LLMCallError("words"),
        llmcall.ConfigError("words"),
        llmcall.APIError("words", status_code=500, request_id="r", attempts=2, endpoint="e"),
        llmcall.InvalidRequestError("words", status_code=400),
        llmcall.ContextLengthError("words", prompt_tokens=9, context_window=8, status_code=400),
        llmcall.AuthenticationError("words", status_code=401),
        llmcall.RateLimitError("words", status_code=429, retry_after=1.5),
        llmcall.QuotaExceededError("words", status_code=429),
        llmcall.ServiceError("words", status_code=500),
        llmcall.RequestTimeoutError("words"),
        llmcall.ContentFilterError("words"),
        llmcall.EmptyAnswerError("words"),
        llmcall.CacheError("words"),
        llmcall.CacheMissError("words"),
        llmcall.CacheCorruptError("words"),
        llmcall.ScopeError("words"),
        llmcall.BudgetExceededError("words"),
        llmcall.TemplateError("words"),
        llmcall.OutputError("words", text="three", expected="int"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_errors_survive_pickling(error: Exception) -> None:
    """Each error has the same message and attributes after it left a process pool."""
    found = pickle.loads(pickle.dumps(error))
    assert type(found) is type(error)
    assert str(found) == str(error)
    assert vars(found) == vars(error)


class Refusal(APIError, OSError):
    """An error of a user's transport, with a constructor of its own; an OSError, as those of requests are."""

    def __init__(self, reason: str, *, seats: int) -> None:
        super().__init__(f"{reason} ({seats} seats)")
        self.reason = reason


@pytest.mark.parametrize("count", [1, 3])
def test_a_transports_own_error_reaches_each_caller_as_it_is(count: int) -> None:
    """However it is made, and whether or not several identical calls share it."""
    all_ask = threading.Event()

    def refuse(_: object) -> str:
        all_ask.wait(30)
        raise Refusal("no room", seats=3)

    client = ScriptedClient(refuse, cache_mode="auto", on_error="raise")

    async def ask_at_once() -> list[Any]:
        calls = [asyncio.ensure_future(client.asend_message("Hello")) for _ in range(count)]
        asyncio.get_running_loop().call_soon(all_ask.set)
        return await asyncio.gather(*calls, return_exceptions=True)

    errors = asyncio.run(ask_at_once())
    assert [(type(error), error.reason, str(error)) for error in errors] == [
        (Refusal, "no room", "no room (3 seats)")
    ] * count
    assert len(client.requests) == 1
    assert client.send_message("Hello", on_error="none") is None
