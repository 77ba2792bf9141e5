"""The cassette that counts now; reading and writing one is imported only where one is open."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import config, tapes

if TYPE_CHECKING:
    from .cassettes import Cassette

__all__ = ["current_cassette"]


def current_cassette() -> Cassette | None:
    """Return the cassette that counts, or ``None`` where none is open and ``[Cassette] PATH`` names none."""
    opened = tapes.innermost()
    if opened is not None:
        return opened
    settings = config.settings()
    if settings.cassette_path is None:
        return None
    from .cassettes import whole_process

    return whole_process(str(settings.cassette_path), settings.cassette_mode)
