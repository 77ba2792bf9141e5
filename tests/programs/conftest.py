"""The server that the programs of these tests ask."""

from __future__ import annotations

import pytest
from commands import PRICED
from pytest_httpserver import HTTPServer
from servers import NumberedServer


@pytest.fixture
def model(
    httpserver: HTTPServer, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> NumberedServer:
    """A model's server, which the programs of a test find; their module says how slow it may be."""
    made = NumberedServer(httpserver, slow=getattr(request.module, "SLOWLY", 0.0))
    monkeypatch.setenv("MODEL_AT", made.address)
    monkeypatch.setenv("LLMCALL_CONFIG", str(PRICED))
    return made
