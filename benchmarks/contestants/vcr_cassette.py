"""vcrpy: the SDK's HTTP exchanges on a cassette, of which one is open throughout."""

from __future__ import annotations

from typing import Any

import openai
import vcr

from ..workload import API_KEY, MODEL
from .base import SyncContestant


class Contestant(SyncContestant):
    """Call the SDK while a cassette is open."""

    repeats = (
        True  # what was recorded once answers many times; by default vcrpy replays each answer once
    )
    threads = (
        False  # the open cassette is one for all threads, and its recording is not made for them
    )

    def __init__(self, folder: str, base_url: str) -> None:
        super().__init__(folder, base_url)
        self.client = openai.OpenAI(api_key=API_KEY, base_url=base_url)
        self._open()

    def _open(self) -> None:
        recorder = vcr.VCR(record_mode="new_episodes", match_on=["method", "uri", "body"])
        self._opened = recorder.use_cassette(
            f"{self.folder}/cassette.yaml",
            allow_playback_repeats=self.repeats,
            filter_headers=["authorization"],
            ignore_hosts=[],
            before_record_request=_chat_only,
        )
        self._opened.__enter__()

    def ask(self, prepared: Any) -> Any:
        """Return the SDK's model of the response."""
        return self.client.chat.completions.create(model=MODEL, messages=prepared)

    def tell_draws_apart(self) -> None:
        """Open the cassette as vcrpy does by default."""
        self.repeats = False
        self.settle()

    def settle(self) -> None:
        """Write the cassette and open it again: what it recorded it replays only then."""
        self._opened.__exit__(None, None, None)
        self._open()

    def text(self, reply: Any) -> str:
        """Return the first choice's text."""
        return str(reply.choices[0].message.content)

    def close(self) -> None:
        """Write the cassette."""
        self._opened.__exit__(None, None, None)
        self.client.close()
        super().close()


def _chat_only(request: Any) -> Any:
    """Leave alone how the benchmark asks the server for its count."""
    return request if request.uri.endswith("/chat/completions") else None
