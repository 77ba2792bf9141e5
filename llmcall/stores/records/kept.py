"""Records of which many are kept at once: what they asked and answered is read again when it is asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..record import Record

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from ...keys.request import Data

READ_AGAIN = ("_request", "response", "_model_answer")
HELD = tuple(name for name in Record.__slots__ if name not in READ_AGAIN)


class KeptRecord(Record):
    """A record that holds neither its request nor its response, which take most of its memory.

    :param record: the record.
    :param read: returns the whole record, by the further arguments; nobody changes it.
    """

    __slots__ = ("_place", "_read")

    def __init__(self, record: Record, read: Callable[..., Record], *place: object) -> None:
        for name in HELD:
            setattr(self, name, getattr(record, name))
        self._read = read
        self._place = place

    @property
    def _request(self) -> dict[str, Data]:  # type: ignore[override]
        return self._read(*self._place).request

    @property
    def response(self) -> dict[str, Data]:  # type: ignore[override]
        return self._read(*self._place).response

    @property
    def _model_answer(self) -> Mapping[str, Data]:  # type: ignore[override]
        return self._read(*self._place).model_answer

    def replace(self, **changes: Any) -> Record:
        """Return another record with some fields changed."""
        changed = super().replace(**changes)
        if "request" in changes or "response" in changes:
            return changed
        return KeptRecord(changed, self._read, *self._place)

    def __reduce__(self) -> tuple[Any, ...]:
        return Record._shallow_copy, (self._shallow_copy(),)  # in another process it is whole
