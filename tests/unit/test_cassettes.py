"""Cassettes: who may answer in each mode, when the file is written, and whose settings hold."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from programs import ran
from project_files import written
from pytest_httpserver import HTTPServer
from servers import OK, ScriptedServer, client_for, completion, embeddings, refusal

import llmcall
from llmcall import CacheError, CacheMissError, ConfigError, LLMClient, OpenAIClient, cassette, scope
from llmcall.aio import chatcompletion_request as achatcompletion_request
from llmcall.cache.cache import shared_cache
from llmcall.testing import ScriptedClient

PATH = "tape.jsonl"


def counting(**settings: Any) -> ScriptedClient:
    """Return a client whose answers are numbered, so that no two are the same."""
    client = ScriptedClient(lambda messages: f"answer {len(client.requests)}", **settings)
    return client


def said(client: LLMClient, text: str = "Hi", **arguments: Any) -> Any:
    """Ask and return the answer's text."""
    return client.send_message(text, on_error="raise", **arguments).content


def recorded(*texts: str, path: str = PATH) -> None:
    """Record a cassette that answers each text by "recorded" and the text."""
    with cassette(path, mode="rewrite"):
        client = ScriptedClient(lambda messages: "recorded " + messages[-1]["content"])
        for text in texts:
            said(client, text)


def lines(path: str | Path = PATH) -> list[Any]:
    """Return the lines of a cassette, parsed."""
    return [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]


def asked_in(path: str | Path = PATH) -> list[Any]:
    """Return the last message of each record in a cassette."""
    return [line["request"]["messages"][-1]["content"] for line in lines(path) if line.get("kind") == "chat"]


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return the warnings that were logged."""
    return [each.getMessage() for each in caplog.records if each.levelno == logging.WARNING]


# Modes


def test_none_only_reads() -> None:
    """``none`` replays what is there and refuses the rest; it never writes."""
    client = counting()
    with cassette(PATH, mode="none"), pytest.raises(CacheMissError):
        said(client)
    assert not Path(PATH).exists()
    recorded("Hi")
    before = Path(PATH).read_bytes()
    with cassette(PATH, mode="none") as tape:
        assert said(client) == "recorded Hi"
        with pytest.raises(CacheMissError):
            said(client, "Bye")
    assert (Path(PATH).read_bytes(), client.requests, tape.replayed, tape.recorded) == (before, [], 1, 0)


def test_once_records_if_there_is_no_file() -> None:
    """``once`` records where there is no file, and only reads where there is one; it is the default."""
    client = counting()
    for _ in range(2):
        with cassette(PATH) as tape:
            assert (tape.mode, said(client), said(client, "Bye")) == ("once", "answer 1", "answer 2")
    with cassette(PATH), pytest.raises(CacheMissError):
        said(client, "Other")
    assert (len(client.requests), asked_in()) == (2, ["Hi", "Bye"])


def test_new_adds_what_is_missing() -> None:
    """``new`` replays what is there, asks the rest and adds it."""
    recorded("Hi")
    client = counting()
    with cassette(PATH, mode="new") as tape:
        assert [said(client), said(client, "Bye")] == ["recorded Hi", "answer 1"]
    assert (asked_in(), tape.replayed, tape.recorded, tape.records) == (["Hi", "Bye"], 1, 1, 2)


def test_rewrite_starts_empty() -> None:
    """``rewrite`` asks everything anew, even what the disk cache has, which takes the new answer too."""
    recorded("Hi", "Old")
    client = counting(cache_mode="auto")
    said(client, "Bye")
    with cassette(PATH, mode="rewrite") as tape:
        assert [said(client), said(client, "Bye"), said(client)] == ["answer 2", "answer 3", "answer 2"]
    assert (asked_in(), tape.replayed, tape.recorded) == (["Hi", "Bye"], 1, 2)
    assert said(client, "Bye") == "answer 3"


def test_rewrite_without_a_call_is_empty() -> None:
    """A run that asks nothing rewrites to nothing; where there was no file, none is made."""
    with cassette(PATH, mode="rewrite"):
        pass
    assert not Path(PATH).exists()
    recorded("Hi")
    with cassette(PATH, mode="rewrite"):
        pass
    assert [set(line) for line in lines()] == [{"llmcall", "settings"}]


def test_a_mode_that_is_none() -> None:
    """Another mode is refused at once, naming those there are."""
    with pytest.raises(ValueError, match="mode is 'all'; a cassette's is one of none, once, new, rewrite"):
        cassette(PATH, mode="all")


CACHED = {
    ("once", "auto"): "cached", ("once", "replay"): "cached", ("once", "refresh"): "asked", ("once", "off"): "asked",
    ("new", "auto"): "cached", ("new", "replay"): "cached", ("new", "refresh"): "asked", ("new", "off"): "asked",
    ("rewrite", "auto"): "asked", ("rewrite", "replay"): "asked", ("rewrite", "refresh"): "asked",
    ("rewrite", "off"): "asked",
}  # fmt: skip


@pytest.mark.parametrize(("mode", "cache_mode"), CACHED)
@pytest.mark.parametrize("past_cache", [False, True])
def test_the_cassette_s_mode_decides(mode: str, cache_mode: str, past_cache: bool) -> None:
    """Whether to ask is the cassette's to say; the cache's mode says only whether the disk may answer."""
    said(ScriptedClient(["cached"], cache_mode="auto"))
    client = ScriptedClient(["asked", "asked"], cache_mode=cache_mode)
    arguments: dict[str, Any] = {"cache": False} if past_cache else {}
    with cassette(PATH, mode=mode) as tape:
        assert said(client, **arguments) == ("asked" if past_cache else CACHED[mode, cache_mode])
        assert said(client, "new", **arguments) == "asked"
    assert (tape.recorded, asked_in()) == (2, ["Hi", "new"])


@pytest.mark.parametrize("cache_mode", ["auto", "replay", "refresh", "off"])
@pytest.mark.parametrize("mode", ["none", "once"])
def test_a_cassette_that_only_reads_asks_nobody(mode: str, cache_mode: str) -> None:
    """Where the cassette only reads, neither the model nor the disk cache answers, whatever the cache's mode."""
    recorded("Hi")
    said(ScriptedClient(["cached"], cache_mode="auto"), "new")
    client = counting(cache_mode=cache_mode)
    with cassette(PATH, mode=mode):
        assert said(client) == "recorded Hi"
        with pytest.raises(CacheMissError):
            said(client, "new")
    assert not client.requests


def test_what_is_recorded_is_in_the_disk_cache_too() -> None:
    """While recording, the disk cache keeps the answers as ever, unless it is off or the call goes past it."""
    client = counting(cache_mode="auto")
    with cassette(PATH):
        said(client)
        said(client, "Past", cache=False)
        said(counting(cache_mode="off"), "Off")
    kept = [record.request["messages"][0]["content"] for record in client.cache.records()]
    assert (kept, asked_in()) == (["Hi"], ["Hi", "Past", "Off"])


def test_past_the_cache_in_replay() -> None:
    """``cache=False`` in ``replay`` is a miss without a cassette, and replayed from one."""
    recorded("Hi")
    client = counting(cache_mode="replay")
    with pytest.raises(CacheMissError):
        said(client, cache=False)
    with cassette(PATH, mode="none"):
        assert said(client, cache=False) == "recorded Hi"


# When the file is written


def test_written_at_the_end() -> None:
    """The file appears at the end of the block, with its folders."""
    path = Path("a/b") / PATH
    with cassette(path) as tape:
        said(counting())
        assert (path.exists(), tape.path) == (False, path)
    assert asked_in(path) == ["Hi"]


def test_written_after_an_exception_too() -> None:
    """What was recorded before an exception is written, and the exception goes on."""
    with pytest.raises(ZeroDivisionError), cassette(PATH):
        said(counting())
        raise ZeroDivisionError
    assert asked_in() == ["Hi"]


def test_a_failed_rewrite_leaves_the_old_file() -> None:
    """A ``rewrite`` that ends in an exception changes nothing on the disk."""
    recorded("Old")
    before = Path(PATH).read_bytes()
    with pytest.raises(ZeroDivisionError), cassette(PATH, mode="rewrite"):
        said(counting())
        raise ZeroDivisionError
    assert Path(PATH).read_bytes() == before


def test_nothing_gained_leaves_the_file_alone() -> None:
    """A run that gains nothing does not write, not even the same bytes."""
    recorded("Hi")
    before = os.stat(PATH)
    with cassette(PATH, mode="new"):
        said(counting())
    with cassette("none.jsonl"):
        pass
    after = os.stat(PATH)
    assert (before.st_mtime_ns, before.st_ino) == (after.st_mtime_ns, after.st_ino)
    assert not Path("none.jsonl").exists()


def test_a_relative_path_is_that_of_the_beginning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Code that changes the working directory inside the block does not move the file."""
    (tmp_path / "elsewhere").mkdir()
    with cassette(PATH):
        said(counting())
        monkeypatch.chdir(tmp_path / "elsewhere")
    assert asked_in(tmp_path / PATH) == ["Hi"]


def test_an_answer_after_the_end(caplog: pytest.LogCaptureFixture) -> None:
    """An answer that comes when the cassette is closed is returned, and a warning says that it is not in it."""
    client = counting()
    with cassette(PATH):
        stream = client.stream_message("Hi")
    assert "".join(stream) == "answer 1"
    assert warnings(caplog) == [f"an answer came after the cassette {PATH} was closed, and is not in it"]
    assert not Path(PATH).exists()


def test_failures_are_named_at_the_end(caplog: pytest.LogCaptureFixture) -> None:
    """One warning at the end says how many calls failed for good, and in which scopes."""
    client = ScriptedClient([llmcall.APIError("no"), "yes", llmcall.APIError("no"), llmcall.APIError("no")])
    with cassette(PATH):
        client.send_message("a")
        for name, text in (("lisa", "a"), ("lisa", "b"), ("oscar", "a")):
            with scope(name):
                client.send_message(text)
        assert warnings(caplog) == []
    assert warnings(caplog) == [
        "3 calls failed for good (1 outside any scope, 1 in scope 'lisa', 1 in scope 'oscar'; the first: chat request "
        "to gpt-4o-mini: APIError). A failure is not recorded, so a replay of the cassette tape.jsonl will not go as "
        "this run did: run it again, and only what is missing is asked"
    ]
    with cassette(PATH, mode="new"):
        said(ScriptedClient(["yes"]), "b")
    assert len(warnings(caplog)) == 1


# Blocks, decorators, threads and tasks


def test_a_decorator() -> None:
    """A decorated function has its own cassette for each call, with its arguments, result and name."""
    client = counting()

    @cassette(PATH)
    def ask(text: str) -> Any:
        """Ask."""
        return said(client, text)

    assert (ask("Hi"), ask(text="Hi"), ask.__name__, ask.__doc__) == ("answer 1", "answer 1", "ask", "Ask.")
    with pytest.raises(CacheMissError):
        ask("Bye")
    assert (len(client.requests), asked_in()) == (1, ["Hi"])
    assert said(client) == "answer 2"


def test_a_decorated_async_function() -> None:
    """The cassette of an async function is open until it ends, and written after an exception too."""
    client = counting()

    @cassette(PATH)
    async def ask(text: str) -> Any:
        await asyncio.sleep(0)
        reply = await client.asend_message(text, on_error="raise")
        if text == "Hi" and len(client.requests) == 1:
            raise ZeroDivisionError
        return reply.content

    assert asyncio.iscoroutinefunction(ask)
    with pytest.raises(ZeroDivisionError):
        asyncio.run(ask("Hi"))
    assert (asked_in(), asyncio.run(ask("Hi")) if len(client.requests) == 2 else "answer 1") == (["Hi"], "answer 1")


def test_decorated_calls_at_once_share_the_cassette() -> None:
    """Calls of one decorated function that overlap, or call one another, fill one file, written by the last."""
    client = counting()

    @cassette(PATH)
    async def ask(depth: int) -> None:
        await client.asend_message(f"depth {depth}")
        await asyncio.sleep(0)
        if depth:
            await asyncio.gather(ask(depth - 1), ask(depth - 1))

    asyncio.run(ask(2))
    assert sorted(asked_in()) == ["depth 0", "depth 1", "depth 2"]


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_generator_cannot_be_decorated(asynchronous: bool) -> None:
    """A generator function would run after its cassette is closed; it is refused when it is decorated."""

    def steps() -> Any:
        yield 1

    async def asteps() -> Any:
        yield 1

    with pytest.raises(TypeError, match="steps is a generator function; open the cassette with 'with' inside it"):
        cassette(PATH)(asteps if asynchronous else steps)


def test_nested_cassettes() -> None:
    """The inner cassette counts until it closes, then the outer again."""
    client = counting()
    with cassette("outer.jsonl") as outer:
        said(client, "a")
        with cassette("inner.jsonl") as inner:
            said(client, "a")
            said(client, "b")
        said(client, "a")
        said(client, "c")
    assert (asked_in("outer.jsonl"), asked_in("inner.jsonl")) == (["a", "c"], ["a", "b"])
    assert (outer.records, outer.replayed, inner.records) == (2, 1, 2)


def test_a_cassette_opened_again_inside_itself_goes_on() -> None:
    """The same object in two blocks, one in the other, is one cassette; a failure in either is a failed rewrite."""
    recorded("Old")
    tape = cassette(PATH, mode="rewrite")
    client = counting()
    with tape:
        with pytest.raises(ZeroDivisionError), tape:
            said(client)
            raise ZeroDivisionError
        assert said(client) == "answer 1"
    assert asked_in() == ["Old"]
    with tape:
        said(client)
    assert asked_in() == ["Hi"]


def test_two_cassettes_of_one_file() -> None:
    """Opening a file that is open already is refused, also by another name for it."""
    os.symlink(".", "link")
    for other in (PATH, f"link/{PATH}"):
        with cassette(PATH), pytest.raises(CacheError, match="is open already in this process"), cassette(other):
            pass
    with cassette(PATH):
        said(counting())


def test_every_thread_and_task_of_the_process() -> None:
    """An open cassette answers threads and tasks that were there before it, too."""
    recorded("Hi")
    client, go_on = counting(), threading.Event()

    def wait_and_ask() -> Any:
        assert go_on.wait(10)
        return said(client)

    async def ask() -> Any:
        return (await client.asend_message("Hi", on_error="raise")).content

    with ThreadPoolExecutor(1) as executor:
        waiting = executor.submit(wait_and_ask)
        with cassette(PATH, mode="none"):
            go_on.set()
            assert (waiting.result(), asyncio.run(ask())) == ("recorded Hi", "recorded Hi")


def test_identical_calls_at_once_get_what_is_recorded() -> None:
    """Of two calls that ask the same at once past the disk cache, both get the answer that the file holds."""
    both = threading.Barrier(2, timeout=10)

    def answer(messages: Any) -> str:
        both.wait()
        return threading.current_thread().name

    client = ScriptedClient(answer)
    with cassette(PATH), ThreadPoolExecutor(2) as executor:
        answers = [each.result() for each in [executor.submit(said, client) for _ in range(2)]]
    assert len(client.requests) == 2 and answers[0] == answers[1]
    assert lines()[1]["response"]["choices"][0]["message"]["content"] == answers[0]


def test_replies_are_the_callers_own() -> None:
    """Changing a reply changes neither what others get nor what is written."""
    client = ScriptedClient([{"role": "assistant", "tool_calls": [{"id": "1", "type": "function"}], "content": None}])
    with cassette(PATH):
        for _ in range(3):
            reply = client.send_message("Hi", on_error="raise")
            assert reply.tool_calls == [{"id": "1", "type": "function"}]
            reply.tool_calls.clear()
            reply.raw["choices"][0]["message"]["content"] = "changed"
    assert lines()[1]["response"]["choices"][0]["message"]["content"] is None


def test_what_was_not_used() -> None:
    """The cassette knows which of its records answered no call."""
    recorded("a", "b", "c")
    with cassette(PATH, mode="none") as tape:
        said(counting(), "b")
        said(counting(), "b")
        unused = [record.request["messages"][0]["content"] for record in tape.unused()]
    assert (unused, tape.replayed, tape.records) == (["a", "c"], 2, 3)


# Kinds of calls


def test_streams() -> None:
    """A stream is recorded when it ends and replayed word by word; one that is left early is not recorded."""
    client = counting()
    with cassette(PATH):
        with client.stream_message("Left") as stream:
            next(stream)
        assert list(client.stream_message("Hi")) == ["answer", " 2"]
    with cassette(PATH, mode="none"):
        stream = client.stream_message("Hi")
        assert (list(stream), stream.reply and stream.reply.cached) == (["answer", " 2"], True)
        assert said(client) == "answer 2"
        with pytest.raises(CacheMissError):
            list(client.stream_message("Left"))


def test_asynchronous_calls_and_streams() -> None:
    """The asynchronous twins record and replay the same records."""
    client = counting()

    async def run() -> list[Any]:
        pieces = [piece async for piece in client.astream_message("Stream")]
        return [(await client.asend_message("Hi", on_error="raise")).content, "".join(pieces)]

    for _ in range(2):
        with cassette(PATH):
            assert asyncio.run(run()) == ["answer 2", "answer 1"]
    with cassette(PATH, mode="none"):
        assert [said(client), said(client, "Stream")] == ["answer 2", "answer 1"]


def test_embeddings(httpserver: HTTPServer) -> None:
    """Each text is a record; a cassette that has one of two asks for the other alone, and replays both."""
    server = ScriptedServer(httpserver, OK._replace(body=embeddings([0.1, 0.2])), OK._replace(body=embeddings([3, 4])))
    with client_for(server.base_url) as client:
        with cassette(PATH):
            live = client.get_embedding("a")
        with cassette(PATH, mode="new") as tape:
            both = client.get_embedding(["a", "b", "a"])
            assert (tape.replayed, tape.recorded) == (2, 1)
        assert [request.body["input"] for request in server.requests] == [["a"], ["b"]]
        with cassette(PATH, mode="none"):
            assert client.get_embedding(["b", "a"]) == [[3.0, 4.0], live]
            assert asyncio.run(client.aget_embedding("b")) == [3.0, 4.0]
    assert both == [live, [3.0, 4.0], live] and live != [0.1, 0.2]


def test_the_ancestors_functions(httpserver: HTTPServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """``chatcompletion_request`` records and replays, sync and async, as the same record as ``send_message``."""
    server = ScriptedServer(httpserver, OK)
    monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
    with cassette(PATH):
        live = llmcall.chatcompletion_request(prompt="Hi")
    with cassette(PATH, mode="none"):
        again = llmcall.chatcompletion_request(prompt="Hi")
        assert asyncio.run(achatcompletion_request(prompt="Hi")) == again
        assert said(llmcall.client()) == "Two coins."
        with pytest.raises(CacheMissError):
            llmcall.chatcompletion_request(prompt="Bye")
    assert {**again, "id": live["id"], "created": live["created"]} == live
    assert len(server.requests) == 1


def test_a_patched_sdk_is_no_part_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test's stand-in for the SDK answers is neither put on a cassette nor replaced by one."""
    import openai

    class StandIn:
        def __init__(self, **arguments: Any) -> None:
            self.chat = self.completions = self

        def create(self, **arguments: Any) -> Any:
            return self

        def model_dump(self) -> Any:
            return completion("patched")

    monkeypatch.setattr(openai, "OpenAI", StandIn)
    with cassette(PATH):
        response = llmcall.chatcompletion_request(prompt="Hi")
    assert response["choices"][0]["message"]["content"] == "patched" and not Path(PATH).exists()
    recorded("Hi")
    with cassette(PATH, mode="none"):
        assert llmcall.chatcompletion_request(prompt="Hi")["choices"][0]["message"]["content"] == "patched"


TOO_LONG = refusal(400, "too long", code="context_length_exceeded")


def test_a_fallback_replays_from_the_cassette_alone(httpserver: HTTPServer) -> None:
    """The answer of a model with a longer context replays under its own name and the first one's."""
    server = ScriptedServer(httpserver, TOO_LONG, OK)
    settings: dict[str, Any] = {"model": "small", "fallbacks": {"small": ("large",)}}
    with client_for(server.base_url, **settings) as client, scope("a"), cassette(PATH):
        live = client.send_message("Hi", on_error="raise")
    shared_cache(llmcall.settings().cache_path).clear()
    with OpenAIClient(model="small") as elsewhere, cassette(PATH, mode="none") as tape, scope("a"):
        again = elsewhere.send_message("Hi", on_error="raise")
        assert (again, again.cache_key, again.sample) == (live, live.cache_key, "a#0")
        assert (tape.unused(), tape.records) == ([], 2)
    assert len(server.requests) == 2


def test_a_recorded_answer_that_was_cut(httpserver: HTTPServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """``chatcompletion_request`` asks for no answer again that is known to be cut: it goes on to the next model."""
    server = ScriptedServer(httpserver, OK._replace(body=completion("Cut", finish_reason="length")), OK)
    monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
    with cassette(PATH), llmcall.configured(model="small"):
        assert said(llmcall.client()) == "Cut"
    with llmcall.configured(model="small", fallbacks={"small": ("large",)}):
        with cassette(PATH, mode="new"):
            live = llmcall.chatcompletion_request(prompt="Hi")
        with cassette(PATH, mode="none"):
            again = llmcall.chatcompletion_request(prompt="Hi")
            with pytest.raises(bad_request(), match="the recorded answer was cut"):
                llmcall.chatcompletion_request(prompt="Hi", max_lenght_fallback=False)
    assert [request.body["model"] for request in server.requests] == ["small", "large"]
    assert live["choices"] == again["choices"] and live["choices"][0]["message"]["content"] == "Two coins."


def bad_request() -> type[Exception]:
    """Return the SDK's error for a bad request."""
    import openai

    return openai.BadRequestError






def test_quoting_a_reply_goes_on_the_same() -> None:
    """A prompt that quotes an answer is the same live and replayed: an answer's fields have one order."""
    call = {"type": "function", "id": "c1", "function": {"name": "price", "arguments": "{}"}}
    client = ScriptedClient(lambda messages: {"role": "assistant", "tool_calls": [call], "content": None})

    def run() -> str:
        reply = client.send_message("Hi", on_error="raise")
        said(client, f"You called {reply.tool_calls}; {json.dumps(reply.raw['choices'])}")
        return repr(reply.tool_calls)

    with cassette(PATH):
        live = run()
    with cassette(PATH, mode="none"):
        assert run() == live


# Settings


def header() -> Any:
    """Return the settings in the cassette's header."""
    return lines()[0]["settings"]


EVERY_SETTING = """
[OpenAI]
MODEL = cheap
EMBEDDING_MODEL = vectors
TEMPERATURE = 0
MAX_TOKENS = 50
TOP_P = 0.9
FREQUENCY_PENALTY = 0.0
PRESENCE_PENALTY = 0.25
REASONING_EFFORT = low
TIMEOUT = 7
[Cache]
NAMESPACE = lab
NORMALIZE = times
  x+
MODE = off
[Aliases]
cheap = gpt-4o-mini
"""


@pytest.fixture
def configured_file() -> None:
    """Write a config.ini in which every setting that enters keys differs from its default."""
    written("config.ini", EVERY_SETTING)
    llmcall.reset()


@pytest.mark.usefixtures("configured_file")
def test_the_header() -> None:
    """The header holds what environment and files put into the keys, and nothing else; no argument in code."""
    with llmcall.configured(presence_penalty=1.5), cassette(PATH):
        said(ScriptedClient(["yes"], top_p=0.1), temperature=0.5, seed=3)
    assert header() == {
        "model": "cheap",
        "embedding_model": "vectors",
        "temperature": 0,
        "max_tokens": 50,
        "top_p": 0.9,
        "frequency_penalty": 0,
        "presence_penalty": 0.25,
        "reasoning_effort": "low",
        "cache_namespace": "lab",
        "cache_normalize": ["times", "x+"],
        "aliases": {"cheap": "gpt-4o-mini"},
    }


@pytest.mark.usefixtures("configured_file")
def test_the_header_holds_on_another_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """The header stands above environment and files, also for clients that were made before, and only for the block."""
    with cassette(PATH):
        said(ScriptedClient(["yes"]), "It is 10:15")
    written("config.ini", "[OpenAI]\nMODEL = other\nTEMPERATURE = 1\n[Aliases]\ncheap = dear\n")
    monkeypatch.setenv("LLMCALL_TOP_P", "0.5")
    llmcall.reset()
    before = llmcall.settings()
    early = counting()
    with cassette(PATH, mode="none"):
        assert [said(each, "It is 23:59") for each in (early, counting())] == ["yes", "yes"]
        now = llmcall.settings()
        assert (now.model, now.temperature, now.top_p, now.timeout) == ("cheap", 0, 0.9, before.timeout)
        assert now.origin("MODEL") == f"cassette {PATH}"
    assert list(llmcall.settings().items()) == list(before.items()) and before.model == "other"
    assert early.build_request("It is 23:59").model == "other"


def test_what_the_header_lacks_has_no_value(monkeypatch: pytest.MonkeyPatch) -> None:
    """A setting that was not there when it was recorded is not there when it is replayed."""
    recorded("Hi")
    monkeypatch.setenv("LLMCALL_TEMPERATURE", "0.5")
    monkeypatch.setenv("LLMCALL_CACHE_NAMESPACE", "lab")
    monkeypatch.setenv("LLMCALL_CACHE_NORMALIZE", "times")
    llmcall.reset()
    with cassette(PATH, mode="none"):
        assert said(counting()) == "recorded Hi"


def test_code_stands_above_the_header() -> None:
    """Arguments of calls and clients and ``configure`` hold as they did when it was recorded."""

    def run() -> list[Any]:
        with llmcall.configured(temperature=0.5):
            return [said(counting(top_p=0.1)), said(counting(), seed=3)]

    with cassette(PATH):
        live = run()
    assert "temperature" not in header() and lines()[1]["request"]["temperature"] == 0.5
    with cassette(PATH, mode="none"):
        assert run() == live
        with pytest.raises(CacheMissError):
            said(counting(top_p=0.1))


def test_clients_that_disagree(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients with different settings cannot share a header: the second one's call is refused, naming what differs."""
    here = llmcall.settings()
    monkeypatch.setenv("LLMCALL_MODEL", "gpt-4o")
    monkeypatch.setenv("LLMCALL_TEMPERATURE", "0.5")
    llmcall.reset()
    one, other = OpenAIClient(settings=here, transport=None), counting()
    one.transport = counting()
    message = r"disagree on model \('gpt-4o' and 'gpt-4o-mini'\), temperature \(0.5 and None\): give them as arguments"
    with cassette(PATH):
        said(other)
        with pytest.raises(ConfigError, match=message):
            one.send_message("Hi")
    with cassette("one.jsonl"):
        said(one)
        with pytest.raises(ConfigError, match="disagree on model"):
            other.send_message("Hi")
    assert lines("one.jsonl")[0]["settings"]["model"] == "gpt-4o-mini"
    for path in (PATH, "one.jsonl"):
        with cassette(path, mode="none"):
            assert said(one) == said(other)


def test_clients_that_differ_in_code_agree() -> None:
    """Clients whose settings differ by arguments in code share a cassette."""
    base = llmcall.settings().replace(model="gpt-4o", temperature=1)
    one, other = OpenAIClient(settings=base), counting()
    one.transport = counting()
    for _ in range(2):
        with cassette(PATH):
            assert (said(one), said(other)) == ("answer 1", "answer 1")
    assert header()["model"] == "gpt-4o-mini"


def test_settings_that_change_while_recording(monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment that changes in the middle is an error too: half of the keys would be others."""
    with cassette(PATH):
        said(counting())
        monkeypatch.setenv("LLMCALL_MODEL", "gpt-4o")
        client = counting()
        with pytest.raises(ConfigError, match="disagree on model"):
            said(client)


ENDPOINTS = """
[Endpoint one]
MODELS = gpt-4o-mini
BASE_URL = http://localhost:1/v1
NAMESPACE = vllm
"""


@pytest.mark.parametrize("elsewhere", ["", ENDPOINTS.replace("vllm", "ollama")])
def test_the_namespace_of_an_endpoint(elsewhere: str) -> None:
    """A namespace that a section for an endpoint gives is in the header, and holds where the section is another."""
    written("config.ini", ENDPOINTS)
    llmcall.reset()
    client = OpenAIClient()
    client.transport = counting()
    with cassette(PATH):
        said(client)
        said(client, model="gpt-4o")
    assert header()["namespaces"] == {"gpt-4o-mini": "vllm"}
    written("config.ini", elsewhere)
    llmcall.reset()
    with cassette(PATH, mode="none"), OpenAIClient() as fresh:
        assert [said(fresh), said(fresh, model="gpt-4o")] == ["answer 1", "answer 2"]


def test_a_model_in_a_file_is_known_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """A path to a model does not reach the header; the model is found again by the file's name, wherever it lies."""
    monkeypatch.setenv("LLMCALL_MODEL", "models/here/Tiny-1.gguf")
    llmcall.reset()
    client = llmcall.LocalClient(transport=counting())
    with cassette(PATH):
        said(client)
    assert header()["model"] == "Tiny-1.gguf" and lines()[1]["request"]["model"] == "Tiny-1"
    with cassette(PATH, mode="new"):
        assert llmcall.settings().model.endswith("models/here/Tiny-1.gguf")
    monkeypatch.delenv("LLMCALL_MODEL")
    llmcall.reset()
    with cassette(PATH, mode="none"):
        assert said(llmcall.LocalClient()) == "answer 1"


def test_a_header_with_an_unknown_setting() -> None:
    """A header of a later version's settings is refused by the name of what is unknown."""
    Path(PATH).write_text('{"llmcall": 1, "settings": {"mood": "good"}}\n')
    message = "the header names mood, which this version of llmcall does not know"
    with pytest.raises(ConfigError, match=message), cassette(PATH):
        pass
    assert llmcall.settings().model == "gpt-4o-mini"


# [Cassette] PATH and MODE

ASK = """
client = ScriptedClient(lambda messages: f"answer {os.getpid()}")
print(client.send_message(sys.argv[1] if len(sys.argv) > 1 else "Hi", on_error="raise").content)
"""


def test_named_by_the_environment() -> None:
    """``LLMCALL_CASSETTE_PATH`` records an unchanged script, written when it ends, and replays it."""
    environment = {"LLMCALL_CASSETTE_PATH": "tapes/run.jsonl"}
    live = ran(ASK, **environment)
    assert asked_in("tapes/run.jsonl") == ["Hi"]
    assert ran(ASK, **environment) == live != ran(ASK)
    environment["LLMCALL_CASSETTE_MODE"] = "new"
    ran(ASK, "Bye", **environment)
    assert asked_in("tapes/run.jsonl") == ["Hi", "Bye"]


def test_named_by_a_file() -> None:
    """``[Cassette]`` in config.ini does the same; its path is relative to the file."""
    written("config.ini", "[Cassette]\nPATH = tapes/run.jsonl\nMODE = new\n")
    os.mkdir("below")
    program = f"os.chdir('below')\n{ASK}"
    assert ran(program) == ran(program) and asked_in("tapes/run.jsonl") == ["Hi"]


def test_the_header_of_a_named_cassette_holds_for_the_first_call() -> None:
    """The settings of a cassette that the environment names stand before the very first request is made."""
    environment = {"LLMCALL_CASSETTE_PATH": PATH}
    live = ran(ASK, **environment, LLMCALL_TEMPERATURE="0.5", LLMCALL_MODEL="gpt-4o")
    assert ran(ASK, **environment, LLMCALL_TEMPERATURE="1", LLMCALL_CASSETTE_MODE="none") == live


@pytest.mark.parametrize("end", ["raise ZeroDivisionError", "sys.exit(3)"])
def test_a_named_cassette_is_written_however_the_run_ends(end: str) -> None:
    """What a named cassette gained is written after an exception and an early exit."""
    with pytest.raises(AssertionError):
        ran(f"{ASK}\n{end}", LLMCALL_CASSETTE_PATH=PATH)
    assert asked_in() == ["Hi"]


def test_a_named_rewrite_that_failed_leaves_the_old_file() -> None:
    """A script that ends in an exception rewrites nothing."""
    recorded("Old")
    with pytest.raises(AssertionError, match="ZeroDivisionError"):
        ran(f"{ASK}\nraise ZeroDivisionError", LLMCALL_CASSETTE_PATH=PATH, LLMCALL_CASSETTE_MODE="rewrite")
    assert asked_in() == ["Old"]
    ran(ASK, LLMCALL_CASSETTE_PATH=PATH, LLMCALL_CASSETTE_MODE="rewrite")
    assert asked_in() == ["Hi"]


def test_a_cassette_in_code_counts_inside_a_named_one() -> None:
    """A cassette that code opens counts inside the one that the settings name, which goes on afterwards."""
    client = counting()
    with llmcall.configured(cassette_path="named.jsonl"):
        said(client, "a")
        with cassette(PATH):
            said(client, "b")
        said(client, "c")
    llmcall.reset()
    assert (asked_in("named.jsonl"), asked_in()) == (["a", "c"], ["b"])


def test_settings_that_name_another_cassette() -> None:
    """Where the settings name another one, the first is written and the other begins; ``reset`` ends it too."""
    client = counting()
    for name in ("a", "b"):
        llmcall.configure(cassette_path=f"{name}.jsonl")
        said(client, name)
    assert (asked_in("a.jsonl"), Path("b.jsonl").exists()) == (["a"], False)
    llmcall.reset()
    said(client, "c")
    assert asked_in("b.jsonl") == ["b"]


def test_threads_that_begin_together_share_a_named_cassette() -> None:
    """Many first calls at once open one cassette."""
    client, together = counting(), threading.Barrier(8, timeout=10)

    def ask(number: int) -> Any:
        together.wait()
        return said(client, str(number))

    llmcall.configure(cassette_path=PATH)
    with ThreadPoolExecutor(8) as executor:
        list(executor.map(ask, range(8)))
    llmcall.reset()
    assert sorted(asked_in()) == [str(number) for number in range(8)]


def test_a_forked_process_leaves_the_file_to_its_parent() -> None:
    """A child replays, but only the parent writes."""
    program = """
        client = ScriptedClient(lambda messages: "yes")
        with llmcall.cassette("tape.jsonl", mode="new"):
            client.send_message("parent")
            child = os.fork()
            if not child:
                client.send_message("parent")
                sys.exit()
            assert os.waitpid(child, 0)[1] == 0
            assert not os.path.exists("tape.jsonl")
    """
    ran(program)
    assert asked_in() == ["parent"]


def test_failures_of_a_run_without_a_cassette() -> None:
    """A run that records in the cache alone warns when the process ends; one that records nothing does not."""
    program = """
        error = llmcall.APIError("no")
        client = ScriptedClient([error] * 4, cache_mode=sys.argv[1])
        with llmcall.scope("lisa"):
            client.send_message("Hi")
            client.send_message("Hi")
    """
    from programs import start

    complaints = []
    for mode in ("auto", "off"):
        with start(program, mode) as process:
            complaints.append(process.communicate(timeout=60)[1])
    said_at_end = "2 calls failed for good (2 in scope 'lisa'; the first: chat request to gpt-4o-mini: APIError)"
    assert said_at_end in complaints[0].splitlines()[-1] and "failed for good" not in complaints[1]
