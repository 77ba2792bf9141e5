"""The types of results and protocols, for annotations and ``isinstance``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .lazy_names import imported_by_name

if TYPE_CHECKING:
    from .call.usage import Usage as Usage
    from .cassettes.cassette import Cassette as Cassette
    from .clients.streams import AsyncStream as AsyncStream
    from .clients.streams import Stream as Stream
    from .config.endpoints import Endpoint as Endpoint
    from .config.settings import Settings as Settings
    from .misses.report import Miss as Miss
    from .parallel.plans import Plan as Plan
    from .programs.requests import ProgramRequest as ProgramRequest
    from .review.comparison import Comparison as Comparison
    from .study.arms import Arms as Arms
    from .study.choice import Choice as Choice
    from .study.drift.drift import DriftPlan as DriftPlan
    from .study.drift.result import Drift as Drift
    from .typed.conversations import Answer as Answer
    from .values import AsyncTransport as AsyncTransport
    from .values import Record as Record
    from .values import Reply as Reply
    from .values import Request as Request
    from .values import TokenUsage as TokenUsage
    from .values import Transport as Transport

_MODULES = {
    "call.usage": "Usage",
    "cassettes.cassette": "Cassette",
    "clients.streams": "AsyncStream Stream",
    "config.endpoints": "Endpoint",
    "config.settings": "Settings",
    "misses.report": "Miss",
    "parallel.plans": "Plan",
    "programs.requests": "ProgramRequest",
    "review.comparison": "Comparison",
    "study.arms": "Arms",
    "study.choice": "Choice",
    "study.drift.drift": "DriftPlan",
    "study.drift.result": "Drift",
    "typed.conversations": "Answer",
    "values": "AsyncTransport Record Reply Request TokenUsage Transport",
}

__all__ = sorted([*" ".join(_MODULES.values()).split()])


def __getattr__(name: str) -> Any:
    return imported_by_name(name, _MODULES, globals())


def __dir__() -> list[str]:
    return __all__
