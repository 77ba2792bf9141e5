"""The patches of other libraries: whole or not at all, whatever a process has in their place."""

from __future__ import annotations

import asyncio
import os
import pickle
import subprocess
import sys
from types import ModuleType
from typing import Any
from unittest import mock

import pytest
from clients import http
from commands import NEEDS_POSIX, ran
from servers import NumberedServer, completion

import llmcall

requests = pytest.importorskip("requests")

BODY = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Bread?"}]}
ADDRESS = "https://api.openai.com/v1/chat/completions"


def asked(mode: str) -> list[Any]:
    """Ask in a cassette, and return the requests that were sent."""
    sent: list[Any] = []

    def answer(request: Any) -> Any:
        sent.append(request)
        return http.Response(200, json=completion("Two."))

    client = http.Client(transport=http.MockTransport(answer))
    with client, llmcall.cassette("tape.jsonl", mode=mode):
        client.post(ADDRESS, json=BODY).raise_for_status()
    return sent


def test_an_opening_that_fails_half_way_is_undone_and_the_next_one_sends_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A library's new version may lack a method that is patched."""
    original = vars(http.Client)["_transport_for_url"]
    with monkeypatch.context() as changed:
        changed.delattr(asyncio, "as_completed")
        for _ in range(2):
            with pytest.raises(AttributeError, match="as_completed"):
                asked("new")
            assert vars(http.Client)["_transport_for_url"] is original
    assert len(asked("new")) == 1
    assert not asked("none")


@pytest.mark.parametrize(
    "stand_in",
    [None, mock.MagicMock(), mock.create_autospec(requests), ModuleType("requests")],
    ids=["nothing", "a mock", "an autospec", "an empty module"],
)
def test_what_stands_in_for_a_library_is_left_alone(
    monkeypatch: pytest.MonkeyPatch, stand_in: Any
) -> None:
    """All other libraries are recorded."""
    monkeypatch.setitem(sys.modules, "requests", stand_in)
    assert len(asked("new")) == 1
    assert not asked("none")


def test_a_replaced_function_can_go_to_a_pool_of_processes() -> None:
    """A program may give ``os.system`` and its commands to one."""
    with llmcall.cassette("a.jsonl"):
        assert pickle.loads(pickle.dumps(os.system)) is os.system


ASKED_BY = {
    "httpx": "import httpx\ndef post():\n    return httpx.post(URL, json=BODY, timeout=60).text",
    "httpx2": "import httpx2\ndef post():\n    return httpx2.post(URL, json=BODY, timeout=60).text",
    "requests": "import requests\ndef post():\n    return requests.post(URL, json=BODY).text",
    "urllib": """
import json, urllib.request
def post():
    request = urllib.request.Request(URL, json.dumps(BODY).encode(), {"content-type": "application/json"})
    with urllib.request.urlopen(request) as response:
        return response.read().decode()
""",
    "aiohttp": """
import aiohttp, asyncio
async def apost():
    async with aiohttp.ClientSession() as session, session.post(URL, json=BODY) as response:
        return await response.text()
def post():
    return asyncio.run(apost())
""",
}


@NEEDS_POSIX
@pytest.mark.parametrize(
    "library",
    [
        "httpx",
        "httpx2",
        "requests",
        *(
            pytest.param(it, marks=pytest.mark.feature("http_libraries"))
            for it in ("urllib", "aiohttp")
        ),
    ],
)
def test_a_first_request_imports_nothing_of_llmcall_and_a_process_forked_meanwhile_asks_too(
    library: str, model: NumberedServer
) -> None:
    """The process would wait for ever for a module that a thread of its parent was importing."""
    pytest.importorskip(library)
    program = f"""
import signal, time
URL = os.environ["MODEL_AT"] + "/chat/completions"
BODY = {BODY}
{ASKED_BY[library]}
imported, go, begun = [], threading.Event(), threading.Event()
def note(event, arguments):
    if event == "import" and threading.current_thread() in asking:
        imported.extend(it for it in arguments[:1] if it.startswith(names))
        begun.set()
        time.sleep(.02)
def ask():
    go.wait()
    if "httpx" in {library!r}:  # nothing is imported
        begun.set()
    post()
{library!r} == "urllib" or post()  # imports what the library needs by itself
asking, names = [], ("llmcall", "encodings")
sys.addaudithook(note)
os.register_at_fork(before=lambda: (go.set(), begun.wait(1)))
with llmcall.cassette("a.jsonl"):
    thread = threading.Thread(target=ask)
    asking.append(thread)
    thread.start()
    if (child := os.fork()) == 0:
        asking.append(threading.current_thread())
        signal.alarm(60)
        post()
        print(imported, flush=True)
        os._exit(0)
    os.waitpid(child, 0)
    thread.join()
print(imported)
"""
    assert ran(program).split() == ["[]", "[]"]
    assert len(model.asked) == (2 if library == "urllib" else 3)


@NEEDS_POSIX
def test_a_process_is_forked_while_a_pool_starts_a_thread() -> None:
    """The fork takes the pool's lock and llmcall's, and the pool's thread is named."""
    program = """
from concurrent.futures import ThreadPoolExecutor
forking, submitted = threading.Event(), threading.Event()
os.register_at_fork(before=lambda: (forking.set(), submitted.wait(9) or os._exit(1)))
import llmcall
with llmcall.cassette("a.jsonl"), ThreadPoolExecutor() as pool:
    def submit():
        forking.wait()
        pool.submit(int)
        submitted.set()
    threading.Thread(target=submit).start()
    if (child := os.fork()) == 0:
        os._exit(0)
    os.waitpid(child, 0)
    print("forked")
"""
    done = subprocess.run(
        [sys.executable, "-c", f"import os, threading{program}"], capture_output=True, check=False
    )
    assert done.stdout == b"forked\n", done.stderr


@NEEDS_POSIX
def test_a_forked_process_asks_just_when_its_parent_begins_to_answer(model: NumberedServer) -> None:
    """It is recorded, and does not take its parent for one that has ended."""
    program = f"""
import time
URL = os.environ["MODEL_AT"] + "/chat/completions"
BODY = {BODY}
{ASKED_BY["requests"]}
exists = os.path.exists
def exists_late(path):
    found = exists(path)
    time.sleep(0 if found else .2)
    return found
with llmcall.cassette("a.jsonl") as tape:
    if (child := os.fork()) == 0:
        os.path.exists = exists_late
        post()
        os._exit(0)
    os.waitpid(child, 0)
print(tape.recorded)
"""
    assert ran(program) == "1"
