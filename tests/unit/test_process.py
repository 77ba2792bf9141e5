"""What holds for the whole process: settings, usage, reset, counting tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import llmcall
from llmcall.testing import ScriptedClient


class Closing:
    """Be a transport that knows whether it is open."""

    closed = 0

    def send(self, request: Any, timeout: float | None) -> Any:
        """Answer "yes"."""
        return {"choices": [{"message": {"role": "assistant", "content": "yes"}, "finish_reason": "stop"}]}

    def close(self) -> None:
        """Count."""
        self.closed += 1


def test_settings_are_those_of_now(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What changed in the environment, a file or the code holds at once; without a change it is the same object."""
    assert llmcall.settings() is llmcall.settings()
    monkeypatch.setenv("LLMCALL_MODEL", "from-environment")
    assert llmcall.settings().model == "from-environment"
    (tmp_path / "config.ini").write_text("[OpenAI]\nMODEL = from-file\nEMBEDDING_MODEL = also-from-file\n")
    assert (llmcall.settings().model, llmcall.settings().embedding_model) == ("from-environment", "also-from-file")
    llmcall.configure(model="from-code")
    assert llmcall.settings().model == "from-code"


def test_clients_already_made_follow() -> None:
    """A client asks with the settings of now, its own arguments above them."""
    client, own = ScriptedClient(lambda messages: "yes"), ScriptedClient(lambda messages: "yes", model="own")
    llmcall.configure(model="configured", temperature=0.5)
    for each in (client, own):
        each.send_message("Hello")
    assert client.requests[0].model == "configured"
    assert own.requests[0].model == "own"
    assert own.requests[0].body["temperature"] == 0.5
    with llmcall.configured(model="for a while"):
        client.send_message("Hello")
    client.send_message("Hello")
    assert [request.model for request in client.requests] == ["configured", "for a while", "configured"]


def test_reset_goes_back_to_the_beginning() -> None:
    """Shared clients are closed, configured and forced settings are gone, caches are reopened, usage stays."""
    transport = Closing()
    llmcall.register_client("mine", llmcall.LLMClient(transport=transport))
    llmcall.configure(model="configured")
    llmcall.force_api_type("mine")
    llmcall.client().send_message("Hello")
    cache = llmcall.client().cache
    calls = llmcall.usage().calls
    llmcall.reset()
    assert transport.closed == 1
    assert (llmcall.settings().api_type, llmcall.settings().model != "configured") == ("openai", True)
    assert llmcall.client().cache is not cache
    assert llmcall.usage().calls == calls
    assert len(llmcall.client().cache) == 1
    llmcall.reset()
    llmcall.reset()


def test_reset_begins_the_root_scope_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draws of LLMCALL_SCOPE begin at 0 again."""
    monkeypatch.setenv("LLMCALL_SCOPE", "r")
    client = ScriptedClient(lambda messages: "yes")
    first = [client.send_message("Hello").sample for _ in range(2)]  # type: ignore[union-attr]
    llmcall.reset()
    assert [*first, client.send_message("Hello").sample] == ["r#0", "r#1", "r#0"]  # type: ignore[union-attr]


def test_usage_is_that_of_all_clients() -> None:
    """llmcall.usage() adds up what the clients' own usages say."""
    before = llmcall.usage()
    clients = [ScriptedClient(lambda messages: "yes", model=f"of-this-test-{number}") for number in range(2)]
    for client in clients:
        client.send_message("Hello")
        client.send_message("Hello")
    after = llmcall.usage()
    assert after.calls - before.calls == sum(client.usage.calls for client in clients) == 4
    assert after.by_model["of-this-test-1"].calls == 2


def test_count_tokens_never_fails() -> None:
    """A text, messages, an unknown model, no model: a number that says whether it is an estimate."""
    for counted in (
        llmcall.count_tokens("Hello, world"),
        llmcall.count_tokens("Hello, world", "no-such-model"),
        llmcall.count_tokens([{"role": "user", "content": "Hello, world"}], model="gpt-4o"),
        ScriptedClient().count_tokens("Hello, world", "no-such-model"),
        llmcall.count_tokens("<|endoftext|> 🧀"),
    ):
        assert counted > 0
        assert counted.estimated in (True, False)
    assert llmcall.count_tokens("") == 0
    assert llmcall.count_tokens("x", "no-such-model").estimated


def test_count_tokens_knows_aliases_and_the_configured_model() -> None:
    """The configured model, after aliases, is the one whose tokenizer counts."""
    text = "Ωμέγα, the last of them"
    llmcall.configure(model="short", aliases={"short": "gpt-4o"})
    assert (
        llmcall.count_tokens(text)
        == llmcall.count_tokens(text, "gpt-4o")
        == ScriptedClient().count_tokens(text, "short")
    )
