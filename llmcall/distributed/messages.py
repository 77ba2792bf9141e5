"""What a process and the workers of its maps send to one another."""

from __future__ import annotations

import pickle
from typing import NamedTuple

from ..errors import LLMCallError

# The errors of pickle for an object that it cannot pickle.
UNPICKLABLE = (pickle.PicklingError, TypeError, AttributeError)


def picklable(error: BaseException) -> BaseException:
    """Return an error; if it cannot be pickled and so would break a pool, return a similar one."""
    try:
        pickle.loads(pickle.dumps(error))
    except (*UNPICKLABLE, pickle.PickleError, ValueError, KeyError, ImportError) as reason:
        return LLMCallError(
            f"{type(error).__name__}: {error} (it cannot be sent between processes: {reason})"
        )
    return error


class Address(NamedTuple):
    """The address of a process for the workers of its maps.

    :param path: of the socket or pipe.
    :param token: what a worker sends first.
    """

    path: str
    token: bytes
