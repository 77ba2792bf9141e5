"""A key goes through every path, and is then sought in every file, log line, repr, exception,
report and cassette.
"""

from __future__ import annotations

import io
import logging
import os
import pickle
import shlex
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
from clients import WAYS
from commands import run
from servers import (
    HEAD,
    Answer,
    RawServer,
    answers,
    chunks_of,
    closes,
    cut_chunk,
    event,
    http,
    refusal,
    resets,
    sends,
    streams,
)

import llmcall
from llmcall import AzureClient, OpenAIClient

KEY = "SESAME-open-1234567890-SESAME"  # like no provider's: nothing but our care keeps it back
TWICE = f"you sent {KEY}, and Bearer {KEY}"
QUIET = {"retry_max_attempts": 2, "retry_waiting_time": 0.0001, "timeout": 60, "deadline": 60}


class Outputs:
    """All that is logged or warned of, and values as they are shown; can be searched for a key."""

    def __init__(self, stream: io.StringIO) -> None:
        self._stream = stream
        self._words: list[str] = []

    def add(self, *values: Any, variables: bool = False) -> None:
        """Note a value, as it prints and as it shows; of an exception, its traceback with all its
        causes.

        :param variables: whether the traceback shows the local variables of all functions, as test
            runners do.
        """
        for value in values:
            self._words += [str(value), repr(value)]
            if isinstance(value, BaseException):
                shown = traceback.TracebackException.from_exception(value, capture_locals=variables)
                self._words += [
                    "".join(traceback.format_exception(type(value), value, value.__traceback__))
                ]
                self._words += ["".join(shown.format())]
                self._words += [
                    repr(vars(value)),
                    str(getattr(value.__cause__, "body", "")),
                    repr(value.__cause__),
                ]

    def finds(self, key: str) -> list[str]:
        """Return what holds a key."""
        return [words[:2000] for words in [*self._words, self._stream.getvalue()] if key in words]


def _is_no_echo(record: logging.LogRecord) -> bool:
    """Leave out where the libraries' logs for debugging show what a server sent: who asks for them
    sees it.
    """
    return record.name == "llmcall" or not (
        record.exc_info or "receive_response_headers" in record.getMessage()
    )


@pytest.fixture
def outputs(monkeypatch: pytest.MonkeyPatch) -> Iterator[Outputs]:
    """Listen to every logger at its most talkative, and to warnings."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logging.Formatter("%(name)s %(message)s %(args)s"))
    handler.addFilter(_is_no_echo)
    root = logging.getLogger()
    before = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    logging.captureWarnings(True)
    try:
        yield Outputs(stream)
    finally:
        logging.captureWarnings(False)
        root.removeHandler(handler)
        root.setLevel(before)


def files_with(key: str, folder: Path, apart: tuple[str, ...] = ()) -> list[str]:
    """Return the files below a folder that hold a key, in any usual encoding."""
    forms = [key.encode(), key.encode("utf-16-le"), key.encode().hex().encode(), key[::-1].encode()]
    found = []
    for path in folder.rglob("*"):
        if path.is_file() and path.name not in apart:
            data = path.read_bytes()
            found += [str(path)] if any(form in data for form in forms) else []
    return found


def token() -> str:
    """Return the key, as a function in the place of a key."""
    return KEY


def by_argument(base_url: str) -> OpenAIClient:
    """Give the key in code."""
    return OpenAIClient(base_url=base_url, api_key=KEY, **QUIET)


def by_function(base_url: str) -> OpenAIClient:
    """Give a function that gives the key."""
    return OpenAIClient(base_url=base_url, api_key=token, **QUIET)


def by_environment(base_url: str) -> OpenAIClient:
    """Put the key into the environment."""
    os.environ["OPENAI_API_KEY"] = KEY
    llmcall.reset()
    return OpenAIClient(base_url=base_url, **QUIET)


def by_config(base_url: str, key: str = KEY) -> OpenAIClient:
    """Put the key itself into config.ini."""
    lines = [
        "[Endpoint gateway]",
        "MODELS = gpt-6-luna",
        f"BASE_URL = {base_url}",
        f"API_KEY = {key}",
    ]
    Path("config.ini").write_text("\n".join(lines))
    llmcall.reset()
    return OpenAIClient(**QUIET)


def by_files(base_url: str) -> OpenAIClient:
    """Put the key into .env, to which an endpoint of config.ini refers."""
    Path(".env").write_text(f"GATEWAY_KEY={KEY}\n")
    return by_config(base_url, "${GATEWAY_KEY}")


def by_address(base_url: str) -> OpenAIClient:
    """Put the key into the address, as a password."""
    return OpenAIClient(base_url=base_url.replace("http://", f"http://user:{KEY}@"), **QUIET)


def by_azure(base_url: str) -> AzureClient:
    """Give Azure's key."""
    return AzureClient(
        azure_endpoint=base_url.removesuffix("/v1"),
        azure_api_version="2024-10-21",
        api_key=KEY,
        **QUIET,
    )


CLIENTS = [by_argument, by_function, by_environment, by_files, by_config, by_address, by_azure]
SERVERS: dict[str, Any] = {
    "an answer": None,
    "400": answers(refusal(400, TWICE, code=KEY, param=KEY)),
    "401": answers(refusal(401, TWICE)),
    "429": answers(refusal(429, TWICE, code="insufficient_quota")),
    "500": answers(refusal(500, TWICE)),
    "a text": answers(Answer(403, TWICE)),
    "a list": answers(Answer(422, [{"error": {"message": [TWICE, {KEY: KEY}]}}])),
    "no JSON": sends(http(f"<html>{TWICE}</html>".encode())),
    "an error with 200": answers(Answer(200, {"error": {"message": TWICE, "code": KEY}})),
    "an echo with 200": answers(Answer(200, {"headers": {"Authorization": f"Bearer {KEY}"}})),
    "an error event": sends(HEAD + event({"error": {"message": TWICE, "type": KEY}})),
    "a broken event": sends(HEAD + f"data: {{{TWICE}\n\n".encode()),
    "a redirect": answers(Answer(307, "", {"Location": f"http://127.0.0.2:9/{KEY}"})),
    "a cut chunk": cut_chunk(),
}


# They do not repeat the key; where one does, what is read of its answer may be seen in a variable.
NO_ECHOES = {
    "refused": answers(refusal(401, "no")),
    "failing": answers(refusal(500, "no")),
    "malformed": sends(http(b"<html>")),
    "no HTTP at all": sends(b"no\r\n\r\n"),
    "a reset": resets,
    "nothing": closes,
}
SERVERS |= NO_ECHOES


# Every server meets a key that was given in one way; a key that was given in any way meets four
# servers.
@pytest.mark.parametrize(
    ("make", "name"),
    [(by_argument, name) for name in SERVERS]
    + [
        pytest.param(make, name, marks=pytest.mark.slow)
        for make in CLIENTS[1:]
        for name in ("an answer", "401", "a redirect", "failing")
    ],
)
def test_a_key_goes_to_its_server_alone(
    make: Callable[[str], OpenAIClient],
    name: str,
    outputs: Outputs,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No log line, exception, repr or file holds the key, though a server fails and repeats it."""
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    for way, ask in WAYS.items():
        good = streams(*chunks_of("Two coins.")) if "stream" in way else answers()
        with RawServer(SERVERS[name] or good) as server, make(server.base_url) as client:
            for on_error in ("raise", "none"):
                try:
                    outputs.add(ask(client, f"{name} {way}", on_error=on_error))
                except llmcall.LLMCallError as error:
                    outputs.add(error, variables=name in NO_ECHOES)
                    outputs.add(pickle.loads(pickle.dumps(error)))
            outputs.add(client, client.settings, client.endpoints("gpt-6-luna"), client.usage)
            outputs.add(
                *client._transports.values(),
                *client.resolved.sites.values(),
                client.build_request("x"),
            )
            assert server.requests and any(
                KEY in str(seen.headers) or "Basic" in str(seen.headers) for seen in server.requests
            )
    assert outputs.finds(KEY) == []
    assert files_with(KEY, tmp_path, (".env", "config.ini")) == []


@pytest.mark.parametrize("start", range(960, 1001, 10))
def test_a_long_message_is_not_shortened_within_a_key(start: int) -> None:
    """No piece of it is left."""
    words = "x" * start + f" {KEY} " + "y" * 500
    with RawServer(answers(refusal(400, words))) as server, by_argument(server.base_url) as client:
        error = client.send_message("x", on_error="return")
    assert KEY[:4] not in str(error)


@pytest.fixture
def asked_with_a_key() -> Iterator[llmcall.LLMClient]:
    """A client that took its key from a file, and has recorded an answer in all places."""
    with RawServer(answers()) as server:
        client = by_files(server.base_url)
        with client, llmcall.cassette("tape.jsonl"), llmcall.scope("a"):
            client.send_message("What do apples cost?", on_error="raise")
            client.cache.export("export.jsonl")
        yield client


def test_no_miss_record_or_repr_holds_a_key(
    asked_with_a_key: llmcall.LLMClient, outputs: Outputs, tmp_path: Path
) -> None:
    """The cassette and the export hold none either."""
    with llmcall.configured(cache_mode="replay"), pytest.raises(llmcall.CacheMissError) as missed:
        asked_with_a_key.send_message("What do pears cost?")
    records = asked_with_a_key.cache.records()
    outputs.add(missed.value, llmcall.settings(), llmcall.usage(), *records)
    assert outputs.finds(KEY) == []
    assert files_with(KEY, tmp_path, (".env",)) == []


COMMANDS = [
    "config",
    "config --json",
    "doctor",
    "doctor --json",
    "cache stats",
    "cache ls",
    "show tape.jsonl",
    "cache export second.jsonl",
    "ask 'What do apples cost?'",
    "cache show {key}",
    "ask 'What do plums cost?'",
    "cache salvage saved",
    "cache load export.jsonl",
]


def test_no_command_prints_or_writes_a_key(
    asked_with_a_key: llmcall.LLMClient, outputs: Outputs, tmp_path: Path
) -> None:
    """It ends in words, whatever it finds."""
    (key,) = [record.cache_key for record in asked_with_a_key.cache.records()]
    for command in COMMANDS:
        result = run(*shlex.split(command.format(key=key)))
        assert result.exit_code in (0, 1), result.output
        assert not isinstance(result.exception, Exception), result.output
        outputs.add(result.output, result.exception)
    assert outputs.finds(KEY) == []
    assert files_with(KEY, tmp_path, (".env",)) == []


def look_and_ask(item: int) -> list[str]:
    """Ask, in another process, and return the files in the temporary and the working folder that
    hold the key.
    """
    client = llmcall.client()
    assert client.send_message(f"item {item}", on_error="raise").content == "Two coins."
    return files_with(KEY, Path(os.environ["TMPDIR"])) + files_with(KEY, Path.cwd())


@pytest.mark.slow
@pytest.mark.feature("executors")
def test_a_key_is_sent_to_workers_in_memory_alone(
    outputs: Outputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While a map runs in other processes, which use the key, no file holds it, and no result
    contains it.
    """
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    with RawServer(answers()) as server, llmcall.configured(api_key=KEY, base_url=server.base_url):
        with (
            ProcessPoolExecutor(2, mp_context=get_context("spawn")) as executor,
            llmcall.cassette("tape.jsonl"),
        ):
            found = llmcall.map(
                look_and_ask, range(6), executor=executor, scope="survey", progress=False
            )
        assert {seen.headers["authorization"] for seen in server.requests} == {f"Bearer {KEY}"}
    assert found == [[]] * 6
    assert outputs.finds(KEY) == []
    assert files_with(KEY, tmp_path) == []
