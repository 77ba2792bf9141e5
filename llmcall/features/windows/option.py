"""The option ``window=`` of a call."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...core.options import CallOption
from ...errors import ConfigError
from .settings import HOURS

if TYPE_CHECKING:
    from ...clients.configured import ConfiguredClient as Client
    from ...config.endpoints import Endpoint
    from ...core.calls import Call
    from ...core.options import Options
    from ...core.seams import Transport
    from ...keys.request import Data

PATIENCE = 1.25  # windows: the deadline of a call that has none


class Window(CallOption):
    """The hours that an answer may take, which OpenAI's Responses API makes in the background."""

    values = (*HOURS,)
    about = """
    :param window: ``"2h"`` or ``"8h"``: the answer may take so long, and costs less; ``"none"``
        cancels a configured window. A program that is stopped and started again waits for the
        same answer.
    """
    is_slow = True

    def prepare(
        self, client: Client, options: Options, sent: dict[str, Data]
    ) -> tuple[Options, dict[str, Data]]:
        """Return the options and the sent fields of a chat that is to be answered within a window.

        A client without windows raises its error when the call is sent: a recorded answer needs no window.
        """
        from ...clients.openai import OpenAIClient  # which shows the options of features

        if not isinstance(client, OpenAIClient):
            return options, sent
        window = window_in(options)
        background = {"completion_window": window}
        sent = {"store": True, **sent, "background": True, "background_options": background}
        if options.deadline is None:
            options = options._replace(deadline=PATIENCE * HOURS[window] * 3600)
        return options, sent

    def check(self, call: Call) -> None:
        """Raise an error if a call cannot be answered within its window; only OpenAI's API has windows."""
        client = call.client
        endpoints = call.site.endpoints
        api_types = {endpoint.api_type or client.api_type for endpoint in endpoints}
        reason = ""
        if api_types != {"openai"}:
            reason = f"{', '.join(sorted(api_types))} has no windows"
        elif any(client.shared_transport(endpoint).background is None for endpoint in endpoints):
            reason = "custom transports have no windows"
        elif call.is_streamed:
            reason = "a stream is answered at once"
        elif call.options.cache is False or call.settings.cache_mode == "off":
            reason = "without a disk cache (cache=False, MODE = off) nothing records which answer the call waits for"
        elif call.request.body["store"] is False:
            reason = "with store=False the server keeps no answer"
        elif call.settings.api == "chat":
            reason = "chat completions (API = chat) have no windows"
        elif not call.cache.is_directory:
            reason = "only a cache in a directory has a journal of awaited answers"
        if reason:
            raise ConfigError(
                f"WINDOW = {window_in(call.options)}: {reason}. window='none' sends the call without a window"
            )

    def around(self, transport: Transport, call: Call, endpoint: Endpoint) -> Transport:
        """Return a transport that waits for hours."""
        from .transport import WindowTransport

        return WindowTransport(call, endpoint)


WINDOW = Window()


def window_in(options: Options) -> str:
    """Return the window of a call that has one."""
    return dict(options.added)["window"]
