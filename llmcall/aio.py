"""The asynchronous functions that features add: ``from llmcall.aio import chatcompletion_request``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .support.lazy_names import imported_by_name

# What features add: ``python docs/_ext/names.py`` writes it, until the next comment.
if TYPE_CHECKING:
    from .features.dbgpt.streams import chat_completion as chat_completion
    from .features.dbgpt.streams import chat_completion_stream as chat_completion_stream
    from .features.xagent.asynchronous import chatcompletion_request as chatcompletion_request
    from .features.xagent.asynchronous import embedding_request as embedding_request

_OF_FEATURES: dict[str, str] = {
    "features.dbgpt.streams": "chat_completion chat_completion_stream",
    "features.xagent.asynchronous": "chatcompletion_request embedding_request",
}
# The end of what features add.

__all__ = sorted(" ".join(_OF_FEATURES.values()).split())


def __getattr__(name: str) -> Any:
    return imported_by_name(name, _OF_FEATURES, globals())


def __dir__() -> list[str]:
    return __all__
