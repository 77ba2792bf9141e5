"""Fallbacks: a prompt that is too long for a model is asked of one with a larger window."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import pytest

import llmcall
from llmcall import ContextLengthError, Reply
from llmcall.engine.prepare import followed
from llmcall.errors import InvalidRequestError
from llmcall.testing import ScriptedClient
from llmcall.types import record_of

SMALL, MIDDLE, LARGE = "gpt-4", "gpt-4-32k", "gpt-4-turbo"
CHAIN = {SMALL: (MIDDLE, LARGE)}
WINDOWS = {SMALL: 100, MIDDLE: 1000, LARGE: 10000}
LONG = "apples and pears " * 100  # some 300 tokens
OVERFLOW = ContextLengthError("too long")


class Servers(ScriptedClient):
    """Be models by their windows, in characters: ``refusing`` refuses, ``cutting`` cuts the answer."""

    def __init__(self, behaviour: str = "refusing", windows: Any = WINDOWS, **settings: Any) -> None:
        self.behaviour = behaviour
        models = {name: {"context_window": tokens or ""} for name, tokens in windows.items()}
        defaults = {"model": SMALL, "fallbacks": CHAIN, "cache_mode": "auto", "models": models}
        super().__init__(lambda messages: "fits", **{**defaults, **settings})

    def send(self, request: Any, timeout: float | None) -> dict[str, Any]:
        """Answer, refuse or cut, as the model of the request does."""
        response = super().send(request, timeout)
        fits = len(request.messages[-1]["content"]) <= WINDOWS[request.model]
        if not fits and self.behaviour == "refusing":
            raise ContextLengthError(f"{request.model}: too long", prompt_tokens=len(LONG))
        choice = {"finish_reason": "stop" if fits else "length"}
        return {**response, "choices": [{**response["choices"][0], **choice}]}

    def asked_models(self) -> list[str]:
        """Return the models that were asked, in order, and forget them."""
        models = [request.model for request in self.requests]
        self.requests.clear()
        return models


@pytest.fixture(autouse=True)
def only_estimates(monkeypatch: pytest.MonkeyPatch) -> None:
    """Count no prompt exactly, whatever vocabularies this machine has."""
    monkeypatch.setattr("llmcall.models.tokens.counter", lambda encoding: None)


def ask_async(client: Servers, text: str, **arguments: Any) -> Any:
    """Ask by the asynchronous method."""
    return asyncio.run(client.asend_message(text, on_error="raise", **arguments))


def ask_sync(client: Servers, text: str, **arguments: Any) -> Any:
    """Ask by the synchronous method."""
    return client.send_message(text, on_error="raise", **arguments)


def ask_streamed(client: Servers, text: str, **arguments: Any) -> Any:
    """Ask by the streaming method."""
    with client.stream_message(text, on_error="raise", **arguments) as stream:
        assert "".join(stream) == "fits"
    return stream.reply


Ask = Callable[..., Reply]
WAYS = pytest.mark.parametrize("ask", [ask_sync, ask_async, ask_streamed], ids=["sync", "async", "streamed"])


@pytest.mark.parametrize(
    ("ask", "behaviour"),
    [
        (ask_sync, "refusing"),
        (ask_async, "refusing"),
        (ask_streamed, "refusing"),
        (ask_sync, "cutting"),
        (ask_async, "cutting"),
    ],
)
def test_the_next_model_is_asked(ask: Ask, behaviour: str, caplog: pytest.LogCaptureFixture) -> None:
    """One model after the other is asked until the prompt fits, each step logged; no more are asked than needed."""
    client = Servers(behaviour)
    with caplog.at_level(logging.WARNING, "llmcall"):
        assert ask(client, LONG).content == "fits"
    assert client.asked_models() == [SMALL, MIDDLE, LARGE]
    assert [record.args[0] for record in caplog.records if record.args] == [SMALL, MIDDLE]  # type: ignore[index]
    assert ask(client, "short").content == "fits" and client.asked_models() == [SMALL]


@WAYS
def test_replay_takes_the_same_way(ask: Ask) -> None:
    """A second call, also in the mode replay, gives the same answer without asking anybody."""
    client = Servers()
    first = ask(client, LONG)
    client.asked_models()
    again = [ask(client, LONG), ask(Servers(cache_mode="replay"), LONG)]
    assert client.asked_models() == []
    assert all(reply.cached and reply == first and reply.cache_key == first.cache_key for reply in again)


def test_the_records() -> None:
    """The answer is stored under its model, and the first request's record points to it; both count."""
    client = Servers()
    reply = ask_sync(client, LONG)
    answer, pointer = client.cache.lookup(reply.cache_key), client.cache.get(client.build_request(LONG))
    assert answer is not None and pointer is not None and len(client.cache) == 2
    assert answer.request == {**pointer.request, "model": LARGE}
    assert pointer.request["model"] == SMALL and pointer.response == {"fallback": reply.cache_key}
    assert client.cache.verify() == []
    assert client.send_message(LONG, model=LARGE).cached and client.asked_models() == [SMALL, MIDDLE, LARGE]


def test_export_and_load(tmp_path: Any) -> None:
    """Exported and loaded elsewhere, the pointers still lead to their answers."""
    client = Servers()
    reply = ask_sync(client, LONG)
    client.cache.export(tmp_path / "answers.jsonl")
    other = Servers(cache_mode="replay", cache_path=tmp_path / "other")
    assert other.cache.load(tmp_path / "answers.jsonl") == 2
    assert ask_sync(other, LONG) == reply


def test_a_dangling_pointer_is_a_miss() -> None:
    """Where the answer was deleted the call is made again, and in the mode replay it is a miss."""
    client = Servers()
    reply = ask_sync(client, LONG)
    client.asked_models()
    assert client.cache.delete(where=lambda record: record.cache_key == reply.cache_key) == 1
    with pytest.raises(llmcall.CacheMissError):
        Servers(cache_mode="replay").send_message(LONG)
    assert ask_sync(client, LONG) == reply and client.asked_models() == [SMALL, MIDDLE, LARGE]
    assert ask_sync(client, LONG).cached


def test_an_answer_that_the_next_model_gave_before() -> None:
    """What the next model has answered already it is not asked again."""
    client = Servers()
    ask_sync(client, LONG, model=LARGE)
    assert client.asked_models() == [LARGE]
    assert ask_sync(client, LONG).content == "fits" and client.asked_models() == [SMALL, MIDDLE]


def test_models_whose_window_is_no_larger_are_skipped() -> None:
    """A model of the same or a smaller window is not asked; one of an unknown window is."""
    windows = {SMALL: 100, MIDDLE: 100, LARGE: None}
    client = Servers(windows=windows)
    assert ask_sync(client, LONG).content == "fits" and client.asked_models() == [SMALL, LARGE]


@pytest.mark.parametrize("exact", [True, False])
def test_before_the_call(exact: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A prompt that is known not to fit is not even sent; where its length is an estimate, the server decides."""
    if exact:
        monkeypatch.setattr("llmcall.models.tokens.counter", lambda encoding: lambda text: len(text))
    client = Servers()
    assert ask_sync(client, LONG).content == "fits"
    assert client.asked_models() == ([LARGE] if exact else [SMALL, MIDDLE, LARGE])


def test_the_last_model_is_asked_whatever_the_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether the last model's window is exceeded, the server tells."""
    monkeypatch.setattr("llmcall.models.tokens.counter", lambda encoding: lambda text: len(text))
    client = Servers(fallbacks={SMALL: (MIDDLE,)})
    with pytest.raises(ContextLengthError, match="gpt-4-32k"):
        ask_sync(client, LONG)
    assert client.asked_models() == [MIDDLE] and len(client.cache) == 0


@pytest.mark.parametrize("arguments", [{"max_tokens": 1}, {"max_completion_tokens": 1}])
def test_an_answer_cut_by_its_callers_limit(arguments: dict[str, int]) -> None:
    """It is returned as it is."""
    reply = ask_sync(Servers("cutting"), LONG, **arguments)
    assert reply.finish_reason == "length"


def test_a_cut_answer_of_the_last_model() -> None:
    """Where no larger model is left, a cut answer is better than none, and is recorded."""
    client = Servers("cutting", fallbacks={SMALL: (MIDDLE,)})
    assert ask_sync(client, LONG).finish_reason == "length" and client.asked_models() == [SMALL, MIDDLE]
    assert ask_sync(client, LONG).finish_reason == "length" and client.asked_models() == []


def test_a_cut_stream_goes_nowhere_else() -> None:
    """What a stream has told its reader no other model tells again: the cut answer is the answer."""
    client = Servers("cutting")
    assert ask_streamed(client, LONG).finish_reason == "length" and client.asked_models() == [SMALL]


def test_other_errors_do_not_fall_back() -> None:
    """Only a context that is too long is asked elsewhere."""
    client = ScriptedClient([InvalidRequestError("no")], model=SMALL, fallbacks=CHAIN)
    with pytest.raises(InvalidRequestError):
        client.send_message("Hello", on_error="raise")
    assert len(client.requests) == 1


def test_aliases_and_scopes() -> None:
    """The names of fallbacks may be aliases, and a draw stays the same draw."""
    client = Servers(fallbacks={SMALL: ("big",)}, aliases={"big": LARGE})
    with llmcall.scope("trial"):
        replies = [ask_sync(client, LONG) for _ in range(2)]
    assert [reply.sample for reply in replies] == ["trial#0", "trial#1"]
    assert client.asked_models() == [SMALL, LARGE] * 2 and len(client.cache) == 4


def test_off_and_past_the_cache() -> None:
    """Where nothing is stored, neither is a pointer."""
    for client, arguments in ((Servers(cache_mode="off"), {}), (Servers(), {"cache": False})):
        ask_sync(client, LONG, **arguments)
        assert len(client.cache) == 0


def test_refresh_refreshes_the_pointer() -> None:
    """In the mode refresh the way is taken anew once, and read from then on."""
    ask_sync(Servers(), LONG)
    client = Servers(cache_mode="refresh", fallbacks={SMALL: (LARGE,)})
    assert not ask_sync(client, LONG).cached and client.asked_models() == [SMALL, LARGE]
    assert ask_sync(client, LONG).cached and client.asked_models() == []


def test_pointers_that_lead_in_a_circle() -> None:
    """Pointers of a cache from elsewhere that lead to themselves are a miss, not an endless search."""
    client = Servers(cache_mode="replay")
    one, two = client.build_request("one"), client.build_request("two")
    for request, other in ((one, two), (two, one)):
        client.cache.store(record_of(request, {"fallback": other.cache_key}), mode="auto")
    with pytest.raises(llmcall.CacheMissError):
        client.send_message("one")


def test_a_chain_of_pointers() -> None:
    """A pointer may lead to another one."""
    client = Servers()
    first = record_of(client.build_request("one"), {"fallback": client.build_request("two").cache_key})
    for record in (first, record_of(client.build_request("two"), {"fallback": "0" * 64})):
        client.cache.store(record)
    find = client.cache.lookup
    assert followed(first, find) is None
    answer = record_of(client.build_request("three"), {"choices": []}).replace(cache_key="0" * 64)
    kept = client.cache.store(answer)
    found = followed(first, find)
    assert found == find("0" * 64) and followed(kept, find) == kept == found.replace(stored_at=None)  # type: ignore[union-attr]
    assert followed(None, find) is None






