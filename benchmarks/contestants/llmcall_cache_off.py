"""llmcall with its cache off: what a call costs beside the recording."""

from __future__ import annotations

from . import llmcall_client


class Contestant(llmcall_client.Contestant):
    """Call a client that records nothing."""

    cache_mode = "off"
