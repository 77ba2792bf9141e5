"""Records as llmcall 0.1.0 packed them: one pickle of a dict of fields."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .plain_pickles import loads

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["record_values"]

FIELDS = ("kind", "sample", "request", "response", "cost", "api_type", "host", "version")
TEXTS = ("sample", "api_type", "host", "version")


def record_values(body: bytes) -> tuple[Any, ...]:
    """Return a record's fields, from ``kind`` to ``version``.

    :param body: the packed record without its checksum.
    :raises ValueError: where it holds something else; also what :func:`loads` raises.
    """
    values = loads(body)
    if type(values) is dict and values.keys() <= set(FIELDS) and _is_record(values):
        return tuple(map(values.get, FIELDS))
    raise ValueError("it holds something else than a record")


def _is_record(values: Mapping[str, Any]) -> bool:
    return (
        type(values.get("kind")) is str
        and type(values.get("request")) is dict
        and type(values.get("response")) is dict
        and isinstance(values.get("cost", 0.0), (int, float))
        and all(type(values.get(name, "")) is str for name in TEXTS)
    )
