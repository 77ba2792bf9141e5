"""The cassettes that are open in this process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ..records.header import NAMESPACES
from ..system import lock

# Each is a Cassette. The innermost is last. One that is open several times appears as often; the one
# that the settings name is first.
open_cassettes: list[Any] = []
_set_aside: list[list[Any]] = []  # those that were open before each block with only one


def push(cassette: Any) -> None:
    """Make a cassette the innermost one, until it closes."""
    with lock:
        open_cassettes.append(cassette)


def pop(cassette: Any) -> None:
    """Remove a closed cassette; if it was opened several times, only the innermost one."""
    with lock:
        for cassettes in (open_cassettes, *reversed(_set_aside)):
            indexes = [index for index, each in enumerate(cassettes) if each is cassette]
            if indexes:
                del cassettes[max(indexes)]
                return


@contextmanager
def only(cassette: Any) -> Iterator[None]:
    """Make one cassette, or none, the only open one for a block; then those from before are open
    again.

    Other threads may close any of them during the block, and close later what they opened in it.
    """
    with lock:
        before = open_cassettes.copy()
        _set_aside.append(before)
        open_cassettes[:] = [] if cassette is None else [cassette]
    try:
        yield
    finally:
        with lock:
            open_cassettes[:] = before
            _set_aside.pop()  # such blocks nest


def header_namespaces() -> dict[str, str] | None:
    """Return the models' namespaces in an open cassette's header, or ``None`` if no header was
    read.
    """
    for each in reversed(tuple(open_cassettes)):
        if each.stored is not None:
            return dict(each.stored.settings.get(NAMESPACES, {}))
    return None
