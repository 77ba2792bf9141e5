"""The cache as clients use it: its modes, what is stored and what is not, hits of another host, copies."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

import llmcall
from llmcall.cache.cache import ResponseCache
from llmcall.errors import CacheMissError, ConfigError, ContentFilterError, EmptyAnswerError, InvalidRequestError
from llmcall.testing import ScriptedClient


def client_with(answers: Any = ("one", "two", "three"), mode: str = "auto", **settings: Any) -> ScriptedClient:
    """Return a client that stores its answers."""
    return ScriptedClient(answers, cache_mode=mode, **settings)


def said(client: ScriptedClient, message: str = "Hello", **arguments: Any) -> tuple[str, bool]:
    """Ask and return the answer's text and whether it was cached."""
    reply = client.send_message(message, on_error="raise", **arguments)
    return reply["content"], reply.cached


def test_auto() -> None:
    """A question is asked once, another client's included."""
    first, second = client_with(), client_with(())
    assert [said(first), said(first), said(second)] == [("one", False), ("one", True), ("one", True)]
    assert len(first.cache) == 1


def test_replay_never_calls() -> None:
    """What is recorded is answered; anything else is a CacheMissError that says so, whatever on_error is."""
    said(client_with(), "known")
    client = client_with(mode="replay")
    assert said(client, "known") == ("one", True)
    for on_error in ("none", "raise", "return"):
        with pytest.raises(CacheMissError, match="MODE = auto"):
            client.send_message("unknown", on_error=on_error)
        with pytest.raises(CacheMissError):
            client.get_embedding("unknown", on_error=on_error)
    with pytest.raises(CacheMissError):
        list(client.stream_message("unknown"))
    assert not client.requests


def test_replay_needs_no_key_and_no_address() -> None:
    """A recorded answer is given where nothing is configured; without one the miss comes before the missing key."""
    said(client_with(), "known", model="gpt-4o-mini")
    client = llmcall.OpenAIClient(cache_mode="replay")
    reply = client.send_message("known")
    assert reply is not None
    assert reply.cached
    with pytest.raises(CacheMissError):
        client.send_message("unknown")
    with pytest.raises(ConfigError, match="OPENAI_API_KEY"):
        llmcall.OpenAIClient().send_message("unknown")


def test_refresh_asks_each_question_once_per_process() -> None:
    """The new answer replaces the old one, is read from then on, by other clients of the process too."""
    said(client_with(["old", "other"]))
    client = client_with(["new", "newer"], mode="refresh")
    assert [said(client), said(client), said(client_with((), "refresh"))] == [
        ("new", False),
        ("new", True),
        ("new", True),
    ]
    assert said(client, "another") == ("newer", False)
    assert said(client_with(())) == ("new", True)
    assert len(client.cache) == 2


def test_off_neither_reads_nor_stores() -> None:
    """Every call is made, and nothing is left behind."""
    said(client_with(["stored"]))
    client = client_with(mode="off")
    assert [said(client), said(client)] == [("one", False), ("two", False)]
    assert said(client_with(())) == ("stored", True)
    assert len(client.cache) == 1


def test_one_call_past_the_cache() -> None:
    """cache=False neither reads nor stores; in replay it is a miss that says why."""
    client = client_with()
    assert [said(client), said(client, cache=False), said(client)] == [("one", False), ("two", False), ("one", True)]
    assert said(client, "other", cache=False) == ("three", False)
    assert len(client.cache) == 1
    with pytest.raises(CacheMissError, match="cache=False"):
        client_with(mode="replay").send_message("Hello", cache=False)
    assert client.get_embedding is not None


@pytest.mark.parametrize(
    "failure",
    [InvalidRequestError("no"), ContentFilterError("no"), EmptyAnswerError("no"), {"role": "assistant", "content": ""}],
)
def test_failures_are_not_stored(failure: Any) -> None:
    """No error, no filtered and no empty answer is stored: the question is asked anew."""
    client = client_with([failure, "better"])
    assert client.send_message("Hello") is None
    assert len(client.cache) == 0
    assert said(client) == ("better", False)


def test_an_answer_cut_at_its_limit_is_complete() -> None:
    """finish_reason length is stored and says so."""
    cut = {"choices": [{"message": {"role": "assistant", "content": "I th"}, "finish_reason": "length"}]}
    client = llmcall.LLMClient(transport=Fixed(cut))
    replies = [client.send_message("Hello", on_error="raise", max_tokens=2) for _ in range(2)]
    assert [(reply.finish_reason, reply.cached) for reply in replies] == [("length", False), ("length", True)]


class Fixed:
    """Be a transport that always answers the same."""

    def __init__(self, response: dict[str, Any]) -> None:
        self.response = response

    def send(self, request: Any, timeout: float | None) -> dict[str, Any]:
        """Return the response."""
        return self.response


def test_what_stands_beside_a_record() -> None:
    """A record tells which client asked, which host answered and which version stored it; no key is in it."""
    client = client_with(api_key="sk-very-secret-key")
    said(client)
    (record,) = client.cache.records()
    assert (record.api_type, record.host, record.version) == ("scripted", "scripted", llmcall.__version__)
    assert record.stored_at is not None
    stored = b"".join(path.read_bytes() for path in client.cache.path.iterdir())
    assert b"very-secret" not in stored


def test_a_hit_of_another_host_warns_once(caplog: pytest.LogCaptureFixture) -> None:
    """Answers of one server used for another are named once, with the remedy; a namespace keeps them apart."""
    said(client_with(), model="m")
    said(client_with(), "again", model="m")
    assert not caplog.records
    elsewhere = llmcall.OpenAIClient(base_url="http://localhost:1/v1")
    for message in ("Hello", "again", "Hello"):
        assert elsewhere.send_message(message, model="m") is not None
    warnings = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    warnings = [text for text in warnings if "NAMESPACE" in text]
    assert len(warnings) == 1
    assert all(word in warnings[0] for word in ("scripted", "localhost", "[Cache] NAMESPACE"))
    apart = llmcall.OpenAIClient(base_url="http://localhost:1/v1", cache_namespace="local", cache_mode="replay")
    with pytest.raises(CacheMissError):
        apart.send_message("Hello", model="m")


def test_changing_a_reply_changes_no_later_one() -> None:
    """What a caller does to a reply, its raw response and its choices stays with the caller."""
    tool_call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    client = client_with([{"role": "assistant", "content": "3", "tool_calls": [tool_call]}])
    for _ in range(3):
        reply = client.send_message("Hello", on_error="raise")
        assert (reply.content, reply.tool_calls, len(reply.choices)) == ("3", [tool_call], 1)
        reply["content"] = "4"
        reply.tool_calls.append("mine")  # type: ignore[union-attr]
        reply.raw["choices"].clear()
    assert len(client.requests) == 1


def test_default_path_is_the_project_s(tmp_path: Path) -> None:
    """Without a setting the cache lies in .llmcall/cache of the project's root, found from below."""
    (tmp_path / "pyproject.toml").write_text("")
    client = client_with()
    said(client)
    assert client.cache.path == tmp_path / ".llmcall" / "cache"
    assert (tmp_path / ".llmcall" / "cache" / "cache.db").exists()


@pytest.mark.parametrize("name", ["a b", "Käse ключ", "100%", "a#b", "a?b"])
def test_paths_with_odd_letters(name: str, tmp_path: Path) -> None:
    """A path in the settings means the directory of that name."""
    client = client_with(cache_path=tmp_path / name)
    said(client)
    assert (tmp_path / name / "cache.db").exists()
    assert said(client_with((), cache_path=str(tmp_path / name))) == ("one", True)


def test_two_processes_settings_two_caches(tmp_path: Path) -> None:
    """force_api_cache moves the cache, and turns it off, for clients already made."""
    client = client_with()
    said(client)
    llmcall.force_api_cache(True, tmp_path / "elsewhere")
    assert said(client) == ("two", False)
    assert (tmp_path / "elsewhere" / "cache.db").exists()
    llmcall.force_api_cache(False)
    assert said(client) == ("three", False)
    llmcall.force_api_cache(None)
    assert said(client_with(())) == ("one", True)


def test_client_cache_is_a_response_cache() -> None:
    """client.cache is the very cache that its calls use."""
    client = client_with()
    request = client.build_request("Hello")
    assert isinstance(client.cache, ResponseCache)
    assert client.cache.get(request) is None
    said(client)
    assert client.cache.get(request).response["choices"][0]["message"]["content"] == "one"  # type: ignore[union-attr]
    assert client.cache.put(client.build_request("planted"), client.cache.get(request).response) is not None  # type: ignore[union-attr]
    assert said(client, "planted") == ("one", True)
