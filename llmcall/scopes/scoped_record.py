"""A record that answered a call, with the call's scope."""

from __future__ import annotations

from typing import NamedTuple

from ..types import Record


class ScopedRecord(NamedTuple):
    """A record that answered a call.

    :param path: the scope path in which the call was made. An embedding's record has no scope, but
        its calls may have one.
    """

    path: str
    record: Record
