"""What becomes of a call: the reply that its caller gets, or its failure."""

from __future__ import annotations

from typing import Any

from ..config.values import without_password
from ..errors import APIError, CacheCorruptError, OutputError, ServiceError
from ..keys.keys import short_key
from ..stores.record import Record
from ..support.display import sentence
from ..support.failures import note_inside
from ..support.notices import logger
from ..support.tracebacks import hide_own_frames
from .calls import Call
from .effects import Emit, Piece
from .reply import Reply


async def emit_recorded(record: Record) -> None:
    """Emit a chat's recorded answer to the reader of a stream; a new one was emitted as it came, and other kinds come
    whole.
    """
    from ..apis.chunks import chunk_text, chunks_of

    if record.is_hit and record.kind == "chat":
        for chunk in chunks_of(record.response):
            await Emit(Piece(chunk_text(chunk), chunk))


def reply_in(record: Record, call: Call) -> Any:
    """Return a chat's answer as its caller wants it: a reply, or what ``response_format`` parses. If that cannot
    be parsed and the caller does not want the error raised: the error or ``None``, as ``on_error`` says.

    :raises CacheCorruptError: if the record does not contain a model's answer.
    :raises ServiceError: if it cannot be parsed, and its caller wants the error raised.
    """
    try:
        reply = Reply.of(record, call.request.expected)
    except (LookupError, TypeError, AttributeError) as error:
        key = short_key(record.cache_key)
        raise CacheCorruptError(
            f"the record {key}… does not contain a model's answer. To request it again, run "
            f"'llmcall cache delete {key}', or remove its line from the cassette"
        ) from error
    expected = call.request.expected
    if not call.options.enable_pydantic_model_return or expected is None or not expected.is_class:
        return reply
    try:
        return reply.parsed
    except OutputError as error:  # it was cut off, or comes with a tool call
        misfit = ServiceError(f"the answer does not fit its response_format: {error}")
        misfit.remedy = "Raise max_tokens if it was cut off"
        return handle_failure(misfit, call)


def handle_failure(error: APIError, call: Call) -> APIError | None:
    """Raise, log or return an API failure, as the caller wants. A stream cannot return an error as its value, so it
    raises the one that a call would return.

    :returns: the error if the caller wants it as the value, or ``None`` if it was logged.
    """
    on_error, model, site = call.options.on_error, call.request.model, call.site
    # if that is unknown, all of them
    failed = [it for it in site.endpoints if it.name == error.endpoint] or site.endpoints
    addresses = {without_password(endpoint.address) or site.host(endpoint) for endpoint in failed}
    address = ", ".join(sorted(address.partition("?")[0] for address in addresses))
    if on_error == "raise" or (on_error == "return" and call.is_streamed):
        note = f"model {model} at {address}. {error.remedy}"
        # Python 3.10 has no notes; an error that several calls share is raised more than once.
        if hasattr(error, "add_note") and note not in getattr(error, "__notes__", ()):
            error.add_note(note)
        raise error
    if on_error == "return":
        return error
    failure = sentence(f"{call.label} at {address} failed: {error}")
    result = "The stream's reply is" if call.is_streamed else "The call returns"
    line = f'{failure} {error.remedy}. {result} None. Pass on_error="raise" to raise'
    logger().error("%s", line)
    return None


def note_failure(error: BaseException, call: Call) -> None:
    """Report a call that ended without an answer, and release its draw."""
    call.release_draw()  # before a listener, which may raise
    note_inside(error)
    hide_own_frames(error)
    call.notify("failed", error)
