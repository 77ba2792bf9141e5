"""What an API's failures become: every class of the tree, by the real bodies of many servers."""

from __future__ import annotations

import asyncio
import json
import os
import time
import traceback
from collections.abc import Callable
from email.utils import formatdate
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import openai
import pytest
from hypothesis import given, settings
from pytest_httpserver import HTTPServer
from servers import QUESTION, Answer, ScriptedServer, client_for, refusal, refusing

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

# any body, any header: a grammar for a property test
from llmcall.clients.api_errors import (
    failure,
    seconds_to_wait,
)
from llmcall.testing import ScriptedClient

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
    (500, {}, ServiceError, 3),
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


@pytest.mark.parametrize(("status", "fields", "kind", "requests"), STATUSES)
def test_statuses(
    httpserver: HTTPServer, status: int, fields: dict[str, Any], kind: type[APIError], requests: int
) -> None:
    """A status becomes its class, with all that is known of the refusal; only what may pass is
    tried again.
    """
    error, server, client = asked(httpserver, refusal(status, "said so", **fields))
    assert type(error) is kind
    assert (error.status_code, error.request_id, error.endpoint) == (
        status,
        f"req-{status}",
        "127.0.0.1",
    )
    assert error.attempts == len(server.requests) == requests
    assert type(error.__cause__).__module__ == "openai"
    assert str(error) == f"{status}: said so"
    assert len(client.cache) == 0


# How servers say that a prompt is too long, in full: their form, their words, and the numbers that
# these tell.
OVERFLOWS = json.loads(
    (Path(__file__).parent / "context_overflows.json").read_text(encoding="utf-8")
)


def test_the_sdks_error_behind_ours_holds_no_key(httpserver: HTTPServer) -> None:
    """It is shown with ours, as its cause, so what a server repeats of the key is masked in it too."""
    key = "SESAME-open-1234567890-SESAME"
    echo = refusal(400, f"you sent {key}", code=key, param=key)
    error, _, _ = asked(httpserver, echo, api_key=key)
    cause = error.__cause__
    assert isinstance(cause, openai.BadRequestError) and "you sent" in str(cause)
    shown = [*traceback.format_exception(error), repr(cause), *map(str, vars(cause).values())]
    assert key not in "".join(shown)


def test_a_refused_connection_is_tried_twice(caplog: pytest.LogCaptureFixture) -> None:
    """Nobody listens at an address of this machine: the log names the two attempts that are made."""
    with refusing() as address, client_for(address, retry_max_attempts=5) as client:
        failure = client.send_message(QUESTION, on_error="return")
    assert isinstance(failure, ServiceError) and failure.attempts == 2
    assert "attempt 1 of 2 failed" in caplog.text


def overflow(form: str, told: Any) -> Answer:
    """Return the refusal of a prompt that is too long: in OpenAI's form, vLLM's flat one, or as it
    came.
    """
    kind, _, status = form.partition(" ")
    flat = {
        "object": "error",
        "message": told,
        "type": "BadRequestError",
        "param": None,
        "code": 400,
    }
    forms = {
        "azure": refusal(400, str(told), param="messages", code="context_length_exceeded"),
        "message": refusal(400, str(told)),
        "flat": Answer(400, flat),
        "body": Answer(400, told),
    }
    return forms[kind]._replace(status=int(status or 400))


@pytest.mark.parametrize(
    ("form", "told", "prompt", "window"), [tuple(each.values()) for each in OVERFLOWS]
)
def test_a_prompt_that_is_too_long(
    httpserver: HTTPServer, form: str, told: Any, prompt: int | None, window: int | None
) -> None:
    """Each server's way to say that a prompt is too long is known, with its numbers, and never
    tried again.
    """
    answer = overflow(form, told)
    error, server, client = asked(httpserver, answer)
    assert type(error) is ContextLengthError
    assert (error.prompt_tokens, error.context_window, error.status_code) == (
        prompt,
        window,
        answer.status,
    )
    assert (len(server.requests), len(client.cache)) == (1, 0)


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (400, "Invalid 'messages[0].content': string too long."),
        (400, "max_tokens is too large: 100000."),
        *(
            (status, "Tier 1 allows a maximum context length of 8192 tokens")
            for status in (401, 403, 429)
        ),
    ],
)
def test_what_is_no_overflow(status: int, words: str) -> None:
    """What is too long for another reason, a refused key and a rate limit stay what they are."""
    error = failure(status, {"error": {"message": words}})
    assert not isinstance(error, ContextLengthError) and (
        status != 400 or type(error) is InvalidRequestError
    )


# Errors that some servers send with the status 200, and what their code says of them.
WITH_200: list[tuple[dict[str, Any], type[APIError]]] = [
    ({"code": 429, "message": "slow down"}, RateLimitError),
    ({"code": 502, "message": "provider down"}, ServiceError),
    ({"code": 402, "message": "no credits"}, QuotaExceededError),
    ({"code": "server_error", "message": "oops"}, ServiceError),
]


@pytest.mark.parametrize(("told", "kind"), WITH_200)
def test_an_error_with_status_200(
    httpserver: HTTPServer, told: dict[str, Any], kind: type[APIError]
) -> None:
    """An error that comes with the status 200 is what its code says, and its status is told as it
    was.
    """
    answer = Answer(200, {"error": told}, {"x-request-id": "req-200"})
    error, _, _ = asked(httpserver, answer, retry_max_attempts=1)
    assert (type(error), error.status_code, error.request_id) == (kind, 200, "req-200")
    assert told["message"] in str(error)


def test_azure_filters_a_prompt() -> None:
    """Azure's refusal of a prompt, which names its policy in an inner error, is a filtered prompt."""
    filtered = {
        "code": "ResponsibleAIPolicyViolation",
        "content_filter_result": {"hate": {"filtered": True}},
    }
    body = {
        "error": {
            "message": "The response was filtered",
            "type": None,
            "code": None,
            "innererror": filtered,
        }
    }
    error = failure(400, body, headers={"apim-request-id": "req-azure"})
    assert (type(error), error.request_id) == (ContentFilterError, "req-azure")


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
    """The wait is read in milliseconds or seconds; what is no wait is none, a date in the past is
    no time.
    """
    assert seconds_to_wait(headers) == seconds


@pytest.mark.parametrize("minutes", [-30 * 525_960, -10, 0, 10, 100 * 525_960])
def test_a_wait_until_a_date(minutes: int) -> None:
    """A wait is the time from the response's own date, whatever the clock here says; without one,
    the clock counts.
    """
    sent = time.time() + minutes * 60
    headers = {
        "date": formatdate(sent, usegmt=True),
        "retry-after": formatdate(sent + 100, usegmt=True),
    }
    assert seconds_to_wait(headers) == 100.0
    for date in ("", "yesterday", "Mon, 32 Foo 2020 99:99:99 +9999"):
        waited = seconds_to_wait(
            {"date": date, "retry-after": formatdate(time.time() + 3600, usegmt=True)}
        )
        assert waited is not None and 3500 < waited <= 3600


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


@pytest.mark.parametrize(
    "read", [llmcall.compare, lambda path, _: llmcall.ResponseCache("new").load(path)]
)
def test_a_missing_file_is_named_without_inner_frames(read: Callable[[str, str], object]) -> None:
    """The error of a missing recording names the file and says what to give, without the frames in
    which llmcall reads it.
    """
    error = leaving(lambda: read("missing.jsonl", "other.jsonl"))
    assert isinstance(error, FileNotFoundError)
    assert str(error).startswith("missing.jsonl does not exist; give the path of")
    assert inner_frames(error) == 1


def test_a_table_fails_without_inner_frames() -> None:
    """The traceback of a table ends where the program asks for the table."""
    pytest.importorskip("pandas")
    ask = llmcall.LLMCall(user="Hello {{ name }}", client=ScriptedClient([]))
    assert inner_frames(leaving(lambda: ask.table([{"town": "Rome"}]))) == 1


@settings(max_examples=50)
@given(status=st.integers(400, 599), body=JSON)
def test_any_refusal_has_a_class(status: int, body: Any) -> None:
    """Whatever the body is, a refusal is an error of the tree that tells its status."""
    error = failure(status, body)
    assert error.status_code == status
    assert str(error).startswith(f"{status}: ")


@given(
    st.text(max_size=40)
    | st.sampled_from(["1e300", "9" * 400, "Mon, 01 Jan 99999 00:00:00 GMT", "1e400"])
)
def test_any_wait_is_a_time(text: str) -> None:
    """Whatever a server writes into Retry-After, it is a number of seconds that can be waited, or
    none.
    """
    for name in ("retry-after", "retry-after-ms"):
        waited = seconds_to_wait({name: text})
        assert waited is None or 0 <= waited <= 366 * 86400


def inner_frames(error: BaseException | None) -> int:
    """Count the frames inside llmcall that a printed traceback shows, those of the causes too."""
    count = 0
    while error is not None:
        files = [frame.filename for frame in traceback.extract_tb(error.__traceback__)]
        count += sum(file.startswith(os.path.dirname(llmcall.__file__)) for file in files)
        error = error.__cause__ or error.__context__
    return count


def leaving(act: Callable[[], object]) -> BaseException:
    """Run something that fails, and return what it raises."""
    with pytest.raises(BaseException) as raised:
        act()
    return raised.value


def test_errors_leave_without_inner_frames(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A traceback shows the program's lines and at most two of llmcall's; all of them where that is
    asked for.
    """
    with (
        refusing() as address,
        client_for(address, on_error="raise", retry_max_attempts=1) as client,
    ):
        ask = llmcall.LLMCall(user="Hello {{ name }}", client=client)
        Path("damaged.jsonl").write_text("<<<<<<< ours\n")

        def ask_about(item: int) -> Any:
            return client.send_message(f"item {item}")

        ways: dict[str, tuple[Callable[[], object], type[BaseException]]] = {
            "send_message": (lambda: client.send_message("Hello"), ServiceError),
            "asend_message": (lambda: asyncio.run(client.asend_message("Hello")), ServiceError),
            "stream_message": (lambda: list(client.stream_message("Hello")), ServiceError),
            "get_embedding": (lambda: client.get_embedding("Hello"), ServiceError),
            "map": (lambda: llmcall.map(ask_about, [1, 2], workers=1), ServiceError),
            "imap": (lambda: list(llmcall.imap(ask_about, [1, 2], workers=1)), ServiceError),
            "LLMCall": (lambda: ask(name="Lisa"), ServiceError),
            "LLMCall.map": (lambda: ask.map([{"name": "Lisa"}]), ServiceError),
            "wrong argument": (
                lambda: client.send_message([{"role": "user", "content": 5}]),
                TypeError,
            ),
            "missing variable": (lambda: ask(), llmcall.TemplateError),
            "cassette": (
                lambda: llmcall.cassette("damaged.jsonl").open(),
                llmcall.CacheCorruptError,
            ),
            "load": (lambda: client.cache.load("damaged.jsonl"), llmcall.CacheCorruptError),
            "compare": (
                lambda: llmcall.compare("damaged.jsonl", "damaged.jsonl"),
                llmcall.CacheCorruptError,
            ),
            "configure": (lambda: llmcall.configure(cache_mode="sometimes"), llmcall.ConfigError),
            "unknown api_type": (lambda: llmcall.client("openia"), llmcall.ConfigError),
            "wrong setting": (
                lambda: llmcall.OpenAIClient(cache_mode="sometimes"),
                llmcall.ConfigError,
            ),
        }
        for name, (act, kind) in ways.items():
            error = leaving(act)
            assert isinstance(error, kind), name
            assert inner_frames(error) <= 2, name
            if kind is ServiceError:
                assert isinstance(error.__cause__, openai.APIConnectionError), name
        Path("config.ini").write_text("[OpenAI]\nTEMPERATURE = warm\n")
        for act in (llmcall.settings, llmcall.client, llmcall.OpenAIClient):
            llmcall.reset()
            assert "'warm' is not a number" in str(leaving(act)) and inner_frames(leaving(act)) <= 2
        Path("config.ini").unlink()
        llmcall.reset()
        functions = [
            frame.name for frame in traceback.extract_tb(leaving(ways["map"][0]).__traceback__)
        ]
        assert functions[-1] == "ask_about"  # the frames of the function stay
        assert len("".join(traceback.format_exception(leaving(ways["map"][0]))).splitlines()) < 40
        monkeypatch.setenv("LLMCALL_TRACEBACK", "full")
        assert inner_frames(leaving(ways["map"][0])) > 10
        llmcall.settings()
    assert "LLMCALL_TRACEBACK" not in caplog.text  # it is a variable that is known


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
def test_a_404_guesses_the_address(
    path: str, code: str | None, meant: str | None, asynchronous: bool, httpserver: HTTPServer
) -> None:
    """The error names the address that was probably meant, unless it is the model that is missing."""
    server = ScriptedServer(httpserver, refusal(404, "not found", code=code))
    root = server.base_url.removesuffix("/v1")
    client = OpenAIClient(base_url=root + path, api_key="k", cache_mode="off")
    ask = client.asend_message(QUESTION, on_error="return") if asynchronous else None
    error = asyncio.run(ask) if ask else client.send_message(QUESTION, on_error="return")
    assert isinstance(error, InvalidRequestError)
    assert ("did you mean" in str(error)) is (meant is not None)
    assert meant is None or f"did you mean {root}{meant}?" in str(error)
