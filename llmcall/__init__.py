"""Call language models thousands of times, pay for each call once, and get the same run again
tomorrow.

PYTEST_DONT_REWRITE: nothing is asserted here. pytest looks in this module, since its entry point is
in this package, and would warn that the package was imported before pytest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ._version import __version__ as __version__
from .stores import openers
from .support.lazy_names import imported_by_name

if TYPE_CHECKING:
    from . import aio as aio
    from . import testing as testing
    from . import types as types
    from .clients.base import LLMClient as LLMClient
    from .clients.openai import AzureClient as AzureClient
    from .clients.openai import OpenAIClient as OpenAIClient
    from .clients.registry import client as client
    from .clients.registry import count_tokens as count_tokens
    from .clients.registry import register_client as register_client
    from .clients.registry import reset as reset
    from .clients.registry import settings as settings
    from .clients.registry import usage as usage
    from .config.resolve import configure as configure
    from .config.resolve import configured as configured
    from .config.resolve import force_api_cache as force_api_cache
    from .config.resolve import force_api_type as force_api_type
    from .errors import APIError as APIError
    from .errors import AuthenticationError as AuthenticationError
    from .errors import BudgetExceededError as BudgetExceededError
    from .errors import CacheCorruptError as CacheCorruptError
    from .errors import CacheError as CacheError
    from .errors import CacheMissError as CacheMissError
    from .errors import ConfigError as ConfigError
    from .errors import ContentFilterError as ContentFilterError
    from .errors import ContextLengthError as ContextLengthError
    from .errors import EmptyAnswerError as EmptyAnswerError
    from .errors import InvalidRequestError as InvalidRequestError
    from .errors import LLMCallError as LLMCallError
    from .errors import OutputError as OutputError
    from .errors import QuotaExceededError as QuotaExceededError
    from .errors import RateLimitError as RateLimitError
    from .errors import RequestTimeoutError as RequestTimeoutError
    from .errors import ScopeError as ScopeError
    from .errors import ServiceError as ServiceError
    from .errors import TemplateError as TemplateError
    from .many.map import imap as imap
    from .many.map import map as map
    from .programs.entry import async_http_client as async_http_client
    from .programs.entry import cassette as cassette
    from .programs.entry import http_client as http_client
    from .programs.entry import patched as patched
    from .recorded_functions import recorded as recorded
    from .review.comparison import compare as compare
    from .scopes.arm_branches import arm as arm
    from .scopes.arm_branches import seed as seed
    from .scopes.scope import bind as bind
    from .scopes.scope import scope as scope
    from .stores.cache.cache import ResponseCache as ResponseCache
    from .traffic.budgets import budget as budget
    from .traffic.usage import track as track
    from .typed.functions import llm as llm
    from .typed.llm_call import LLMCall as LLMCall

_MODULES = {
    "clients.base": "LLMClient",
    "clients.openai": "AzureClient OpenAIClient",
    "clients.registry": "client count_tokens register_client reset settings usage",
    "config.resolve": "configure configured force_api_cache force_api_type",
    "errors": "APIError AuthenticationError BudgetExceededError CacheCorruptError CacheError "
    "CacheMissError ConfigError ContentFilterError ContextLengthError "
    "EmptyAnswerError InvalidRequestError LLMCallError OutputError "
    "QuotaExceededError RateLimitError RequestTimeoutError ScopeError ServiceError "
    "TemplateError",
    "many.map": "imap map",
    "programs.entry": "async_http_client cassette http_client patched",
    "recorded_functions": "recorded",
    "review.comparison": "compare",
    "scopes.arm_branches": "arm seed",
    "scopes.scope": "bind scope",
    "stores.cache.cache": "ResponseCache",
    "traffic.budgets": "budget",
    "traffic.usage": "track",
    "typed.functions": "llm",
    "typed.llm_call": "LLMCall",
}

# What features add: ``python docs/_ext/names.py`` writes it, until the next comment.
if TYPE_CHECKING:
    from .features.arms.arms import arms as arms
    from .features.closed_questions.choice import choice as choice
    from .features.effects.effects import effect as effect
    from .features.effects.effects import units_needed as units_needed
    from .features.importing.import_answers import import_answers as import_answers
    from .features.local_model.client import LocalClient as LocalClient
    from .features.overrides.override import override as override
    from .features.packing.pack import pack as pack
    from .features.packing.verify import verify as verify
    from .features.resend.resend import resend as resend
    from .features.xagent.functions import chatcompletion_request as chatcompletion_request

_OF_FEATURES: dict[str, str] = {
    "features.arms.arms": "arms",
    "features.closed_questions.choice": "choice",
    "features.effects.effects": "effect units_needed",
    "features.importing.import_answers": "import_answers",
    "features.local_model.client": "LocalClient",
    "features.overrides.override": "override",
    "features.packing.pack": "pack",
    "features.packing.verify": "verify",
    "features.resend.resend": "resend",
    "features.xagent.functions": "chatcompletion_request",
}
# The end of what features add.

_NAMES = " ".join((*_MODULES.values(), *_OF_FEATURES.values())).split()
__all__ = sorted(["__version__", "aio", "testing", "types", *_NAMES])


def _open_named_cassette(path: str, mode: str) -> None:
    from .programs.entry import open_named_cassette

    open_named_cassette(path, mode)


openers.append(_open_named_cassette)


def __getattr__(name: str) -> Any:
    return imported_by_name(name, {**_MODULES, **_OF_FEATURES}, globals())


def __dir__() -> list[str]:
    return __all__
