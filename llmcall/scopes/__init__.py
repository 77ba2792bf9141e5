"""Scopes: inside one, a repeated request is a new draw, and each draw has a number that replays."""

from .arms import Arm, arm, seed
from .bound import Bound, bind
from .draws import Draw, Draws, Fork, Forks, Journal, RecordedAskers, ScopedRequest, take_misplaced
from .names import is_reserved_name, path_before_items, reserved_name, without_repeats
from .repeated import warn_of_restart, warn_of_shared_answers
from .scope import (
    ActiveScope,
    CallOrder,
    Scope,
    ScopedRecord,
    current_order,
    current_path,
    current_scope,
    default_scope,
    forget,
    inherited,
    next_order,
    scope,
    scope_around,
    scope_of_call,
)

__all__ = [
    "ActiveScope",
    "Arm",
    "Bound",
    "CallOrder",
    "Draw",
    "Draws",
    "Fork",
    "Forks",
    "Journal",
    "RecordedAskers",
    "Scope",
    "ScopedRecord",
    "ScopedRequest",
    "arm",
    "bind",
    "current_order",
    "current_path",
    "current_scope",
    "default_scope",
    "forget",
    "inherited",
    "is_reserved_name",
    "next_order",
    "path_before_items",
    "reserved_name",
    "scope",
    "scope_around",
    "scope_of_call",
    "seed",
    "take_misplaced",
    "warn_of_restart",
    "warn_of_shared_answers",
    "without_repeats",
]
