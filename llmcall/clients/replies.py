"""The reply that the caller of a chat call gets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..errors import CacheCorruptError
from ..scopes import note_served
from ..types import Reply

if TYPE_CHECKING:
    from ..engine.model_call import ModelCall
    from ..types import Received, Record


def reply_of_hit(call: ModelCall, record: Record) -> Any:
    """Count a recorded answer, and return it as the caller wants it."""
    call.count_hit(record.cost, record.served)
    return finish_with_reply(call, record)


def finish_with_reply(call: ModelCall, record: Record, received: Received | None = None) -> Any:
    """Finish an answered call, and return its answer as the caller wants it: a reply, or what
    ``response_format`` parses.

    The call's draw stays taken, its arm gathers the record, and a hit outside a scope may give a
    warning.

    :param received: the response that this call received; ``None`` if another call, or none,
        received one.
    :raises CacheCorruptError: if the record does not contain a model's answer.
    """
    if received is None:
        note_served(call.request, (call.cassette or call.cache).path)
    call.end(record)
    call.gather_for_arm(record)
    try:
        reply = Reply.of(record, received, parse=call.parse)
    except (LookupError, TypeError, AttributeError) as error:
        key = record.cache_key[:12]
        remedy = f"'llmcall cache delete {key}', or after its line is removed from the cassette, llmcall asks again"
        raise CacheCorruptError(
            f"the record {key}… does not contain a model's answer; after {remedy}"
        ) from error
    if call.options.enable_pydantic_model_return and call.parse is not None:
        return reply.parsed
    return reply
