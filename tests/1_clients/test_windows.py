"""Windows: answers that may take hours and cost less; what is begun is never lost."""

from __future__ import annotations

from typing import Any

import pytest
from background import BackgroundServer
from pytest_httpserver import HTTPServer

from llmcall import OpenAIClient


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look for answers after milliseconds."""
    monkeypatch.setattr("llmcall.call.windows.FIRST_WAIT", 0.001)
    monkeypatch.setattr("llmcall.call.windows.LONGEST_WAIT", 0.005)


@pytest.fixture
def server(httpserver: HTTPServer) -> BackgroundServer:
    """A server that makes responses in the background."""
    return BackgroundServer(httpserver)


def client_at(server: BackgroundServer, **settings: Any) -> OpenAIClient:
    """Return a client whose calls are answered within eight hours."""
    return OpenAIClient(
        base_url=server.base_url, **{"window": "8h", "retry_waiting_time": 0, **settings}
    )


def test_a_call_in_a_window_is_made_in_the_background(server: BackgroundServer) -> None:
    """Its reply is that of any other call; the server's copy is deleted."""
    reply = client_at(server).send_message("Hello", on_error="raise")
    assert reply == {"role": "assistant", "content": "Hello 1"}
    (body,) = server.bodies
    assert body["background"] is True
    assert body["background_options"] == {"completion_window": "8h"}
    assert body["store"] is True
    assert server.responses == {}


def test_the_window_of_a_call_goes_before_that_of_a_client(server: BackgroundServer) -> None:
    """``"none"`` takes it back."""
    client = client_at(server, cache_mode="off")
    client.send_message("Hello", window="2h", on_error="raise")
    assert server.bodies[0]["background_options"] == {"completion_window": "2h"}
    assert client.send_message("Hello", window="none", on_error="return") is not None
    assert len(server.bodies) == 1
