"""Whole answers of the Responses and Messages APIs, apart from those that failed or broke off."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..clients.api_errors import failure, refuse_reported
from ..errors import APIError, ContentFilterError, ServiceError
from ..values import events_of, read_object

if TYPE_CHECKING:
    from .requests import RequestToRecord

# By the API's part of a path: the events of which one ends a whole stream.
LAST_EVENTS = {
    "/responses": ("response.completed", "response.incomplete"),
    "/messages": ("message_stop",),
}

# Codes of the Responses API, and types of the Messages API, for failures that pass.
PASSING_FAILURES = ("server_error", "rate_limit_exceeded", "overloaded_error", "api_error")


def last_events(to_record: RequestToRecord) -> tuple[str, ...]:
    """Return the events that end a stream of these APIs; none for a request to another one."""
    return () if to_record.body is None else LAST_EVENTS.get(to_record.api_path or "", ())


def check_answer(to_record: RequestToRecord, content: bytes, *, is_stream: bool) -> None:
    """Check that an answer of these APIs is whole and successful; accept all other answers.

    :param content: the body of a response with the status 200.
    :param is_stream: whether that is an event stream.
    :raises APIError: if it failed, was filtered or broke off.
    """
    ends = last_events(to_record)
    if not ends:
        return
    answers = list(events_of(content)) if is_stream else [read_object(content, "answer")]
    for answer in answers:
        _check(answer)
        if isinstance(answer.get("response"), dict):
            _check(answer["response"])
    if is_stream and not any(answer.get("type") in ends for answer in answers):
        raise ServiceError(
            f"the stream broke off after {len(answers)} events, without {' or '.join(ends)}"
        )


def _check(answer: dict[str, Any]) -> None:
    """Check an answer, or an event of a stream.

    One that ``max_output_tokens`` cut is complete. So is one in the background that goes on: the
    program asks for its end by GET.
    """
    status, details = answer.get("status"), answer.get("incomplete_details")
    try:
        if answer.get("type") == "error":
            raise failure(500, answer)
        refuse_reported(answer)
        if status in ("failed", "cancelled"):
            raise ServiceError(f"the answer has the status {status!r}")
    except APIError as error:
        reported = answer.get("error")
        fields = reported if isinstance(reported, dict) else answer
        code = fields.get("code") or fields.get("type")
        # whether it may pass, so that another attempt is worth it
        error.retryable = code in (None, "error", *PASSING_FAILURES)
        raise
    reason = details.get("reason") if isinstance(details, dict) else None
    if status == "incomplete" and reason == "content_filter":
        raise ContentFilterError("the provider filtered the answer (reason content_filter)")
