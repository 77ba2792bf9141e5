"""Calls that were refused: logged, counted, and reported when the program ends."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import ScopeError
from ..failures import MISSED, UNSCOPED, process_failures
from ..notices import logger

if TYPE_CHECKING:
    from ..errors import CacheMissError
    from .prepared_call import PreparedCall


def note_refused(call: PreparedCall, error: CacheMissError | ScopeError) -> None:
    """Note a call that was refused: the program may catch the error and go on without an answer."""
    report_refused(call.scope, call.label, error)
    call.add_usage(errors=1)


def report_refused(scope: str, label: str, error: CacheMissError | ScopeError) -> None:
    """Log that a call or a map was refused, and report it when the program ends.

    :param scope: its scope path; empty outside any scope.
    :param label: how messages name it.
    """
    error_name = type(error).__name__
    logger().error("%s was refused: %s: %s", label, error_name, error.args[0])
    reason = UNSCOPED if isinstance(error, ScopeError) else MISSED
    process_failures.add(scope, label, reason)
