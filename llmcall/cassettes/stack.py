"""The cassettes that are open in this process."""

from __future__ import annotations

from typing import Any

from ..system import process_lock

# Each is a Cassette. The innermost is last. One that is open several times appears as often; the one
# that the settings name is first.
open_cassettes: list[Any] = []
_lock = process_lock(__name__)


def push(cassette: Any) -> None:
    """Make a cassette the innermost one, until it closes."""
    with _lock:
        open_cassettes.append(cassette)


def push_outermost(cassette: Any) -> None:
    """Open a cassette around all others."""
    with _lock:
        open_cassettes.insert(0, cassette)


def pop(cassette: Any) -> None:
    """Remove a closed cassette; if it was opened several times, only the innermost one."""
    with _lock:
        indexes = [index for index, each in enumerate(open_cassettes) if each is cassette]
        del open_cassettes[max(indexes)]


def header_namespaces() -> dict[str, str] | None:
    """Return the models' namespaces in an open cassette's header, or ``None`` if no header was
    read.
    """
    for each in reversed(tuple(open_cassettes)):
        if each.stored is not None:
            return dict(each.stored.settings.get("namespaces", {}))
    return None
