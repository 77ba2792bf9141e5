"""Scopes: inside one, a repeated request is a new draw, and each draw has a number that replays."""

from .arms import Arm, arm, seed
from .bound import Bound, bind
from .call_order import CallOrder
from .draws import Draw, DrawCounter, Draws
from .equal_requests import EqualRequests, NamedAsker, RecordedAskers, take_misplaced
from .names import is_reserved_name, path_before_items, reserved_name, without_repeats
from .numbers import ArmPath, Counts, DrawNumber, ScopedRequest, split_counts
from .scope import (
    ActiveScope,
    Scope,
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
from .scoped_record import ScopedRecord
from .unscoped import warn_of_shared_answers
from .workers import note_abandoned

__all__ = [
    "ActiveScope",
    "Arm",
    "ArmPath",
    "Bound",
    "CallOrder",
    "Counts",
    "Draw",
    "DrawCounter",
    "DrawNumber",
    "Draws",
    "EqualRequests",
    "NamedAsker",
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
    "note_abandoned",
    "path_before_items",
    "reserved_name",
    "scope",
    "scope_around",
    "scope_of_call",
    "seed",
    "split_counts",
    "take_misplaced",
    "warn_of_shared_answers",
    "without_repeats",
]
