"""What tasks have to store is done by one thread, in turn."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from llmcall.engine.queues import do_in_turn


def test_each_gets_its_own_outcome() -> None:
    """Each task gets what its own function gave or raised, and no two functions run at once."""
    alone = threading.Lock()
    order: list[int] = []

    def do(number: int) -> int:
        assert alone.acquire(blocking=False)
        order.append(number)
        alone.release()
        return number // (number % 7)

    async def ask_all() -> list[Any]:
        asking = [do_in_turn(lambda number=number: do(number)) for number in range(100)]  # type: ignore[misc]
        return await asyncio.gather(*asking, return_exceptions=True)

    found = asyncio.run(ask_all())
    assert order == list(range(100))
    for number, outcome in enumerate(found):
        if number % 7:
            assert outcome == number // (number % 7)
        else:
            assert isinstance(outcome, ZeroDivisionError)


def test_what_was_begun_is_done() -> None:
    """Functions are run though their tasks are cancelled and the event loop ends before their turn."""
    begun, go, done = threading.Event(), threading.Event(), []

    def first() -> None:
        begun.set()
        assert go.wait(60)
        done.append("first")

    async def leave() -> None:
        tasks = [asyncio.create_task(do_in_turn(do)) for do in (first, lambda: done.append("second"))]
        await asyncio.to_thread(begun.wait, 60)
        for task in tasks:
            task.cancel()
        for task in tasks:
            with pytest.raises(asyncio.CancelledError):
                await task
        go.set()

    asyncio.run(leave())
    assert done == ["first", "second"]
