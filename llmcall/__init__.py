"""Call language models thousands of times, pay for each call once, and get the same run again
tomorrow.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ._version import __version__
from .lazy_names import imported_by_name

if TYPE_CHECKING:
    from . import aio, testing, types
    from .ancestors.xagent import chatcompletion_request
    from .cache.cache import ResponseCache
    from .call.budgets import budget
    from .call.usage import track
    from .clients.base import LLMClient
    from .clients.local import LocalClient
    from .clients.openai import AzureClient, OpenAIClient
    from .clients.registry import client, count_tokens, register_client, reset, settings, usage
    from .config.resolve import configure, configured, force_api_cache, force_api_type
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
    from .parallel.map import imap, map
    from .programs.blocks import cassette, patched
    from .programs.http_clients import async_http_client, http_client
    from .recorded_functions import recorded
    from .review.comparison import compare
    from .scopes import arm, bind, scope, seed
    from .study.arms import arms
    from .study.choice import choice
    from .study.drift.drift import drift
    from .study.packing.pack import pack
    from .study.packing.verify import verify
    from .typed.functions import llm
    from .typed.llm_call import LLMCall

__all__ = [
    "APIError",
    "AuthenticationError",
    "AzureClient",
    "BudgetExceededError",
    "CacheCorruptError",
    "CacheError",
    "CacheMissError",
    "ConfigError",
    "ContentFilterError",
    "ContextLengthError",
    "EmptyAnswerError",
    "InvalidRequestError",
    "LLMCall",
    "LLMCallError",
    "LLMClient",
    "LocalClient",
    "OpenAIClient",
    "OutputError",
    "QuotaExceededError",
    "RateLimitError",
    "RequestTimeoutError",
    "ResponseCache",
    "ScopeError",
    "ServiceError",
    "TemplateError",
    "__version__",
    "aio",
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
    "testing",
    "track",
    "types",
    "usage",
    "verify",
]

_MODULES = {
    "ancestors.xagent": ("chatcompletion_request",),
    "cache.cache": ("ResponseCache",),
    "call.budgets": ("budget",),
    "call.usage": ("track",),
    "clients.base": ("LLMClient",),
    "clients.local": ("LocalClient",),
    "clients.openai": (
        "AzureClient",
        "OpenAIClient",
    ),
    "clients.registry": (
        "client",
        "count_tokens",
        "register_client",
        "reset",
        "settings",
        "usage",
    ),
    "config.resolve": (
        "configure",
        "configured",
        "force_api_cache",
        "force_api_type",
    ),
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
    "parallel.map": (
        "imap",
        "map",
    ),
    "programs.blocks": (
        "cassette",
        "patched",
    ),
    "programs.http_clients": (
        "async_http_client",
        "http_client",
    ),
    "recorded_functions": ("recorded",),
    "review.comparison": ("compare",),
    "scopes": (
        "arm",
        "bind",
        "scope",
        "seed",
    ),
    "study.arms": ("arms",),
    "study.choice": ("choice",),
    "study.drift.drift": ("drift",),
    "study.packing.pack": ("pack",),
    "study.packing.verify": ("verify",),
    "typed.functions": ("llm",),
    "typed.llm_call": ("LLMCall",),
}


def __getattr__(name: str) -> Any:
    return imported_by_name(name, _MODULES, globals())


def __dir__() -> list[str]:
    return __all__
