"""llmcall's cache, asked through a client whose answers are made in this process."""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import Any

import llmcall
from llmcall.testing import ScriptedClient

from .. import workload


class Store:
    """Records in a folder.

    :param folder: made where it does not exist.
    """

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.client = ScriptedClient(
            lambda messages: workload.answer_to(messages[-1]["content"]),
            model=workload.MODEL,
            cache_mode="auto",
            cache_path=folder,
            on_error="raise",
        )

    def __len__(self) -> int:
        return len(self.client.cache)

    def record(self, number: int) -> None:
        """Record the answer to a question."""
        self.client.send_message(workload.messages(number))

    hit = record  # the same call, where the answer is there

    def open_and_hit(self, number: int) -> None:
        """Open the store anew and read a record."""
        with llmcall.ResponseCache(self.folder) as cache:
            cache.get(self.client.build_request(workload.messages(number)))

    def delete(self, number: int) -> None:
        """Delete the answer to a question."""
        key = self.client.build_request(workload.messages(number)).cache_key
        if self.client.cache.delete(keys=[key]) != 1:
            raise RuntimeError(f"there is no answer to question {number}")

    def stats(self) -> None:
        """Count records and bytes."""
        self.client.cache.stats()

    def ls(self) -> None:
        """Print the first page of the records, by ``llmcall cache ls`` in this process."""
        from click.testing import CliRunner

        main: Any = next(iter(entry_points(group="console_scripts", name="llmcall"))).load()
        done = CliRunner().invoke(
            main, ["cache", "--path", self.folder, "ls"], catch_exceptions=False
        )
        if done.exit_code:
            raise RuntimeError(f"llmcall cache ls: {done.output}")

    def explain(self, number: int) -> None:
        """Find the nearest record to a question that is not recorded, and say what differs."""
        request = self.client.build_request(workload.messages(number))
        if "differs" not in str(self.client.cache.explain(request)):
            raise RuntimeError("no difference is reported")

    def close(self) -> None:
        """Close the store."""
        self.client.cache.close()
