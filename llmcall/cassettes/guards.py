"""Guards: what may forbid to send a call, such as a test that may reach no model."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .cassette import Cassette

# Each is given the client and the current cassette of a call that no record answers, and raises an
# error if the call may not be sent.
guards: list[Callable[[object, Cassette | None], None]] = []


def check_may_send(client: object, cassette: Cassette | None) -> None:
    """Raise an error if a guard forbids to send a call that no record answers.

    :param client: makes the call; ``None`` if no client does.
    :param cassette: the current one, or ``None``.
    """
    for guard in guards:
        guard(client, cassette)
