"""Failed calls: raised, logged or returned, as the caller wants."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..config.values import without_password
from ..errors import APIError, BudgetExceededError
from ..failures import (
    ABANDONED,
    FAILED,
    NOT_JSON,
    OVER_BUDGET,
    UnrecordedAnswer,
    is_abandoned,
    is_failure,
    process_failures,
)
from ..notices import is_new, logger

if TYPE_CHECKING:
    from ..call.calls import Call
    from ..call.client import Client


def handle_failure(error: BaseException, call: Call, *, stream: bool = False) -> Any:
    """Raise, log or return an API failure, as the caller wants; raise any other error.

    The call's draw is given back.

    :param stream: whether its answer was streamed. A stream has no value that could be the error,
        so it raises the error that a call would return.
    :returns: the error if the caller wants it as the value, or ``None`` if it was logged.
    """
    note_failure(error, call, stream=stream)
    if not isinstance(error, APIError):
        raise error
    on_error = call.options.on_error
    model = call.request.model
    address = _address_of(error, call.client, model)
    if on_error == "raise" or (on_error == "return" and stream):
        _add_note(error, f"model {model} at {address}. {error.remedy}")
        raise error
    if on_error == "return":
        return error
    _log(call.label, error, address)
    return None


def note_failure(error: BaseException, call: Call, *, stream: bool = False) -> None:
    """Note a call that failed after all retries or was cancelled, and give its draw back: a replay will
    not find its answer.

    :param stream: whether its answer was streamed; a stream notes by itself that its reader left.
    """
    asks_model = call.request.kind != "function"
    words = call.label
    if isinstance(error, UnrecordedAnswer):
        call.failures.add(call.scope, f"{call.name}: {error}", NOT_JSON)
    elif isinstance(error, BudgetExceededError):
        if asks_model:  # a function's own calls note it
            process_failures.count_refused()
            call.failures.add(call.scope, words, OVER_BUDGET, asks_model=False)
    elif is_failure(error):
        words += f": {type(error).__name__}"
        if isinstance(error, APIError) and call.maker is not None:
            call.add_usage(errors=1)
            words += f". {error.remedy}"
        call.failures.add(call.scope, words, FAILED, asks_model=asks_model)
    elif is_abandoned(error) and not stream:
        call.failures.add(call.scope, words, ABANDONED, asks_model=asks_model)
    call.give_back()


def _address_of(error: APIError, client: Client, model: str) -> str:
    """Return the address of the endpoint that failed, or of all that may have failed."""
    endpoints = client.pool(model).endpoints
    failed_endpoints = [each for each in endpoints if each.name == error.endpoint] or endpoints
    addresses = {without_password(each.address) or client.host(each) for each in failed_endpoints}
    return ", ".join(sorted(address.partition("?")[0] for address in addresses))


def _add_note(error: APIError, note: str) -> None:
    """Add a note to an error, unless the error has it already. Python 3.10 has no notes."""
    if hasattr(error, "add_note") and note not in getattr(error, "__notes__", ()):
        error.add_note(note)


def _log(label: str, error: APIError, address: str) -> None:
    """Log a failure; with what to do, if it is the first of its kind at an address."""
    line = f"{label} at {address} failed: {error}"
    if is_new(("failed", address, type(error))):
        full_stop = "" if line.endswith((".", "?", "!")) else "."
        line += f'{full_stop} {error.remedy}; on_error="raise" raises this error'
    logger().error("%s", line)
