"""The values of every call: a request, a record, a reply. Nobody changes one that is made."""

from .billing import Bill
from .bodies import EventStream, check_no_error, events_in, events_of, finite, read_object
from .days import Days, day_of, joined_days
from .http_answers import http_as_chat, lasting_parts, model_answer, without_new_fields
from .http_requests import CONTENT_FIELDS, messages_asked, text_in
from .message import is_content, is_part, message_of, message_text, text_of, transcript_of
from .record import (
    FROM_CACHE,
    FROM_FUNCTION,
    FROM_SERVER,
    Received,
    Record,
    asked_model,
    record_of,
)
from .reply import Reply
from .request import Data, Request
from .shapes import as_chat, choices_of, objects_in
from .transport import AlreadyRecorded, AsyncTransport, Response, Transport
from .usage import TokenUsage, total_cost

__all__ = [
    "CONTENT_FIELDS",
    "FROM_CACHE",
    "FROM_FUNCTION",
    "FROM_SERVER",
    "AlreadyRecorded",
    "AsyncTransport",
    "Bill",
    "Data",
    "Days",
    "EventStream",
    "Received",
    "Record",
    "Reply",
    "Request",
    "Response",
    "TokenUsage",
    "Transport",
    "as_chat",
    "asked_model",
    "check_no_error",
    "choices_of",
    "day_of",
    "events_in",
    "events_of",
    "finite",
    "http_as_chat",
    "is_content",
    "is_part",
    "joined_days",
    "lasting_parts",
    "message_of",
    "message_text",
    "messages_asked",
    "model_answer",
    "objects_in",
    "read_object",
    "record_of",
    "text_in",
    "text_of",
    "total_cost",
    "transcript_of",
    "without_new_fields",
]
