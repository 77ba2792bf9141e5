"""A call that sends a recorded request again."""

from __future__ import annotations

from collections.abc import Mapping

from ...clients.base import LLMClient
from ...core import threads
from ...core.answer import reply_to
from ...core.kinds import KINDS
from ...core.prepare import place_as, unplaced_call
from ...core.reply import Reply
from ...keys.parameters import CONFIGURED_UNKEYED
from ...keys.request import Data, Request
from ...scopes.active import next_order
from ...stores.cassettes.current import open_current_cassette


def body_again(client: LLMClient, recorded_request: Mapping[str, Data]) -> dict[str, Data]:
    """Return the body that resends a recorded chat request."""
    defaults = client.resolved.defaults
    unkeyed = {name: defaults[name] for name in CONFIGURED_UNKEYED if name in defaults}
    fields = {name: value for name, value in recorded_request.items() if name != "namespace"}
    return {**unkeyed, **fields}


def send_again(client: LLMClient, recorded_request: Mapping[str, Data], sample: str) -> Reply:
    """Resend a recorded chat request, exactly as recorded, as a draw of its own.

    No configured default is added to it, and the disk cache neither answers nor keeps it: only the open cassette does.
    No other model answers if the context is too long.

    :param recorded_request: the recorded request: :attr:`llmcall.types.Record.request`.
    :param sample: the whole name of the draw; the current scope adds nothing to it.
    :raises APIError: if the call failed after all retries.
    :raises CacheMissError: if no call is allowed, and the answer is not recorded.
    """
    resolved = client.resolved
    body = body_again(client, recorded_request)
    request = Request("chat", body["model"], recorded_request, body, {}, None, "")
    options = resolved.options._replace(cache=False, on_error="raise")
    unplaced = unplaced_call(
        client, resolved, open_current_cassette(), request, options, KINDS["chat"]
    )
    return threads.run(reply_to(place_as(unplaced, sample, next_order())))
