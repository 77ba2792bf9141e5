"""The types of results and protocols, for annotations and ``isinstance``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .lazy_names import imported_by_name

if TYPE_CHECKING:
    from .call.usage import Usage
    from .cassettes.cassette import Cassette
    from .clients.streams import AsyncStream, Stream
    from .config.endpoints import Endpoint
    from .config.settings import Settings
    from .misses.report import Miss
    from .parallel.plans import Plan
    from .programs.requests import ProgramRequest
    from .review.comparison import Comparison
    from .study.arms import Arms
    from .study.choice import Choice
    from .study.drift.drift import DriftPlan
    from .study.drift.result import Drift
    from .typed.conversations import Answer
    from .values import AsyncTransport, Record, Reply, Request, TokenUsage, Transport

__all__ = [
    "Answer",
    "Arms",
    "AsyncStream",
    "AsyncTransport",
    "Cassette",
    "Choice",
    "Comparison",
    "Drift",
    "DriftPlan",
    "Endpoint",
    "Miss",
    "Plan",
    "ProgramRequest",
    "Record",
    "Reply",
    "Request",
    "Settings",
    "Stream",
    "TokenUsage",
    "Transport",
    "Usage",
]

_MODULES = {
    "call.usage": ("Usage",),
    "cassettes.cassette": ("Cassette",),
    "clients.streams": (
        "AsyncStream",
        "Stream",
    ),
    "config.endpoints": ("Endpoint",),
    "config.settings": ("Settings",),
    "misses.report": ("Miss",),
    "parallel.plans": ("Plan",),
    "programs.requests": ("ProgramRequest",),
    "review.comparison": ("Comparison",),
    "study.arms": ("Arms",),
    "study.choice": ("Choice",),
    "study.drift.drift": ("DriftPlan",),
    "study.drift.result": ("Drift",),
    "typed.conversations": ("Answer",),
    "values": (
        "AsyncTransport",
        "Record",
        "Reply",
        "Request",
        "TokenUsage",
        "Transport",
    ),
}


def __getattr__(name: str) -> Any:
    return imported_by_name(name, _MODULES, globals())


def __dir__() -> list[str]:
    return __all__
