"""The deadline of a call."""

from __future__ import annotations

import time
from typing import NamedTuple

from ..errors import RequestTimeoutError


class Deadline(NamedTuple):
    """The monotonic time after which nothing is tried, or ``None`` without one."""

    at: float | None

    def time_left(self) -> float | None:
        """Return the seconds until it, or ``None`` without one."""
        return None if self.at is None else self.at - time.monotonic()

    def time_for(
        self, seconds: float | None, if_late: str = "the call's deadline passed"
    ) -> float | None:
        """Return the seconds that a step may take: at most some, and until the deadline.

        :param seconds: ``None`` means no limit.
        :param if_late: the message of the error.
        :raises RequestTimeoutError: if the deadline has passed; it is not tried again.
        """
        seconds_left = self.time_left()
        if seconds_left is None:
            return seconds
        if seconds_left <= 0:
            error = RequestTimeoutError(if_late)
            error.retryable, error.is_late = False, True
            raise error
        return seconds_left if seconds is None else min(seconds, seconds_left)
