"""Data from strangers: whatever it holds, a reader gives plain data or an error of the tree, soon, and runs nothing."""

from __future__ import annotations

import asyncio
import json
import random
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

import openai
import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from processes import SECONDS, seeded
from servers import completion
from streaming import WAYS, chunks_of, event

import llmcall
from llmcall import OpenAIClient, Reply
from llmcall.errors import APIError, CacheError, LLMCallError, TemplateError
from llmcall.testing import ScriptedClient

DEEP = 100_000  # levels of nesting
LONG = 100_000  # characters: what takes time by their square takes minutes
LIBRARY: Any = sys.modules[openai.DefaultHttpxClient.__base__.__module__.partition(".")[0]]


@contextmanager
def an_end(seconds: float = SECONDS) -> Iterator[None]:
    """Interrupt what takes for ever: expressions and loops look for signals."""

    def stop(number: int, frame: Any) -> None:
        raise TimeoutError(f"it takes longer than {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(int(seconds))
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


# Texts


class Deal(pydantic.BaseModel):
    """Be what an answer is read as."""

    price: float
    who: str = ""


def reading(kind: Any) -> Callable[[str], Any]:
    """Return what has a text as a model's answer, and reads it as a type."""
    return lambda text: llmcall.LLMCall(user="?", output_type=kind, output_retries=0, client=ScriptedClient([text]))()


def refused(text: str) -> None:
    """Have a server refuse a request with these words, and another one answer with them."""
    body = {"error": {"message": text}}
    for response in (LIBRARY.Response(400, json=body), LIBRARY.Response(200, content=text.encode())):
        with asking(lambda request, it=response: it) as (_, ways), suppress(APIError):
            ways["stream"]("Hello")


def recorded_on_a_cassette(text: str) -> None:
    """Record an answer that is searched for credentials."""
    with llmcall.cassette("searched.jsonl", mode="rewrite"):
        ScriptedClient([text]).send_message("?")


READERS: dict[str, Callable[[str], Any]] = {
    "literal": reading(Literal["a", "b", "very good"]),
    "int": reading(int),
    "model": reading(Deal),
    "cassette": recorded_on_a_cassette,
    "normalizers": lambda text: ScriptedClient(cache_normalize=NORMALIZERS).build_request(text).cache_key,
    "refusal": refused,
}
NORMALIZERS = ["times", "uuids", "addresses", "temporary_paths"]
REPEATED = [
    "[/*", "[//", "[", "{", '{"a":', "[1 ", "-", "_-", "yes ", "no, ", "not ", "'", '"', "\\", "['", '["', "[\\",
    "a:\\", "eyJa.", "://a:", "sk-a", "bearer ", "api key: ", "<think>", " ", "\t> ", "“", "1e", "1,", "111 ", "$",
    ".5", "9", "``` ", "~~~\n", "~", "`", "\n", "\r", "? ", "A ", "very ", "but yes", "&sig=", "2020-01-01T", "😀",
    "/var/folders/a/", "maximum context length is ", "1 tokens in ", "\0",
]  # fmt: skip
TEXTS = [
    *((piece * LONG)[:LONG] for piece in REPEATED),
    "~" * LONG + "`",
    "`" * LONG + "a`",
    "111 " * (LONG // 4) + "1111",
    "yes" + "-" * LONG + "x",
    "a" + " " * LONG + "x",
    "maximum context length is " + "9" * LONG,
    "maximum context length; you requested 1 tokens " + "9" * LONG,
]


@pytest.mark.slow
@pytest.mark.parametrize("name", READERS)
def test_no_text_takes_long(name: str) -> None:
    """No repetition makes an expression explode, or a loop come back to where it was."""
    for text in TEXTS:
        with an_end(), suppress(LLMCallError):
            READERS[name](text)


# What servers send

FIELDS = """
    choices message content tool_calls function name arguments id index type usage prompt_tokens
    completion_tokens prompt_tokens_details completion_tokens_details reasoning_tokens cached_tokens
    finish_reason error code delta role refusal audio data logprobs model object error_code text
    reasoning_content function_call custom input annotations
"""
LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-(10**400), 10**400),
    st.floats(),
    st.text(max_size=4),
    st.sampled_from(["stop", "length", "content_filter", "error", "assistant", "\ud800", "\0", "Two coins."]),
)
DATA = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(FIELDS.split()), inner, max_size=4),
    max_leaves=12,
)
PLACES = [
    (), ("choices",), ("choices", 0), ("choices", 0, "message"), ("choices", 0, "message", "content"), ("usage",),
    ("choices", 0, "message", "tool_calls"), ("choices", 0, "finish_reason"), ("choices", 0, "index"), ("model",),
    ("usage", "prompt_tokens"), ("usage", "completion_tokens_details"), ("choices", 0, "message", "role"), ("id",),
    ("choices", 0, "message", "refusal"), ("choices", 0, "logprobs"), ("created",), ("error",), ("service_tier",),
]  # fmt: skip


def put(data: Any, place: tuple[Any, ...], value: Any) -> Any:
    """Return data with another value in a place."""
    if not place:
        return value
    copied = dict(data) if isinstance(data, dict) else list(data)
    copied[place[0]] = put(data[place[0]] if place[0] in data or isinstance(data, list) else {}, place[1:], value)
    return copied


ANSWERS = DATA | st.builds(put, st.just(completion()), st.sampled_from(PLACES), DATA)
BODIES = st.one_of(
    st.binary(max_size=40),
    ANSWERS.map(lambda data: json.dumps(data).encode()),
    ANSWERS.map(lambda data: json.dumps(data).encode()[:-3]),
    st.lists(ANSWERS, max_size=3).map(lambda found: b"".join(event(data) for data in found)),
    st.lists(st.builds(put, st.sampled_from(chunks_of("Two")), st.sampled_from(PLACES[:2]), DATA), max_size=4).map(
        lambda found: b"".join(event(data) for data in [*chunks_of("Two")[:2], *found, *chunks_of()[1:], b"[DONE]"])
    ),
)
HEADERS = st.dictionaries(
    st.sampled_from(["retry-after", "retry-after-ms", "content-type", "x-request-id", "x-ratelimit-reset-requests"]),
    st.text(alphabet=st.characters(min_codepoint=32, max_codepoint=126), max_size=12),
)
# Not 429: after it, all calls to the endpoint rest for a second.
STATUSES = st.sampled_from([200, 200, 200, 200, 201, 204, 299, 300, 304, 400, 401, 500, 599])


@contextmanager
def asking(respond: Callable[[Any], Any]) -> Iterator[tuple[OpenAIClient, dict[str, Callable[[Any], Any]]]]:
    """Give a client of a server that is a function, and the ways to ask it; the asynchronous ones in one event loop."""
    transport = LIBRARY.MockTransport(respond)
    options = {"base_url": "http://127.0.0.1:9/v1", "retry_max_attempts": 1, "deadline": SECONDS}
    client = OpenAIClient(http_client=LIBRARY.Client(transport=transport), **options)
    twin = OpenAIClient(http_client=LIBRARY.AsyncClient(transport=transport), **options)
    loop = asyncio.new_event_loop()

    async def streamed(question: Any) -> Any:
        async with twin.astream_message(question, on_error="raise") as stream:
            async for _ in stream:
                pass
        return stream.reply

    try:
        yield (
            client,
            {
                "sync": lambda question: client.send_message(question, on_error="raise"),
                "stream": lambda question: WAYS["stream"](client, question, on_error="raise"),
                "async": lambda question: loop.run_until_complete(twin.asend_message(question, on_error="raise")),
                "astream": lambda question: loop.run_until_complete(streamed(question)),
            },
        )
        loop.run_until_complete(twin.aclose())
    finally:
        client.close()
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()


@pytest.mark.slow
def test_any_answer_of_a_server() -> None:
    """Each is a reply or an error of the tree, the same however it is asked; a reply that was stored is given again."""
    sent: list[Any] = []

    def respond(request: Any) -> Any:
        status, headers, body = sent[-1]
        return LIBRARY.Response(status, headers=headers, content=body)

    with asking(respond) as (client, ways):

        @settings(max_examples=250)
        @given(status=STATUSES, headers=HEADERS, body=BODIES)
        def ask(status: int, headers: dict[str, str], body: bytes) -> None:
            sent.append((status, headers, body))
            for way, question in [(way, f"{way} {len(sent)}") for way in ways]:
                try:
                    found = ways[way](question)
                except APIError:
                    continue
                assert isinstance(found, Reply)
                again = client.send_message(question, on_error="raise")
                assert (again.cached, repr(again)) == (True, repr(found))

        ask()
        assert client.cache.verify() == []
        client.cache.export("export.jsonl")
        assert llmcall.ResponseCache("loaded").load("export.jsonl") == len(client.cache)


# Cassettes and exports


def recorded() -> list[bytes]:
    """Return the lines of a cassette that holds a conversation, with long texts."""
    client = ScriptedClient(lambda messages: f"answer {len(messages)} " + "a" * 50 * len(messages))
    messages: list[Any] = [{"role": "system", "content": "s" * 600}]
    with llmcall.cassette("whole.jsonl"), llmcall.scope("market"), llmcall.scope("lisa"):
        for turn in range(12):
            messages.append({"role": "user", "content": f"question {turn} " + "q" * 20 * turn})
            messages.append(client.send_message(messages, on_error="raise"))
    return Path("whole.jsonl").read_bytes().splitlines(keepends=True)


STRANGE = [
    b"{}", b"[]", b"null", b'"', b'{"llmcall": 1}', b'{"llmcall": 99, "settings": {}}', b'{"text": 3, "lines": []}',
    b'{"kind": "chat", "request": {}, "response": {}}',
    b'{"kind": "chat", "request": {"messages": [{"$messages": "x"}]}, "response": {}}',
    b'{"kind": "chat", "request": {"messages": [{"$text": "x"}]}, "response": {"$bytes": "?"}}',
    b'{"kind": "chat", "sample": "#", "request": {"messages": 3}, "response": {"choices": 3}, "cost": -1e308}',
    b'{"kind": "function", "request": {"name": {"$data": {}}}, "response": {}}',
    b'{"kind": "chat", "request": {"a": {"$bytes": "eA=="}}, "response": {}}', b"\xff", b"<<<<<<< ours", b"\0" * 20,
    b'{"kind": "embedding", "request": {"input": 1e400}, "response": {}}',
    b'{"kind": "chat", "request": {"a": "\\ud800"}, "response": {}}', b'{"a": ' + b"9" * 5000 + b"}",
    b'{"kind": "chat", "kind": "chat", "request": {}, "response": {}}',
    b'{"kind": "chat", "request": {}, "response": ' + b"[" * DEEP + b"]" * DEEP + b"}", b"[" * DEEP,
]  # fmt: skip


def damaged(lines: list[bytes], dice: random.Random) -> bytes:
    """Return the lines of a cassette with some of them changed."""
    lines = list(lines)
    for _ in range(dice.randint(1, 3)):
        place = dice.randrange(len(lines))
        line = bytearray(lines[place])
        act = dice.randrange(6)
        if act == 0:
            lines[place] = dice.choice(STRANGE) + b"\n"
        elif act == 1:
            del lines[place : place + dice.randint(0, 2)]
        elif act == 2:
            lines.insert(dice.randrange(len(lines)), bytes(line))
        elif act == 3 and line:
            line[dice.randrange(len(line))] = dice.randrange(256)
            lines[place] = bytes(line)
        elif act == 4 and line:
            lines[place] = bytes(line[: dice.randrange(len(line))]) + dice.choice([b"", b"\n"])
        else:
            other = dice.choice(lines)
            lines[place] = bytes(line[: len(line) // 2]) + other[dice.randrange(len(other) + 1) :]
        if not lines:
            break
    return b"".join(lines)


@pytest.mark.slow
def test_damaged_cassettes(tmp_path: Path) -> None:
    """Five hundred damaged files: each gives records, or an error that names file and line; nothing else."""
    dice, lines, path = seeded(), recorded(), tmp_path / "damaged.jsonl"
    refused = 0
    cache = llmcall.ResponseCache(tmp_path / "cache")
    for _ in range(500):
        path.write_bytes(damaged(lines, dice))
        try:
            cache.load(path, on_conflict="replace")
            with llmcall.cassette(path, mode="none") as cassette:
                assert cassette.records >= 0
        except CacheError as error:
            refused += 1
            assert str(error).startswith(f"{path}:"), str(error)
    assert refused > 50 and cache.verify() == []


# Templates


@pytest.mark.parametrize("name", ["../secret.md", "/etc/passwd", "..", "", "a/../../secret.md", "secret.md\0.md"])
def test_a_variable_names_no_file_outside(tmp_path: Path, name: str) -> None:
    """An include by a variable's name stays in the folder of the templates."""
    folder = tmp_path / "templates"
    folder.mkdir()
    (tmp_path / "secret.md").write_text("SESAME")
    (folder / "main.md").write_text("{% include x %}")
    with pytest.raises(TemplateError):
        llmcall.LLMCall(user_template_name="main", template_path=folder, client=ScriptedClient(["yes"]))(x=name)
