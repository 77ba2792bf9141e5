"""Scopes: inside one, a repeated request is a new draw, and each draw has a number that replays."""

from .draws import Counts, Draw, Draws
from .equal_requests import Recorded, take_misplaced
from .names import given_path, is_made_name, made_name
from .scope import (
    Active,
    Bound,
    Scope,
    bind,
    current,
    current_path,
    default_scope,
    forget,
    inherited,
    scope,
    scope_of_call,
)
from .served import note_served

__all__ = [
    "Active",
    "Bound",
    "Counts",
    "Draw",
    "Draws",
    "Recorded",
    "Scope",
    "bind",
    "current",
    "current_path",
    "default_scope",
    "forget",
    "given_path",
    "inherited",
    "is_made_name",
    "made_name",
    "note_served",
    "scope",
    "scope_of_call",
    "take_misplaced",
]
