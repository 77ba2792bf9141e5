"""The types of results and protocols, for annotations and ``isinstance``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .support.lazy_names import imported_by_name

if TYPE_CHECKING:
    from .apis.token_usage import TokenUsage as TokenUsage
    from .clients.streams import AsyncStream as AsyncStream
    from .clients.streams import Stream as Stream
    from .config.endpoints import Endpoint as Endpoint
    from .config.settings import Settings as Settings
    from .core.reply import Reply as Reply
    from .core.seams import AsyncTransport as AsyncTransport
    from .core.seams import Transport as Transport
    from .keys.request import Request as Request
    from .programs.requests import ProgramRequest as ProgramRequest
    from .review.comparison import Comparison as Comparison
    from .stores.cache.storages import Storage as Storage
    from .stores.cassettes.cassette import Cassette as Cassette
    from .stores.misses.report import Miss as Miss
    from .stores.record import Received as Received
    from .stores.record import Record as Record
    from .support.listeners import CallInfo as CallInfo
    from .support.listeners import Listener as Listener
    from .traffic.usage import Usage as Usage
    from .typed.corrections import Answer as Answer

_MODULES = {
    "apis.token_usage": "TokenUsage",
    "clients.streams": "AsyncStream Stream",
    "config.endpoints": "Endpoint",
    "config.settings": "Settings",
    "core.reply": "Reply",
    "core.seams": "AsyncTransport Transport",
    "keys.request": "Request",
    "programs.requests": "ProgramRequest",
    "review.comparison": "Comparison",
    "stores.cassettes.cassette": "Cassette",
    "stores.cache.storages": "Storage",
    "stores.misses.report": "Miss",
    "stores.record": "Received Record",
    "traffic.usage": "Usage",
    "support.listeners": "CallInfo Listener",
    "typed.corrections": "Answer",
}

# What features add: ``python docs/_ext/names.py`` writes it, until the next comment.
if TYPE_CHECKING:
    from .features.arms.arms import Arms as Arms
    from .features.closed_questions.choice import Choice as Choice
    from .features.effects.effects import UnitsNeeded as UnitsNeeded
    from .features.importing.import_answers import Imported as Imported
    from .features.plans.plan import Plan as Plan

_OF_FEATURES: dict[str, str] = {
    "features.arms.arms": "Arms",
    "features.closed_questions.choice": "Choice",
    "features.effects.effects": "UnitsNeeded",
    "features.importing.import_answers": "Imported",
    "features.plans.plan": "Plan",
}
# The end of what features add.

__all__ = sorted(" ".join((*_MODULES.values(), *_OF_FEATURES.values())).split())


def __getattr__(name: str) -> Any:
    return imported_by_name(name, {**_MODULES, **_OF_FEATURES}, globals())


def __dir__() -> list[str]:
    return __all__
