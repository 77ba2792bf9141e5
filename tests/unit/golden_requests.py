"""Requests of a named model."""

from __future__ import annotations

from typing import Any

from llmcall.testing import ScriptedClient
from llmcall.types import Request


def asked(messages: Any = "Hello", settings: Any = None, **arguments: Any) -> Request:
    """Build a request for a named model."""
    return ScriptedClient(**(settings or {})).build_request(messages, **{"model": "gpt-4o-mini", **arguments})
