"""The time that a call, or one of its steps, may take."""

from __future__ import annotations

import time
from typing import NamedTuple

from ..errors import RequestTimeoutError


class Deadline(NamedTuple):
    """The monotonic time after which nothing is tried, or ``None`` without one."""

    at: float | None

    @classmethod
    def after(cls, seconds: float | None) -> Deadline:
        """Return the deadline in some seconds; ``None`` means none."""
        return cls(None if seconds is None else time.monotonic() + seconds)

    def time_left(self) -> float | None:
        """Return the seconds until it, or ``None`` without one."""
        return None if self.at is None else self.at - time.monotonic()

    def is_over(self) -> bool:
        """Return whether it has passed."""
        return self.at is not None and self.at <= time.monotonic()

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
            error.retryable = False
            error.note(is_late=True)
            raise error
        return seconds_left if seconds is None else min(seconds, seconds_left)
