"""The report of failures: the calls of a run that left no record."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import APIError, BudgetExceededError, CacheMissError, ScopeError
from ..support.failures import (
    ABANDONED,
    FAILED,
    MISSED,
    OVER_BUDGET,
    UNSCOPED,
    is_abandoned,
    is_failure,
    process_failures,
)
from ..support.listeners import Listener

if TYPE_CHECKING:
    from ..core.calls import Call


class FailureReport(Listener):
    """Adds the calls that left no record to the report at the end of the run or of the cassette."""

    def failed(self, call: Call, error: BaseException, *, stream: bool) -> None:
        """Add a call that failed or was cancelled; a stream reports by itself that its
        reader left.
        """
        asks_model = call.request.kind != "function"
        words = call.label
        if isinstance(error, BudgetExceededError):
            if asks_model:  # a function's own calls report it
                process_failures.count_refused()
                call.failures.add(call.position.path, words, OVER_BUDGET, asks_model=False)
        elif is_failure(error):
            words += f": {type(error).__name__}"
            if isinstance(error, APIError) and call.is_counted:
                call.add_usage(errors=1)
                words += f". {error.remedy}"
            # What a program's own connection raised reaches the program, whose SDK may try again.
            is_retried = call.transport is not None
            if isinstance(error, APIError):
                is_retried = error.is_retried_by_program
            key = call.request.cache_key if is_retried else None
            call.failures.add(call.position.path, words, FAILED, asks_model=asks_model, key=key)
        elif is_abandoned(error) and not stream:
            call.failures.add(call.position.path, words, ABANDONED, asks_model=asks_model)

    def refused(self, call: Call, error: Exception) -> None:
        """Add a call that was refused: the program may catch the error and go on without an answer."""
        report_refused(call.position.path, call.label, error)
        call.add_usage(errors=1)


def report_refused(scope: str, label: str, error: Exception) -> None:
    """Report at the end of the process that a call or a map was refused.

    :param scope: its scope path; empty outside any scope.
    :param label: how messages name it.
    :param error: a ``CacheMissError`` or a ``ScopeError``.
    """
    assert isinstance(error, (CacheMissError, ScopeError))
    reason = UNSCOPED if isinstance(error, ScopeError) else MISSED
    process_failures.add(scope, label, reason)
