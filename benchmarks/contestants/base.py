"""The methods of every contestant."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any


class SyncContestant:
    """Ask a model by blocking calls.

    :param folder: where answers may be recorded.
    :param base_url: the API's address.
    """

    threads = True  # whether calls may run in several threads at once
    tasks = False  # whether it has asynchronous calls too

    def __init__(self, folder: str, base_url: str) -> None:
        self.folder = folder
        self.base_url = base_url

    def prepared(self, messages: list[dict[str, str]]) -> Any:
        """Return messages in the form that a user of this library would hold them in."""
        return messages

    def ask(self, prepared: Any) -> Any:
        """Return the reply to prepared messages: what is measured."""
        raise NotImplementedError

    def ask_as(self, actor: str, prepared: Any) -> Any:
        """Return the reply to an actor who asks, named in the way that the library has; most have
        none.
        """
        return self.ask_each([prepared])[0]

    async def ask_async(self, prepared: Any) -> Any:
        """Return the reply to prepared messages, as a coroutine."""
        raise NotImplementedError

    def text(self, reply: Any) -> str:
        """Return a reply's text."""
        raise NotImplementedError

    def tell_draws_apart(self) -> None:
        """Record the answers to equal requests one by one, where the library can."""

    def settle(self) -> None:
        """Make what was recorded replayable in this process, where that takes a step."""

    def ask_each(self, batch: Sequence[Any]) -> list[Any]:
        """Ask one after the other."""
        return [self.ask(prepared) for prepared in batch]

    def ask_many(self, batch: Sequence[Any], workers: int) -> list[Any]:
        """Ask so many at once."""
        with ThreadPoolExecutor(workers) as pool:
            return list(pool.map(self.ask, batch))

    def ask_at_once(self, batch: Sequence[Any]) -> list[Any]:
        """Ask all at once, as tasks of one event loop."""
        return list(self.run(self._gathered(batch)))

    async def _gathered(self, batch: Sequence[Any]) -> list[Any]:
        return list(await asyncio.gather(*map(self.ask_async, batch)))

    def run(self, coroutine: Any) -> Any:
        """Run a coroutine on this contestant's event loop, always the same one."""
        if not hasattr(self, "_loop"):
            self._loop = asyncio.new_event_loop()
        return self._loop.run_until_complete(coroutine)

    def close(self) -> None:
        """Close what is open."""
        if hasattr(self, "_loop"):
            self._loop.close()


class AsyncContestant(SyncContestant):
    """Ask a model by coroutines only: one loop runs a whole batch, as its users would."""

    tasks = True

    def ask_each(self, batch: Sequence[Any]) -> list[Any]:
        """Ask one after the other in one run of the event loop."""

        async def in_turn() -> list[Any]:
            return [await self.ask_async(prepared) for prepared in batch]

        return list(self.run(in_turn()))

    def ask_many(self, batch: Sequence[Any], workers: int) -> list[Any]:
        """Ask so many at once, as tasks behind a semaphore."""

        async def bounded() -> list[Any]:
            semaphore = asyncio.Semaphore(workers)

            async def ask_one(prepared: Any) -> Any:
                async with semaphore:
                    return await self.ask_async(prepared)

            return list(await asyncio.gather(*map(ask_one, batch)))

        return list(self.run(bounded()))
