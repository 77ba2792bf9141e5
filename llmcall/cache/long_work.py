"""A bar for work that takes long, on a terminal only."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["is_terminal", "with_bar"]

Item = TypeVar("Item")


def with_bar(items: Iterable[Item], total: int, what: str) -> Iterator[Item]:
    """Yield items; where standard error is a terminal, a bar shows how many have been worked on.

    :param total: how many items there are.
    :param what: what is done to them, in a word or two.
    """
    if not is_terminal(sys.stderr):
        yield from items
        return
    from tqdm import tqdm

    yield from tqdm(items, total=total, desc=what, delay=1, leave=False)


def is_terminal(stream: Any) -> bool:
    """Return whether a stream is a terminal: a program without a console has none, and what logs may only write."""
    try:
        return bool(stream.isatty())
    except (AttributeError, ValueError):  # ValueError: it is closed
        return False
