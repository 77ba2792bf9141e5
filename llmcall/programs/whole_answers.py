"""Whole answers of the Responses and Messages APIs, apart from those that failed or broke off."""

from __future__ import annotations

from typing import Any

from ..clients.api_errors import failure, refuse_reported
from ..errors import APIError, ContentFilterError, ServiceError
from ..keys.http_identity import api_path
from ..values import events_of, read_object

# By the API's part of a path: the events of which one ends a whole stream.
LAST_EVENTS = {
    "/responses": ("response.completed", "response.incomplete"),
    "/messages": ("message_stop",),
}

# Codes of the Responses API, and types of the Messages API, for failures that pass.
PASSING_FAILURES = ("server_error", "rate_limit_exceeded", "overloaded_error", "api_error")


def last_events_at(path: str, asked: Any) -> tuple[str, ...]:
    """Return the events that end a stream of these APIs; none for a request to another one.

    :param path: of the request's address.
    :param asked: the request's parsed body, or ``None``.
    """
    return () if asked is None else LAST_EVENTS.get(api_path(path, asked) or "", ())


def check_answer(path: str, asked: Any, content: bytes, *, is_stream: bool) -> None:
    """Check that an answer of these APIs is whole and successful; accept all other answers.

    :param path, asked: as of :func:`last_events_at`.
    :param content: the body of a response with the status 200.
    :param is_stream: whether that is an event stream.
    :raises APIError: if it failed, was filtered or broke off.
    """
    last_events = last_events_at(path, asked)
    if not last_events:
        return
    answers = list(events_of(content)) if is_stream else [read_object(content, "answer")]
    for answer in answers:
        _check(answer)
        if isinstance(answer.get("response"), dict):
            _check(answer["response"])
    if is_stream and not any(answer.get("type") in last_events for answer in answers):
        raise ServiceError(
            f"the stream broke off after {len(answers)} events, without {' or '.join(last_events)}"
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
