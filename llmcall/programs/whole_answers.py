"""Checks of answers that are recorded as they are: whether they are whole, and report no failure."""

from __future__ import annotations

from ..apis.bodies import EventStream, parse_objects, read_object
from ..apis.interactions import ANSWERED
from ..apis.message import object_in, objects_in
from ..clients.api_errors import raise_reported, reported_failure
from ..errors import APIError, ServiceError
from ..keys.request import Data
from .requests import RequestToRecord

EVENTS = "text/event-stream"
LINES = "ndjson"  # the end of the type of a stream of JSON lines
# By the API's part of a path: the events of which one ends an answer, whatever comes after it.
LAST_EVENTS = {
    "/responses": ("response.completed", "response.incomplete", "response.failed"),
    "/messages": ("message_stop", "message_delta with a stop_reason"),
    "/interactions": ("interaction.completed",),
}
COMPLETIONS, GEMINI = "/completions", "/models/"

# The fields of an event that hold its choices, and why one of them has ended.
ENDED = {COMPLETIONS: ("choices", "finish_reason"), GEMINI: ("candidates", "finishReason")}

# Codes of the Responses API, and types of the Messages API, for failures that pass.
PASSING_FAILURES = ("server_error", "rate_limit_exceeded", "overloaded_error", "api_error")


class AnswerEnd:
    """A detector of an answer's end in the pieces of a stream.

    :param to_record: the request that is answered.
    :param is_chat: ``True`` if the pieces are chunks of a chat, and not bytes.
    """

    def __init__(self, to_record: RequestToRecord, *, is_chat: bool) -> None:
        self._api = COMPLETIONS if is_chat else _streaming_api(to_record) or ""
        self._stream = EventStream()
        body = object_in(to_record.body)
        count = body.get("n") or object_in(body.get("generationConfig")).get("candidateCount")
        self._choices = count if isinstance(count, int) else 1
        self._begun: set[str] = set()  # choices
        self._ended: set[str] = set()

    def __call__(self, piece: dict[str, Data] | bytes) -> bool:
        """Return whether the answer has ended with this piece."""
        try:
            events = [piece] if isinstance(piece, dict) else list(self._stream.feed(piece))
        except APIError:  # the reader of the whole answer reports it
            events = []
        return self._stream.done or any(
            self._ends(event) for event in events if isinstance(event, dict)
        )

    def _ends(self, event: dict[str, Data]) -> bool:
        if self._api in LAST_EVENTS:
            return _event_name(event) in LAST_EVENTS[self._api]
        if object_in(event.get("promptFeedback")).get("blockReason"):
            return True  # Gemini blocked the prompt: no answer follows
        field, reason = ENDED.get(self._api, ("", ""))
        for choice in objects_in(event.get(field)):
            index = str(choice.get("index", 0))
            self._begun.add(index)
            if choice.get(reason):
                self._ended.add(index)
        return len(self._ended) >= self._choices

    def all_begun_have_ended(self) -> bool:
        """Return whether all choices that came have ended: a server may give fewer than were asked for."""
        return bool(self._ended) and self._ended == self._begun


def checked_api(to_record: RequestToRecord) -> str | None:
    """Return the API of a request whose answers are checked, or ``None``."""
    if to_record.body is None:
        return None
    if to_record.path.endswith(COMPLETIONS):
        return COMPLETIONS
    path = to_record.api_path or ""
    return GEMINI if path.startswith(GEMINI) else path or None


def _streaming_api(to_record: RequestToRecord) -> str | None:
    """Return the API whose events end the answer to a request; one without a body reads such an answer again."""
    if to_record.body is not None:
        return checked_api(to_record)
    path = to_record.api_path or ""
    return next((api for api in LAST_EVENTS if path.startswith(f"{api}/")), None)


def check_answer(to_record: RequestToRecord, content: bytes, media_type: str) -> None:
    """Check that an answer of these APIs, or one in lines of JSON, reports no failure, and that a stream of it has
    come to its end. Every other answer is the program's to judge.

    :param content: the body of a response that succeeded.
    :raises APIError: if it reports a failure, or broke off.
    """
    if media_type.endswith(LINES):
        _check_lines([read_object(line, "line") for line in content.splitlines() if line.strip()])
    if checked_api(to_record) is not None:
        for answer in parse_objects(content.decode(errors="replace")):
            for part in (answer, answer.get("response"), answer.get("interaction")):
                _check_success(object_in(part))
    if media_type == EVENTS and _streaming_api(to_record) in (*LAST_EVENTS, *ENDED):
        end = AnswerEnd(to_record, is_chat=False)
        if not (end(content + b"\n") or end.all_begun_have_ended()):
            raise ServiceError("the answer broke off before the event that ends it")


def _event_name(event: dict[str, Data]) -> str:
    """Return the name of an event of a stream."""
    if event.get("type") == "message_delta" and object_in(event.get("delta")).get("stop_reason"):
        return "message_delta with a stop_reason"
    return str(event.get("type") or event.get("event_type"))


def _check_lines(answers: list[dict[str, Data]]) -> None:
    """Check a stream of Ollama's own API: the last of its answers is done."""
    for answer in answers:
        raise_reported(answer)
    if answers and answers[-1].get("done") is False:
        raise ServiceError('the answer broke off: it has no "done": true')


def _check_success(answer: dict[str, Data]) -> None:
    """Check an answer, or an event of a stream.

    One that ``max_output_tokens`` cut is complete. So is one in the background that goes on: the
    program asks for its end by GET.
    """
    status = answer.get("status")
    try:
        if "error" in (answer.get("type"), answer.get("event_type")):
            raise reported_failure(answer)
        raise_reported(answer)
        if isinstance(status, str) and status not in ANSWERED:
            raise ServiceError(f"the answer has the status {status!r}")
    except APIError as error:
        reported = answer.get("error")
        fields = reported if isinstance(reported, dict) else answer
        code = fields.get("code") or fields.get("type")
        if not isinstance(code, int):  # a status, by which the error was made
            # whether it may pass, so that another attempt is worth it
            error.retryable = code in (None, "error", *PASSING_FAILURES)
        raise
