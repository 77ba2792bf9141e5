"""The values of every call: a request, a record, a reply. Nobody changes one that is made."""

from .data import Data
from .message import is_part, message_of, message_text, text_of
from .outcome import FROM_CACHE, FROM_FUNCTION, FROM_SERVER, Outcome, Sent
from .record import Record, record_of
from .reply import Reply
from .request import Request
from .transport import AsyncTransport, Response, Transport
from .usage import TokenUsage

__all__ = [
    "FROM_CACHE",
    "FROM_FUNCTION",
    "FROM_SERVER",
    "AsyncTransport",
    "Data",
    "Outcome",
    "Record",
    "Reply",
    "Request",
    "Response",
    "Sent",
    "TokenUsage",
    "Transport",
    "is_part",
    "message_of",
    "message_text",
    "record_of",
    "text_of",
]
