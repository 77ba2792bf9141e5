"""Call language models thousands of times, pay for each call once, and get the same run again
tomorrow.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ._version import __version__

if TYPE_CHECKING:
    from .ancestors.xagent import chatcompletion_request
    from .cache.cache import ResponseCache
    from .call.budgets import budget
    from .call.usage import Usage, track
    from .cassettes.cassette import Cassette
    from .clients.base import LLMClient
    from .clients.local import LocalClient
    from .clients.openai import AzureClient, OpenAIClient
    from .clients.registry import client, count_tokens, register_client, reset, settings, usage
    from .clients.streams import AsyncStream, Stream
    from .config.endpoints import Endpoint
    from .config.resolve import configure, configured, force_api_cache, force_api_type
    from .config.settings import Settings
    from .errors import (
        APIError,
        AuthenticationError,
        BudgetExceededError,
        CacheCorruptError,
        CacheError,
        CacheMissError,
        ConfigError,
        ContentFilterError,
        ContextLengthError,
        EmptyAnswerError,
        InvalidRequestError,
        LLMCallError,
        OutputError,
        QuotaExceededError,
        RateLimitError,
        RequestTimeoutError,
        ScopeError,
        ServiceError,
        TemplateError,
    )
    from .misses.report import Miss
    from .parallel.map import imap, map
    from .parallel.plans import Plan
    from .programs.blocks import cassette, patched
    from .programs.http_clients import async_http_client, http_client
    from .programs.requests import ProgramRequest
    from .recorded_functions import recorded
    from .review.comparison import Comparison, compare
    from .scopes import arm, bind, scope, seed
    from .study.arms import Arms, arms
    from .study.choice import Choice, choice
    from .study.drift.drift import DriftPlan, drift
    from .study.drift.result import Drift
    from .study.packing.pack import pack
    from .study.packing.verify import verify
    from .typed.conversations import Answer
    from .typed.functions import llm
    from .typed.llm_call import LLMCall
    from .types import AsyncTransport, Record, Reply, Request, TokenUsage, Transport

# The names by the module that defines them; each is imported when first used, so that importing the
# package costs next to nothing.
_NAMES_BY_MODULE = {
    "ancestors.xagent": ("chatcompletion_request",),
    "call.budgets": ("budget",),
    "cache.cache": ("ResponseCache",),
    "cassettes.cassette": ("Cassette",),
    "typed.conversations": ("Answer",),
    "typed.functions": ("llm",),
    "typed.llm_call": ("LLMCall",),
    "clients.base": ("LLMClient",),
    "clients.streams": ("AsyncStream", "Stream"),
    "clients.local": ("LocalClient",),
    "clients.openai": ("AzureClient", "OpenAIClient"),
    "clients.registry": ("client", "count_tokens", "register_client", "reset", "settings", "usage"),
    "config.resolve": ("configure", "configured", "force_api_cache", "force_api_type"),
    "config.endpoints": ("Endpoint",),
    "config.settings": ("Settings",),
    "errors": (
        "APIError",
        "AuthenticationError",
        "BudgetExceededError",
        "CacheCorruptError",
        "CacheError",
        "CacheMissError",
        "ConfigError",
        "ContentFilterError",
        "ContextLengthError",
        "EmptyAnswerError",
        "InvalidRequestError",
        "LLMCallError",
        "OutputError",
        "QuotaExceededError",
        "RateLimitError",
        "RequestTimeoutError",
        "ScopeError",
        "ServiceError",
        "TemplateError",
    ),
    "programs.http_clients": ("async_http_client", "http_client"),
    "programs.blocks": ("cassette", "patched"),
    "programs.requests": ("ProgramRequest",),
    "parallel.map": ("imap", "map"),
    "call.usage": ("Usage", "track"),
    "misses.report": ("Miss",),
    "parallel.plans": ("Plan",),
    "recorded_functions": ("recorded",),
    "scopes": ("arm", "bind", "scope", "seed"),
    "study.arms": ("Arms", "arms"),
    "study.choice": ("Choice", "choice"),
    "study.drift.drift": ("DriftPlan", "drift"),
    "study.drift.result": ("Drift",),
    "study.packing.pack": ("pack",),
    "study.packing.verify": ("verify",),
    "review.comparison": ("Comparison", "compare"),
    "types": ("AsyncTransport", "Record", "Reply", "Request", "TokenUsage", "Transport"),
}
_MODULE_BY_NAME = {name: module for module, names in _NAMES_BY_MODULE.items() for name in names}

__all__ = [
    "APIError",
    "Answer",
    "Arms",
    "AsyncStream",
    "AsyncTransport",
    "AuthenticationError",
    "AzureClient",
    "BudgetExceededError",
    "CacheCorruptError",
    "CacheError",
    "CacheMissError",
    "Cassette",
    "Choice",
    "Comparison",
    "ConfigError",
    "ContentFilterError",
    "ContextLengthError",
    "Drift",
    "DriftPlan",
    "EmptyAnswerError",
    "Endpoint",
    "InvalidRequestError",
    "LLMCall",
    "LLMCallError",
    "LLMClient",
    "LocalClient",
    "Miss",
    "OpenAIClient",
    "OutputError",
    "Plan",
    "ProgramRequest",
    "QuotaExceededError",
    "RateLimitError",
    "Record",
    "Reply",
    "Request",
    "RequestTimeoutError",
    "ResponseCache",
    "ScopeError",
    "ServiceError",
    "Settings",
    "Stream",
    "TemplateError",
    "TokenUsage",
    "Transport",
    "Usage",
    "__version__",
    "arm",
    "arms",
    "async_http_client",
    "bind",
    "budget",
    "cassette",
    "chatcompletion_request",
    "choice",
    "client",
    "compare",
    "configure",
    "configured",
    "count_tokens",
    "drift",
    "force_api_cache",
    "force_api_type",
    "http_client",
    "imap",
    "llm",
    "map",
    "pack",
    "patched",
    "recorded",
    "register_client",
    "reset",
    "scope",
    "seed",
    "settings",
    "track",
    "usage",
    "verify",
]


def __getattr__(name: str) -> Any:
    import importlib

    if name in ("aio", "testing"):
        return importlib.import_module(f".{name}", __name__)
    if name not in _MODULE_BY_NAME:
        raise AttributeError(f"module 'llmcall' has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_MODULE_BY_NAME[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULE_BY_NAME})
