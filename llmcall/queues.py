"""Queues to which several threads add."""

from __future__ import annotations

from collections import deque
from typing import TypeVar

Item = TypeVar("Item")


def take_all(queue: deque[Item]) -> list[Item]:
    """Take all items of a queue, to which other threads may add more meanwhile."""
    return [queue.popleft() for _ in range(len(queue))]
