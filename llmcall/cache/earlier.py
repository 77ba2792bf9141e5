"""Records as llmcall 0.1.0 packed them: one pickle of a dict of fields."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .plain_pickles import loads

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["parts_of"]

TEXTS = ("sample", "api_type", "host", "version")
HEAD = ("kind", "sample", "cost", "api_type", "host", "version")
FIELDS = frozenset((*HEAD, "request", "response"))


def parts_of(body: bytes) -> tuple[list[Any], Any, Any]:
    """Return what a record's head holds, its response and its request.

    :param body: the packed record without its checksum.
    :raises ValueError: where it holds something else; also what :func:`loads` raises.
    """
    values = loads(body)
    if type(values) is not dict or not values.keys() <= FIELDS or not _is_head(values):
        raise ValueError("it holds something else than a record")
    return [values.get(name) for name in HEAD], values.get("response"), values.get("request")


def _is_head(values: Mapping[str, Any]) -> bool:
    return (
        type(values.get("kind")) is str
        and type(values.get("cost", 0.0)) in (int, float, type(None))
        and all(type(values.get(name, "")) is str for name in TEXTS)
    )
