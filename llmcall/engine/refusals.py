"""Calls that were refused: logged, counted, and reported when the program ends."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import ScopeError
from ..failures import MISSED, UNSCOPED, process_failures
from ..notices import logger
from .usage import count

if TYPE_CHECKING:
    from ..errors import CacheMissError
    from .usage import Meter


def note_refused(
    label: str,
    callee: str,
    meter: Meter,
    error: CacheMissError | ScopeError,
    *,
    scope: str,
    arm: str = "",
) -> None:
    """Note a call that was refused: the program may catch the error and go on without an answer.

    :param label: how messages name the call.
    :param callee: the name of the model or function, by which it is counted.
    :param scope: its scope path; empty outside any scope.
    :param arm: the name of its arm; empty outside any.
    """
    error_name = type(error).__name__
    logger().error("%s was refused: %s: %s", label, error_name, error.args[0])
    count(meter, callee, scope, {"errors": 1}, arm)
    reason = UNSCOPED if isinstance(error, ScopeError) else MISSED
    process_failures.add(scope, label, reason)
