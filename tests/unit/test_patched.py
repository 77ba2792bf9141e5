"""A test that replaces the SDK is answered by what it put there, and by nothing else."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from typing import Any
from unittest import mock

import openai
import pytest
from project_files import written
from pytest_httpserver import HTTPServer
from servers import OK, ScriptedServer

import llmcall
from llmcall import aio
from llmcall.legacy import is_patched

HELLO = {"choices": [{"finish_reason": "stop", "index": 0, "message": {"content": "Hello, World!"}}]}


def scripted(sdk: Any, answer: Any = HELLO) -> Any:
    """Let a patched class's completions be this, and return the mock of ``create``."""
    create = sdk.return_value.chat.completions.create
    create.return_value.model_dump.return_value = answer
    return create


@pytest.mark.parametrize("model", ["gpt-4-turbo", "gpt-4-1106-preview"])
def test_the_ancestors_tests(model: str) -> None:
    """The tests that XAgent has of its function pass as they are: no key, no server, no record."""
    with mock.patch("openai.OpenAI") as mock_openai:
        mock_response = mock_openai.return_value.chat.completions.create.return_value
        mock_response.model_dump.return_value = HELLO
        response = llmcall.chatcompletion_request(model=model, prompt="Hello, world")
    assert response["choices"][0]["finish_reason"] == "stop"
    assert response["choices"][0]["index"] == 0
    assert response["choices"][0]["message"]["content"] == "Hello, World!"
    assert len(llmcall.client().cache) == 0


@pytest.mark.parametrize("kind", [mock.MagicMock, mock.AsyncMock])
@pytest.mark.parametrize("model", ["gpt-4-turbo", "gpt-4-1106-preview"])
def test_the_same_asynchronously(model: str, kind: Any) -> None:
    """The asynchronous function looks for the asynchronous class; what its mock returns may be awaitable or not."""
    with mock.patch("openai.AsyncOpenAI") as sdk:
        sdk.return_value.chat.completions.create = kind()
        sdk.return_value.chat.completions.create.return_value.model_dump = kind(return_value=HELLO)
        response = asyncio.run(aio.chatcompletion_request(model=model, prompt="Hello, world"))
    assert response["choices"][0]["message"]["content"] == "Hello, World!"


def test_what_the_sdk_gets() -> None:
    """The class gets key, address and timeout, and create the request."""
    written("config.ini", "[Aliases]\ngpt-4-turbo = gpt-4-1106-preview\n")
    llmcall.configure(api_key="sk-key", base_url="https://models.example.com/v1", organization="org")
    with mock.patch("openai.OpenAI") as sdk:
        create = scripted(sdk)
        llmcall.chatcompletion_request(model="gpt-4-turbo", prompt="Hello", temperature=0.5, request_timeout=7)
    sdk.assert_called_once_with(
        api_key="sk-key", base_url="https://models.example.com/v1", organization="org", timeout=7
    )
    create.assert_called_once_with(
        model="gpt-4-1106-preview", messages=[{"role": "user", "content": "Hello"}], temperature=0.5
    )


def test_records_take_no_part(httpserver: HTTPServer) -> None:
    """A stored answer does not replace a patched one, nor the other way round; the mode replay is no hindrance."""
    server = ScriptedServer(httpserver, OK)
    llmcall.configure(base_url=server.base_url)
    stored = llmcall.chatcompletion_request(prompt="Hello")
    for mode in ("auto", "replay", "refresh"):
        llmcall.configure(cache_mode=mode)
        with mock.patch("openai.OpenAI") as sdk:
            create = scripted(sdk)
            for _ in range(2):
                assert llmcall.chatcompletion_request(prompt="Hello") == HELLO
            assert create.call_count == 2
    llmcall.configure(cache_mode="replay")
    assert llmcall.chatcompletion_request(prompt="Hello") == stored and len(server.requests) == 1


def test_azure() -> None:
    """An endpoint with an API version is Azure, and is looked up as openai.AzureOpenAI."""
    east = llmcall.Endpoint(
        "east", ("gpt-4",), api_key="k", azure_endpoint="https://east.example.com", azure_api_version="2024-10-21"
    )
    llmcall.configure(endpoints=[east], model="gpt-4")
    with mock.patch("openai.AzureOpenAI") as azure, mock.patch("openai.OpenAI") as sdk:
        scripted(azure)
        assert llmcall.chatcompletion_request(prompt="Hello") == HELLO
    sdk.assert_not_called()
    azure.assert_called_once_with(
        api_key="k", azure_endpoint="https://east.example.com", api_version="2024-10-21", organization=None, timeout=60
    )


def test_azure_as_the_api_type() -> None:
    """Without endpoints it is API_TYPE that makes the difference."""
    llmcall.configure(
        api_type="azure", azure_endpoint="https://west.example.com", azure_api_version="2024-10-21", api_key="k"
    )
    with mock.patch("openai.AzureOpenAI") as azure:
        scripted(azure)
        assert llmcall.chatcompletion_request(prompt="Hello") == HELLO
    assert azure.call_args.kwargs["azure_endpoint"] == "https://west.example.com"


def test_a_pool() -> None:
    """Endpoints take turns from call to call, Azure and OpenAI mixed."""
    llmcall.configure(
        model="gpt-4",
        endpoints=[
            llmcall.Endpoint("a", ("gpt-4",), api_key="a", azure_endpoint="https://a.test", azure_api_version="1"),
            llmcall.Endpoint("b", ("gpt-4",), api_key="b", base_url="https://b.test"),
        ],
    )
    with mock.patch("openai.AzureOpenAI") as azure, mock.patch("openai.OpenAI") as sdk:
        scripted(azure, {"choices": [{"message": {"content": "a"}}]})
        scripted(sdk, {"choices": [{"message": {"content": "b"}}]})
        told = [llmcall.chatcompletion_request(prompt="Hello") for _ in range(4)]
    assert [response["choices"][0]["message"]["content"] for response in told] == ["a", "b", "a", "b"]


def test_a_patched_failure() -> None:
    """What a patched SDK raises is raised, after the retries that it deserves."""
    response: Any = mock.MagicMock(status_code=400, headers={})
    error = openai.BadRequestError("maximum context length", response=response, body=None)
    with mock.patch("openai.OpenAI") as sdk, pytest.raises(openai.BadRequestError) as raised:
        sdk.return_value.chat.completions.create.side_effect = error
        llmcall.chatcompletion_request(prompt="Hello")
    assert raised.value is error


def test_a_patched_fallback() -> None:
    """A patched answer that was cut falls back as any other."""
    llmcall.configure(model="gpt-4", fallbacks={"gpt-4": ("gpt-4-32k",)})
    cut = {"choices": [{"finish_reason": "length", "index": 0, "message": {"content": "Hel"}}]}
    with mock.patch("openai.OpenAI") as sdk:
        create = scripted(sdk)
        create.return_value.model_dump.side_effect = [cut, HELLO]
        assert llmcall.chatcompletion_request(prompt="Hello") == HELLO
    assert [call.kwargs["model"] for call in create.call_args_list] == ["gpt-4", "gpt-4-32k"]
    assert len(llmcall.client().cache) == 0


def test_another_client_is_not_the_sdk() -> None:
    """A client of one's own answers and records as ever, whatever became of the SDK."""
    from llmcall.testing import ScriptedClient

    llmcall.register_client("scripted", ScriptedClient(["Hi."], cache_mode="auto"))
    llmcall.force_api_type("scripted")
    with mock.patch("openai.OpenAI"):
        for _ in range(2):
            assert llmcall.chatcompletion_request(prompt="Hello")["choices"][0]["message"]["content"] == "Hi."


class FakeOpenAI(openai.OpenAI):
    """Be a class of a test's own."""


@pytest.mark.parametrize(
    ("target", "value"),
    [
        ("openai.OpenAI", mock.MagicMock()),
        ("openai.OpenAI", FakeOpenAI),
        ("openai.OpenAI", lambda **_: None),
        ("openai.resources.chat.completions.Completions.create", mock.MagicMock()),
        ("openai.resources.chat.completions.Completions.create", lambda self, **_: None),
    ],
)
def test_what_is_a_replacement(target: str, value: Any) -> None:
    """A mock, a class or a function from elsewhere is one, of the class or of what makes a completion."""
    assert not is_patched("OpenAI", "AzureOpenAI")
    with mock.patch(target, value):
        assert is_patched("OpenAI", "AzureOpenAI")
    assert not is_patched("AsyncOpenAI", "AsyncAzureOpenAI")


def test_a_hit_imports_no_sdk() -> None:
    """Where the SDK was never imported nothing has replaced it: a recorded answer needs no import of it."""
    program = """
import sys, llmcall
from llmcall.cache.cache import shared_cache
client = llmcall.client()
client.cache.put(client.build_request("Hello"), {"choices": [{"message": {"content": "Hi."}}]})
assert llmcall.chatcompletion_request(prompt="Hello")["choices"][0]["message"]["content"] == "Hi."
assert "openai" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True)
